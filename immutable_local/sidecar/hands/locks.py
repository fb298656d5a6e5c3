"""Locks: flocks on open files, free again when their session ends, however it ends."""

from __future__ import annotations

import collections
import contextlib
import fcntl
import json
import os
import re
import threading
import time

from immutable_local.sidecar.hands.ground import PROXY, STATE, Refusal, dump, named, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pathlib
    from typing import Any

# What a guard is at that puts right what a killed command left: whoever comes meanwhile waits for it.
RECOVERY = "recovery"
RECOVERY_SECONDS = 20.0
# Between taking a lock and writing down who has it, nobody stands there, or one who was killed.
# Just before it is free, nobody does.
SIGNED_SECONDS = 1.0
SIGNING_SECONDS = 0.1
held: dict[str, int] = {}
# How often each was let go, by the client's word: what it asked for before, it waits for no more.
given_up: collections.Counter[str] = collections.Counter()
# What is asked for at once by one client is done side by side.
changing = threading.Lock()


def lock(name: str, who: dict[str, Any], wait: float = 0.0) -> bool:
    """Take a lock, waiting `wait` seconds at most; refused with who holds it, from where, since when.

    A recovery is waited for in any case: it ends by itself.
    """
    path = STATE / "locks" / named(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    before = given_up[name]
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + wait
    seen: tuple[dict[str, Any] | None, float] = (None, 0.0)
    while True:
        with changing:
            mine = name in held
            abandoned = given_up[name] != before
            if not (mine or abandoned) and taken(fd, who):
                held[name] = fd
                break
        if mine:
            os.close(fd)
            return True
        holder, at = json.loads(os.pread(fd, 65536, 0) or b"{}"), time.monotonic()
        if holder != seen[0]:
            seen = (holder, at)
        late = at > deadline and (at - seen[1] > patience(holder) or at > deadline + RECOVERY_SECONDS)
        if late or abandoned:
            os.close(fd)
            raise Refusal("locked", holder=holder)
        time.sleep(0.02)
    if name.startswith("app-"):
        tidy(name.removeprefix("app-"))
    elif name == "host":
        remove_all(PROXY, r"\.new-.*|next-.*")
    return True


def taken(fd: int, who: dict[str, Any]) -> bool:
    """Whether the lock of this file was free, and is taken now."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    # Who has it is only told to people: on a full disk, too, what frees it must get the lock.
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, dump({**who, "since": now()}), 0)
    return True


def patience(holder: dict[str, Any]) -> float:
    """For how many seconds the same one must seem to hold the lock until somebody is refused for it."""
    if holder.get("command") == RECOVERY:
        return RECOVERY_SECONDS
    return SIGNING_SECONDS if holder else SIGNED_SECONDS


def tidy(app: str) -> None:
    """Remove what a session that ended in the middle of a write left: its temporary names."""
    for folder in (
        STATE / "ledger" / app,
        STATE / "secrets" / app,
        STATE / "logs" / app,
        PROXY / "apps" / app,
    ):
        remove_all(folder, r"\.(new|live)-.*")
    for folder in (STATE / "doing", STATE / "origins", STATE / "builds"):
        remove_all(folder, rf"\.new-\d+-\d+-{re.escape(app)}\.jsonl?")


def remove_all(folder: pathlib.Path, names: str) -> None:
    for name in os.listdir(folder) if folder.is_dir() else []:
        if re.fullmatch(names, name):
            (folder / name).unlink(missing_ok=True)


def unlock(name: str) -> None:
    """Let go, and take it for nobody who was asked before this: they wait no more."""
    with changing:
        given_up[name] += 1
        fd = held.pop(name, None)
    if fd is not None:
        try:
            os.ftruncate(fd, 0)
        finally:
            os.close(fd)


def need(name: str) -> None:
    """Whoever writes holds the lock: a client that lost it can do no harm."""
    if name not in held:
        raise Refusal("not_locked", name=name)


def still_locked(name: str) -> bool:
    """Whether a client that was away may still act on the engine: refused when it lost its lock."""
    need(name)
    return True
