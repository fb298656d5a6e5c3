"""What was begun is undone in reverse, and no undo step hides what caused it."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from immutable_local.errors import EngineError, EngineRefused, ImmError
from immutable_local.undo import Undo, UndoWhileHeld


def test_a_failure_undoes_everything_in_reverse_and_is_told():
    done: list[str] = []
    with pytest.raises(ImmError, match="the cause"), Undo(done.append) as undo:
        undo.by(done.append, "first")
        undo.by(done.append, "second")
        raise ImmError("the cause")
    assert done == ["second", "first"] and undo.whole


def test_after_the_point_of_no_return_nothing_is_undone():
    done: list[str] = []
    with pytest.raises(ImmError), Undo(done.append) as undo:
        undo.by(done.append, "before")
        undo.keep()
        undo.by(done.append, "after")
        raise ImmError("the cause")
    assert done == ["after"]


def test_an_undo_step_that_fails_is_reported_and_hides_nothing():
    """The others still run, and the error is the one that caused it."""
    reported: list[str] = []
    done: list[str] = []

    def discard() -> None:
        raise EngineRefused("Docker refused to remove it")

    with pytest.raises(ImmError, match="the cause"), Undo(reported.append) as undo:
        undo.by(done.append, "first")
        undo.by(discard)
        raise ImmError("the cause")
    assert done == ["first"]
    assert reported == ["while undoing (discard): Docker refused to remove it; the next command finishes it"]
    assert not undo.whole


def test_what_may_still_be_in_use_is_left_when_the_way_back_fails():
    """The flip could not be taken back: the new instances must not be removed, nor the old ones started."""
    reported: list[str] = []
    done: list[str] = []

    def point_back() -> None:
        raise EngineRefused("the session is lost")

    with pytest.raises(ImmError, match="the cause"), Undo(reported.append) as undo:
        undo.by(done.append, "discard")
        undo.only_after(point_back)
        undo.by(done.append, "later")
        raise ImmError("the cause")
    assert done == ["later"]
    assert len(reported) == 1


def test_what_may_still_be_in_use_is_left_also_when_the_way_back_meets_something_unknown():
    done: list[str] = []

    def point_back() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Undo(done.append) as undo:
        undo.by(done.append, "discard")
        undo.only_after(point_back)
        undo.by(done.append, "later")
        raise ImmError("the cause")
    assert done == ["later"] and not undo.whole


def test_an_interruption_cuts_no_undo_step():
    """Its command ends as soon as all is undone: what isn't brought back by then nobody brings back."""
    done: list[str] = []

    def start_again() -> None:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.2)
        done.append("started again")

    with pytest.raises(KeyboardInterrupt), Undo(done.append) as undo:
        undo.by(done.append, "first")
        undo.by(start_again)
        raise ImmError("the cause")
    assert done == ["started again", "first"] and undo.whole


def test_an_interruption_at_the_begin_of_undoing_keeps_nothing_from_being_undone(
    monkeypatch: pytest.MonkeyPatch,
):
    def interrupted(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), Undo(done.append) as undo:
        undo.by(done.append, "first")
        undo.by(done.append, "second")
        monkeypatch.setattr(threading.Thread, "start", interrupted)
        raise ImmError("the cause")
    assert done == ["second", "first"]


def test_what_was_begun_before_is_undone_when_the_way_back_is_open():
    done: list[str] = []
    with pytest.raises(ImmError), Undo(done.append) as undo:
        undo.by(done.append, "discard")
        undo.only_after(done.append, "point back")
        raise ImmError("the cause")
    assert done == ["point back", "discard"]


def test_what_is_lost_is_not_undone():
    """By then it is another's, all of it."""
    done: list[str] = []
    with pytest.raises(ImmError, match="the cause"), UndoWhileHeld(done.append, lambda: False) as undo:
        undo.by(done.append, "first")
        undo.by(done.append, "second")
        raise ImmError("the cause")
    assert done == [] and undo.lost and not undo.whole


def test_what_is_lost_in_the_middle_of_undoing_is_undone_no_further():
    """And what was lost once isn't held again."""
    done: list[str] = []
    held = iter([True, False, True])
    with pytest.raises(ImmError), UndoWhileHeld(done.append, lambda: next(held)) as undo:
        for each in ("first", "second", "third"):
            undo.by(done.append, each)
        raise ImmError("the cause")
    assert done == ["third"] and undo.lost and not undo.still_held()


def test_what_is_held_is_undone():
    done: list[str] = []
    with pytest.raises(ImmError), UndoWhileHeld(done.append, lambda: True) as undo:
        undo.by(done.append, "first")
        undo.by(done.append, "second")
        raise ImmError("the cause")
    assert done == ["second", "first"] and undo.whole and not undo.lost


def test_nothing_is_undone_where_nobody_can_tell_whether_it_is_still_held():
    reported: list[str] = []
    done: list[str] = []

    def held() -> bool:
        raise EngineError("the engine cannot be reached")

    with pytest.raises(ImmError, match="the cause"), UndoWhileHeld(reported.append, held) as undo:
        undo.by(done.append, "first")
        undo.by(done.append, "second")
        raise ImmError("the cause")
    assert done == [] and not undo.whole
    assert len(reported) == 1 and "the engine cannot be reached" in reported[0]
