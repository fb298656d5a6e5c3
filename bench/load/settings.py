"""What load to make: the shapes and their numbers, the bounds, and where it may go."""

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

SHAPES = {
    "busy": "always one request after the other, on a kept-alive connection",
    "idle": "gaps of up to 200 ms on a kept-alive connection",
    "distant": "the same, over a link with a round trip of 20 ms",
    "fresh": "a new connection for each request",
    "slow": "answers that take seconds",
    "streams": "server-sent events, all of which must come, in order",
    "uploads": "chunked bodies sent over seconds",
    "websockets": "an echo every 100 ms",
    "notes": "a row written every 100 ms",
}


class NotLoopback(ValueError):
    """The load was to go to an address that isn't this machine's own."""


@dataclass(frozen=True)
class Settings:
    """The numbers of a load; times are in seconds."""

    path: str = "/version"
    """What the clients of short requests ask for."""
    idle_gap: float = 0.2
    round_trip: float = 0.02
    fresh_gap: float = 0.01
    """Between two connections of a client: without it the kernel may run out of ports first."""
    slow: float = 3.0
    stream_events: int = 20
    stream_interval: float = 0.15
    upload_pieces: int = 25
    upload_piece: int = 16_384
    upload_interval: float = 0.1
    socket_life: float = 5.0
    """How long a client keeps a websocket."""
    socket_interval: float = 0.1
    note: str = "from the load"
    note_interval: float = 0.1
    drain: float | None = None
    """Of the deployment: a websocket that was open for longer may be ended. None: no websocket may be cut."""
    timeout: float = 30.0
    """For one answer, beyond the time that it was asked to take."""
    pause_after_loss: float = 0.05
    """So that a server that is down isn't asked, and counted as lost, ten thousand times a second."""


@dataclass(frozen=True)
class Order:
    """A load to make."""

    address: str
    port: int
    host: str
    """For the Host header."""
    shapes: tuple[tuple[str, int], ...]
    seconds: float
    requests: int
    settings: Settings

    def __post_init__(self) -> None:
        if not ip_address(self.address).is_loopback:
            raise NotLoopback(f"{self.address} is not a loopback address: a load goes to this machine only")
        for shape, clients in self.shapes:
            if shape not in SHAPES:
                raise ValueError(f"{shape}: no such shape; there are {', '.join(SHAPES)}")
            if not 1 <= clients <= 1000:
                raise ValueError(f"{shape}: from 1 to 1000 clients, not {clients}")
        if not 0 < self.seconds <= 3600:
            raise ValueError(f"a load lasts for up to 3600 seconds, not {self.seconds:g}")
        if not 0 < self.requests <= 10_000_000:
            raise ValueError(f"a load sends up to 10,000,000 requests, not {self.requests}")


def order(
    url: str,
    host: str | None,
    shapes: dict[str, int],
    seconds: float,
    requests: int,
    settings: Settings | None,
) -> Order:
    """Check what is asked for. `NotLoopback` or `ValueError` when it won't be done."""
    parts = urlsplit(url)
    name = parts.hostname or ""
    if parts.scheme != "http":
        raise ValueError(f"{url}: only http:// can be loaded")
    # RFC 6761 reserves localhost and all below it for loopback; not every resolver knows.
    address = "127.0.0.1" if name == "localhost" or name.endswith(".localhost") else name
    try:
        ip_address(address)
    except ValueError:
        raise NotLoopback(
            f"{name or url} is not a loopback address: a load goes to this machine only"
        ) from None
    port = parts.port or 80
    wanted = host or parts.netloc
    if ":" not in wanted and port != 80:
        wanted = f"{wanted}:{port}"
    return Order(address, port, wanted, tuple(shapes.items()), seconds, requests, settings or Settings())
