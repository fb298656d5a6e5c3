"""What a proxy must be able to do, and choosing one. Nobody but this package knows a proxy by its kind."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from immutable_local.engine import Engine
from immutable_local.errors import UsageError
from immutable_local.routes import Slot, Structure
from immutable_local.sidecar.session import Session

KINDS = ("nginx",)


@dataclass(frozen=True)
class Flip:
    """One service's part of a flip; its proof: a request that one of `addresses` (host:port) answers."""

    service: str
    addresses: tuple[str, ...]
    host: str
    path: str
    timeout: float


class Proxy(Protocol):
    """One kind of proxy. The live link is the truth about what is live; a proxy makes traffic follow it."""

    kind: str
    images: tuple[str, ...]
    container_port: int

    def container(self) -> Mapping[str, Any]:
        """How its container is created: command, user, environment, temporary file systems."""
        ...

    def configuration(self, structures: Sequence[Structure]) -> str:
        """Its whole configuration for these apps."""
        ...

    def load(self, engine: Engine, session: Session, structures: Sequence[Structure], settle: bool) -> None:
        """Load a configuration; return when it is in force, with `settle` when nothing follows the old.

        Raises ProxyError, and the old configuration stays in force.
        """
        ...

    def point(
        self,
        session: Session,
        app: str,
        slots: Mapping[str, Slot],
        held: Collection[str],
        release: Mapping[str, Any],
    ) -> None:
        """Make a release live: one rename moves all services to their slots. `held` ones answer 503."""
        ...

    def confirm(self, session: Session, flips: Sequence[Flip]) -> None:
        """Return when the new instances have answered through the proxy. Raises ProxyError."""
        ...

    def busy(self, session: Session, app: str, slots: Mapping[str, Slot], seconds: float) -> list[str]:
        """Wait until nothing is in flight to these slots, `seconds` at most; returns services still busy."""
        ...


def choose(kind: str) -> Proxy:
    """The proxy of that kind. Raises UsageError for one that imm doesn't know."""
    if kind == "nginx":
        from immutable_local.proxy.nginx import Nginx

        return Nginx()
    raise UsageError(f"--kind {kind}: imm knows {', '.join(KINDS)}", hint=f"choose one of {', '.join(KINDS)}")
