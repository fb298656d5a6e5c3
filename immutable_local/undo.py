"""What was begun is undone in reverse order; an undo step never hides the error that caused it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from immutable_local.errors import ImmError


class Undo(ExitStack):
    """An ExitStack of undo steps. One that fails is reported to `report`, and the others still run."""

    def __init__(self, report: Callable[[str], Any]) -> None:
        super().__init__()
        self._report = report

    def by(self, step: Callable[..., Any], *arguments: Any) -> None:
        """Undo by calling `step(*arguments)`."""
        self.callback(self._run, step, arguments)

    def keep(self) -> None:
        """The point of no return: nothing of what was begun is undone any more."""
        self.pop_all()

    def _run(self, step: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            step(*arguments)
        except ImmError as failed:
            self._report(
                f"while undoing ({step.__name__.strip('_')}): {failed.message}; the next command finishes it"
            )
