"""The `imm` command line, as a user runs it: its JSON is read here, its errors go to the terminal."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Failed(Exception):
    """The demo cannot go on. Its text says why."""


@dataclass(frozen=True)
class Step:
    """A step of a deployment that is over."""

    name: str
    state: str
    """`done`, `failed`"""
    seconds: float


@dataclass(frozen=True)
class Deployment:
    """How an `up` or a `revert` ended."""

    exit_code: int
    outcome: str
    """`live`, `unchanged`, `failed`"""
    release: int | None
    url: str | None
    seconds: float
    error: str | None
    """The error's code."""
    steps: tuple[Step, ...]

    @property
    def flip(self) -> float | None:
        """How long the flip took, with its confirmation, in seconds; None when there was none."""
        return next((step.seconds for step in self.steps if step.name == "flip"), None)


class Imm:
    """`imm` for one imm.toml."""

    def __init__(self, file: Path) -> None:
        beside = Path(sys.executable).with_name("imm")
        self.program = [str(beside)] if beside.exists() else [sys.executable, "-m", "immutable_local"]
        self.file = file

    def deploy(self, *words: str, show: Callable[[Step], None]) -> Deployment:
        """Run `imm up` or `imm revert` to its end, and show each step as it ends."""
        steps: list[Step] = []
        result: dict[str, Any] = {}
        with subprocess.Popen(self._command(*words), stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            for line in running.stdout:
                event = json.loads(line)
                kind = event.get("event")
                if kind == "result":
                    result = event
                elif kind == "step" and event["state"] in ("done", "failed"):
                    steps.append(Step(event["step"], event["state"], float(event["seconds"])))
                    show(steps[-1])
        if not result:
            raise Failed(f"imm {' '.join(words)} ended with {running.returncode} and no result")
        return Deployment(
            exit_code=running.returncode,
            outcome=result["outcome"],
            release=result.get("release"),
            url=result.get("url"),
            seconds=float(result.get("seconds") or 0),
            error=(result.get("error") or {}).get("code"),
            steps=tuple(steps),
        )

    def ask(self, *words: str) -> Any:
        """What `imm status` or `imm history` says."""
        done = subprocess.run(self._command(*words), stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise Failed(f"imm {' '.join(words)} ended with {done.returncode}")
        return json.loads(done.stdout)

    def _command(self, *words: str) -> list[str]:
        return [*self.program, "-f", str(self.file), "--json", "--quiet", *words]
