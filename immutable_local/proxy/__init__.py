"""What a proxy must be able to do, and choosing one. Nobody but this package knows a proxy by its kind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from immutable_local.engine import Engine
from immutable_local.errors import ProxyError, UsageError, shown
from immutable_local.live import Live
from immutable_local.routes import Slot, Structure
from immutable_local.sidecar.session import Session

KINDS = ("nginx", "traefik")
CONFIRM_SECONDS = 15.0
# What helps a proxy that doesn't follow its configuration.
AFRESH = (
    "see docker logs imm-proxy; imm proxy down --force and imm proxy up start it afresh:"
    " nobody reaches the apps meanwhile"
)
# Flag files of a generation: something is live; and no request waits.
ALIVE, COUNTED, OPEN = "alive", "counted", "open"


@dataclass(frozen=True)
class Flip:
    """One service's part of a flip; its proof: a request that one of `addresses` (host:port) answers."""

    service: str
    addresses: tuple[str, ...]
    host: str
    path: str
    timeout: float


@dataclass(frozen=True)
class Counts:
    """What a slot answered: requests in all, and those of them that ended with a status of 500 or more."""

    requests: int = 0
    errors: int = 0

    def since(self, earlier: Counts) -> Counts:
        """What came after `earlier`; a counter that begins anew has forgotten it."""
        if self.requests < earlier.requests:
            return self
        return Counts(self.requests - earlier.requests, self.errors - earlier.errors)


class Proxy(Protocol):
    """One kind of proxy. The live link is the truth about what is live; a proxy makes traffic follow it."""

    kind: str
    images: tuple[str, ...]
    container_port: int
    parks_on_tcp: bool  # where requests wait: a port of the proxy's loopback, else a unix socket

    def container(self) -> Mapping[str, Any]:
        """How its container is created: command, user, environment, temporary file systems."""
        ...

    def seeds(self, read: Callable[[str], str | None]) -> Mapping[str, str]:
        """The files to write before it starts, by their path in the proxy's volume, which `read` reads.

        What is there and whole stays: it has the routes that were there last.
        """
        ...

    def write(self, session: Session, structures: Sequence[Structure]) -> None:
        """Write its configuration for these apps, for when it starts."""
        ...

    def load(self, engine: Engine, session: Session, structures: Sequence[Structure], settle: bool) -> None:
        """Load a configuration; return when it is in force, with `settle` when nothing follows the old.

        Raises ProxyError, and the old configuration stays in force.
        """
        ...

    def point(self, session: Session, app: str, live: Live) -> None:
        """Make this live: one rename moves all services to their slots; requests to `held` ones wait.

        Returns when every new request follows.
        """
        ...

    def withdraw(self, session: Session, app: str) -> None:
        """Nothing of the app is live any more."""
        ...

    def confirm(self, session: Session, flips: Sequence[Flip]) -> None:
        """Return when the new instances have answered through the proxy. Raises ProxyError."""
        ...

    def busy(
        self, session: Session, app: str, slots: Mapping[str, Slot], seconds: float, holding: bool = False
    ) -> list[str]:
        """Wait until nothing is in flight to these slots, `seconds` at most; returns services still busy.

        `holding`: what waits just now for these slots isn't in flight to them.
        """
        ...

    def busy_once_held(
        self, session: Session, app: str, slots: Mapping[str, Slot], seconds: float
    ) -> list[str]:
        """As `busy`, of what waited in an earlier hold and went back to these slots, where that isn't to be
        told later from what waits."""
        ...

    def counts(self, session: Session, app: str, services: Collection[str]) -> dict[tuple[str, Slot], Counts]:
        """What was counted so far, by service and slot, while a live release was one that is `counted`."""
        ...


def choose(kind: str, runs_in: str = "") -> Proxy:
    """The proxy of that kind, and the container that it runs in, once there is one.

    Raises UsageError for a kind that imm doesn't know.
    """
    if kind == "nginx":
        from immutable_local.proxy.nginx import Nginx

        return Nginx(runs_in)
    if kind == "traefik":
        from immutable_local.proxy.traefik import Traefik

        return Traefik()
    raise UsageError(
        f"--kind {shown(kind)}: imm knows {', '.join(KINDS)}", hint=f"choose one of {', '.join(KINDS)}"
    )


def flags(live: Live) -> list[str]:
    """The files of a generation, whose names say what is live."""
    return [
        ALIVE,
        *([COUNTED] if live.counted else []),
        *([] if live.held or live.counted else [OPEN]),
        *(f"{service}.{slot}" for service, slot in live.slots.items()),
        *(f"{service}.held" for service in live.held),
    ]


def prove(session: Session, sock: str, flips: Sequence[Flip], unanswered: Sequence[int] = ()) -> None:
    """Return when one of each flip's addresses has answered, asked where the proxy says who answered.

    `unanswered`: statuses that the proxy gives in an instance's name when that one gave no answer. Raises
    ProxyError with what answered instead.
    """
    if not flips:
        return
    requests = [
        {"addresses": each.addresses, "host": each.host, "path": each.path, "timeout": each.timeout}
        for each in flips
    ]
    seconds = CONFIRM_SECONDS + max(each.timeout for each in flips)
    told = session.ask(
        "confirm",
        sock=sock,
        requests=requests,
        seconds=CONFIRM_SECONDS,
        unanswered=list(unanswered),
        within=seconds * 2,
    )
    if told["missing"]:
        missing = told["missing"][0]
        raise ProxyError(
            "the proxy did not reach the new instances",
            details=[
                f"GET {missing['path']} of {missing['host']} should be answered by one of:"
                f" {', '.join(missing['addresses'])}",
                f"it was answered so: {_told(told['last'])}",
            ],
            hint="see imm logs: an instance that was healthy and then refuses has often just ended;"
            " else docker logs imm-proxy, then run the command again",
        )


def _told(last: Mapping[str, Any]) -> str:
    if "failed" in last:
        return f"{last['failed']} {last['detail']}"
    return f"{last.get('status')} by {last.get('headers', {}).get('x-imm-upstream') or 'the proxy itself'}"
