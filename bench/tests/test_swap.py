"""What a run of swaps is told to have come to is what happened."""

import os
import time
from array import array
from pathlib import Path

import pytest

from bench.load import Loss, Report, Served, ShapeReport
from bench.swap.figures import Run, Spent, Swap
from bench.swap.stamps import fine_stamps
from bench.swap.table import said

SPENT = Spent(cores=2, there=40.0, used=30.0, load=8.0, commands=4.0)
SWAPS = (
    Swap("up", began=10.0, ended=12.0, flip=0.04, live=11.0),
    Swap("revert", began=15.0, ended=17.0, flip=0.06, live=16.0),
)


def served(version: str, first_answered: float) -> Served:
    return Served(version, "web", 1, first_answered, first_answered, first_answered, first_answered)


def run(*losses: Loss, must_lose: bool = False, answered: tuple[float, ...] = (0.1, 11.004, 16.002)) -> Run:
    """Two swaps under a load that sent four requests: before, during, between and during them."""
    shape = ShapeReport(
        "idle", 2, 4, losses, 0, array("d", [9, 11, 13, 16]), array("d", [0.1, 0.2, 0.3, 0.4])
    )
    each = tuple(served(str(number), at) for number, at in enumerate(answered))
    return Run("nginx", must_lose, SWAPS, Report(0.0, 20.0, "stopped", (shape,), each, 8.0), SPENT)


def test_latencies_are_told_apart_by_the_moment_a_request_was_sent() -> None:
    [shape] = run().shapes
    assert (shape.steady.count, shape.steady.max) == (2, 0.3)
    assert (shape.swapping.count, shape.swapping.p50) == (2, 0.2)


def test_the_first_answer_counts_from_the_change_of_the_live_state() -> None:
    """Of a process that never answered before, the first one that answered since the swap began."""
    assert run().first_answers == pytest.approx([0.004, 0.002])
    assert run(answered=(0.1, 11.004)).first_answers == pytest.approx([0.004])
    assert run().flips == [0.04, 0.06]


def test_a_loss_is_told_with_its_cause_and_its_distance_from_the_flip() -> None:
    lost = [
        Loss("idle", "refused", 5.0, 5.5, 0),
        Loss("idle", "closed", 10.1, 10.2, 7),
        Loss("idle", "reset", 15.9, 16.1, 3),
    ]
    assert list(run(*lost).losses()) == [
        "idle: refused, 5.500 s after the begin, after 0 on its connection",
        "idle: closed, sent +0.100 s and lost +0.200 s from up 1, after 7 on its connection",
        "idle: reset, sent -0.100 s and lost +0.100 s from the flip of revert 2, after 3 on its connection",
    ]
    assert len([line for line in said(run(*lost)) if line.startswith("lost idle")]) == 3


@pytest.mark.parametrize(
    ("losses", "must_lose", "proved"),
    [(0, False, True), (1, False, False), (0, True, False), (1, True, True)],
)
def test_a_reference_that_loses_nothing_is_no_proof(losses: int, must_lose: bool, proved: bool) -> None:
    lost = [Loss("idle", "closed", 10.1, 10.2, 7)] * losses
    assert run(*lost, must_lose=must_lose).as_it_must_be == proved


def test_the_share_of_the_load_is_told_of_its_core_and_of_all() -> None:
    told = run().to_json()["cpu"]
    assert (told["load_of_its_core"], told["load"], told["used"]) == (0.4, 0.2, 0.75)


def test_the_stamp_of_a_rename_is_never_late(tmp_path: Path) -> None:
    """Late, it would make a flip look faster than it is."""
    folder = os.open(tmp_path, os.O_RDONLY)
    with fine_stamps(tmp_path):
        for number in range(20):
            made = tmp_path / f"made-{number}"
            made.symlink_to("anywhere")
            os.fsync(folder)
            before = time.time()
            made.rename(tmp_path / "live")
            after = time.time()
            assert before - 0.011 < (tmp_path / "live").lstat().st_ctime < after
    os.close(folder)
