"""Waiting for a condition, with a deadline, on this machine.

Who has more to do between two looks pauses by itself; so does what runs in the sidecar, where nothing but the
standard library is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float, pause: float) -> T | None:
    """Ask until the answer is true, with `pause` seconds between; it, or None after `seconds`."""
    # Most commands wait for nothing, and this costs each of them 5 ms.
    from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

    retrying = Retrying(
        stop=stop_after_delay(seconds),
        wait=wait_fixed(pause),
        retry=retry_if_result(lambda answer: not answer),
    )
    try:
        return retrying(condition)
    except RetryError:
        return None
