"""An interruption is raised when what has begun is done, or before it has begun: never in between."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from immutable_local.unbroken import side_by_side, unbroken


@pytest.fixture(autouse=True)
def interrupted_once() -> Iterator[None]:
    """As the command line does: the first signal interrupts, the others are ignored."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    yield
    signal.signal(signal.SIGINT, before)


def test_what_is_done_returns_its_result():
    assert unbroken(lambda a, b: a + b, 1, 2) == 3


def test_what_fails_raises_its_own_error():
    with pytest.raises(ZeroDivisionError):
        unbroken(lambda: 1 / 0)


def test_an_interruption_waits_for_the_end():
    """What undoes it finds it whole."""
    noted = []

    def act() -> None:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.2)
        noted.append("done")

    with pytest.raises(KeyboardInterrupt):
        unbroken(act)
    assert noted == ["done"]


@pytest.mark.skipif(os.environ.get("IMM_SOAK") != "1", reason="hits moments by time: make soak runs it")
def test_an_interruption_at_any_moment_of_the_begin_leaves_nothing_that_goes_on_by_itself():
    """It may hit the start of the thread itself: then it hasn't begun, or it is waited for."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    for microseconds in range(1, 400, 4):
        begun, ended = [], []

        def act(begun: list[int] = begun, ended: list[int] = ended) -> None:
            begun.append(1)
            time.sleep(0.005)
            ended.append(1)

        try:
            signal.setitimer(signal.ITIMER_REAL, microseconds / 1e6)
            unbroken(act)
        except KeyboardInterrupt:
            was = (list(begun), list(ended))
            time.sleep(0.01)
            assert begun == ended, "it was interrupted while it was at work"
            assert was == (begun, ended), "it went on after the interruption"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_all_that_began_side_by_side_have_ended_when_one_fails():
    ended = threading.Semaphore(0)

    def act(number: int) -> None:
        if number == 0:
            raise ValueError
        time.sleep(0.1)
        ended.release()

    with pytest.raises(ValueError):
        side_by_side(act, range(4))
    assert all(ended.acquire(blocking=False) for _ in range(3))
