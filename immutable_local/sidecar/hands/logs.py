"""The logs of instances that are gone."""

from __future__ import annotations

import os
from contextlib import suppress

from immutable_local.sidecar.hands.ground import STATE, named, write_whole
from immutable_local.sidecar.hands.locks import need

KEPT_LOGS = 60


def log_keep(app: str, name: str, content: str) -> None:
    """Keep the log of an instance (base64); the oldest go when there are more than KEPT_LOGS.

    On a full disk it isn't kept: that must not keep the instance from being removed.
    """
    import base64

    need(f"app-{app}")
    folder = STATE / "logs" / named(app)
    with suppress(OSError):
        write_whole(folder / f"{named(name)}.log", base64.b64decode(content))
    for each in log_list(app)[:-KEPT_LOGS]:
        (folder / f"{each}.log").unlink(missing_ok=True)


def log_list(app: str) -> list[str]:
    """Whose logs are kept, the oldest first; others may keep theirs meanwhile, and remove old ones."""
    kept = []
    with suppress(FileNotFoundError), os.scandir(STATE / "logs" / named(app)) as entries:
        for each in entries:
            with suppress(FileNotFoundError):
                if each.name.endswith(".log") and not each.name.startswith("."):
                    kept.append((each.stat().st_mtime_ns, each.name.removesuffix(".log")))
    return [name for _, name in sorted(kept)]


def log_read(app: str, name: str) -> str | None:
    import base64

    try:
        return base64.b64encode((STATE / "logs" / named(app) / f"{named(name)}.log").read_bytes()).decode()
    except FileNotFoundError:
        return None
