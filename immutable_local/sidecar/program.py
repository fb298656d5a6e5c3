"""One session of the sidecar: what is asked of imm's hands on the host. Standard library only.

The command line sends this and the modules of `hands` through `docker exec`, and speaks JSON lines with it:
`{"id", "do", ...}` is answered by `{"id", "ok"}` or `{"id", "error"}`. So both ends are always of one
version, and nothing has to be installed or upgraded on the host.

The process is the lock: it holds flocks on open files, and is the only way to flip or to write the ledger.
When its client is gone, or says nothing for HEARTBEAT_SECONDS, it ends, and all three end with it.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import sys
import threading
import time

from immutable_local.sidecar.hands.ground import STATE, Refusal, interfaces, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEARTBEAT_SECONDS = 10.0

last_heard = time.monotonic()
speaking = threading.Lock()
# The numbers of the requests that are being done beside the one that reads.
at_work: set[int] = set()


def hello() -> dict[str, Any]:
    """What the client must know first: whether this sidecar still shares the proxy's network."""
    disk = os.statvfs(STATE)
    return {
        "interfaces": interfaces(),
        "free": disk.f_bavail * disk.f_frsize,
        "at": now(),
    }


def beat() -> bool:
    return True


def let_go() -> bool:
    """Hold nothing any more: the client ends, and another one may come at once.

    Returns False, and holds on to the end, while something that was asked is still being done.
    """
    if at_work:
        return False
    locks = module("hands.locks")
    for name in list(locks.held):
        locks.unlock(name)
    return True


# What can be asked, by the module that does it. It is imported when it is first asked for something, or
# meanwhile (`prepare`): all of them before the first answer would let each client wait.
ASKED = {
    "program": ("hello", "beat", "let_go"),
    "hands.apps": (
        "app_state", "structures", "live_releases", "live_release",
        "doing_write", "doing_clear", "origin_write",
    ),
    "hands.builds": ("build_note", "builds", "builds_forget"),
    "hands.configuration": ("proxy_write", "proxy_rename", "proxy_read", "proxy_age", "proxy_sync"),
    "hands.counts": ("counted", "metrics"),
    "hands.health": ("check_begin", "check_poll", "check_end", "ask_all", "ask_if_joined"),
    "hands.ledger": ("apps", "ledger_append", "ledger_read"),
    "hands.live": ("point", "unpoint", "structure_write", "app_remove"),
    "hands.locks": ("lock", "unlock", "still_locked"),
    "hands.logs": ("log_keep", "log_list", "log_read"),
    "hands.park": ("park", "park_port", "park_stopping", "park_release"),
    "hands.proxy": ("confirm", "loaded", "passed", "idle", "through", "answers", "unconnected"),
    "hands.secrets": ("secret_set", "secret_list", "secret_values", "secret_remove"),
}  # fmt: skip
DOES = {name: module for module, names in ASKED.items() for name in names}

# Done in the order of their coming, before what comes later is begun: the client doesn't wait for them.
AT_ONCE = (
    "doing_write", "doing_clear", "unlock", "check_end", "let_go", "build_note", "builds_forget",
)  # fmt: skip


def module(name: str) -> Any:
    return importlib.import_module(f"immutable_local.sidecar.{name}")


def answer(request: dict[str, Any]) -> None:
    number, do = request.pop("id"), request.pop("do")
    try:
        told = {"id": number, "ok": getattr(module(DOES[do]), do)(**request)}
    except Refusal as refusal:
        told = {"id": number, "error": refusal.told}
    except OSError as failed:
        kind = "disk_full" if failed.errno in (errno.ENOSPC, errno.EDQUOT) else "os"
        told = {
            "id": number,
            "error": {"kind": kind, "reason": str(failed), "path": str(failed.filename or "")},
        }
    except Exception as failed:
        told = {"id": number, "error": {"kind": "bug", "reason": f"{type(failed).__name__}: {failed}"}}
    at_work.discard(number)
    with speaking:
        sys.stdout.buffer.write(json.dumps(told).encode() + b"\n")
        sys.stdout.buffer.flush()


def end(code: int) -> None:
    """End this session. No write is waited for: each is whole or not at all."""
    # The locks go with the process, and with them whatever of it may still act.
    os._exit(code)


def end_when_silent() -> None:
    """A client that froze holds nothing: what it held is free again after HEARTBEAT_SECONDS."""
    while True:
        silent = time.monotonic() - last_heard
        if silent > HEARTBEAT_SECONDS:
            end(3)
        time.sleep(max(0.05, HEARTBEAT_SECONDS - silent))


def prepare() -> None:
    """What nearly every command asks for costs 50 ms: imported, in that order, while the client is loaded."""
    for name in ("locks", "apps", "health", "counts", "configuration", "ledger", "live", "proxy"):
        module(f"hands.{name}")
    import http.client  # noqa: F401
    import shutil  # noqa: F401


def main() -> None:
    global last_heard  # noqa: PLW0603 (one process is one session)
    os.umask(0o022)
    with contextlib.suppress(OSError):
        (STATE / "locks").mkdir(parents=True, exist_ok=True)
    threading.Thread(target=end_when_silent, daemon=True).start()
    threading.Thread(target=prepare, daemon=True).start()
    for line in sys.stdin.buffer:
        last_heard = time.monotonic()
        request = json.loads(line)
        if request["do"] not in AT_ONCE:
            if request["do"] != "beat":
                at_work.add(request["id"])
            threading.Thread(target=answer, args=(request,), daemon=True).start()
            continue
        answer(request)
    end(0)
