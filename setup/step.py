"""What all groups share: one line per step, commands with deadlines, turns to take, whole files."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imm-setup"


class StopError(Exception):
    """What cannot be set up here, and what to do about it. `code` is the exit code: 1 failed, 4 no engine."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


# Every step taken so far, in order: when there was none, all was there.
TAKEN: list[str] = []


@contextmanager
def step(what: str) -> Iterator[None]:
    """One line: what is done, said before it begins, and the seconds it took."""
    TAKEN.append(what)
    print(f"setup: {what} ...", end="", flush=True)
    begun = time.monotonic()
    try:
        yield
    except BaseException:
        print(f" stopped after {time.monotonic() - begun:.1f} s", flush=True)
        raise
    print(f" {time.monotonic() - begun:.1f} s", flush=True)


def run(argv: Sequence[str | Path], *, timeout: float, env: Mapping[str, str] | None = None) -> str:
    """What the command printed. `timeout` is in seconds; StopError carries its last lines if it failed."""
    command = " ".join(str(word) for word in argv)
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            check=True,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            env={**os.environ, **(env or {})},
        )
    except FileNotFoundError as missing:
        raise StopError(f"{argv[0]} is not installed") from missing
    except subprocess.TimeoutExpired as late:
        raise StopError(f"no end after {timeout:.0f} s: {command}") from late
    except subprocess.CalledProcessError as failed:
        last = "\n  ".join((failed.stderr + failed.stdout).strip().splitlines()[-12:])
        raise StopError(f"exit code {failed.returncode}: {command}\n  {last}") from failed
    return done.stdout


@contextmanager
def only_one() -> Iterator[None]:
    """Two setups on one machine take turns: they share the engine, apt and the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with step("waiting for another setup on this machine"):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` at the end: an interrupted step leaves nothing, or all of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        yield Path(name)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder in the cache for as long as it takes."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="tmp-") as name:
        yield Path(name)


def warn(text: str) -> None:
    print(f"setup: {text}", file=sys.stderr, flush=True)
