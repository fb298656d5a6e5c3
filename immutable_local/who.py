"""Who gives a command, and which project it is about."""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path


def who() -> str:
    """user@host of this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A number without an entry in passwd.
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


@dataclass(frozen=True)
class Origin:
    """Where an app comes from: marks that tell one project from another of the same name.

    `marks` are the repository's root commits with the folder inside it, and this machine's folder itself: a
    clone shares the first, a folder that becomes a repository later keeps the second.
    """

    marks: frozenset[str]
    where: str

    def same_project(self, marks: frozenset[str]) -> bool:
        return bool(self.marks & marks)


def origin(folder: Path) -> Origin:
    folder = folder.resolve()
    # A path is bytes, which need not be UTF-8.
    here = os.fsencode(f"{socket.gethostname()}:{folder}")
    marks = {f"folder:{hashlib.sha256(here).hexdigest()[:16]}"}
    inside = git(folder, "rev-parse", "--show-prefix")
    roots = git(folder, "rev-list", "--max-parents=0", "HEAD")
    if inside is not None and roots:
        marks |= {f"git:{root}:{inside}" for root in roots.split()}
    return Origin(frozenset(marks), here.decode(errors="replace"))


def commit(folder: Path) -> tuple[str, bool] | None:
    """The commit that is checked out, shortened, and whether the folder differs from it."""
    short = git(folder, "rev-parse", "--short", "HEAD")
    if not short:
        return None
    return short, bool(git(folder, "status", "--porcelain", "--", "."))


def git(folder: Path, *words: str) -> str | None:
    """What git answers about a folder; None when there is no git or no repository."""
    try:
        told = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            # Names of folders are bytes: two that differ stay two.
            errors="backslashreplace",
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told.stdout.strip() if told.returncode == 0 else None
