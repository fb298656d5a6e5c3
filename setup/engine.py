"""The Docker engine: the one that answers, else Debian's, installed and started."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from setup import packages
from setup.step import StopError, run, step

SOCKET = Path("/var/run/docker.sock")
LOG = Path("/var/log/imm-dockerd.log")
START_SECONDS = 60
ASK_SECONDS = 20
NO_ENGINE = 4
USE_LOCAL = "use this machine's own: 'unset DOCKER_HOST DOCKER_CONTEXT; docker context use default'"


def ready() -> None:
    """Make sure that an engine answers and that its command line is there. Raises StopError, exit code 4."""
    named = named_engine()
    if named is not None:
        _ask_named(named)
    elif (refused := ping(SOCKET)) is not None:
        _make_answer(refused)
    if docker() is None:
        _install_or_stop(
            ["docker-cli"] if packages.has_apt() and packages.available("docker-cli") else ["docker.io"]
        )


def docker() -> str | None:
    """The path of the docker command line."""
    return shutil.which("docker")


def named_engine() -> str | None:
    """What DOCKER_HOST or the current docker context names, if it isn't this machine's usual socket."""
    host = os.environ.get("DOCKER_HOST")
    if host:
        return None if host in (f"unix://{SOCKET}", "unix:///run/docker.sock") else f"DOCKER_HOST={host}"
    context = os.environ.get("DOCKER_CONTEXT") or _current_context()
    return f"docker context {context}" if context not in ("", "default") else None


def ping(path: Path) -> OSError | None:
    """None if an engine answers on this unix socket within two seconds, else what went wrong."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(str(path))
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
            status = connection.recv(64).split(b"\r\n")[0]
    except OSError as refused:
        return refused
    return (
        None
        if b" 200 " in status
        else OSError(errno.EPROTO, f"{path} answered {status.decode(errors='replace')}")
    )


def _current_context() -> str:
    home = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        config = json.loads((home / "config.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return ""
    return str(config.get("currentContext") or "")


def _ask_named(named: str) -> None:
    """An engine that somebody chose is never replaced by another one: it answers, or setup stops."""
    program = docker()
    if program is None:
        raise StopError(
            f"{named} names an engine, but there is no docker command to ask it with: install Docker's "
            f"command line, or {USE_LOCAL}",
            NO_ENGINE,
        )
    try:
        run([program, "version", "--format", "{{.Server.Version}}"], timeout=ASK_SECONDS)
    except StopError as refused:
        raise StopError(
            f"the engine of {named} does not answer: start it, or {USE_LOCAL}\n  {refused}",
            NO_ENGINE,
        ) from refused


def _make_answer(refused: OSError) -> None:
    if refused.errno in (errno.EACCES, errno.EPERM):
        raise StopError(
            f"a Docker engine is here, but this user may not use {SOCKET}: "
            "run 'sudo usermod -aG docker $USER' and log in again",
            NO_ENGINE,
        )
    if sys.platform == "darwin":
        raise StopError(
            "no Docker engine answers: start Docker Desktop, OrbStack or Colima, then try again", NO_ENGINE
        )
    if shutil.which("dockerd") is None:
        _install_or_stop(["docker.io"])
    if os.geteuid() != 0:
        raise StopError(
            "the Docker engine is installed but not running: 'sudo systemctl start docker'", NO_ENGINE
        )
    with step("starting the Docker engine"):
        if Path("/run/systemd/system").is_dir():
            _start_by_systemd()
        elif ping(SOCKET) is not None:
            _start_by_hand()


def _start_by_systemd() -> None:
    try:
        run(["systemctl", "enable", "--now", "docker"], timeout=START_SECONDS)
    except StopError as refused:
        raise StopError(f"{refused}\n  see 'journalctl -u docker'", NO_ENGINE) from refused
    _wait_until_it_answers(lambda: False, lambda: "see 'journalctl -u docker'")


def _start_by_hand() -> None:
    """Where no systemd runs: dockerd in a session of its own, so that Ctrl-C here does not reach it."""
    with open(LOG, "ab") as log:
        before = log.tell()
        started = subprocess.Popen(
            ["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )

    def last_lines() -> str:
        with open(LOG, "rb") as log:
            log.seek(before)
            return "\n  ".join(["last lines of its log:", *log.read().decode().splitlines()[-15:]])

    _wait_until_it_answers(lambda: started.poll() is not None, last_lines)


def _wait_until_it_answers(ended: Callable[[], bool], last_lines: Callable[[], str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while (refused := ping(SOCKET)) is not None:
        if ended() or time.monotonic() > deadline:
            raise StopError(f"the Docker engine does not answer: {refused}\n  {last_lines()}", NO_ENGINE)
        time.sleep(0.05)


def _install_or_stop(names: list[str]) -> None:
    if packages.may_install():
        packages.install(*names)
        return
    how = f"'sudo apt-get install {' '.join(names)}'" if packages.has_apt() else "see your system's manual"
    raise StopError(
        f"Docker is missing and only root on Debian or Ubuntu can install it from here: {how}", NO_ENGINE
    )
