"""What is live: one link for each app, replaced by a rename, and the routes that it chooses from."""

from __future__ import annotations

import os
import re
import threading

from immutable_local.sidecar.hands.configuration import rename_in
from immutable_local.sidecar.hands.ground import (
    PROXY,
    dump,
    named,
    now,
    remove_folder,
    sync_folder,
    write_twice,
)
from immutable_local.sidecar.hands.locks import need

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OPEN = "open"
# An interrupted client doesn't wait for long, and asks for the way back: one after the other.
pointing = threading.Lock()


def point(
    app: str,
    flags: list[str],
    release: dict[str, Any],
    folder: str = "",
    files: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Make a release live: a new generation beside the old, then one rename. Returns number and moment.

    `files` of the proxy's `folder` that say the same in its own words follow at once.
    """
    need(f"app-{app}")
    with pointing:
        return _point(app, flags, release, folder, files or {})


def _point(
    app: str, flags: list[str], release: dict[str, Any], folder: str, files: dict[str, str]
) -> dict[str, Any]:
    home = PROXY / "apps" / named(app)
    home.mkdir(parents=True, exist_ok=True)
    numbers = [int(name[4:]) for name in os.listdir(home) if re.fullmatch(r"gen-\d+", name)]
    generation = max(numbers, default=0) + 1
    path = home / f"gen-{generation}"
    try:
        path.mkdir()
        for flag in flags:
            (path / named(flag)).touch()
        write_twice(path / "release.json", dump(release))
    except OSError:
        remove_folder(path)
        raise
    link = home / f".live-{generation}"
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    sync_folder(home)
    os.rename(link, home / "live")
    flipped = now()
    for name, content in files.items():
        rename_in(folder, name, content)
    sync_folder(home)
    for number in numbers:
        remove_folder(home / f"gen-{number}")
    return {"generation": generation, "at": flipped}


def unpoint(app: str, folder: str = "", files: list[str] | None = None) -> None:
    """Nothing of this app is live any more, and the proxy's files that say so go."""
    need(f"app-{app}")
    home = PROXY / "apps" / named(app)
    if home.is_dir():
        # A request just being looked at must not take a slot's missing flag for the other slot: from here on
        # all is looked at, and until the link goes there is as much time as a write to the disk takes.
        (home / "live" / OPEN).unlink(missing_ok=True)
        sync_folder(home)
    (home / "live").unlink(missing_ok=True)
    for name in files or []:
        (PROXY / named(folder) / named(name)).unlink(missing_ok=True)
    if home.is_dir():
        sync_folder(home)


def structure_write(app: str, told: dict[str, Any]) -> None:
    need(f"app-{app}")
    need("host")
    write_twice(PROXY / "apps" / named(app) / "structure.json", dump(told))


def app_remove(app: str) -> None:
    """Forget an app's routes and live link; its ledger, secrets and logs stay."""
    need(f"app-{app}")
    need("host")
    remove_folder(PROXY / "apps" / named(app))
