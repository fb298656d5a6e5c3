"""Locks: flocks on open files, free again when their session ends, however it ends."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time

from immutable_local.sidecar.hands.ground import PROXY, STATE, Refusal, dump, named, now

# What typing itself spells so, without the milliseconds that importing it costs each session.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Taking a lock and writing down who has it are two steps.
SIGNED_SECONDS = 1.0
held: dict[str, int] = {}


def lock(name: str, who: dict[str, Any], wait: float = 0.0) -> bool:
    """Take a lock, waiting `wait` seconds at most; refused with who holds it, from where, since when."""
    if name in held:
        return True
    path = STATE / "locks" / named(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            late = time.monotonic() - deadline
            holder = os.pread(fd, 65536, 0)
            # Whoever has just taken it writes down who it is, or has just let it go.
            if late >= 0 and (holder or late > SIGNED_SECONDS):
                os.close(fd)
                raise Refusal("locked", holder=json.loads(holder or b"{}")) from None
            time.sleep(0.02)
    os.ftruncate(fd, 0)
    os.pwrite(fd, dump({**who, "since": now()}), 0)
    held[name] = fd
    if name.startswith("app-"):
        tidy(name.removeprefix("app-"))
    return True


def tidy(app: str) -> None:
    """Remove what a session that ended in the middle of a write left: its temporary names."""
    of_app = re.compile(rf"\.new-\d+-\d+-{re.escape(app)}\.json")
    mine = [STATE / "ledger" / app, STATE / "secrets" / app, STATE / "logs" / app, PROXY / "apps" / app]
    for folder in (*mine, STATE / "doing", STATE / "origins"):
        for name in os.listdir(folder) if folder.is_dir() else []:
            if of_app.fullmatch(name) or (folder in mine and name.startswith((".new-", ".live-"))):
                (folder / name).unlink(missing_ok=True)


def unlock(name: str) -> None:
    fd = held.pop(name, None)
    if fd is not None:
        os.ftruncate(fd, 0)
        os.close(fd)


def need(name: str) -> None:
    """Whoever writes holds the lock: a client that lost it can do no harm."""
    if name not in held:
        raise Refusal("not_locked", name=name)


def still_locked(name: str) -> bool:
    """Whether a client that was away may still act on the engine: refused when it lost its lock."""
    need(name)
    return True
