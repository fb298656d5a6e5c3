"""Which address serves which domain and path: an app's structure, as the proxy is to know it. Pure values.

A service that takes traffic has two slots, blue and green, each with fixed addresses. The structure says what
each slot would serve; the live link alone says which slot does. So an ordinary release, whose port, domains
and replicas are those of the one before, changes nothing here and reloads nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from immutable_local.app import Service

Slot = Literal["blue", "green"]
SLOTS: tuple[Slot, Slot] = ("blue", "green")


def other(slot: Slot) -> Slot:
    return "green" if slot == "blue" else "blue"


@dataclass(frozen=True)
class Side:
    """What one slot of a service serves, and from where."""

    port: int
    addresses: tuple[str, ...]
    domains: tuple[str, ...]
    path: str
    strip_path: bool
    max_body: int = Service.max_body
    response_timeout: float = Service.response_timeout

    @classmethod
    def of(cls, service: Service, addresses: Iterable[str]) -> Side:
        assert service.port is not None
        return cls(
            port=service.port,
            addresses=tuple(addresses)[: service.replicas],
            domains=service.domains,
            path=service.path,
            strip_path=service.strip_path,
            max_body=service.max_body,
            response_timeout=service.response_timeout,
        )

    def claims(self) -> Iterator[tuple[str, str]]:
        """Every domain and path that it serves."""
        for domain in self.domains:
            yield domain, self.path


@dataclass(frozen=True)
class Structure:
    """An app's routes. `arrived` orders the apps of a host: the first also answers as the default site."""

    app: str
    arrived: int
    sides: Mapping[str, Mapping[Slot, Side]]
    addresses: Mapping[str, Mapping[Slot, tuple[str, ...]]]

    def with_side(self, service: str, slot: Slot, side: Side | None) -> Structure:
        of_service = {k: v for k, v in self.sides.get(service, {}).items() if k != slot}
        if side is not None:
            of_service[slot] = side
        sides = {**self.sides, service: of_service}
        return replace(self, sides={name: each for name, each in sides.items() if each})

    def without(self, service: str) -> Structure:
        return replace(
            self,
            sides={name: each for name, each in self.sides.items() if name != service},
            addresses={name: each for name, each in self.addresses.items() if name != service},
        )

    def settled(self, services: Iterable[Service], slots: Mapping[str, Slot]) -> Structure:
        """What these services serve from the slots that are live, and nothing else.

        Their idle sides look like the live ones: the next release of this shape changes no structure. Each
        slot has an address for each replica.
        """
        serving = {each.name: each for each in services if each.takes_traffic and each.name in slots}
        settled = self
        for name in (self.sides.keys() | self.addresses.keys()) - serving.keys():
            settled = settled.without(name)
        needed = {
            name: {slot: given[: serving[name].replicas] for slot, given in of_service.items()}
            for name, of_service in settled.addresses.items()
        }
        settled = replace(settled, addresses=needed)
        for name in settled.addresses:
            idle = other(slots[name])
            side = Side.of(serving[name], settled.addresses[name][idle])
            settled = settled.with_side(name, idle, side)
        return settled

    def address(self, service: str, slot: Slot, replica: int) -> str | None:
        """Where this replica (1, 2, 3...) at a slot is found; None when it takes no traffic."""
        side = self.sides.get(service, {}).get(slot)
        return side.addresses[replica - 1] if side and replica <= len(side.addresses) else None

    def successor(self, service: str, was: Slot | None, now: Mapping[str, Slot]) -> Side | None:
        """Who is live `now` and gets what waits for a service that was live at slot `was`: whoever serves its
        domains and path, be it by another name; else the service itself, where it takes traffic.

        None where nobody does, or more than one: whose a request is that waits is unknown. Without `was`, the
        slot isn't known.
        """
        old = [each for slot, each in self.sides.get(service, {}).items() if was in (slot, None)]
        waited_for = {claim for each in old for claim in each.claims()}
        live = {
            name: self.sides[name][slot] for name, slot in now.items() if slot in self.sides.get(name, {})
        }
        serving = [each for each in live.values() if waited_for & set(each.claims())]
        if serving:
            return serving[0] if len(serving) == 1 else None
        return live.get(service)

    def claims(self) -> Iterator[tuple[str, str]]:
        """Every domain and path that this app serves, from either slot."""
        for of_service in self.sides.values():
            for side in of_service.values():
                yield from side.claims()

    def to_json(self) -> dict[str, Any]:
        return {
            "app": self.app,
            "arrived": self.arrived,
            "sides": {
                name: {slot: asdict(side) for slot, side in sorted(of_service.items())}
                for name, of_service in sorted(self.sides.items())
            },
            "addresses": {
                name: {slot: list(each) for slot, each in sorted(of_service.items())}
                for name, of_service in sorted(self.addresses.items())
            },
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Structure:
        return cls(
            app=told["app"],
            arrived=told["arrived"],
            sides={
                name: {slot: _side(each) for slot, each in of_service.items()}
                for name, of_service in told["sides"].items()
            },
            addresses={
                name: {slot: tuple(each) for slot, each in of_service.items()}
                for name, of_service in told["addresses"].items()
            },
        )


@dataclass(frozen=True)
class Conflict:
    """A domain and path that a service claims, and that another app of the host serves."""

    service: str
    domain: str
    path: str
    owner: str


def conflict(mine: Structure, others: Iterable[Structure]) -> Conflict | None:
    """The first claim of mine that another app has."""
    taken = {claim: each.app for each in others if each.app != mine.app for claim in each.claims()}
    for service, sides in mine.sides.items():
        for claim in replace(mine, sides={service: sides}).claims():
            if claim in taken:
                return Conflict(service, *claim, owner=taken[claim])
    return None


def _side(told: Mapping[str, Any]) -> Side:
    return Side(
        port=told["port"],
        addresses=tuple(told["addresses"]),
        domains=tuple(told["domains"]),
        path=told["path"],
        strip_path=told["strip_path"],
        # What an imm wrote that didn't know them yet must stay readable: it may be another app's.
        max_body=told.get("max_body", Side.max_body),
        response_timeout=told.get("response_timeout", Side.response_timeout),
    )
