"""What is known of an app, and who is at work on it."""

from __future__ import annotations

from immutable_local.sidecar.hands.ground import PROXY, STATE, dump, named, now, read_json, write_whole
from immutable_local.sidecar.hands.ledger import ledger_read
from immutable_local.sidecar.hands.locks import need
from immutable_local.sidecar.hands.secrets import secret_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def app_state(app: str) -> dict[str, Any]:
    """Everything that a deployment has to know before it begins, in one answer."""
    named(app)
    live = PROXY / "apps" / app / "live"
    return {
        "live": read_json(live / "release.json"),
        "structure": read_json(PROXY / "apps" / app / "structure.json"),
        "doing": read_json(STATE / "doing" / f"{app}.json"),
        "origin": read_json(STATE / "origins" / f"{app}.json"),
        "secrets": secret_list(app),
        "ledger": ledger_read(app),
    }


def structures() -> dict[str, Any]:
    """Every app's routes, as they were last written."""
    found = {}
    folder = PROXY / "apps"
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        told = read_json(path / "structure.json")
        if told is not None:
            found[path.name] = told
    return found


def live_releases() -> dict[str, Any]:
    """Which release of each app is live."""
    folder = PROXY / "apps"
    return {
        path.name: read_json(path / "live" / "release.json")
        for path in (sorted(folder.iterdir()) if folder.is_dir() else [])
    }


def live_release(app: str) -> Any:
    """What is live of one app."""
    return read_json(PROXY / "apps" / named(app) / "live" / "release.json")


def doing_write(app: str, told: dict[str, Any]) -> None:
    need(f"app-{app}")
    write_whole(STATE / "doing" / f"{named(app)}.json", dump({**told, "at": now()}))


def doing_clear(app: str) -> None:
    need(f"app-{app}")
    (STATE / "doing" / f"{named(app)}.json").unlink(missing_ok=True)


def origin_write(app: str, told: dict[str, Any]) -> None:
    need(f"app-{app}")
    write_whole(STATE / "origins" / f"{named(app)}.json", dump(told))
