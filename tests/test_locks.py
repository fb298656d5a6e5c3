"""The sidecar's locks, taken by two of one process: how long whoever comes waits for whom."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from immutable_local.sidecar.hands import locks
from immutable_local.sidecar.hands.ground import Refusal
from immutable_local.wait import until

APP = "app-shop"
ME = {"by": "me", "command": "up"}
OTHER = {"by": "other", "command": "up"}
RECOVERY = {"by": "other", "command": locks.RECOVERY}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folders of this test's own."""
    for name in ("STATE", "PROXY"):
        monkeypatch.setattr(locks, name, tmp_path)
    monkeypatch.setattr(locks, "held", {})
    yield tmp_path
    locks.unlock(APP)


@contextmanager
def held_by(
    state: Path, *who: dict[str, str], seconds: float | None = None, step: float = 0.05
) -> Iterator[None]:
    """Somebody has the lock for so long, or to the end of the block; these names stand there one after the
    other, `step` seconds each."""
    path = state / "locks" / APP
    path.parent.mkdir(exist_ok=True)
    file = path.open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    path.write_text(json.dumps(who[0]))
    begun = [
        threading.Timer(n * step, path.write_text, [json.dumps(each)]) for n, each in enumerate(who) if n
    ]
    if seconds is not None:
        begun.append(threading.Timer(seconds, file.close))
    for each in begun:
        each.start()
    try:
        yield
    finally:
        for each in begun:
            each.join()
        file.close()


def test_whoever_holds_it_is_named(state: Path):
    with held_by(state, OTHER), pytest.raises(Refusal) as refused:
        locks.lock(APP, ME)
    assert refused.value.told["holder"] == OTHER


def test_a_recovery_is_waited_for_unasked(state: Path):
    """Nobody has typed it, and it ends by itself."""
    with held_by(state, RECOVERY, seconds=0.5):
        assert locks.lock(APP, ME)


def test_the_name_of_one_that_was_killed_is_not_taken_for_who_came_next(
    state: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its guard has the lock already, and has only just written down that it does."""
    # On a busy machine a timer of 50 ms comes late.
    monkeypatch.setattr(locks, "SIGNING_SECONDS", 1.0)
    with held_by(state, OTHER, RECOVERY, seconds=1.5):
        assert locks.lock(APP, ME)


def test_whoever_lets_go_is_not_taken_for_a_holder(state: Path):
    """Its name goes a moment before the lock does, however long it has been waited for."""
    with held_by(state, RECOVERY, {}, seconds=1.6, step=1.5):
        assert locks.lock(APP, ME)


def test_a_recovery_that_does_not_end_is_named(state: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(locks, "RECOVERY_SECONDS", 0.2)
    with held_by(state, RECOVERY), pytest.raises(Refusal) as refused:
        locks.lock(APP, ME)
    assert refused.value.told["holder"] == RECOVERY


def test_what_a_session_left_in_the_middle_of_a_write_is_removed_by_who_has_its_lock_next(state: Path):
    """Its temporary names; not those of an app that somebody else may just be writing of."""
    mine = ["builds/.new-7-8-shop.jsonl", "doing/.new-7-8-shop.json", "apps/shop/.new-7-8-structure.json"]
    others = ["builds/.new-7-8-blog.jsonl", "builds/shop.jsonl", "apps/blog/.live-3"]
    hosts = [".new-7-8-nginx.conf", ".new-7-8-next-app-shop.yml", "next-app-shop.yml"]
    kept = ["nginx.conf", "nginx.conf.new"]
    for each in (*mine, *others, *hosts, *kept):
        (state / each).parent.mkdir(parents=True, exist_ok=True)
        (state / each).touch()
    locks.lock(APP, ME)
    assert [each for each in (*mine, *others, *hosts) if (state / each).exists()] == [*others, *hosts]
    locks.lock("host", ME)
    locks.unlock("host")
    assert [each for each in (*hosts, *kept) if (state / each).exists()] == kept


def opened(state: Path) -> int:
    """How often the lock's file is open in this process."""
    names = [os.readlink(each) if each.is_symlink() else "" for each in Path("/proc/self/fd").iterdir()]
    return names.count(str(state / "locks" / APP))


def is_free(state: Path) -> bool:
    with (state / "locks" / APP).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_what_was_asked_for_before_it_was_let_go_is_waited_for_no_more(state: Path):
    """Whoever was interrupted while it waited would get it when nobody knows of it, and keep it."""
    with ThreadPoolExecutor() as threads:
        with held_by(state, OTHER):
            abandoned = threads.submit(locks.lock, APP, ME, wait=5.0)
            assert until(lambda: opened(state) == 2, 5.0, pause=0.01)
            locks.unlock(APP)
            with pytest.raises(Refusal):
                abandoned.result(2.0)
        assert is_free(state)
        assert locks.lock(APP, ME)


def test_two_who_wait_for_one_client_do_not_wait_for_each_other(state: Path):
    """An interrupted client asks again for what it had asked for, to go back."""
    with ThreadPoolExecutor() as threads:
        with held_by(state, OTHER):
            both = [threads.submit(locks.lock, APP, ME, wait=5.0) for _ in range(2)]
            assert until(lambda: opened(state) == 3, 5.0, pause=0.01)
        assert [each.result(8.0) for each in both] == [True, True]
    locks.unlock(APP)
    assert is_free(state)


def test_a_lock_is_free_also_where_that_cannot_be_written_down(state: Path, monkeypatch: pytest.MonkeyPatch):
    """On a full disk a file may not even be made empty."""
    locks.lock(APP, ME)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="full"):
        patched.setattr(os, "ftruncate", full)
        locks.unlock(APP)
    assert is_free(state)
    assert locks.lock(APP, ME)
