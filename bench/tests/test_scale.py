"""How growth is told: what is bounded, and what is told beside it."""

from __future__ import annotations

from bench.scale import beyond, rows


def test_what_looks_is_within_its_bound_up_to_one_and_a_half_times_and_a_deployment_has_none() -> None:
    """Compared with all records and all apps, not with the records alone."""
    one = {"imm status": 0.2, "imm history": 0.2, "imm up, a changed file": 1.0}
    recorded = {"imm status": 0.5, "imm history": 0.2}
    full = {"imm status": 0.3, "imm history": 0.31, "imm up, a changed file": 2.0}
    assert list(rows(one, recorded, full)) == [
        ("imm status", "200 ms", "500 ms", "300 ms", "1.50", "yes"),
        ("imm history", "200 ms", "200 ms", "310 ms", "1.55", "no"),
        ("imm up, a changed file", "1.00 s", "", "2.00 s", "2.00", ""),
    ]
    # What the command fails for.
    assert beyond(one, recorded, full) == ["imm history"]
    assert beyond(one, recorded, one) == []
