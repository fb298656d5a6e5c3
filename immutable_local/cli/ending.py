"""How a command ends: its exit code, and what is said of an error or an interruption."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

from immutable_local.cli.options import asked
from immutable_local.errors import ImmError

if TYPE_CHECKING:
    from immutable_local.events import Teller
    from immutable_local.render import Terminal

# Ctrl-C, `kill`, and the terminal's end: what ends a command, and lets it undo what it began.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
UNDONE = "what wasn't live is undone"
# Whose last line of JSON is a result, whatever went wrong.
WITH_A_RESULT = ("up", "revert", "down")


@contextmanager
def interruptible(
    tell: Teller, left: str = UNDONE, hint: str = "imm status shows what is live"
) -> Iterator[None]:
    """SIGTERM and SIGHUP undo as Ctrl-C does. Raises ImmError when they have: then `left` is true.

    Once it is over, one way or the other, they come too late: the process only tells how it ended.
    """
    # Who ignores it already was started by nohup.
    numbers = [each for each in ENDING if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN]

    def ignore() -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)

    def interrupt(number: int, frame: Any) -> None:
        # Whoever is impatient doesn't cut the undoing short.
        ignore()
        raise KeyboardInterrupt

    for each in numbers:
        signal.signal(each, interrupt)
    try:
        yield
    except KeyboardInterrupt as stopped:
        raise interrupted(tell, left, hint) from stopped
    finally:
        # What is over is told, and as what it was.
        ignore()


def interrupted(tell: Teller, left: str = UNDONE, hint: str = "imm status shows what is live") -> ImmError:
    if tell.reached:
        return ImmError(
            f"interrupted after the flip: {tell.reached}",
            code="interrupted",
            hint="what is left to retire is swept by the next imm up, revert, prune or down",
        )
    if not tell.undone:
        return ImmError(
            "interrupted; what wasn't live could not be undone",
            code="interrupted",
            hint="the next imm up, revert, prune or down sweeps it",
        )
    return ImmError(f"interrupted; {left}", code="interrupted", hint=hint)


def fail(error: ImmError) -> NoReturn:
    if asked.debug and error.__traceback__ is not None:
        import traceback

        traceback.print_exception(error)
    # Whether anybody can hear it doesn't change how it ended.
    with suppress(OSError):
        the_terminal().error(error)
    try:
        if asked.json and not error.told:
            print_json(failure_json(error) if asked.command in WITH_A_RESULT else {"error": error.as_json()})
        sys.stdout.flush()
    except OSError:
        nobody_reads()
    sys.exit(error.exit_code)


def failure_json(error: ImmError, tell: Teller | None = None, app: str = "") -> dict[str, Any]:
    """The last line of JSON of a deployment that failed."""
    from immutable_local.events import Result
    from immutable_local.render import result_json

    if tell is None:
        return result_json(Result("failed", error=error), app)
    return result_json(Result("failed", tell.release, tell.previous, tell.seconds, error=error), app)


def error_for(failed: Exception) -> ImmError:
    if isinstance(failed, OSError):
        where = f" ({failed.filename})" if failed.filename else ""
        return ImmError(
            f"this machine refused: {failed.strerror or failed}{where}",
            code="machine_refused",
            hint="see its permissions and its free space, then run the command again",
        )
    return ImmError(
        f"imm met something it doesn't know: {type(failed).__name__}: {failed}",
        code="bug",
        hint="please report it with what imm --debug shows",
    )


def open_streams() -> None:
    """Whoever starts imm may have closed them, or read letters that aren't imm's."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (as long as the process)
        elif hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def nobody_reads() -> None:
    """What is still printed goes nowhere; so does what Python itself writes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def the_terminal() -> Terminal:
    from immutable_local.render import Terminal

    return Terminal(quiet=asked.quiet, color=asked.color)


def print_json(told: Any) -> None:
    from immutable_local.render import print_json

    print_json(told)
