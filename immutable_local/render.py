"""Progress, tables and errors for people; JSON lines for programs.

Results go to standard output, all else to standard error. With `--json` standard output holds JSON alone.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TextIO

from immutable_local.errors import ImmError
from immutable_local.events import Event, Note, Result, Step, StepEvent

# The builder's output is shown as it comes once a build has taken this long.
QUIET_BUILD_SECONDS = 3.0
IN_WORDS: dict[Step, str] = {
    "lock": "lock",
    "sweep": "sweep",
    "build": "build the image",
    "seal": "seal the release",
    "hold": "hold requests",
    "stop_old": "stop the old instances",
    "start": "start the new instances",
    "check_health": "check their health",
    "flip": "flip",
    "watch": "watch the new release",
    "drain": "drain",
    "retire": "retire the old instances",
    "prune": "prune",
}
# What is only worth a line when it took time.
QUICK_SECONDS = 0.5
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
HISTORY_HEAD = ("RELEASE", "EVENT", "AT (UTC)", "BY", "TOOK", "COMMIT", "WHY")
# As much of a cell is shown on a terminal of any width.
READABLE = 40
QUICK_STEPS: tuple[Step, ...] = ("lock", "sweep", "prune", "drain", "seal")


class Terminal:
    """What a person sees. Colours only on a terminal, and never with NO_COLOR."""

    def __init__(self, quiet: bool = False, color: bool | None = None, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.quiet = quiet
        wanted = self.stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self.color = wanted if color is None else color and wanted
        self._building: float | None = None
        self._held_back: list[str] = []

    def hear(self, event: Event) -> None:
        """Show one event of a deployment."""
        if self.quiet:
            return
        if isinstance(event, Note):
            self._note(event)
        else:
            self._step(event)

    def error(self, error: ImmError) -> None:
        """What failed, what is known, what is still true, what to do next."""
        head = error.message + (f"; {error.stands}" if error.stands else "")
        self._line(f"{self.paint('error:', '31;1')} {visible(head)}")
        for detail in error.details:
            self._line(f"  {visible(detail)}")
        if error.hint:
            self._line(f"  {self.paint('next:', '1')} {visible(error.hint)}")

    def build_begins(self) -> None:
        """From now on the builder's output is held back, until it has taken long."""
        self._building, self._held_back = time.monotonic(), []

    def paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.color else text

    def _note(self, note: Note) -> None:
        if note.kind == "output":
            self._builders_output(note.text)
        elif note.kind == "warning":
            self._line(f"{self.paint('warning:', '33')} {visible(note.text)}")
        else:
            self._line(f"  {visible(note.text)}")

    def _builders_output(self, text: str) -> None:
        if self._building is not None and time.monotonic() - self._building < QUIET_BUILD_SECONDS:
            self._held_back.append(text)
            return
        for line in [*self._held_back, text]:
            self._line(self.paint(f"  | {line}", "2"))
        self._held_back = []

    def _step(self, event: StepEvent) -> None:
        if event.step == "build" and event.state == "begun":
            self.build_begins()
        if event.step not in IN_WORDS or event.state in ("begun", "skipped"):
            return
        seconds = event.seconds or 0.0
        if event.state == "done" and event.step in QUICK_STEPS and seconds < QUICK_SECONDS:
            return
        mark = self.paint("✓", "32") if event.state == "done" else self.paint("✗", "31")
        self._line(f"{mark} {IN_WORDS[event.step]:<26} {seconds:6.2f} s")

    def _line(self, text: str) -> None:
        # A terminal that is gone, or the full disk of a file, decides nothing.
        with suppress(OSError):
            print(text, file=self.stream, flush=True)


class JsonLines:
    """What a program sees: one object a line, as things happen."""

    def __init__(self, app: str, notes: Terminal) -> None:
        self.app = app
        self.notes = notes

    def hear(self, event: Event) -> None:
        if isinstance(event, Note):
            self.notes.hear(event)
            return
        if event.step == "build" and event.state == "begun":
            self.notes.build_begins()
        told: dict[str, Any] = {
            "at": now(),
            "app": self.app,
            "event": "step",
            "step": event.step,
            "state": event.state,
            "release": event.release,
        }
        if event.seconds is not None:
            told["seconds"] = event.seconds
        print_json(told)


def result_json(result: Result, app: str) -> dict[str, Any]:
    """The last line of `up --json` and `revert --json`."""
    told: dict[str, Any] = {
        "at": now(),
        "app": app or None,
        "event": "result",
        "outcome": result.outcome,
        "release": result.release,
        "previous": result.previous,
        "seconds": result.seconds,
        "url": result.url,
    }
    if result.remarks:
        told["remarks"] = list(result.remarks)
    if result.error is not None:
        told["error"] = result.error.as_json()
    return told


def result_text(result: Result, app: str) -> str:
    """How a deployment ended, for a person."""
    where = f" at {result.url}" if result.url else ""
    if result.outcome == "unchanged":
        head = (
            f"nothing to do: release {result.release} of {app} is live{where}"
            if result.release is not None
            else f"nothing to do: {app} is not deployed"
        )
    elif result.outcome == "down":
        head = f"{app} is off this host"
    else:
        before = f", in place of release {result.previous}" if result.previous else ""
        if result.previous == result.release:
            # A secret was set anew, or an instance was gone.
            before = f", with new instances ({'; '.join(result.causes)})" if result.causes else ""
        head = f"release {result.release} of {app} is live{where}{before}"
    return "\n".join([f"{head} ({result.seconds:.1f} s)", *(f"  {remark}" for remark in result.remarks)])


def print_json(told: Any) -> None:
    """One JSON value on one line of standard output."""
    # In one piece: an interruption that comes between a line and its end would join it to the next.
    sys.stdout.write(json.dumps(told, separators=(", ", ": ")) + "\n")
    sys.stdout.flush()


def table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    """Columns as wide as their content; no borders, so that it can be cut and searched."""
    rows = [[visible(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [head, *rows]
    ]
    return "\n".join(lines)


def visible(text: str) -> str:
    """What an application said, as a part of what imm says: it moves no cursor, and has no colours."""
    return "".join(
        each if each.isprintable() or each in "\n\t\xa0" else each.encode("unicode_escape").decode()
        for each in COLOURS.sub("", text)
    )


def ago(then: str) -> str:
    """How long ago a moment was, in whole units that have passed: '3 s', '5 min', '2 h', '4 d'."""
    try:
        moment = datetime.fromisoformat(then.replace("Z", "+00:00"))
    except ValueError:
        return then
    seconds = max(0, int((datetime.now(UTC) - moment).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def history_table(records: Sequence[Mapping[str, Any]], width: int | None = None) -> str:
    """The ledger's records for a person; WHY is cut at the terminal's `width`, where there is one."""
    lines = table(history_rows(records), HISTORY_HEAD).splitlines()
    if width is None:
        return "\n".join(lines)
    longest = max(width, lines[0].index("WHY") + READABLE)
    return "\n".join(line if len(line) <= longest else f"{line[: longest - 1]}…" for line in lines)


def history_rows(records: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The ledger's records, the release first, as that is what `imm revert N` wants."""
    rows = []
    for record in records:
        if record["event"] == "sealed":
            continue
        seconds = f"{record['seconds']:.1f} s" if record.get("seconds") is not None else ""
        git = f"{record['git']}{' (dirty)' if record.get('dirty') else ''}" if record.get("git") else ""
        release = str(record["release"]) if record.get("release") is not None else ""
        rows.append(
            [
                release,
                record["event"],
                record["at"][:19].replace("T", " "),
                record.get("by") or "",
                seconds,
                git,
                " ".join(_why(record).split()),
            ]
        )
    return rows


def _why(record: Mapping[str, Any]) -> str:
    """Why it happened: the most telling fact, else the whole sentence."""
    if record.get("facts"):
        return f"{record['code']}: {record['facts'][-1]}"
    return record.get("error") or "; ".join(record.get("causes") or ())


def now() -> str:
    """This moment as the JSON of the contract has it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
