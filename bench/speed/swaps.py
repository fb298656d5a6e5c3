"""What an app's clients notice while it is swapped: throughput and the slowest percent of the answers."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.load import Load, Report
from bench.speed.by_hand import ByHand
from bench.speed.project import Project
from bench.speed.row import Bound, Row

# With gaps: clients that never pause would take the cores from the swap, and it from them.
SHAPES = {"idle": 60}
SETTLED_SECONDS = 1.0


def rows(project: Project, hand: ByHand, times: int) -> list[Row]:
    """Steady load; then somebody deploys by hand beside it; then the app itself is swapped; and again."""
    proxy = project.imm("proxy", "status").told[0]
    project.up("before the load")
    hand.up(project.folder)
    moments: list[tuple[float, float, float, float]] = []
    longest = 1.0
    with Load(f"http://127.0.0.1:{proxy['port']}", host=f"{project.name}.localhost", shapes=SHAPES) as load:
        for number in range(times):
            time.sleep(SETTLED_SECONDS)
            began = time.time()
            time.sleep(longest)
            beside = time.time()
            project.version(f"by hand under load {number}")
            hand.up(project.folder)
            swapping = time.time()
            longest = project.up(f"under load {number}").seconds
            moments.append((began, beside, swapping, time.time()))
        report = load.stop()
    steady, busy, swapped = (
        [_seen(report, each[stretch], each[stretch + 1]) for each in moments] for stretch in range(3)
    )
    without = "the same load without a swap"
    often = f"requests a second of {SHAPES['idle']} clients with gaps, during a swap"
    slow = "the slowest percent of their answers, during a swap"
    beside_it = "the slowest percent while somebody deploys another app by hand, for comparison"
    lost = f"requests lost, of {report.sent:,} in {times} swaps"
    return [
        Row("swaps", lost, (report.lost,), bound=Bound(flat=0), unit="count"),
        Row("swaps", often, _first(swapped), without, _first(steady), Bound(times=0.9, least=True), "/s"),
        Row("swaps", slow, _second(swapped), without, _second(steady), Bound(times=1.5)),
        Row("swaps", beside_it, _second(busy), without, _second(steady)),
    ]


def _seen(report: Report, since: float, until: float) -> tuple[float, float]:
    """Requests a second and the 99th percentile of those sent in this time."""
    latencies = report.shape("idle").latencies(since, until)
    return latencies.count / (until - since), latencies.p99


def _first(seen: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    return tuple(each[0] for each in seen)


def _second(seen: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    return tuple(each[1] for each in seen)
