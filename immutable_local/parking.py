"""Requests wait, and go on, while a service with a volume for one writer is replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from immutable_local.app import Service
from immutable_local.host import Host
from immutable_local.routes import Slot, Structure

PROGRAM = Path(__file__).parent / "sidecar" / "parking.py"


def begin(host: Host, app: str, services: Sequence[Service]) -> None:
    """Be ready to park the requests of these services, each within its bounds of time and number."""
    for service in services:
        host.session.ask(
            "park",
            app=app,
            service=service.name,
            program=PROGRAM.read_text(),
            seconds=service.hold,
            most=service.hold_requests,
            tcp=host.proxy.parks_on_tcp,
        )


def release(
    host: Host, structure: Structure | None, slots: Mapping[str, Slot], services: Sequence[str]
) -> None:
    """Let parked requests go on to the instances of these slots."""
    for service in services:
        side = (
            structure.sides.get(service, {}).get(slots[service]) if structure and service in slots else None
        )
        if structure is not None and side is not None:
            to = [[address, side.port] for address in side.addresses]
            host.session.ask("park_release", app=structure.app, service=service, to=to)
