"""Whole swaps by `imm` under load: the container is replaced each time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.load import Load
from bench.swap.figures import Run, Swap
from bench.swap.machine import Clock
from bench.swap.stamps import fine_stamps
from tests.host import Project
from tests.proxies.place import Place, seconds


@dataclass(frozen=True)
class Mix:
    """Clients of every shape. What lasts is over soon: each swap waits for what the old instance is at."""

    steady: float = 0.3
    """Seconds between two swaps, at least: so that there is something to compare with."""

    shapes: Mapping[str, int] = field(
        default_factory=lambda: {
            "busy": 2,
            "idle": 40,
            "distant": 40,
            "fresh": 2,
            "slow": 3,
            "streams": 3,
            "uploads": 3,
            "websockets": 4,
        }
    )
    settings: Mapping[str, Any] = field(
        default_factory=lambda: {
            "slow": 1.0,
            "stream_events": 10,
            "stream_interval": 0.1,
            "upload_pieces": 10,
            "upload_interval": 0.1,
            "socket_life": 1.0,
        }
    )


def app_on(place: Place, name: str) -> Project:
    """The app that is swapped, deployed: version 1 of it."""
    app = place.project(name)
    place.up(app.version("1", drain="30s"))
    return app


def swaps_under_load(
    place: Place,
    name: str,
    app: Project,
    *,
    swaps: int,
    requests: int,
    mix: Mix,
    say: Callable[[str], None] = lambda _: None,
) -> Run:
    """`imm up` of a changed file and `imm revert` in turn, spread over at least so many requests."""
    done: list[Swap] = []
    clock = Clock.now()
    with fine_stamps(place.live_folder(app)), place.load(app, mix.shapes, **mix.settings) as load:
        for number in range(1, swaps + 1):
            _steady(load, mix, requests * number // (swaps + 1))
            done.append(_swap(place, app, number))
            if number % 10 == 0:
                progress = load.progress()
                say(f"{name}: {number} swaps, {progress.sent:,} requests, {progress.lost} lost")
        _steady(load, mix, requests)
        report = load.stop()
        return Run(name, False, tuple(done), report, clock.spent(report))


def _swap(place: Place, app: Project, number: int) -> Swap:
    if number % 2:
        app.version(str(number + 1))
        words = "up"
    else:
        words = "revert"
    began = time.time()
    outcome = place.imm(app, words)
    return Swap(
        words,
        began,
        time.time(),
        flip=seconds(outcome, "flip"),
        live=place.went_live(app),
    )


def _steady(load: Load, mix: Mix, sent: int) -> None:
    """Wait until so many requests were sent."""
    end = time.monotonic() + mix.steady
    while load.progress().sent < sent or time.monotonic() < end:
        time.sleep(0.1)
