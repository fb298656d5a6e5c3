"""What happens, as values: steps for the display, a result at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from immutable_local.errors import ImmError

# What a deployment does, in its order.
Step = Literal[
    "lock",
    "sweep",
    "build",
    "seal",
    "test",
    "hold",
    "stop_old",
    "snapshot",
    "release_command",
    "start",
    "check_health",
    "flip",
    "record",
    "watch",
    "drain",
    "retire",
    "prune",
]
State = Literal["begun", "done", "failed", "skipped"]
Outcome = Literal["live", "unchanged", "failed", "down"]


@dataclass(frozen=True)
class StepEvent:
    """A step begun, done, failed or skipped. `seconds` says how long it took."""

    step: Step
    state: State
    seconds: float | None = None
    release: int | None = None


@dataclass(frozen=True)
class Note:
    """What a person wants to know meanwhile: the builder's output, a warning, what is waited for."""

    text: str
    kind: Literal["output", "warning", "waiting", "said"] = "said"


@dataclass(frozen=True)
class Result:
    """How a deployment ended."""

    outcome: Outcome
    release: int | None = None
    previous: int | None = None
    seconds: float = 0.0
    url: str | None = None
    error: ImmError | None = None
    remarks: tuple[str, ...] = ()
    # What changed, service by service.
    causes: tuple[str, ...] = ()


Event = StepEvent | Note
Listener = Callable[[Event], None]


class Teller:
    """Tells a listener what happens, and the session which step it is that an interruption would hit."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.release: int | None = None
        # What was live when the command began.
        self.previous: int | None = None
        # What is true from the point of no return on: what comes later can't undo it.
        self.reached = ""
        # What is true until then, as soon as it is known.
        self.stands = ""
        # Whether what isn't live has been undone when the command has ended.
        self.undone = True
        self.current: Step | Literal[""] = ""
        self.began = time.monotonic()
        self.at_step: Callable[[Step], Any] = lambda step: None

    @property
    def seconds(self) -> float:
        """How long the command has been at work."""
        return round(time.monotonic() - self.began, 3)

    def tell(self, event: Event) -> None:
        try:
            self.listener(event)
        except OSError:
            # Whoever listened is gone, or the disk of its file is full: that decides nothing.
            self.listener = lambda event: None

    @contextmanager
    def step(self, name: Step) -> Iterator[None]:
        began = time.monotonic()
        self.current = name
        self.at_step(name)
        self.tell(StepEvent(name, "begun", release=self.release))
        try:
            yield
        except BaseException:
            self.tell(StepEvent(name, "failed", round(time.monotonic() - began, 3), self.release))
            raise
        self.tell(StepEvent(name, "done", round(time.monotonic() - began, 3), self.release))

    def warn(self, text: str) -> None:
        self.note(text, "warning")

    def skip(self, *names: Step) -> None:
        for name in names:
            self.tell(StepEvent(name, "skipped", release=self.release))

    def note(self, text: str, kind: Literal["output", "warning", "waiting", "said"] = "said") -> None:
        self.tell(Note(text, kind))
