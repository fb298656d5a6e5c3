"""What runs in a thread: what an interruption must not cut, and what is done beside something else.

Ctrl-C reaches only the main thread. An interruption is raised when what has begun is done, so that its undo
step is noted and finds it whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock, Thread
from typing import TypeVar

T = TypeVar("T")
E = TypeVar("E")

SIDE_BY_SIDE = 8


def unbroken(act: Callable[..., T], *arguments: object) -> T:
    """Do it to its end, or not at all, whatever comes."""
    beginning = Lock()
    ended: Future[T] = Future()

    def begin() -> None:
        if beginning.acquire(blocking=False):
            try:
                ended.set_result(act(*arguments))
            except BaseException as failed:
                ended.set_exception(failed)

    try:
        Thread(target=begin, name=f"imm-{act.__name__}").start()
        return ended.result()
    except BaseException:
        # An interruption may hit the start of the thread itself: the lock decides whether it begins.
        if not beginning.acquire(blocking=False):
            wait([ended])
        raise


def ahead(act: Callable[..., T], *arguments: object) -> Callable[[], T]:
    """Begin it now, and go on; what is returned waits for its end, and returns or raises as it did."""
    return future_of(act, *arguments).result


def future_of(act: Callable[..., T], *arguments: object) -> Future[T]:
    """Begin it now, and go on; what comes of it."""
    ended: Future[T] = Future()

    def begin() -> None:
        try:
            ended.set_result(act(*arguments))
        except BaseException as failed:
            ended.set_exception(failed)

    # A daemon: nobody waits for it whose command has ended.
    Thread(target=begin, name=f"imm-{act.__name__}", daemon=True).start()
    return ended


def side_by_side(act: Callable[[E], T], items: Iterable[E]) -> list[T]:
    """Do it for each, SIDE_BY_SIDE at a time; returns or raises when all have ended."""

    def every() -> list[T]:
        with ThreadPoolExecutor(SIDE_BY_SIDE) as beside:
            begun = [beside.submit(act, each) for each in items]
        return [each.result() for each in begun]

    return unbroken(every)
