"""Files of KEY=value lines, as `env_file` of Compose understands them.

One thing is left out on purpose: `$NAME` in a value stays as it is, because a release must not depend on the
shell of whoever runs imm.
"""

from __future__ import annotations

import re

from immutable_local.config.findings import Finding, Wrong

_ENTRY = re.compile(
    r"""
    (?:export[ \t]+)?
    (?P<name>[^\s=\#'"]+)[ \t]*=(?P<gap>[ \t]*)
    (?: '(?P<literal>[^']*)'
      | "(?P<escaped>(?:[^"\\]|\\.)*)"
      | (?P<plain>(?!['"])[^\n]*)
    )
    [ \t]*(?:\#[^\n]*)?\n
    """,
    re.VERBOSE | re.DOTALL,
)
_NOTHING = re.compile(r"[ \t]*(#[^\n]*)?\n|[ \t]+")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$"}


def entries(text: str) -> dict[str, str]:
    """The entries of the text in their order; of two with one name the later one counts.

    Raises `Wrong` with the line that can't be understood.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n") + "\n"
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        if nothing := _NOTHING.match(text, at):
            at = nothing.end()
        elif entry := _ENTRY.match(text, at):
            found[entry["name"]] = _value(entry)
            at = entry.end()
        else:
            line = text.count("\n", 0, at) + 1
            hint = "write KEY=value; a value is never taken from your shell"
            raise Wrong(Finding(f"line {line} is not KEY=value", hint))
    return found


def _value(entry: re.Match[str]) -> str:
    literal, escaped, plain = entry.group("literal", "escaped", "plain")
    if literal is not None:
        return str(literal)
    if escaped is not None:
        return re.sub(r"\\(.)", lambda seen: _ESCAPES.get(seen[1], seen[0]), escaped, flags=re.DOTALL)
    # A comment starts at a '#' after white space only: A=b#c is b#c.
    return re.sub(r"\s#.*", "", entry["gap"] + plain).strip()
