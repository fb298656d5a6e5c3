"""When each app was built: the one way to tell whose the builder's cache is, which carries no label."""

from __future__ import annotations

import contextlib
import json
import pathlib
from datetime import datetime

from immutable_local.sidecar.hands.ground import STATE, dump, named, now, write_whole
from immutable_local.sidecar.hands.locks import need

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def build_note(app: str, seconds: float, made: list[str]) -> None:
    """A build that ends now. Without the lock: `plan` builds too. What can't be noted decides nothing."""
    line = dump({"at": now(), "seconds": seconds, "made": made})
    with contextlib.suppress(OSError):
        path = _path(app)
        path.parent.mkdir(parents=True, exist_ok=True)
        # One write at the file's end, beside what another session adds; and on a line of its own, as the one
        # before may have been cut short.
        with open(path, "ab", buffering=0) as file:
            file.write(b"\n" + line + b"\n")


def builds() -> dict[str, list[dict[str, Any]]]:
    """The builds of every app, oldest first. A line that lost power cut short says nothing."""
    folder = STATE / "builds"
    return {path.stem: _read(path) for path in sorted(folder.glob("[!.]*.jsonl"))}


def builds_forget(app: str, before: str) -> None:
    """The builds that ended before that moment; also a note that another session just adds may go."""
    need(f"app-{app}")
    moment = datetime.fromisoformat(before)
    kept = [each for each in _read(_path(app)) if datetime.fromisoformat(each["at"]) >= moment]
    with contextlib.suppress(OSError):
        write_whole(_path(app), b"".join(dump(each) + b"\n" for each in kept))


def _path(app: str) -> pathlib.Path:
    return STATE / "builds" / f"{named(app)}.jsonl"


def _read(path: pathlib.Path) -> list[dict[str, Any]]:
    found = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            told = json.loads(line)
            datetime.fromisoformat(told["at"])
            found.append({"at": told["at"], "seconds": float(told["seconds"]), "made": list(told["made"])})
        except (ValueError, TypeError, LookupError):
            continue
    return found
