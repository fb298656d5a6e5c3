"""What a value with other values in it may be: arrays, commands, tables."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from immutable_local.config.findings import Finding, Findings, Wrong
from immutable_local.config.kinds import Kind, Schema, advised, closest, mismatch
from immutable_local.errors import shown

T = TypeVar("T")

LONGEST_ENTRY = 131_071  # bytes in one argument or NAME=value: MAX_ARG_STRLEN of Linux, without its final NUL
LONGEST_SHOWN = 80
MOST_ENTRIES = 1000
MOST_TABLES = 50


@dataclass(frozen=True)
class Key:
    """One key of a table. `later`: the contract has it, this version refuses it, and says `meanwhile`."""

    kind: Kind[Any]
    meaning: str
    required: bool = False
    later: bool = False
    meanwhile: str = "remove it: this version of imm can't do it, and won't ignore it"


def list_of(kind: Kind[T], *, least: int = 0, most: int = MOST_ENTRIES) -> Kind[tuple[T, ...]]:
    """An array of one kind of value, none of them twice."""

    def read(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise mismatch("an array", value)
        if not least <= len(value) <= most:
            raise Wrong(Finding(f"must have from {least} to {most} entries, not {len(value)}"))
        findings = Findings()
        entries: list[T] = []
        for position, each in enumerate(value):
            with findings.at(position):
                entry = advised(kind, each)
                if entry in entries:
                    raise Wrong(Finding(f"{shown(each)} is there twice", "remove one of them"))
                entries.append(entry)
        findings.settle()
        return tuple(entries)

    return Kind(
        read,
        {
            "type": "array",
            "items": kind.schema,
            "minItems": least,
            "maxItems": most,
            "uniqueItems": True,
        },
    )


# In the way of a shell; what is in quotes or behind a backslash is no shell's.
_QUOTED = r"""'[^']*'|"(?:[^"\\]|\\.)*"|\\."""
_OF_A_SHELL = r"(\|[|&]?|&&?)|.*(;)|([0-9&]?>>?|[0-9]?<{1,3}).*|.*?(\$(?:[({]|[A-Za-z_]\w*)|`).*"
# Before the program. With small letters it may be an argument to the image's ENTRYPOINT.
_ASSIGNMENT = r"\s*([A-Z_][A-Z0-9_]*=)\S*\s+\S.*"


def _words(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        bare = re.sub(_QUOTED, ".", value, flags=re.DOTALL)
        for pattern, told in [(_ASSIGNMENT, bare), *((_OF_A_SHELL, word) for word in bare.split())]:
            if found := re.fullmatch(pattern, told, re.DOTALL):
                line = value if value.isprintable() and len(value) <= LONGEST_SHOWN else "..."
                hint = f'for a shell write ["sh", "-c", {json.dumps(line, ensure_ascii=False)}]'
                raise Wrong(
                    Finding(f"{found[found.lastindex or 0]} is for a shell, and none runs this", hint)
                )
        try:
            value = shlex.split(value)
        except ValueError as unclosed:
            raise Wrong(Finding(f"is not a command: {unclosed}", 'write ["program", "argument"]')) from None
    if not isinstance(value, list):
        raise mismatch("an array of strings, or a string", value)
    for word in value:
        if not isinstance(word, str):
            raise mismatch("words that are strings", word, "write it in quotes")
        _handed_over(word, word, "a file in the image can hold more")
    if not value or not value[0].strip() or len(value) > MOST_ENTRIES:
        raise Wrong(Finding(f"must be a program and its arguments, {MOST_ENTRIES} words at most"))
    return tuple(value)


_PROGRAM = {"type": "string", "pattern": r"\S"}
WORDS: Kind[tuple[str, ...]] = Kind(
    _words,
    {
        "anyOf": [
            _PROGRAM,
            {
                "type": "array",
                "items": [_PROGRAM],
                "additionalItems": {"type": "string"},
                "minItems": 1,
                "maxItems": MOST_ENTRIES,
            },
        ]
    },
)

LONGEST_NAME = 255
ENTRY_NAME = rf"[^\s=\u0000-\u001f\u007f-\u009f]{{1,{LONGEST_NAME}}}"


def _entries(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise mismatch("a table", value, 'write { NAME = "value" }')
    if len(value) > MOST_ENTRIES:
        raise Wrong(Finding(f"must have {MOST_ENTRIES} entries at most, not {len(value)}"))
    findings = Findings()
    entries: dict[str, str] = {}
    for name, each in value.items():
        with findings.at(name):
            if len(name) > LONGEST_NAME:
                what = f"a name must have {LONGEST_NAME} characters at most, not {len(name)}"
                raise Wrong(Finding(what, "shorten the name"))
            if not re.fullmatch(ENTRY_NAME, name) or not name.isprintable():
                what = "a name must have no '=', no white space and only printable characters"
                raise Wrong(Finding(what, "correct the name"))
            entries[name] = _entry(name, each)
            whole = f"{name}={entries[name]}"
            _handed_over(entries[name], whole, "what is larger belongs in the image, a volume or a secret")
    findings.settle()
    return entries


def _handed_over(text: str, whole: str, instead: str) -> None:
    """What the kernel hands a program, as a part of `whole`."""
    if "\0" in text:
        raise Wrong(Finding("must have no NUL character", "leave it out: the kernel takes it for the end"))
    if len(whole.encode()) > LONGEST_ENTRY:
        raise Wrong(Finding(f"must have {LONGEST_ENTRY} bytes at most", instead))


def _entry(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise Wrong(Finding("must be a number of 64 bits, or a string", "write the value in quotes"))
    if isinstance(value, float):
        # TOML's 3.10 is 3.1, and its 1e3 is 1000.0: what was written is gone.
        what = "must be a string, a whole number, true or false, not a number with a fraction"
        raise Wrong(Finding(what, 'write it in quotes, as in "3.10"'))
    if isinstance(value, str | int):
        return str(value)
    hint = "write the value in quotes"
    if isinstance(value, dict) and value:
        hint = f"write a name with a dot in quotes: {shown(f'{name}.{next(iter(value))}')}"
    raise mismatch("a string, a whole number, true or false", value, hint)


ENTRIES: Kind[dict[str, str]] = Kind(
    _entries,
    {
        "type": "object",
        "propertyNames": {"pattern": f"^{ENTRY_NAME}$"},
        "additionalProperties": {"type": ["string", "integer", "boolean"]},
        "maxProperties": MOST_ENTRIES,
    },
)

ARGUMENT_NAME = rf"[A-Za-z_][A-Za-z0-9_]{{0,{LONGEST_NAME - 1}}}"


def _arguments(entries: dict[str, str]) -> dict[str, str]:
    findings = Findings()
    for name in entries:
        with findings.at(name):
            if not re.fullmatch(ARGUMENT_NAME, name):
                what = "a build argument's name must be of letters, digits and _, and begin with no digit"
                raise Wrong(Finding(what, "correct the name here, and in the Dockerfile"))
    findings.settle()
    return entries


ARGUMENTS: Kind[dict[str, str]] = Kind(
    ENTRIES.then(_arguments).read, {**ENTRIES.schema, "propertyNames": {"pattern": f"^{ARGUMENT_NAME}$"}}
)


def table(
    keys: Mapping[str, Key],
    other_words: Mapping[str, str] | None = None,
    unlike: Mapping[str, str] | None = None,
) -> Kind[dict[str, Any]]:
    """A table with these keys and no others.

    `other_words`: what people write who mean one of them. `unlike`: what they write who mean none of them,
    though it looks so, with what to do about it.
    """
    other_words, unlike = other_words or {}, unlike or {}
    correct = "correct it, or remove it"
    known = f"known here: {', '.join(name for name, key in keys.items() if not key.later)}"

    def read(value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise mismatch("a table", value)
        findings = Findings()
        given: dict[str, Any] = {}
        for name, each in value.items():
            with findings.at(name):
                if name in unlike:
                    raise Wrong(Finding("unknown key", unlike[name]))
                if name not in keys:
                    word = other_words.get(name) or closest(name, keys)
                    # Close to what can't be written yet: another word would only be further off.
                    offered = word and not (word in keys and keys[word].later)
                    suggestion = f", did you mean {word}?" if offered else ""
                    raise Wrong(Finding(f"unknown key{suggestion}", correct if suggestion else known))
                if keys[name].later:
                    raise Wrong(Finding("not supported yet", keys[name].meanwhile, code="not_supported"))
                given[name] = advised(keys[name].kind, each, f"correct it: {keys[name].meaning}")
        for name, key in keys.items():
            if key.required and name not in value:
                with findings.at(name):
                    raise Wrong(Finding("is missing", f"add it: {key.meaning}"))
        findings.settle()
        return given

    return Kind(
        read,
        {
            "type": "object",
            "properties": {name: _property(key) for name, key in keys.items()},
            "required": [name for name, key in keys.items() if key.required],
            "additionalProperties": False,
        },
    )


def tables(
    name_kind: Kind[str], kind: Kind[T], *, least: int = 0, most: int = MOST_TABLES
) -> Kind[dict[str, T]]:
    """A table of tables whose names the author chooses."""

    def read(value: object) -> dict[str, T]:
        if not isinstance(value, dict):
            raise mismatch("a table", value)
        if not least <= len(value) <= most:
            raise Wrong(Finding(f"must have from {least} to {most} tables, not {len(value)}"))
        findings = Findings()
        given: dict[str, T] = {}
        for name, each in value.items():
            with findings.at(name):
                name_kind.read(name)
                given[name] = kind.read(each)
        findings.settle()
        return given

    return Kind(
        read,
        {
            "type": "object",
            "propertyNames": name_kind.schema,
            "additionalProperties": kind.schema,
            "minProperties": least,
            "maxProperties": most,
        },
    )


def _property(key: Key) -> Schema:
    if key.later:
        return {"description": f"Not supported yet: {key.meaning}", "not": {}}
    return {"description": key.meaning, **key.kind.schema}
