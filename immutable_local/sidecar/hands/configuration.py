"""The proxy's configuration: its files, each written whole."""

from __future__ import annotations

import os
import time

from immutable_local.sidecar.hands.ground import PROXY, named, sync_folder, write_whole
from immutable_local.sidecar.hands.locks import need


def proxy_write(name: str, content: str) -> None:
    need("host")
    write_whole(PROXY / named(name), content.encode())


def proxy_rename(old: str, new: str) -> None:
    need("host")
    os.rename(PROXY / named(old), PROXY / named(new))
    sync_folder(PROXY)


def proxy_read(name: str) -> str | None:
    try:
        return (PROXY / named(name)).read_text(errors="replace")
    except FileNotFoundError:
        return None


def proxy_age(name: str) -> float:
    """How many seconds ago this file got its name."""
    return time.time() - (PROXY / named(name)).stat().st_ctime


def proxy_sync(folder: str, files: dict[str, str]) -> None:
    """Let a folder of the proxy's hold these files and no others."""
    need("host")
    home = PROXY / named(folder)
    home.mkdir(exist_ok=True)
    for name, content in files.items():
        try:
            same = (home / named(name)).read_text(errors="replace") == content
        except FileNotFoundError:
            same = False
        if not same:
            rename_in(folder, name, content)
    for name in set(os.listdir(home)) - set(files):
        (home / name).unlink()


def rename_in(folder: str, name: str, content: str) -> None:
    """A file written outside of its folder: whoever watches the folder sees it appear, once and whole."""
    write_whole(PROXY / f"next-{named(name)}", content.encode())
    os.rename(PROXY / f"next-{named(name)}", PROXY / named(folder) / named(name))
    sync_folder(PROXY / folder)
