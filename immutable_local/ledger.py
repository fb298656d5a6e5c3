"""The append-only history of an app, on the engine's host, written through a session that holds the lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from immutable_local.sidecar.session import Session
from immutable_local.who import who

# Each command reads every record: what somebody else worded is no longer than a person reads.
LONGEST = 500
MOST = 20


def append(
    session: Session,
    app: str,
    event: str,
    *,
    release: int | None = None,
    seconds: float | None = None,
    error: str | None = None,
    by: str | None = None,
    **more: Any,
) -> int:
    """One record, whole or not at all; returns its number. Its texts and lists are `bounded`.

    `by`: who did it, if not who tells it.
    """
    told = {"event": event, "release": release, "by": by or who(), "seconds": seconds, "error": error, **more}
    record = {key: bounded(value) for key, value in told.items()}
    return int(session.ask("ledger_append", app=app, record=record))


def read(session: Session, app: str) -> list[dict[str, Any]]:
    """Every record, oldest first."""
    return list(session.ask("ledger_read", app=app))


def bounded(value: Any) -> Any:
    """A record's value, cut at what is readable."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST else f"{value[: LONGEST - 3]}..."
    if isinstance(value, Sequence):
        return [bounded(each) for each in value[:MOST]]
    return value
