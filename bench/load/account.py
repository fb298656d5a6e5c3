"""The account of a running load: kept while it runs, turned into a report at its end."""

import json
import time
from array import array
from dataclasses import dataclass, field

from bench.load.report import Loss, Served, ShapeReport

_EPOCH = time.time() - time.monotonic()
_INSTANCES = 1000
"""How many different answers are told apart; where there are more, they don't say who answers."""


def clock() -> float:
    """Seconds since the epoch, by a clock that never jumps."""
    return _EPOCH + time.monotonic()


class Going:
    """Whether the load goes on: until it is stopped, or its time or its number of requests is used up."""

    def __init__(self, seconds: float, requests: int) -> None:
        self.began = clock()
        self.why: str | None = None
        self._end = self.began + seconds
        self._left = requests

    def __bool__(self) -> bool:
        if self.why is None and clock() >= self._end:
            self.why = "time"
        return self.why is None

    def spend(self) -> None:
        """Use up one request."""
        self._left -= 1
        if self._left <= 0 and self.why is None:
            self.why = "count"


@dataclass(slots=True)
class Account:
    """What the clients of one shape sent and lost."""

    shape: str
    clients: int
    going: Going
    served: "Instances"
    sent: int = 0
    drained: int = 0
    losses: list[Loss] = field(default_factory=list)
    sent_at: "array[float]" = field(default_factory=lambda: array("d"))
    took: "array[float]" = field(default_factory=lambda: array("d"))

    def send(self) -> float:
        """A request is about to be sent: the moment."""
        self.sent += 1
        self.going.spend()
        return clock()

    def answered(self, sent: float, took: float) -> None:
        """A request was answered, wholly and rightly."""
        self.sent_at.append(sent)
        self.took.append(took)

    def lose(self, cause: str, sent: float, reused: int) -> None:
        """A request was lost."""
        self.losses.append(Loss(self.shape, cause, sent, clock(), reused))

    def report(self) -> ShapeReport:
        """The account as a value."""
        return ShapeReport(
            self.shape, self.clients, self.sent, tuple(self.losses), self.drained, self.sent_at, self.took
        )


class Instances:
    """Who answered, and when: told by the answers' bodies, which are as many as there are instances."""

    def __init__(self) -> None:
        self._counts: dict[bytes, list[float]] = {}

    def answered(self, body: bytes, sent: float, at: float) -> None:
        """An instance answered with this body."""
        seen = self._counts.get(body)
        if seen is None:
            if len(self._counts) < _INSTANCES:
                self._counts[body] = [1, sent, at, sent, at]
            return
        seen[0] += 1
        seen[1] = min(seen[1], sent)
        seen[3] = max(seen[3], sent)
        seen[4] = at

    def report(self) -> tuple[Served, ...]:
        """The instances that said in JSON who they are, in the order of their first answers."""
        found = []
        for body, (count, first_sent, first_answered, last_sent, last_answered) in self._counts.items():
            try:
                said = json.loads(body)
            except ValueError:
                continue
            if isinstance(said, dict) and "version" in said:
                found.append(
                    Served(
                        version=str(said["version"]),
                        instance=str(said.get("instance", "")),
                        count=int(count),
                        first_sent=first_sent,
                        first_answered=first_answered,
                        last_sent=last_sent,
                        last_answered=last_answered,
                    )
                )
        return tuple(found)
