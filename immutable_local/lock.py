"""One deployment of an app at a time. The session is the lock: it ends with its owner."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from immutable_local.errors import HostLocked, Locked
from immutable_local.sidecar.session import ANSWER_SECONDS, Session
from immutable_local.who import who

# A change of the proxy's structure takes under a second for a new app, else up to 3.5 s, in which workers of
# before wait for idle clients. A reload that hangs is given up after ten.
HOST_WAIT_SECONDS = 60.0


def take(session: Session, app: str, command: str, wait: float = 0.0) -> None:
    """Take the app's lock while the session lives. Raises Locked: who holds it, from where, since when."""
    session.ask("lock", name=f"app-{app}", who=_holder(command), wait=wait, within=wait + ANSWER_SECONDS)


@contextmanager
def host(session: Session, command: str) -> Iterator[None]:
    """The host's own lock, for structure, addresses and domains: always after an app's, and briefly."""
    wait = HOST_WAIT_SECONDS
    try:
        try:
            session.ask("lock", name="host", who=_holder(command), wait=wait, within=wait * 2)
        except Locked as refused:
            raise HostLocked(
                f"{refused.message}, and this command has waited {wait:.0f} s for it",
                hint="run the command again when that one has ended; if its client is gone or frozen, the"
                " lock frees itself within 10 s",
            ) from refused
        yield
    finally:
        # Also when it was interrupted while it waited: else it would get the lock all the same.
        session.tell("unlock", name="host")


def _holder(command: str) -> dict[str, str]:
    return {"by": who(), "from": f"{socket.gethostname()} (process {os.getpid()})", "command": command}
