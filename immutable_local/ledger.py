"""The append-only history of an app, on the engine's host, written through a session that holds the lock."""

from __future__ import annotations

from typing import Any

from immutable_local.sidecar.session import Session
from immutable_local.who import who


def append(
    session: Session,
    app: str,
    event: str,
    *,
    release: int | None = None,
    seconds: float | None = None,
    error: str | None = None,
    **more: Any,
) -> int:
    """One record, whole or not at all; returns its number."""
    record = {"event": event, "release": release, "by": who(), "seconds": seconds, "error": error, **more}
    return int(session.ask("ledger_append", app=app, record=record))


def read(session: Session, app: str) -> list[dict[str, Any]]:
    """Every record, oldest first."""
    return list(session.ask("ledger_read", app=app))
