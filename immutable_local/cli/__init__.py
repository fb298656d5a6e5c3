"""The command line: parse, call, render. The only place that prints and exits.

Nothing is imported that a command doesn't need: `imm --help` never loads the Docker SDK.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

import typer
from typer.exceptions import TyperException

from immutable_local.cli.commands import cli
from immutable_local.cli.ending import error_for, fail, nobody_reads, open_streams
from immutable_local.cli.options import asked, globals_first
from immutable_local.cli.proxy import proxy_cli
from immutable_local.cli.secret import secret_cli
from immutable_local.errors import ImmError, UsageError

if TYPE_CHECKING:
    from immutable_local.host import Begun

BROKEN_PIPE = 1
# What Typer makes of Ctrl-C.
INTERRUPTED = 130
# What a shell sets that asks for completion.
COMPLETING = "_IMM_COMPLETE"

cli.add_typer(proxy_cli, name="proxy")
cli.add_typer(secret_cli, name="secret")


def main(command: str | None = None, begun: Callable[[], Begun] | None = None) -> NoReturn:
    """Everything that leaves here is an exit code of the contract's. `begun`: the host, if it was begun."""
    asked.command, asked.begun = command, begun
    open_streams()
    try:
        code = cli(globals_first(sys.argv[1:]), prog_name="imm", standalone_mode=False)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except ImmError as error:
        fail(error)
    except typer.Exit as ended:
        sys.exit(ended.exit_code)
    except TyperException as wrong:
        context = getattr(wrong, "ctx", None)
        # Of an option without its value Typer doesn't tell the command.
        path = context.command_path if context else " ".join(["imm", *([command] if command else [])])
        if type(wrong).__name__ == "NoArgsIsHelpError":
            if not asked.json:
                print(wrong.format_message(), file=sys.stderr)
                sys.exit(UsageError.exit_code)
            wrong = TyperException(f"{path}: a command is missing")
        # What is still true follows it in the same sentence.
        fail(UsageError(wrong.format_message().rstrip("."), hint=f"{path} --help"))
    except (KeyboardInterrupt, typer.Abort):
        fail(ImmError("interrupted", code="interrupted", hint="run the command again"))
    except BrokenPipeError:
        nobody_reads()
        sys.exit(BROKEN_PIPE)
    except Exception as unexpected:
        if asked.debug:
            raise
        if COMPLETING in os.environ:
            # A shell asks while somebody types: what is told would stand in the middle of that line.
            sys.exit(ImmError.exit_code)
        fail(error_for(unexpected))
    finally:
        # Else Python's end looks through all that was imported once more, which takes 20 ms.
        gc.freeze()
