"""What a load saw, as values. Moments are seconds since the epoch, to compare with an event's `at`."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, inf
from typing import Self


@dataclass(frozen=True)
class Loss:
    """A request that got no whole, right answer."""

    shape: str
    cause: str
    """`refused`, `reset`, `closed`, `cut in the answer`, `timeout`, `status 502`, `wrong answer: ...`"""
    sent: float
    at: float
    """When the client knew."""
    reused: int
    """How many requests its connection had answered before: 0 is a new connection."""


@dataclass(frozen=True)
class Latencies:
    """How long answers took, in seconds; all 0 when there were none."""

    count: int
    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, durations: Iterable[float]) -> Self:
        """The nearest-rank percentiles of these."""
        ranked = sorted(durations)
        if not ranked:
            return cls(0, 0.0, 0.0, 0.0)
        return cls(
            len(ranked),
            ranked[ceil(len(ranked) * 0.50) - 1],
            ranked[ceil(len(ranked) * 0.99) - 1],
            ranked[-1],
        )


@dataclass(frozen=True)
class Served:
    """What one instance answered, as far as its answers say who gave them."""

    version: str
    instance: str
    count: int
    first_sent: float
    first_answered: float
    last_sent: float
    """When the last request was sent that this instance answered."""
    last_answered: float


@dataclass(frozen=True)
class ShapeReport:
    """What the clients of one shape saw."""

    shape: str
    clients: int
    sent: int
    losses: tuple[Loss, ...]
    drained: int
    """Websockets that were ended once `Settings.drain` was over: no losses."""
    sent_at: "array[float]"
    """When each answered request was sent, beside how long it took, in seconds."""
    took: "array[float]"

    def latencies(self, since: float = -inf, until: float = inf) -> Latencies:
        """How long answers took whose requests were sent in this time."""
        if since == -inf and until == inf:
            return Latencies.of(self.took)
        return Latencies.of(
            took for sent, took in zip(self.sent_at, self.took, strict=True) if since <= sent < until
        )


@dataclass(frozen=True)
class Report:
    """The whole account of a load."""

    began: float
    ended: float
    why: str
    """Why it ended: `stopped`, `time`, `count`"""
    shapes: tuple[ShapeReport, ...]
    served: tuple[Served, ...]
    """By instance, in the order of their first answers."""
    cpu: float
    """Seconds of a processor that the load's own process used. It has one thread: most of the time between
    `began` and `ended` would mean that the load itself was the limit."""

    @property
    def sent(self) -> int:
        """How many requests were sent; each echo of a websocket is one."""
        return sum(shape.sent for shape in self.shapes)

    @property
    def losses(self) -> tuple[Loss, ...]:
        """Every loss, in the order of time."""
        return tuple(
            sorted((loss for shape in self.shapes for loss in shape.losses), key=lambda loss: loss.at)
        )

    @property
    def lost(self) -> int:
        """How many requests were lost."""
        return sum(len(shape.losses) for shape in self.shapes)

    def shape(self, name: str) -> ShapeReport:
        """What the clients of this shape saw. `KeyError` when there were none."""
        for shape in self.shapes:
            if shape.shape == name:
                return shape
        raise KeyError(name)

    def answered_by(self, version: str) -> tuple[Served, ...]:
        """The instances of this version that answered."""
        return tuple(served for served in self.served if served.version == version)


@dataclass(frozen=True)
class Progress:
    """The account so far."""

    sent: int
    lost: int
    seconds: float
    why: str | None
    """Why it ended, when it has."""
