"""What an interruption must not cut in the middle: it runs in a thread, and Ctrl-C reaches only the main one.

The interruption is raised when what has begun is done, so that its undo step is noted and finds it whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
E = TypeVar("E")

SIDE_BY_SIDE = 8


def unbroken(act: Callable[..., T], *arguments: object) -> T:
    """Do it to its end, whatever comes."""
    return side_by_side(lambda _: act(*arguments), [None])[0]


def side_by_side(act: Callable[[E], T], items: Iterable[E]) -> list[T]:
    """Do it for each, SIDE_BY_SIDE at a time; returns or raises when all that began have ended."""
    with ThreadPoolExecutor(SIDE_BY_SIDE) as beside:
        begun = []
        try:
            begun += [beside.submit(act, each) for each in items]
            wait(begun)
        except BaseException:
            for each in begun:
                each.cancel()
            raise
    return [each.result() for each in begun]
