"""A row of the table: what was measured beside its floor, and whether it is within its bound. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

Unit = Literal["s", "/s", "count"]


@dataclass(frozen=True)
class Bound:
    """How far imm may be from its floor: `times` the floor and `plus`, or `flat` where that is more.

    With `least` more is better, and the bound is what it must reach.
    """

    times: float = 0.0
    plus: float = 0.0
    flat: float = 0.0
    least: bool = False

    def of(self, floor: float) -> float:
        """The bound beside this floor, in the row's unit."""
        return max(self.times * floor + self.plus, self.flat)


@dataclass(frozen=True)
class Row:
    """One figure: every sample of imm's, and of the floor's in the same run. Times are in seconds."""

    key: str
    figure: str
    imm: tuple[float, ...]
    by_hand: str = ""
    """What the floor does; empty when there is none."""
    floor: tuple[float, ...] = ()
    bound: Bound | None = None
    unit: Unit = "s"
    remark: str = ""

    @property
    def imm_median(self) -> float:
        return median(self.imm)

    @property
    def floor_median(self) -> float | None:
        return median(self.floor) if self.floor else None

    @property
    def ratio(self) -> float | None:
        """imm's median as a multiple of the floor's."""
        return self.imm_median / self.floor_median if self.floor_median else None

    @property
    def limit(self) -> float | None:
        """The bound in the row's unit, None when the row has none."""
        return self.bound.of(self.floor_median or 0.0) if self.bound else None

    @property
    def met(self) -> bool | None:
        """Whether the median is within its bound; None when there is none."""
        if self.bound is None or self.limit is None:
            return None
        return self.imm_median >= self.limit if self.bound.least else self.imm_median <= self.limit

    def as_json(self) -> dict[str, Any]:
        """Everything, each sample included."""
        return {
            "key": self.key,
            "figure": self.figure,
            "unit": self.unit,
            "imm": {"median": self.imm_median, "samples": list(self.imm)},
            "floor": {"does": self.by_hand, "median": self.floor_median, "samples": list(self.floor)}
            if self.floor
            else None,
            "ratio": self.ratio,
            "limit": self.limit,
            "met": self.met,
            "remark": self.remark,
        }


@dataclass(frozen=True)
class Unmeasured:
    """A row that this machine can't measure, and why."""

    key: str
    why: str


def missed(rows: Sequence[Row | Unmeasured]) -> list[str]:
    """The keys of the rows that aren't within their bound."""
    return [each.key for each in rows if isinstance(each, Row) and each.met is False]
