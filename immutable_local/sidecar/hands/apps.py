"""What is known of an app, and who is at work on it."""

from __future__ import annotations

import os

from immutable_local.sidecar.hands.ground import (
    PROXY,
    STATE,
    Refusal,
    dump,
    named,
    now,
    read_json,
    read_twice,
    write_whole,
)
from immutable_local.sidecar.hands.ledger import ledger_read
from immutable_local.sidecar.hands.locks import need
from immutable_local.sidecar.hands.secrets import secret_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def app_state(app: str) -> dict[str, Any]:
    """Everything that a deployment has to know before it begins, in one answer."""
    named(app)
    return {
        "live": _live(app),
        "structure": _structure(app),
        "doing": _doing(app),
        "origin": read_json(STATE / "origins" / f"{app}.json"),
        "secrets": secret_list(app),
        "ledger": ledger_read(app),
    }


def structures() -> dict[str, Any]:
    """Every app's routes, as they were last written."""
    found = {}
    folder = PROXY / "apps"
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        told = _structure(path.name)
        if told is not None:
            found[path.name] = told
    return found


def live_releases() -> dict[str, Any]:
    """Which release of each app is live."""
    folder = PROXY / "apps"
    return {path.name: _live(path.name) for path in (sorted(folder.iterdir()) if folder.is_dir() else [])}


def live_release(app: str) -> Any:
    """What is live of one app."""
    return _live(named(app))


def _live(app: str) -> Any:
    """What is live of an app, None for nothing. Refused where something is, and nobody can read what.

    Whoever took that for nothing would remove what traffic goes to.
    """
    link = PROXY / "apps" / app / "live"
    seen = ""
    while True:
        try:
            generation = os.readlink(link)
        except (FileNotFoundError, NotADirectoryError):
            return None
        path = link.parent / generation / "release.json"
        told = read_twice(path)
        if told is not None:
            return told
        # One that was live goes when another one is.
        if generation == seen:
            raise Refusal("broken_file", path=str(path), reason="it is gone")
        seen = generation


def _structure(app: str) -> Any:
    """An app's routes, None where it has none. Refused where they are lost: a reload would take it off."""
    path = PROXY / "apps" / app / "structure.json"
    told = read_twice(path)
    if told is None and (path.parent / "live").is_symlink():
        raise Refusal("broken_file", path=str(path), reason="it is gone")
    return told


def _doing(app: str) -> Any:
    """What somebody is at. That there was somebody is enough to put right what they left."""
    try:
        return read_json(STATE / "doing" / f"{app}.json")
    except Refusal:
        return {"command": "a command", "by": "somebody", "step": "a step that can't be read"}


def doing_write(app: str, told: dict[str, Any], needed: bool = True) -> None:
    """`needed`: whether the next command must know it, to put right what this one leaves."""
    need(f"app-{app}")
    try:
        write_whole(STATE / "doing" / f"{named(app)}.json", dump({**told, "at": now()}))
    except OSError:
        if needed:
            raise


def doing_clear(app: str) -> None:
    need(f"app-{app}")
    (STATE / "doing" / f"{named(app)}.json").unlink(missing_ok=True)


def origin_write(app: str, told: dict[str, Any]) -> None:
    need(f"app-{app}")
    write_whole(STATE / "origins" / f"{named(app)}.json", dump(told))
