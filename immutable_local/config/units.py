"""Times and sizes as Compose writes them."""

from __future__ import annotations

import re

DURATION = r"0|([0-9]{1,9}(\.[0-9]{1,9})?(us|ms|s|m|h|d))+"
SIZE = r"([0-9]{1,15}(\.[0-9]{1,9})?)([bB]|[kKmMgGtT]([iI]?[bB])?)"

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def seconds(text: str) -> float:
    """The seconds in a text like "1m30s", which is 90.0. Raises ValueError for what isn't one."""
    if not re.fullmatch(DURATION, text):
        raise ValueError(f"{text!r} is not a time")
    parts = re.findall(r"([0-9.]+)([a-z]+)", text)
    # Rounded to what the smallest unit can say, or 1.1 s and 1100 ms would make two releases.
    return round(sum((float(number) * _SECONDS[unit] for number, unit in parts), 0.0), 6)


def told_seconds(amount: float) -> str:
    """The shortest way to write a time: 90.0 is "90s", 0.05 is "50ms"."""
    if amount and amount % 86400 == 0:
        return f"{amount / 86400:g}d"
    return f"{amount:g}s" if amount >= 1 or not amount else f"{amount * 1000:g}ms"


def size_in_bytes(text: str) -> int:
    """The bytes in a text like "1.5k", by powers of 1024 as Docker counts them.

    Raises ValueError for what isn't a size.
    """
    matched = re.fullmatch(SIZE, text)
    if matched is None:
        raise ValueError(f"{text!r} is not a size")
    number, unit = matched[1], matched[3]
    return int(float(number) * _BYTES[unit[0].lower()])


def told_bytes(amount: int) -> str:
    """The shortest way to write a size: 6291456 is "6m"."""
    for unit in ("t", "g", "m", "k"):
        if amount and amount % _BYTES[unit] == 0:
            return f"{amount // _BYTES[unit]}{unit}"
    return f"{amount}b"
