"""The figures for people, as a table, and for programs, as JSON with the machine and every sample."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

from bench.speed.row import Row, Unit, Unmeasured

PACKAGES = ("immutable_local", "docker", "requests", "typer")


def table(rows: Sequence[Row | Unmeasured]) -> Table:
    """Each figure with its medians, their ratio, and whether it is within its bound."""
    drawn = Table(title_justify="left")
    for heading in ("figure", "imm", "by hand", "ratio", "bound", "met"):
        drawn.add_column(heading, justify="left" if heading == "figure" else "right")
    for row in rows:
        drawn.add_row(*cells(row), style="" if isinstance(row, Row) and row.met is not False else "yellow")
    return drawn


def cells(row: Row | Unmeasured) -> list[str]:
    """A row in words."""
    if isinstance(row, Unmeasured):
        return [f"{row.key}: not measured: {row.why}", "", "", "", "", ""]
    floor, ratio, limit = row.floor_median, row.ratio, row.limit
    return [
        row.figure + (f" ({row.remark})" if row.remark else ""),
        told(row.imm_median, row.unit),
        told(floor, row.unit) if floor is not None else "",
        f"{ratio:.2f}" if ratio is not None else "",
        f"{'≥' if row.bound and row.bound.least else '≤'} {told(limit, row.unit)}"
        if limit is not None
        else "",
        {True: "yes", False: "no", None: ""}[row.met],
    ]


def told(value: float, unit: Unit) -> str:
    """A value in words: '412 ms', '1.32 s', '18,300 /s', '27'."""
    if unit == "count":
        return f"{value:g}"
    if unit == "/s":
        return f"{value:,.0f} /s"
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1000:.0f} ms" if value >= 0.1 else f"{value * 1000:.1f} ms"


def markdown(rows: Sequence[Row | Unmeasured]) -> str:
    """The same table for docs/performance.md, and what is said of it: the samples of each, and the load."""
    counted = {each.key: len(each.imm) for each in rows if isinstance(each, Row)}
    samples = ", ".join(f"{key} {number}" for key, number in counted.items())
    said = f"\nMedians of so many samples: {samples}. Load average at the end: {os.getloadavg()[0]:.2f}.\n"
    head = "| figure | imm | by hand | ratio | bound | met |\n|---|---|---|---|---|---|\n"
    return head + "".join(f"| {' | '.join(cells(row))} |\n" for row in rows) + said


def write(path: Path, rows: Sequence[Row | Unmeasured], quick: bool) -> None:
    """Everything, as JSON."""
    told = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": machine(),
        "rows": [each.as_json() for each in rows if isinstance(each, Row)],
        "not_measured": {each.key: each.why for each in rows if isinstance(each, Unmeasured)},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "engine": _said("docker", "version", "--format", "{{.Server.Version}}"),
        "packages": {name: version(name) for name in PACKAGES},
        "commit": _said("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"),
        "busy": os.getloadavg()[0],
    }


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
