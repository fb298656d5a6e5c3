"""What all of imm's hands stand on: where state is, the network, how a file is written, what a refusal is."""

from __future__ import annotations

import json
import os
import pathlib
import re
import socket
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STATE = pathlib.Path("/imm/state/data")
PROXY = pathlib.Path("/imm/proxy/data")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,120}")


class Refusal(Exception):
    """What the client is told instead of an answer."""

    def __init__(self, kind: str, **facts: Any) -> None:
        super().__init__(kind)
        self.told = {"kind": kind, **facts}


def interfaces() -> list[str]:
    """The networks that this sidecar sees: none when the proxy, whose networks they are, was restarted."""
    return [name for _, name in socket.if_nameindex() if name != "lo"]


def need_network() -> None:
    """Nothing is asked from a network that the proxy has left: no answer would say anything."""
    if not interfaces():
        raise Refusal("left_behind")


def named(name: str) -> str:
    """A name that is safe as one part of a path."""
    if not NAME.fullmatch(name):
        raise Refusal("bad_name", name=name)
    return name


def now() -> str:
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"


def write_whole(path: pathlib.Path, content: bytes, mode: int = 0o644, synced: bool = True) -> None:
    """Write under a temporary name, sync, rename: a crash leaves the old content or the new, never half.

    Who reads meanwhile finds one of them, too; that much is so without `synced`, which spares the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".new-{os.getpid()}-{threading.get_ident()}-{path.name}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            if synced:
                os.fsync(fd)
        os.rename(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if synced:
        sync_folder(path.parent)


def sync_folder(path: pathlib.Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_folder(path: pathlib.Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def read_json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, NotADirectoryError) as broken:
        raise Refusal("broken_file", path=str(path), reason=str(broken)) from broken


def write_twice(path: pathlib.Path, content: bytes) -> None:
    """As `write_whole`, with a copy for `read_twice`, which goes to the disk when there is time."""
    write_whole(copy_of(path), content, synced=False)
    write_whole(path, content)


def read_twice(path: pathlib.Path) -> Any:
    """What `write_twice` wrote, by its copy where a disk fault or a hand broke the file or took it away."""
    broken = None
    for each in (path, copy_of(path)):
        try:
            told = read_json(each)
        except Refusal as refusal:
            broken = broken or refusal
            continue
        if told is not None:
            return told
    if broken is not None:
        raise broken
    return None


def copy_of(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.copy")


def dump(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
