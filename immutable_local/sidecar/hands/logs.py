"""The logs of instances that are gone."""

from __future__ import annotations

from immutable_local.sidecar.hands.ground import STATE, named, write_whole
from immutable_local.sidecar.hands.locks import need

KEPT_LOGS = 60


def log_keep(app: str, name: str, content: str) -> None:
    """Keep the log of an instance (base64); the oldest go when there are more than KEPT_LOGS."""
    import base64

    need(f"app-{app}")
    folder = STATE / "logs" / named(app)
    write_whole(folder / f"{named(name)}.log", base64.b64decode(content))
    kept = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime_ns)
    for path in kept[:-KEPT_LOGS]:
        path.unlink(missing_ok=True)


def log_list(app: str) -> list[str]:
    folder = STATE / "logs" / named(app)
    kept = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime_ns) if folder.is_dir() else []
    return [path.stem for path in kept]


def log_read(app: str, name: str) -> str | None:
    import base64

    try:
        return base64.b64encode((STATE / "logs" / named(app) / f"{named(name)}.log").read_bytes()).decode()
    except FileNotFoundError:
        return None
