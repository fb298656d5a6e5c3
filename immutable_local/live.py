"""What the live link names: the release that is live, and where each of its services is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from immutable_local.routes import Slot


@dataclass(frozen=True)
class LiveService:
    """One service of what is live: its slot, what its instances were made from, and their names."""

    slot: Slot
    spec: str
    instances: tuple[str, ...]
    secrets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Live:
    """What the live link names. Requests to `held` services wait until their new instances are there; what is
    `counted` is being compared with another release by what it answers."""

    release: int
    identity: str
    image: str
    since: str
    services: Mapping[str, LiveService]
    git: str | None = None
    dirty: bool | None = None
    held: tuple[str, ...] = ()
    counted: bool = False

    @property
    def instances(self) -> set[str]:
        return {name for each in self.services.values() for name in each.instances}

    @property
    def slots(self) -> dict[str, Slot]:
        return {name: each.slot for name, each in self.services.items()}

    def to_json(self) -> dict[str, Any]:
        return {
            "release": self.release,
            "identity": self.identity,
            "image": self.image,
            "since": self.since,
            "git": self.git,
            "dirty": self.dirty,
            "held": list(self.held),
            "counted": self.counted,
            "services": {
                name: {
                    "slot": each.slot,
                    "spec": each.spec,
                    "instances": list(each.instances),
                    "secrets": dict(each.secrets),
                }
                for name, each in self.services.items()
            },
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Live:
        return cls(
            release=told["release"],
            identity=told["identity"],
            image=told["image"],
            since=told["since"],
            git=told["git"],
            dirty=told.get("dirty"),
            held=tuple(told["held"]),
            counted=told.get("counted", False),
            services={
                name: LiveService(each["slot"], each["spec"], tuple(each["instances"]), each["secrets"])
                for name, each in told["services"].items()
            },
        )
