"""Parked requests: a process for each service, which outlives its session."""

from __future__ import annotations

import json
import pathlib
import socket
import sys

from immutable_local.sidecar.hands.ground import PROXY, Refusal, dump, named
from immutable_local.sidecar.hands.locks import need
from immutable_local.sidecar.hands.start import START, packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess

parked: list[subprocess.Popen[bytes]] = []


def park_path(app: str, service: str) -> str:
    return str(PROXY / "park" / f"{named(app)}.{named(service)}")


def park_port(app: str, service: str) -> int | None:
    """The loopback port where requests wait; None when they don't, or wait at a unix socket."""
    try:
        return int(pathlib.Path(park_path(app, service) + ".port").read_text())
    except FileNotFoundError:
        return None


def park(
    app: str,
    service: str,
    program: str,
    seconds: float,
    most: int,
    back: list[list[object]],
    tcp: bool = False,
) -> bool:
    """Begin to park a service's requests, in a process of its own that outlives this session.

    `back` is where the old instances are: when the session ends early, requests go on to them.
    """
    import subprocess

    need(f"app-{app}")
    asked = json.dumps(
        {"path": park_path(app, service), "seconds": seconds, "most": most, "tcp": tcp, "back": back}
    )
    # One that still passes on what waited in an earlier deployment takes in nothing more.
    park_tell(app, service, {"close": True})
    # Its standard input ends with this session: so it knows when nobody will release what it holds.
    parking = subprocess.Popen(
        [sys.executable, "-ISB", "-c", START, asked],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    parked.append(parking)
    assert parking.stdin is not None and parking.stdout is not None
    parking.stdin.write(packed("parking", {"parking": program}))
    parking.stdin.flush()
    if parking.stdout.readline() != b"ready\n":
        raise Refusal("not_parked", app=app, service=service)
    return True


def park_stopping(app: str, service: str, seconds: float) -> None:
    """The old instances are about to stop, within `seconds`: nothing may go back to them meanwhile."""
    need(f"app-{app}")
    park_tell(app, service, {"stopping": seconds})


def park_release(app: str, service: str, to: list[list[object]]) -> dict[str, int] | None:
    """Let parked requests go on to these addresses, or be refused where there are none; how many waited, or
    None when nothing was parked."""
    need(f"app-{app}")
    return park_tell(app, service, {"to": to})


def park_tell(app: str, service: str, told: dict[str, object]) -> dict[str, int] | None:
    try:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(2.0)
            control.connect(park_path(app, service) + ".ctl")
            control.sendall(dump(told) + b"\n")
            answered: dict[str, int] = json.loads(control.makefile().readline())
            return answered
    except (OSError, ValueError):
        # Nobody parks there any more: its process ended, or the sidecar was made anew.
        return None
