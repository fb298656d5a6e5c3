"""The moment of a rename, seen from outside: the time stamp of what was renamed, to the microsecond.

The kernel stamps by its last tick, up to 4 ms early, unless somebody has looked at the stamp before that one
(Linux 6.13). So here somebody looks at each link that is made, before it is renamed.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CREATED, IGNORED = 0x100, 0x8000
EVENT = struct.Struct("iIII")


@contextmanager
def fine_stamps(folder: Path) -> Iterator[None]:
    """Look at whatever appears in this folder. A look that is too late leaves a stamp that is too early."""
    libc = ctypes.CDLL(None, use_errno=True)
    queue = libc.inotify_init1(os.O_CLOEXEC)
    watch = libc.inotify_add_watch(queue, os.fsencode(folder), CREATED)
    if queue < 0 or watch < 0:
        raise OSError(ctypes.get_errno(), f"cannot watch {folder}")
    looking = threading.Thread(target=_look, args=(queue, folder), daemon=True)
    looking.start()
    try:
        yield
    finally:
        # Of which the queue tells too, as the last thing.
        libc.inotify_rm_watch(queue, watch)
        looking.join()
        os.close(queue)


def _look(queue: int, folder: Path) -> None:
    while True:
        told = os.read(queue, 65536)
        while told:
            _, mask, _, length = EVENT.unpack_from(told)
            name = told[EVENT.size : EVENT.size + length].rstrip(b"\0")
            told = told[EVENT.size + length :]
            if mask & IGNORED:
                return
            with suppress(OSError):
                (folder / os.fsdecode(name)).lstat()
