"""On which line of a TOML file a key stands, which tomllib doesn't tell."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from immutable_local.config.findings import KeyPath

DEEPEST = 5  # one more than services.web.healthcheck.path, the deepest that imm.toml has
LONGEST = 500  # lines in one statement; each more of them is parsed again with all before it


def key_lines(text: str) -> Mapping[KeyPath, int]:
    """The line, counted from 1, of the statement that first names each key of a valid TOML text.

    A TOML statement ends with its line, unless that line ends inside of an array or a multi-line string, and
    then what there is of it isn't valid by itself. So the shortest run of lines that is valid is a statement,
    and tomllib, not a second parser, says which keys it names. Behind a statement of more than `LONGEST`
    lines nothing is told.
    """
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    statement, start = "", 1
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        statement += line + "\n"
        try:
            told = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            if number - start >= LONGEST:
                break
            continue
        if statement.lstrip().startswith("["):
            table = ()
            for path in _paths(told):
                table = path
                lines.setdefault(path, start)
        else:
            for path in _paths(told):
                lines.setdefault((*table, *path), start)
        statement, start = "", number + 1
    return lines


def nearest(lines: Mapping[KeyPath, int], path: KeyPath) -> int | None:
    """The line of a key, else of the closest table around it that has one."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


def _paths(table: Mapping[str, Any], within: KeyPath = ()) -> Iterator[KeyPath]:
    for name, value in table.items():
        yield (*within, name)
        if isinstance(value, dict) and len(within) + 1 < DEEPEST:
            yield from _paths(value, (*within, name))
