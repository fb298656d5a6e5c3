"""When each app was built: the one way to tell whose the builder's cache is, which carries no label."""

from __future__ import annotations

import json

from immutable_local.sidecar.hands.ground import STATE, dump, named, now

# What typing itself spells so, without the milliseconds that importing it costs each session.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def build_note(app: str, seconds: float, made: list[str]) -> None:
    """A build that ends now. Without the lock: `plan` builds too."""
    folder = STATE / "builds"
    folder.mkdir(parents=True, exist_ok=True)
    line = dump({"at": now(), "seconds": seconds, "made": made}) + b"\n"
    # Whole, beside what another session adds: one write at the file's end.
    with open(folder / f"{named(app)}.jsonl", "ab", buffering=0) as file:
        file.write(line)


def builds() -> dict[str, list[dict[str, Any]]]:
    """The builds of every app, oldest first. A line that lost power cut short says nothing."""
    folder = STATE / "builds"
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else []:
        told = found[path.stem] = []
        for line in path.read_bytes().splitlines():
            try:
                told.append(json.loads(line))
            except ValueError:
                continue
    return found
