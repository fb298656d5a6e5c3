"""The session begins before the Docker SDK is loaded: each takes some 80 ms, and they take them side by side.

Only where the engine's socket is on this machine, and docker's configuration adds nothing to how it is asked.
Everything else, and all that goes wrong, is left to the SDK (`engine.connect`), which begins anew and says
what is the matter.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from immutable_local import labels as label
from immutable_local.errors import SessionLost
from immutable_local.listed import Container, by_role, container_of
from immutable_local.sidecar.session import COMMAND, Session

SOCKET = "/var/run/docker.sock"
SCHEME = "unix://"
# An engine at work answers in milliseconds. One that doesn't is waited for by the SDK.
ANSWER_SECONDS = 5.0
HEAD_BYTES = 16384
SAID = {"User-Agent": "imm", "Content-Type": "application/json"}
UPGRADED = {"Connection": "Upgrade", "Upgrade": "tcp"}
# What docker's configuration may say of the engine, or of how it is asked.
SAYS_MORE = {"currentContext", "HttpHeaders"}


@dataclass(frozen=True)
class Early:
    """What an engine told already: its API's version, the containers with imm's roles as it lists them, and a
    session with the sidecar that runs, if one does. `path` is that engine's socket."""

    path: str
    api: str
    listed: Sequence[Container]
    session: Session | None

    def is_of(self, local: str) -> bool:
        """Whether that is the engine which the SDK reaches so."""
        return local == SCHEME + self.path

    def forget(self) -> None:
        if self.session is not None:
            self.session.close()


def reach() -> Early | None:
    """List who is there and begin a session; None when that is better left to the SDK. Changes nothing."""
    path = local_socket()
    if path is None:
        return None
    try:
        engine = _Local(path)
        asked = quote(json.dumps({"label": [label.ROLE]}))
        api, told = engine.answer_to("GET", f"/containers/json?all=1&filters={asked}")
        listed = [container_of(each) for each in told]
        sidecar = by_role(listed).get("sidecar")
        if sidecar is None or not sidecar.running:
            return Early(path, api, listed, None)
        return Early(path, api, listed, Session(engine.attached(sidecar.id)))
    except (
        OSError,
        http.client.HTTPException,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        SessionLost,
    ):
        return None


def local_socket() -> str | None:
    """The engine's socket, when the environment or nothing at all says which one it is. The SDK looks for
    docker's configuration in more places: whether it means the same engine is asked once it is loaded."""
    named = os.environ.get("DOCKER_HOST", "")
    if named and not named.startswith(f"{SCHEME}/"):
        return None
    folder = os.environ.get("DOCKER_CONFIG")
    configuration = (Path(folder) if folder else Path.home() / ".docker") / "config.json"
    try:
        more = SAYS_MORE & set(json.loads(configuration.read_bytes()))
    except FileNotFoundError:
        more = set()
    except (OSError, ValueError, TypeError, RuntimeError):
        return None
    if more or (not named and os.environ.get("DOCKER_CONTEXT", "") not in ("", "default")):
        return None
    return named.removeprefix(SCHEME) or SOCKET


class _Local(http.client.HTTPConnection):
    """One connection to an engine's socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self.path = path

    def connect(self) -> None:
        reaching = socket.socket(socket.AF_UNIX)
        try:
            reaching.settimeout(ANSWER_SECONDS)
            reaching.connect(self.path)
        except BaseException:
            reaching.close()
            raise
        self.sock = reaching

    def answer_to(self, method: str, path: str, **told: Any) -> tuple[str, Any]:
        """The version of the engine's API, and its answer. Raises HTTPException for anything else."""
        self.request(method, path, json.dumps(told) if told else None, SAID)
        answer = self.getresponse()
        content = answer.read()
        api = answer.headers["Api-Version"]
        if api is None or answer.status not in (200, 201):
            raise http.client.HTTPException(answer.status)
        return api, json.loads(content)

    def attached(self, container: str) -> socket.socket:
        """Run a session's program in a container; this connection becomes its standard input and output."""
        asked = {"Cmd": COMMAND, "AttachStdin": True, "AttachStdout": True, "AttachStderr": True}
        _, made = self.answer_to("POST", f"/containers/{container}/exec", **asked)
        self.request("POST", f"/exec/{made['Id']}/start", '{"Detach": false}', SAID | UPGRADED)
        # Byte by byte: what comes after the head is the program's, and http.client would read it too.
        head = b""
        while not head.endswith(b"\r\n\r\n") and len(head) < HEAD_BYTES:
            byte = self.sock.recv(1)
            if not byte:
                break
            head += byte
        if not head.endswith(b"\r\n\r\n") or b" 101 " not in head.partition(b"\r\n")[0]:
            raise http.client.HTTPException(head)
        return self.sock
