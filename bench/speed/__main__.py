"""`make bench`: measure imm beside its floors, print the table, write every sample.

It asks for the engine alone: what else runs on this machine is measured too. `--only` takes keys, separated
by commas; `--quick` takes three samples of each.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from bench.speed import commands, distant, proxies, report, swaps
from bench.speed.by_hand import by_hand
from bench.speed.project import ROOT, BenchFailed, base_image, deployed
from bench.speed.row import Row, Unmeasured, missed

COMMANDS = ("status", "nothing", "up", "revert", "knows", "context", "swaps")
APART = ("nginx", "traefik", "requests", "ssh")
KEYS = ("help", "version", *COMMANDS, *APART)
SAMPLES, FEW, QUICK = 11, 7, 3

Rows = Iterator[Row | Unmeasured]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--only", help=f"some of: {', '.join(KEYS)}")
    parser.add_argument("--quick", action="store_true", help="three samples of each, for a first look")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench.json", help="where the JSON goes")
    parser.add_argument(
        "--markdown", action="store_true", help="print the table as docs/performance.md has it"
    )
    asked = parser.parse_args()
    keys = set(asked.only.split(",")) if asked.only else set(KEYS)
    if unknown := sorted(keys - set(KEYS)):
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(KEYS)}")
    # As it is where imm was installed by pip: what Python compiles once it need not compile at each start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # What was deployed is taken away again, and what was measured is told, also when it is cut short.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    console = Console(stderr=True)
    rows: list[Row | Unmeasured] = []
    try:
        for row in measured(keys, asked.quick):
            rows.append(row)
            console.print(
                "  ".join(each for each in report.cells(row) if each), markup=False, highlight=False
            )
    except BenchFailed as failed:
        print(f"bench: {failed}", file=sys.stderr)
        return 1
    finally:
        if rows:
            report.write(asked.out, rows, asked.quick)
            Console(width=None if sys.stdout.isatty() else 160).print(report.table(rows))
            print(f"every sample: {asked.out}")
    if asked.markdown:
        print(report.markdown(rows))
    if late := missed(rows):
        print(f"not within their bound: {', '.join(late)}")
    return 0


def measured(keys: set[str], quick: bool) -> Rows:
    """The rows asked for, one after the other."""
    many, few = (QUICK, QUICK) if quick else (SAMPLES, FEW)
    for word in ("help", "version"):
        if word in keys:
            yield commands.words_alone(f"--{word}", many)
    with tempfile.TemporaryDirectory(prefix="imm-bench-") as folder:
        if keys & set(COMMANDS):
            yield from on_this_engine(keys, Path(folder), many, few)
        if keys & {"nginx", "traefik"}:
            yield from proxies.rows(keys, Path(folder), few, quick)
        if keys & {"requests", "ssh"}:
            yield from distant.rows(keys, Path(folder), few)


def on_this_engine(keys: set[str], folder: Path, many: int, few: int) -> Rows:
    with ExitStack() as ending:
        hand = ending.enter_context(by_hand())
        project = ending.enter_context(deployed(folder, base_image("python")))
        rows: dict[str, Callable[[], Row | list[Row]]] = {
            "status": lambda: commands.status(project, many),
            "nothing": lambda: commands.nothing_to_do(project, many),
            "up": lambda: commands.changed_file(project, hand, few),
            "revert": lambda: commands.revert(project, hand, few),
            "knows": lambda: commands.knows(project, few),
            "context": lambda: commands.large_context(project, few),
            "swaps": lambda: swaps.rows(project, hand, few),
        }
        for key, measure in rows.items():
            if key in keys:
                row = measure()
                yield from row if isinstance(row, list) else [row]


if __name__ == "__main__":
    sys.exit(main())
