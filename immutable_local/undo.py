"""What was begun is undone in reverse order; an undo step never hides the error that caused it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from immutable_local.errors import ImmError
from immutable_local.unbroken import unbroken


class Undo:
    """Undo steps, run in reverse order at the end of a `with`, unless what was begun is kept.

    A step that fails is reported to `report`, and the others still run. An interruption cuts none of them: it
    is raised when all is undone.
    """

    def __init__(self, report: Callable[[str], Any]) -> None:
        self._report = report
        self._steps = ExitStack()
        # Whether each step that has run went well.
        self.whole = True

    def by(self, step: Callable[..., Any], *arguments: Any) -> None:
        """Undo by calling `step(*arguments)`."""
        self._steps.callback(self._run, step, arguments)

    def only_after(self, step: Callable[..., Any], *arguments: Any) -> None:
        """Undo by calling `step`, and what was begun before only when that went well: else it is in use."""
        self._steps.callback(self._run, step, arguments, decisive=True)

    def keep(self) -> None:
        """The point of no return: nothing of what was begun is undone any more."""
        self._steps.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            unbroken(self._steps.close)
        finally:
            # What an interruption kept from beginning: only the first one interrupts.
            self._steps.close()

    def _run(self, step: Callable[..., Any], arguments: tuple[Any, ...], decisive: bool = False) -> None:
        try:
            step(*arguments)
        except BaseException as failed:
            self.whole = False
            if decisive:
                self._steps.pop_all()
            if not isinstance(failed, ImmError):
                raise
            self._report(f"while undoing ({step.__name__}): {failed.message}; the next command finishes it")


class UndoWhileHeld(Undo):
    """Undo steps of one that holds something: once that is lost, what is there is another's, and stays.

    `held` is asked before each step; where it can't tell (ImmError), nothing more is undone either.
    """

    def __init__(self, report: Callable[[str], Any], held: Callable[[], bool]) -> None:
        super().__init__(report)
        self._held = held
        self.lost = False

    def by(self, step: Callable[..., Any], *arguments: Any) -> None:
        super().by(step, *arguments)
        self.only_after(self.keep_if_lost)

    def still_held(self) -> bool:
        """Whether it is; what was lost once isn't held again."""
        self.lost = self.lost or not self._held()
        return not self.lost

    def keep_if_lost(self) -> None:
        if not self.still_held():
            self.whole = False
            self.keep()
