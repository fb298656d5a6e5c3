"""Who gives a command, and which project it is about."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

# A repository's configuration may be a stranger's, and nothing of it may run here. At what is asked below
# that would be its monitor of files; a hook, where git notes what it saw; what fetches an object that is
# missing; and filters, which `_differs` names one by one, as git has no switch for all of them.
NOTHING_RUNS = ("-c", "safe.bareRepository=explicit", "-c", "core.fsmonitor=", "-c", "fetch.bundleURI=")
NOTHING_FETCHED = {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": ""}
# A filter's setting, whose name `git -c` can be told.
FILTER = re.compile(r"filter\.([\w.-]+)\.[\w-]+", re.ASCII)


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


def commit(folder: Path) -> tuple[str, bool | None] | None:
    """The commit that is checked out, shortened, and whether the folder differs from it: None where git can't
    tell."""
    short = git(folder, "rev-parse", "--short", "HEAD")
    return (short, _differs(folder)) if short else None


def _differs(folder: Path) -> bool | None:
    """Whether anything is changed, staged or new; in submodules, whether another commit is checked out.

    Files are compared without filters, and only where git remembers another time or size of them.
    """
    settings = git(folder, "config", "--list", "--name-only", "-z")
    if settings is None:
        return None
    switches = []
    for setting in settings.split("\0"):
        if setting.startswith("filter."):
            known = FILTER.fullmatch(setting)
            if known is None:
                return None
            # Git runs no `clean` beside a `process`, and takes an empty one for nothing.
            for off in ("process=", "required=false"):
                switches += ["-c", f"filter.{known[1]}.{off}"]
    told = git(folder, *switches, "status", "--porcelain", "--ignore-submodules=dirty", "--", ".")
    return None if told is None else bool(told)


def git(folder: Path, *words: str) -> str | None:
    """What git answers about a folder; None when there is no git or no repository."""
    try:
        told = subprocess.run(
            ["git", "-C", str(folder), *NOTHING_RUNS, *words],
            env={**os.environ, **NOTHING_FETCHED},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # Names of folders are bytes: two that differ stay two.
    return told.stdout.decode(errors="backslashreplace").strip() if told.returncode == 0 else None
