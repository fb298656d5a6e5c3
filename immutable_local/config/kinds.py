"""What a value may be, in general: each kind reads a value, and says the same to editors as JSON Schema."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from typing import Any, Generic, TypeVar

from immutable_local.config import units
from immutable_local.config.findings import Finding, Wrong
from immutable_local.errors import shown

T = TypeVar("T")
U = TypeVar("U")
Schema = Mapping[str, Any]

LONGEST_TEXT = 4096
# A number that is larger was in another unit.
MOST_OF_A_UNIT = 100_000


@dataclass(frozen=True)
class Kind(Generic[T]):
    """`read` turns what tomllib gave into a checked value, or raises `Wrong`.

    `unit`: what a number in this place most likely is in; "" where it has no unit, and None where it means
    nothing.
    """

    read: Callable[[object], T]
    schema: Schema
    unit: str | None = None

    def then(self, step: Callable[[T], U]) -> Kind[U]:
        """The same kind to editors, with one more step of reading."""
        return Kind(lambda value: step(self.read(value)), self.schema)


ANYTHING: Kind[object] = Kind(lambda value: value, {})


def text(must_be: str, pattern: str, *, most: int = LONGEST_TEXT, hint: str = "") -> Kind[str]:
    """A string that matches the whole of `pattern`, of `most` characters at most."""
    whole_pattern = re.compile(f"(?:{pattern})")

    def read(value: object) -> str:
        if not isinstance(value, str):
            raise mismatch(must_be, value)
        if len(value) > most:
            raise Wrong(Finding(f"must be {must_be} of {most} characters at most, not {len(value)}", hint))
        if not whole_pattern.fullmatch(value):
            raise Wrong(Finding(f"must be {must_be}, not {shown(value)}", hint))
        return value

    return Kind(read, {"type": "string", "pattern": f"^({pattern})$", "maxLength": most})


def whole(least: int, most: int) -> Kind[int]:
    """A whole number in a range."""
    must_be = f"a whole number from {least} to {most}"

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise mismatch(must_be, value)
        if not least <= value <= most:
            raise Wrong(Finding(f"must be {must_be}, not {shown(value)}"))
        return value

    return Kind(read, {"type": "integer", "minimum": least, "maximum": most})


def number(least: float, most: float) -> Kind[float]:
    """A number in a range; whole ones are numbers too."""
    must_be = f"a number from {least:g} to {most:g}"

    def read(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise mismatch(must_be, value)
        if not least <= value <= most:  # also false of nan
            raise Wrong(Finding(f"must be {must_be}, not {shown(value)}"))
        return float(value)

    return Kind(read, {"type": "number", "minimum": least, "maximum": most})


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise mismatch("true or false", value)
    return value


TRUTH: Kind[bool] = Kind(_truth, {"type": "boolean"})


def one_of(*choices: str) -> Kind[str]:
    """One of a few words."""
    must_be = " or ".join(f'"{choice}"' for choice in choices)

    def read(value: object) -> str:
        if not isinstance(value, str):
            raise mismatch(must_be, value)
        if value not in choices:
            raise Wrong(Finding(f"must be {must_be}, not {shown(value)}{meant(value, choices)}"))
        return value

    return Kind(read, {"enum": list(choices)})


def duration(least: float, most: float) -> Kind[float]:
    """A time in seconds, written with its unit."""
    form = text('a time like "500ms", "30s" or "10m"', units.DURATION, most=60)
    bounds = f"from {units.told_seconds(least)} to {units.told_seconds(most)}"

    def read(value: object) -> float:
        if not isinstance(value, str):
            raise mismatch("a time with its unit", value)
        amount = units.seconds(form.read(value))
        if not least <= amount <= most:
            raise Wrong(Finding(f"must be a time {bounds}, not {shown(value)}"))
        return amount

    return Kind(read, form.schema, unit="s")


def size(least: int, most: int) -> Kind[int]:
    """A size in bytes, written with its unit as Docker does, or as a number of bytes."""
    form = text('a size like "512m" or "2g"', units.SIZE, most=40)
    bounds = f"from {units.told_bytes(least)} to {units.told_bytes(most)}"

    def read(value: object) -> int:
        plain = value if isinstance(value, int) and not isinstance(value, bool) else None
        amount = units.size_in_bytes(form.read(value)) if plain is None else plain
        if not least <= amount <= most:
            hint = "a number without a unit is in bytes" if plain is not None else ""
            raise Wrong(Finding(f"must be a size {bounds}, not {shown(value)}", hint))
        return amount

    either = {"anyOf": [{"type": "integer", "minimum": least, "maximum": most}, form.schema]}
    return Kind(read, either, unit="m")


def meant(word: str, known: Iterable[str]) -> str:
    """The end of an error that suggests a known word close to this one; "" if none is."""
    close = closest(word, known)
    return f", did you mean {close}?" if close else ""


def closest(word: str, known: Iterable[str]) -> str:
    """The known word that is most like this one; "" if none is much like it."""
    by_lower_case = {each.lower(): each for each in known if each != word and each.isprintable()}
    close = difflib.get_close_matches(word[:100].lower(), by_lower_case, n=1, cutoff=0.65)
    return by_lower_case[close[0]] if close else ""


def mismatch(must_be: str, value: object, hint: str = "") -> Wrong:
    """The value has another type than the key."""
    return Wrong(Finding(f"must be {must_be}, not {_type_of(value)}", hint))


def _type_of(value: object) -> str:
    names: tuple[tuple[Any, str], ...] = (
        (bool, "true or false"),
        (str, "a string"),
        (int, "a whole number"),
        (float, "a number with a fraction"),
        (list, "an array"),
        (dict, "a table"),
        ((date, datetime, time), "a date or time"),
    )
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)


def advised(kind: Kind[T], value: object, otherwise: str = "") -> T:
    """The value, read. What is wrong with it has a hint: its own, else how to write it, else `otherwise`."""
    try:
        return kind.read(value)
    except Wrong as wrong:
        written = _written(kind, value) or otherwise
        # What lies deeper isn't mended by writing all of it in another way.
        hints = [each.hint or (otherwise if each.path else written) for each in wrong.findings]
        told = zip(wrong.findings, hints, strict=True)
        raise Wrong(*(replace(finding, hint=hint) for finding, hint in told)) from None


def _written(kind: Kind[Any], value: object) -> str:
    """The advice to write a value in another way, which the kind takes; "" where there is none."""
    for other in _meanings(value, kind.unit):
        with suppress(Wrong):
            kind.read(other)
            return f"write {json.dumps(other, ensure_ascii=False)}"
    return ""


def _meanings(value: object, unit: str | None) -> list[object]:
    """What somebody may have meant: the same without quotes, in quotes, with a unit, or as an array."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
        return [f"{value}{unit}"] if unit == "" or (unit and value < MOST_OF_A_UNIT) else []
    if not isinstance(value, str) or len(value) > 80 or not value.isprintable():
        return []
    if re.fullmatch(r"(0|[1-9][0-9]{0,17})(\.[0-9]{1,9})?", value):
        number = float(value) if "." in value else int(value)
        return [number, f"{value}{unit if unit and number < MOST_OF_A_UNIT else ''}", [value]]
    listed = [each.strip() for each in value.split(",")]
    return [value == "true" if value in ("true", "false") else [value], listed]
