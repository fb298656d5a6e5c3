"""On which line of a TOML file a key stands, which tomllib doesn't tell."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from immutable_local.config.findings import KeyPath

DEEPEST = 5  # one more than services.web.healthcheck.path, the deepest that imm.toml has

# What a statement consists of, as far as its end depends on it.
_TOKEN = re.compile(
    r"""
      "{3} (?:[^\\]|\\.)*? "{3,5}
    | '{3} .*? '{3,5}
    | " (?:[^"\\\n]|\\.)* "
    | ' [^'\n]* '
    | \# [^\n]*
    | [^\s\[\]{},"'\#]+
    | [\[\]{},\n]
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass
class _Statement:
    """`entries`: where its value is an array, the lines on which the array's entries begin."""

    line: int
    text: str = ""
    entries: list[int] = field(default_factory=list)


def key_lines(text: str) -> Mapping[KeyPath, int]:
    """The line, counted from 1, of the statement that first names each key of a valid TOML text.

    The entries of an array have lines of their own. Where a statement ends is found by its brackets and
    quotes; which keys it names, tomllib says, not a second parser.
    """
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for statement in _statements(text.replace("\r\n", "\n")):
        told = list(_paths(tomllib.loads(statement.text)))
        if statement.text.lstrip().startswith("["):
            for table in told:
                lines.setdefault(table, statement.line)
            continue
        for path in told:
            lines.setdefault((*table, *path), statement.line)
        for position, line in enumerate(statement.entries):
            lines.setdefault((*table, *told[-1], position), line)
    return lines


def _statements(text: str) -> Iterator[_Statement]:
    """Each statement; a line without one is one of nothing."""
    line, begin, depth = 1, 0, 0
    statement = _Statement(line)
    in_array = entry_follows = False
    for token in _TOKEN.finditer(text):
        word = token[0]
        if entry_follows and word != "\n" and not word.startswith("#"):
            entry_follows = False
            if word != "]":
                statement.entries.append(line)
        if word in ("[", "{"):
            depth += 1
            if depth == 1:
                in_array = entry_follows = word == "["
        elif word in ("]", "}"):
            depth -= 1
        elif word == "," and depth == 1:
            entry_follows = in_array
        line += word.count("\n")
        if word == "\n" and not depth:
            statement.text = text[begin : token.end()]
            yield statement
            statement, begin = _Statement(line), token.end()
    statement.text = text[begin:]
    yield statement


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
