"""One forwarded connection to an engine behind ssh.

`ssh -L` forwards a local socket to the engine's: 0.3 s once and then about a millisecond for each request,
where a connection of its own for each would cost 0.3 s every time.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from immutable_local.errors import EngineError

ENGINE_SOCKET = "/var/run/docker.sock"
CONNECT_SECONDS = 15.0
# Ends ssh when this process ends, in whatever way: its standard input, a pipe from here, then closes.
WATCH = """\
exec 3<&0
"$@" 3<&- & ssh=$!
(read -r _ <&3; kill "$ssh") 2>/dev/null & watch=$!
wait "$ssh"; code=$?
kill "$watch" 2>/dev/null
rm -rf -- "$0"
exit "$code"
"""


def forward(url: str) -> str:
    """The path of a local socket that reaches the engine of `ssh://[user@]host[:port][/path/of/socket]`.

    The connection lives as long as this process. Raises EngineError when ssh cannot connect.
    """
    try:
        asked = urlsplit(url)
        port = asked.port
    except ValueError as wrong:
        raise EngineError(
            f"{url} cannot be reached: that is no host and port", hint="use ssh://user@host[:port]"
        ) from wrong
    if not asked.hostname or asked.hostname.startswith("-") or (asked.username or "").startswith("-"):
        raise EngineError(f"{url} cannot be reached: it names no host", hint="use ssh://user@host[:port]")
    program = shutil.which("ssh")
    if program is None:
        raise EngineError(
            f"{url} needs an ssh client, and there is none here", hint="install OpenSSH's client"
        )
    folder = Path(tempfile.mkdtemp(prefix="imm-ssh-"))
    local = folder / "engine.sock"
    remote = asked.path if asked.path not in ("", "/") else ENGINE_SOCKET
    command = [program, "-nNT", "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes"]
    command += ["-o", f"ConnectTimeout={int(CONNECT_SECONDS)}", "-o", "ServerAliveInterval=5"]
    command += ["-L", f"{local}:{remote}"]
    if port:
        command += ["-p", str(port)]
    place = f"{asked.username}@{asked.hostname}" if asked.username else asked.hostname
    command.append(place)
    complaints = (folder / "ssh.log").open("w+b")
    # A session of its own: Ctrl-C in the terminal must not cut the connection that undoes what was begun.
    ssh = subprocess.Popen(
        ["/bin/sh", "-c", WATCH, str(folder), *command],
        stdin=subprocess.PIPE,
        stdout=complaints,
        stderr=complaints,
        start_new_session=True,
    )
    atexit.register(_close, ssh)
    deadline = time.monotonic() + CONNECT_SECONDS
    reached = None
    while reached is None and ssh.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
        reached = _reaches(local) if local.exists() else None
    if reached:
        return str(local)
    complaints.seek(0)
    said = complaints.read().decode(errors="replace").strip().splitlines()[-5:]
    if reached is None:
        raise EngineError(
            f"no connection to {url}",
            details=said or [f"ssh was not connected after {CONNECT_SECONDS:.0f} s"],
            hint=f"try it by hand: ssh {f'-p {port} ' if port else ''}{place}"
            " (a key or an agent is needed: nothing is asked here)",
        )
    raise EngineError(
        f"ssh reaches {asked.hostname}, but no engine answers on its {remote}",
        details=said,
        hint="start Docker there, see whether this user may use it (docker group),"
        " or name another socket: ssh://HOST/path/of/docker.sock",
    )


def _reaches(local: Path) -> bool | None:
    """Whether an engine answers behind this socket; None when ssh doesn't listen on it yet."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_SECONDS)
        try:
            probe.connect(os.fspath(local))
        except OSError:
            return None
        try:
            probe.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return probe.recv(1) != b""
        except OSError:
            return False


def _close(ssh: subprocess.Popen[bytes]) -> None:
    assert ssh.stdin is not None
    ssh.stdin.close()
    ssh.wait()
