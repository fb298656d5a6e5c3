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
import json
import os
import sys
import threading
import time

from immutable_local.sidecar.hands.apps import (
    app_state,
    doing_clear,
    doing_write,
    live_release,
    live_releases,
    origin_write,
    structures,
)
from immutable_local.sidecar.hands.configuration import (
    proxy_age,
    proxy_read,
    proxy_rename,
    proxy_sync,
    proxy_write,
)
from immutable_local.sidecar.hands.counts import counted, metrics
from immutable_local.sidecar.hands.ground import STATE, Refusal, now
from immutable_local.sidecar.hands.health import (
    ask_all,
    ask_if_joined,
    check_begin,
    check_end,
    check_poll,
    interfaces,
)
from immutable_local.sidecar.hands.ledger import apps, ledger_append, ledger_read
from immutable_local.sidecar.hands.live import app_remove, count, counting, point, structure_write, unpoint
from immutable_local.sidecar.hands.locks import lock, still_locked, unlock
from immutable_local.sidecar.hands.logs import log_keep, log_list, log_read
from immutable_local.sidecar.hands.park import park, park_port, park_release, park_stopping
from immutable_local.sidecar.hands.proxy import answers, confirm, idle, loaded, passed, through, unconnected
from immutable_local.sidecar.hands.secrets import secret_list, secret_remove, secret_set, secret_values

# What typing itself spells so, without the milliseconds that importing it costs each session.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

HEARTBEAT_SECONDS = 10.0

last_heard = time.monotonic()
speaking = threading.Lock()


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


ASKED: dict[str, Callable[..., Any]] = {
    each.__name__: each
    for each in (
        hello, beat, lock, unlock, still_locked, app_state, structures, live_releases, live_release, apps,
        doing_write, doing_clear, origin_write, ledger_append, ledger_read,
        point, unpoint, count, counted, metrics,
        structure_write, app_remove, proxy_write, proxy_rename, proxy_read, proxy_age,
        check_begin, check_poll, check_end, ask_all, ask_if_joined, confirm, loaded, passed, idle, through,
        secret_set, secret_list, secret_values, secret_remove, log_keep, log_list, log_read,
        park, park_port, park_stopping, park_release, answers, unconnected, proxy_sync,
    )
}  # fmt: skip

# Done in the order of their coming, before what comes later is begun: the client doesn't wait for them.
AT_ONCE = ("doing_write", "doing_clear", "unlock", "check_end", "count")


def answer(request: dict[str, Any]) -> None:
    number = request.pop("id")
    try:
        told = {"id": number, "ok": ASKED[request.pop("do")](**request)}
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
    with speaking:
        sys.stdout.buffer.write(json.dumps(told).encode() + b"\n")
        sys.stdout.buffer.flush()


def end(code: int) -> None:
    """End this session. No write is waited for: each is whole or not at all."""
    for flag in list(counting):
        # Nobody reads these counts any more, and they cost each request a little.
        with contextlib.suppress(OSError):
            flag.unlink()
    os._exit(code)


def end_when_silent() -> None:
    """A client that froze holds nothing: what it held is free again after HEARTBEAT_SECONDS."""
    while True:
        silent = time.monotonic() - last_heard
        if silent > HEARTBEAT_SECONDS:
            end(3)
        time.sleep(max(0.05, HEARTBEAT_SECONDS - silent))


def prepare() -> None:
    """What health checks and proofs need costs 30 ms: imported while the client is busy with the engine."""
    import http.client  # noqa: F401
    import shutil  # noqa: F401


def main() -> None:
    global last_heard  # noqa: PLW0603 (one process is one session)
    os.umask(0o022)
    with contextlib.suppress(OSError):
        (STATE / "locks").mkdir(parents=True, exist_ok=True)
    threading.Thread(target=end_when_silent, daemon=True).start()
    for number, line in enumerate(sys.stdin.buffer):
        last_heard = time.monotonic()
        request = json.loads(line)
        if request["do"] in AT_ONCE:
            answer(request)
        else:
            threading.Thread(target=answer, args=(request,), daemon=True).start()
        if number == 0:
            threading.Thread(target=prepare, daemon=True).start()
    end(0)
