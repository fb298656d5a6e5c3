"""Subnets and slot addresses: a /24 for each app, from a pool of imm's.

The lower half holds fixed addresses (the proxy's and the slots'); `ip_range` keeps Docker's own choice in the
upper half, else it would hand a free slot's address to anybody.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

from immutable_local import labels as label
from immutable_local.engine import Engine, Network
from immutable_local.errors import EngineRefused, ImmError, name_taken
from immutable_local.routes import SLOTS, Slot, Structure

DEFAULT_POOL = "10.201.0.0/16"
# Of RFC 1918, and of RFC 6598, which is for what is behind a provider's NAT. Other networks that nobody
# routes are a host's own already (127.0.0.0/8, 169.254.0.0/16), or no host takes their addresses.
MAY_BE_POOLS = tuple(
    map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))
)
# It must sort before every app's: the container's gateway is that of the network that sorts first, and a
# moved gateway cuts open connections.
PROXY_NETWORK = "imm-0-proxy"
FIRST_SLOT = 3
LAST_SLOT = 125
# Other commands take subnets, too: so many may be taken between the look and the creation.
ATTEMPTS = 8


def app_network(app: str) -> str:
    return f"imm-app-{app}"


def choose_subnet(pool: str, taken: Iterable[str]) -> ipaddress.IPv4Network:
    """The first /24 of the pool that overlaps with nothing taken. Raises ImmError when there is none."""
    occupied = [net for net in (_network(each) for each in taken) if net is not None]
    for subnet in ipaddress.IPv4Network(pool).subnets(new_prefix=24):
        if not any(subnet.overlaps(each) for each in occupied):
            return subnet
    raise ImmError(
        f"no free subnet is left in {pool}",
        code="no_subnet",
        hint="take apps off this host with imm down, or choose a larger pool:"
        " imm proxy up --pool 10.64.0.0/12",
    )


def host_routes(table: str) -> list[str]:
    """The subnets of Linux's /proc/net/route, without the default route."""
    routes = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or fields[1] == "00000000":
            continue
        address = ipaddress.IPv4Address(int.from_bytes(bytes.fromhex(fields[1]), "little"))
        mask = ipaddress.IPv4Address(int.from_bytes(bytes.fromhex(fields[7]), "little"))
        routes.append(f"{address}/{mask}")
    return routes


def mine(engine: Engine, app: str) -> Network | None:
    """The app's network; not one of that name that somebody else made."""
    marks = {label.ROLE: "network", label.APP: app}
    named = [each for each in engine.networks() if each.name == app_network(app)]
    return next((each for each in named if marks.items() <= each.labels.items()), None)


def ensure_network(
    engine: Engine, name: str, pool: str, image: str, labels: dict[str, str]
) -> tuple[str, bool]:
    """Make a network with a subnet of imm's, if it isn't there; returns the subnet, and whether it was made.

    Raises ImmError when a network of that name isn't imm's, or no subnet is free.
    """
    routes: list[str] | None = None
    refused: list[str] = []
    for attempt in range(ATTEMPTS):
        networks = engine.networks()
        for each in networks:
            if each.name == name:
                if label.ROLE in each.labels:
                    return each.subnet or "", False
                raise name_taken("network", name)
        if routes is None:
            routes = host_routes(
                engine.run_once(
                    image, ["cat", "/proc/net/route"], network_mode="host", app=labels.get(label.APP)
                ).decode()
            )
        taken = [each.subnet for each in networks if each.subnet]
        subnet = choose_subnet(pool, routes + taken + refused)
        upper = list(subnet.subnets(new_prefix=25))[1]
        try:
            engine.create_network(name, str(subnet), str(upper), str(subnet.network_address + 1), labels)
        except EngineRefused:
            # Somebody took the name or the subnet meanwhile; one that is being made isn't listed yet.
            if attempt == ATTEMPTS - 1:
                raise
            refused.append(str(subnet))
            continue
        return str(subnet), True
    raise AssertionError("the last attempt either returns or raises")


def remove(engine: Engine, found: Network, report: Callable[[str], Any]) -> bool:
    """Whether it went; `report` is told who keeps it: somebody may have put a container of theirs into it."""
    try:
        engine.remove_network(found.id)
    except EngineRefused as refused:
        theirs = engine.members(found.id) if refused.status == 403 else {}
        if not theirs:
            raise
        report(f"the network {found.name} stays: {', '.join(theirs)} is in it")
        return False
    return True


def proxy_address(subnet: str, taken: str | None = None) -> str:
    """The proxy's fixed address in an app's network; another one beside a proxy that still has its own."""
    base = ipaddress.IPv4Network(subnet).network_address
    return next(str(address) for address in (base + 2, base + LAST_SLOT + 1) if str(address) != taken)


def give_addresses(structure: Structure, subnet: str, service: str, replicas: int) -> Structure:
    """The structure with an address for every replica of a service, in both slots. Given ones are kept,
    but for those of a network that is gone.

    Raises ImmError when the subnet's lower half is full.
    """
    used = {a for of_service in structure.addresses.values() for each in of_service.values() for a in each}
    base = ipaddress.IPv4Network(subnet).network_address
    free = (a for a in (str(base + n) for n in range(FIRST_SLOT, LAST_SLOT + 1)) if a not in used)
    given: dict[Slot, tuple[str, ...]] = {}
    for slot in SLOTS:
        before = structure.addresses.get(service, {}).get(slot, ())
        mine = [each for each in before if ipaddress.IPv4Address(each) in ipaddress.IPv4Network(subnet)]
        while len(mine) < replicas:
            address = next(free, None)
            if address is None:
                raise ImmError(
                    f"the network of {structure.app} has no address left"
                    f" for {replicas} replicas of {service}",
                    code="no_address",
                    hint="an app has 123 addresses for all its replicas, two for each: lower replicas",
                )
            mine.append(address)
        given[slot] = tuple(mine)
    return Structure(
        app=structure.app,
        arrived=structure.arrived,
        sides=structure.sides,
        addresses={**structure.addresses, service: given},
    )


def _network(text: str) -> ipaddress.IPv4Network | None:
    try:
        return ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        return None
