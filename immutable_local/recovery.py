"""What an interrupted command left is put right at once, by the sweep that the next one would begin with.

The command itself does it when its host went away, and its guard when it was killed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from immutable_local import lock
from immutable_local.engine import connect
from immutable_local.errors import EngineError, EngineRefused, ImmError, ProxyError, SessionLost
from immutable_local.events import Teller
from immutable_local.host import Begun, begin
from immutable_local.listed import by_role
from immutable_local.making import ensure
from immutable_local.observed import Observed, observe
from immutable_local.sidecar.hands.locks import RECOVERY
from immutable_local.sweep import sweep
from immutable_local.wait import until

T = TypeVar("T")

# How long a host that went away is waited for.
RETURN_SECONDS = 20.0
RETURN_PAUSE_SECONDS = 0.2
OWN_LOCK_SECONDS = 12.0
# What a command meets on a host that goes away, or is just coming back.
AWAY = (EngineError, EngineRefused, ProxyError, SessionLost)


def once_back(act: Callable[[], T]) -> T:
    """Do it, again and again while the host is away. Raises ImmError, after RETURN_SECONDS the last one."""
    last: list[ImmError] = []

    def tried() -> tuple[T] | None:
        try:
            return (act(),)
        except AWAY as again:
            # It isn't there yet, or went away again.
            last[:] = [again]
            return None

    done = until(tried, RETURN_SECONDS, RETURN_PAUSE_SECONDS)
    if done is None:
        raise last[0]
    return done[0]


def swept(begun: Begun, app: str, command: str, tell: Teller) -> Observed:
    """Attach anew, lock, sweep. Raises ImmError."""
    host = ensure(begun, tell.warn)
    try:
        # The dead session, if the sidecar is still at something of its, lets go of it soon.
        lock.take(host.session, app, command, OWN_LOCK_SECONDS)
        found = observe(host.engine, host.session, app)
        # No word of what is being done: another command was here since, and may be watching its release.
        if found.doing is None and not (found.live and found.live.held):
            return found
        return sweep(host, found, command, tell)
    finally:
        host.close()


def recover() -> None:
    """The guard's program: the command that it guarded was killed. Nobody is there to be told anything.

    It is given the app that is to be swept; without one it is the proxy that was being changed.
    """
    tell, over = Teller(lambda event: None), sys.argv[1:]

    def put_right() -> None:
        begun = begin(connect())
        if not {"proxy", "next"} & set(by_role(begun.listed)):
            # Somebody took it down meanwhile.
            return
        if over:
            swept(begun, over[0], RECOVERY, tell)
        else:
            ensure(begun, tell.warn).close()

    once_back(put_right)
