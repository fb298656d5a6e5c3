"""Swap under load, behind each kind of proxy, and count what is lost: `python -m bench.swap --swaps 20`"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.swap.figures import Run
from bench.swap.machine import described
from bench.swap.references import reloaded, stopped_then_started
from bench.swap.swaps import Mix, app_on, swaps_under_load
from bench.swap.table import said, table
from immutable_local.proxy import KINDS
from tests.proxies.place import Place, image
from tests.remote.second_engine import SecondEngine, why_not

REFERENCE_FLIPS = 10


def main() -> int:
    """Run what is asked for: 0 when nothing was lost, and the references lost what they must."""
    asked = _asked()
    console = Console(width=None if sys.stdout.isatty() else 140)
    if reason := why_not():
        console.print(f"bench.swap needs an engine of its own: {reason}")
        return 2
    kinds = KINDS if asked.kind == "both" else (asked.kind,)
    images = [image(each) for each in dict.fromkeys(("python", "nginx", *kinds))]
    python, nginx = images[:2]
    runs: list[Run] = []

    def show(run: Run) -> None:
        runs.append(run)
        console.print(table(run))
        for line in said(run):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if asked.json:
            _write(asked.json, {"machine": described(place.engine), "images": images}, runs)

    with tempfile.TemporaryDirectory() as folder, SecondEngine.running(images) as engine:
        place = Place(Path(folder), python, engine)
        try:
            for kind in kinds:
                place.switch(kind)
                app = app_on(place, f"bench-{kind}")
                show(
                    swaps_under_load(
                        place,
                        kind,
                        app,
                        swaps=asked.swaps,
                        requests=asked.requests // len(kinds),
                        mix=Mix(),
                        say=lambda line: console.print(line, highlight=False),
                    )
                )
            if asked.references:
                show(reloaded(place, app, nginx, flips=REFERENCE_FLIPS, mix=Mix()))
                show(stopped_then_started(place, app, flips=REFERENCE_FLIPS, mix=Mix()))
        finally:
            place.engine.close()
    proved = all(each.as_it_must_be for each in runs)
    swapped = [each for each in runs if not each.must_lose]
    console.print(
        f"{sum(len(each.swaps) for each in swapped)} swaps, {sum(each.sent for each in swapped):,} requests,"
        f" {sum(each.lost for each in swapped)} lost" + ("" if proved else "; NOT as it must be, see above"),
        style="bold",
        highlight=False,
    )
    return 0 if proved else 1


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.swap", description=__doc__)
    parser.add_argument("--swaps", type=_positive, default=20, metavar="N", help="behind each proxy (20)")
    parser.add_argument("--kind", choices=[*KINDS, "both"], default="both")
    parser.add_argument(
        "--requests",
        type=_positive,
        default=100_000,
        metavar="N",
        help="at least, in all: the swaps are spread over them (100000)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--no-references",
        dest="references",
        action="store_false",
        help="leave the ways of swapping out that must lose",
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _write(file: Path, about: dict[str, Any], runs: list[Run]) -> None:
    file.write_text(json.dumps({**about, "runs": [each.to_json() for each in runs]}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
