"""The engine's list of containers, line by line, and which of them are the proxy and its sidecar.

Labels alone don't tell: a container inherits its image's, and an image those of what it is made of. Imm's own
have a name and a volume beside them, which nothing inherits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from immutable_local import labels as label

PROXY = "imm-proxy"
# The name of one that is to replace it, until it does.
NEXT = "imm-proxy-next"
SIDECAR = "imm-sidecar"
STATE_VOLUME = "imm-state"
PROXY_VOLUME = "imm-proxy"
# What has such a name is imm's own with this role, and this volume.
STANDING = {
    PROXY: ("proxy", PROXY_VOLUME),
    NEXT: ("proxy", PROXY_VOLUME),
    SIDECAR: ("sidecar", STATE_VOLUME),
}


@dataclass(frozen=True)
class Container:
    """One line of the list. `volumes` are the names of those that it mounts."""

    id: str
    name: str
    image: str
    labels: Mapping[str, str]
    state: str
    addresses: Mapping[str, str]
    command: str = ""
    volumes: frozenset[str] = frozenset()

    @property
    def running(self) -> bool:
        return self.state == "running"


def container_of(told: Mapping[str, Any]) -> Container:
    """One line of the list as the engine tells it."""
    networks = (told.get("NetworkSettings") or {}).get("Networks") or {}
    return Container(
        id=told["Id"],
        name=(told.get("Names") or ["/" + told["Id"][:12]])[0].lstrip("/"),
        image=told.get("ImageID") or told.get("Image") or "",
        labels=told.get("Labels") or {},
        state=told.get("State") or "",
        addresses={name: each.get("IPAddress") or "" for name, each in networks.items()},
        command=told.get("Command") or "",
        volumes=frozenset(each["Name"] for each in told.get("Mounts") or () if each.get("Name")),
    )


def by_role(listed: Sequence[Container]) -> dict[str, Container]:
    """The proxy's and the sidecar's containers, by role, running or not.

    "next" is a proxy that was to replace the other one when that was interrupted: it may be the one that
    runs.
    """
    found = {}
    for each in listed:
        role, volume = STANDING.get(each.name, ("", ""))
        if each.labels.get(label.ROLE) == role and volume in each.volumes:
            found["next" if each.name == NEXT else role] = each
    return found
