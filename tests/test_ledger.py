"""How the sidecar reads the ledger: all of it, in its order, and nothing that isn't what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from immutable_local.ledger import bounded
from immutable_local.sidecar.hands import ledger, locks
from immutable_local.sidecar.hands.ground import Refusal

APP = "shop"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the records of APP are; whoever writes them here holds its lock."""
    monkeypatch.setattr(ledger, "STATE", tmp_path)
    monkeypatch.setitem(locks.held, f"app-{APP}", -1)
    return tmp_path / "ledger" / APP


def written(number: int) -> list[dict[str, Any]]:
    """Write so many records; they are returned as they were written."""
    records = [{"event": "went_live", "release": each, "by": "jörg@host"} for each in range(number)]
    for each in records:
        ledger.ledger_append(APP, each)
    return records


def test_an_app_without_a_history_has_no_records(folder: Path):
    assert ledger.ledger_read(APP) == []


def test_records_are_read_as_they_were_written_oldest_first(folder: Path):
    """Numbered from 1 on; a record of megabytes is read to its end, too."""
    records = [*written(11), {"event": "failed", "error": "x" * 3_000_000}]
    assert ledger.ledger_append(APP, records[-1]) == 12
    read = ledger.ledger_read(APP)
    assert [each["number"] for each in read] == list(range(1, 13))
    assert [{key: each[key] for key in each.keys() - {"number", "at"}} for each in read] == records


@pytest.mark.parametrize("number", [1, 500, 1000])
@pytest.mark.parametrize("spoil", [lambda it: it + b" ", lambda it: it[:-1], lambda it: b""])
def test_a_broken_record_is_told_wherever_in_the_history_it_is(folder: Path, number: int, spoil: Any):
    """Also one that nobody needs any more: none is left unread."""
    made(folder, 1000)
    [path] = folder.glob(f"{number:08d}-*")
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(Refusal) as refused:
        ledger.ledger_read(APP)
    assert (refused.value.told["kind"], refused.value.told["path"]) == ("broken_file", str(path))


def test_what_is_being_written_and_what_is_no_record_is_passed_over(folder: Path):
    """A temporary name of somebody who is just writing, or was killed."""
    written(2)
    (folder / ".new-1-2-00000003-0123456789abcdef.json").write_text("half")
    assert len(ledger.ledger_read(APP)) == 2
    assert ledger.ledger_append(APP, {"event": "failed"}) == 3


def made(folder: Path, number: int) -> None:
    """So many records, without the disk being waited for."""
    written(1)
    [first] = folder.iterdir()
    for each in range(2, number + 1):
        (folder / f"{each:08d}{first.name[8:]}").write_bytes(first.read_bytes())


def test_a_record_is_no_longer_than_somebody_reads():
    """Each command reads every record: a message of megabytes would slow them all."""
    assert len(bounded("x" * 3000)) == 500
    assert [len(each) for each in bounded(("y" * 3000,) * 100)] == [500] * 20
    assert [bounded(each) for each in ("short", ["a"], 3, 0.5, False, None)] == [
        "short",
        ["a"],
        3,
        0.5,
        False,
        None,
    ]
