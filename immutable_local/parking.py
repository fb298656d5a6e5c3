"""Requests wait, and go on, while a service with a volume for one writer is replaced."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from immutable_local.app import Service
from immutable_local.host import Host
from immutable_local.routes import Side, Slot, Structure

# A sweep that takes longer has met an instance that doesn't boot.
SWEEPING_SECONDS = 60.0
PROGRAM = Path(__file__).parent / "sidecar" / "parking.py"


def begin(host: Host, structure: Structure, slots: Mapping[str, Slot], services: Sequence[Service]) -> None:
    """Be ready to park the requests of these services, each within its bounds of time and number.

    When this client dies before it has stopped the instances of `slots`, requests go on to those.
    """
    for service in services:
        host.session.ask(
            "park",
            app=structure.app,
            service=service.name,
            program=PROGRAM.read_text(),
            seconds=service.hold,
            most=service.hold_requests,
            back=_where(structure.sides.get(service.name, {}).get(slots[service.name])),
            tcp=host.proxy.parks_on_tcp,
        )


def stopping(host: Host, app: str, services: Sequence[Service]) -> None:
    """The old instances of these services are about to stop: nothing goes back to them meanwhile."""
    for service in services:
        seconds = math.ceil(service.stop_grace_period)
        host.session.ask("park_stopping", app=app, service=service.name, seconds=seconds)


def sweeping(host: Host, app: str, services: Sequence[str]) -> None:
    """Somebody is bringing the old instances back: nothing goes to them before they are healthy."""
    for service in services:
        host.session.ask("park_stopping", app=app, service=service, seconds=SWEEPING_SECONDS)


def release(
    host: Host,
    structure: Structure,
    services: Iterable[str],
    was: Mapping[str, Slot],
    now: Mapping[str, Slot],
) -> None:
    """Let what waits for these services, which were live at the slots `was`, go on to who serves it `now`.

    Where nobody does any more, it is told to come again, at once.
    """
    for service in services:
        side = structure.successor(service, was.get(service), now)
        host.session.ask("park_release", app=structure.app, service=service, to=_where(side))


def _where(side: Side | None) -> list[tuple[str, int]]:
    """Host and port of the instances of a side."""
    return [(address, side.port) for address in side.addresses] if side else []
