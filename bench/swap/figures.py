"""What a run of swaps came to, as values. Moments are seconds since the epoch, times are in seconds."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.load import Latencies, Loss, Report, ShapeReport


@dataclass(frozen=True)
class Swap:
    """One swap."""

    command: str
    """`up`, `revert`, or what a reference does."""
    began: float
    ended: float
    flip: float | None = None
    """How long the step took, with its confirmation, as the command told."""
    live: float | None = None
    """When the live state changed; where that isn't known to the microsecond, too early, never too late."""


@dataclass(frozen=True)
class Spent:
    """Seconds of processors that a run used, of those that there were."""

    cores: int
    there: float
    """All that the cores had to give."""
    used: float
    load: float
    commands: float
    """By the commands, `imm` and what it runs; the engine's own work isn't in it."""


@dataclass(frozen=True)
class Shape:
    """What the clients of one shape saw."""

    name: str
    clients: int
    sent: int
    lost: int
    steady: Latencies
    """Of requests sent while nothing was swapped."""
    swapping: Latencies
    """Of those sent between a command's begin and its end."""


@dataclass(frozen=True)
class Run:
    """One way of swapping, under load."""

    name: str
    must_lose: bool
    swaps: tuple[Swap, ...]
    report: Report
    spent: Spent

    @property
    def sent(self) -> int:
        return self.report.sent

    @property
    def lost(self) -> int:
        return self.report.lost

    @property
    def as_it_must_be(self) -> bool:
        """Nothing lost; or something, where the reference must lose."""
        return (self.lost > 0) == self.must_lose

    @property
    def flips(self) -> list[float]:
        """How long each whole flip took, with its confirmation."""
        return [each.flip for each in self.swaps if each.flip is not None]

    @property
    def first_answers(self) -> list[float]:
        """For each swap, from the change of the live state to the first answer of a process not seen before.

        An answer counts when a client has it. Fewer than there are swaps when a new process never answered.
        """
        found = []
        ends = [each.began for each in self.swaps[1:]] + [self.report.ended]
        for swap, end in zip(self.swaps, ends, strict=True):
            new = [
                each.first_answered
                for each in self.report.served
                if swap.began <= each.first_answered < end and swap.live is not None
            ]
            if new and swap.live is not None:
                found.append(min(new) - swap.live)
        return found

    @property
    def shapes(self) -> list[Shape]:
        return [self._shape(each) for each in self.report.shapes]

    def _shape(self, told: ShapeReport) -> Shape:
        begins = [each.began for each in self.swaps]
        steady: list[float] = []
        swapping: list[float] = []
        for sent, took in zip(told.sent_at, told.took, strict=True):
            last = bisect_right(begins, sent) - 1
            (swapping if last >= 0 and sent < self.swaps[last].ended else steady).append(took)
        return Shape(
            told.shape,
            told.clients,
            told.sent,
            len(told.losses),
            Latencies.of(steady),
            Latencies.of(swapping),
        )

    def losses(self) -> Iterator[str]:
        """Each loss: its shape and cause, and the moment, told from the swap before it."""
        for loss in self.report.losses:
            yield f"{loss.shape}: {loss.cause}, {self._moment(loss)}, after {loss.reused} on its connection"

    def _moment(self, loss: Loss) -> str:
        number = bisect_right([each.began for each in self.swaps], loss.at)
        if number == 0:
            return f"{loss.at - self.report.began:.3f} s after the begin"
        swap = self.swaps[number - 1]
        since = swap.began if swap.live is None or loss.at < swap.live else swap.live
        what = f"{swap.command} {number}" if since == swap.began else f"the flip of {swap.command} {number}"
        return f"sent {loss.sent - since:+.3f} s and lost {loss.at - since:+.3f} s from {what}"

    def to_json(self) -> dict[str, Any]:
        """All figures; times in milliseconds."""
        return {
            "name": self.name,
            "must_lose": self.must_lose,
            "swaps": len(self.swaps),
            "seconds": round(self.report.ended - self.report.began, 1),
            "sent": self.sent,
            "lost": self.lost,
            "shapes": {
                each.name: {
                    "clients": each.clients,
                    "sent": each.sent,
                    "lost": each.lost,
                    "steady": _latencies(each.steady),
                    "during_swaps": _latencies(each.swapping),
                }
                for each in self.shapes
            },
            "losses": list(self.losses()),
            "first_answer_ms": [_milliseconds(each) for each in self.first_answers],
            "first_answer_ms_median": middle(self.first_answers),
            "flip_step_ms": [_milliseconds(each) for each in self.flips],
            "flip_step_ms_median": middle(self.flips),
            "whole_swap_ms_median": middle([each.ended - each.began for each in self.swaps]),
            "cpu": {
                "cores": self.spent.cores,
                "used": share(self.spent.used, self.spent.there),
                "load": share(self.spent.load, self.spent.there),
                "commands": share(self.spent.commands, self.spent.there),
                "load_of_its_core": share(self.spent.load, self.report.ended - self.report.began),
            },
        }


def share(part: float, whole: float) -> float:
    """A part of a whole, from 0 to 1."""
    return round(part / whole, 3) if whole else 0.0


def middle(seconds: Sequence[float]) -> float | None:
    """The median in milliseconds; None of nothing."""
    return _milliseconds(median(seconds)) if seconds else None


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)


def _latencies(told: Latencies) -> dict[str, float]:
    return {
        "answered": told.count,
        "p50_ms": _milliseconds(told.p50),
        "p99_ms": _milliseconds(told.p99),
        "max_ms": _milliseconds(told.max),
    }
