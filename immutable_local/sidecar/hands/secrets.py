"""Secrets: files of the state volume alone, never in a record."""

from __future__ import annotations

import hashlib
import os
import pathlib

from immutable_local.sidecar.hands.ground import STATE, Refusal, dump, named, now, read_json, write_whole
from immutable_local.sidecar.hands.locks import need

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def secret_path(app: str, name: str) -> pathlib.Path:
    return STATE / "secrets" / named(app) / named(name)


def secret_set(app: str, name: str, value: str) -> bool:
    """Keep a secret; returns whether it changed. Its version says that it changed, nothing of what it is."""
    need(f"app-{app}")
    try:
        before = read_json(secret_path(app, name))
    except Refusal:
        # A new value mends it.
        before = None
    if before is not None and before["value"] == value:
        return False
    version = hashlib.sha256(os.urandom(16)).hexdigest()[:12]
    secret_path(app, name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_whole(secret_path(app, name), dump({"value": value, "version": version, "since": now()}), 0o600)
    return True


def secret_list(app: str) -> dict[str, Any]:
    folder = STATE / "secrets" / named(app)
    found = {}
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        if not name.startswith(".new-"):
            told = read_json(folder / name)
            # Whoever lists holds no lock, and this one may just have been removed.
            if told is not None:
                found[name] = {"version": told["version"], "since": told["since"]}
    return found


def secret_values(app: str, names: list[str]) -> dict[str, str]:
    """The values themselves, for the client that hands them to an instance."""
    need(f"app-{app}")
    told = {name: read_json(secret_path(app, name)) for name in names}
    return {name: each["value"] for name, each in told.items() if each is not None}


def secret_remove(app: str, name: str) -> bool:
    need(f"app-{app}")
    path = secret_path(app, name)
    existed = path.exists()
    path.unlink(missing_ok=True)
    return existed
