"""What every command takes, and how what is typed is read."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from immutable_local.errors import UsageError, shown

if TYPE_CHECKING:
    from immutable_local.host import Begun

GLOBAL_OPTIONS = (
    "Everywhere: -f/--file FILE (default: imm.toml), --json, --quiet, --no-color (or NO_COLOR), --debug."
)
LONGEST_WAIT_SECONDS = 365 * 86400.0
ALONE = ("--json", "--quiet", "-q", "--no-color", "--debug", "--version")

# What other tools call it.
OTHER_WORDS = {
    "apply": "up",
    "delete": "remove",
    "deploy": "up",
    "destroy": "down",
    "diff": "plan",
    "get": "list",
    "ls": "list",
    "ps": "status",
    "rm": "remove",
    "rollback": "revert",
    "undo": "revert",
    "unset": "remove",
}

Wait = Annotated[
    str,
    typer.Option(
        "--wait",
        metavar="TIME",
        help="How long to wait for another deployment: 30s, 5m (default: 0s).",
        show_default=False,
    ),
]


class Commands(TyperGroup):
    """A group of commands that tells which of them a word may mean, also where it is another tool's."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except TyperException as unknown:
            from immutable_local.config.kinds import closest

            known = [name for name, each in self.commands.items() if not each.hidden]
            word = OTHER_WORDS.get(args[0], "")
            likely = word if word in known else closest(args[0], known)
            path = ctx.command_path
            raise UsageError(
                f"{path}: there is no command {shown(args[0])}"
                + (f", did you mean {likely}?" if likely else ""),
                hint=f"{path} {likely} --help" if likely else f"{path} --help",
            ) from unknown


@dataclass
class Globals:
    """What every command takes."""

    file: Path = Path("imm.toml")
    json: bool = False
    quiet: bool = False
    color: bool | None = None
    debug: bool = False
    begun: Callable[[], Begun] | None = None
    command: str | None = None


asked = Globals()


def globals_first(arguments: list[str]) -> list[str]:
    """The options that every command takes, moved to the front: `imm up --json` is `imm --json up`.

    `logs -f` keeps its `-f`: there it follows. What is wrong with the others is told as JSON, too.
    """
    front: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in ALONE or word.startswith("--file="):
            front.append(word)
            asked.json |= word == "--json"
        elif word == "--file" or (word.startswith("-f") and rest[:1] != ["logs"]):
            front.append(word)
            if word in ("--file", "-f"):
                value = next(words, None)
                if value is None:
                    raise UsageError(f"{word}: which file?", hint=f"imm {word} FOLDER/imm.toml")
                front.append(value)
        else:
            rest.append(word)
    return front + rest


def release_number(told: str) -> int:
    # int() takes more: signs, blanks, underscores, and more digits than a release will ever have.
    if not re.fullmatch(r"[1-9][0-9]{0,8}", told):
        raise UsageError(f"{shown(told)}: not a release's number", hint="imm history names them: 1, 2, 3...")
    return int(told)


def seconds_of(text: str) -> float:
    from immutable_local.config.units import seconds

    hint = "write 30s, 5m or 1h"
    try:
        found = seconds(text)
    except ValueError as wrong:
        raise UsageError(f"--wait {shown(text)}: not a duration", hint=hint) from wrong
    if found > LONGEST_WAIT_SECONDS:
        raise UsageError(f"--wait {shown(text)}: nobody waits for so long", hint=hint)
    return found
