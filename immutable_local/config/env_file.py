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
    (?P<name>[^\s=\#'"]+)[ \t]*=(?P<gap>[ \t]*+)
    (?: '(?P<literal>[^']*)'
      | "(?P<escaped>(?:[^"\\]|\\.)*)"
      | (?P<plain>(?!['"])[^\n]*)
    )
    [ \t]*(?:\#[^\n]*)?\n
    """,
    re.VERBOSE | re.DOTALL,
)
_OPENED = re.compile(r"""(?:export[ \t]+)?[^\s=\#'"]+[ \t]*=[ \t]*(['"])""")
_TO_THE_END = {"'": r"[^']*'", '"': r'(?:[^"\\]|\\.)*"'}
_NOTHING = re.compile(r"[ \t]*(#[^\n]*)?\n|[ \t]+")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$"}


def entries(text: str) -> dict[str, str]:
    """The entries of the text in their order; of two with one name the later one counts.

    Raises `Wrong` with the line that can't be understood.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n") + "\n"
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        if nothing := _NOTHING.match(text, at):
            at = nothing.end()
        elif entry := _ENTRY.match(text, at):
            found[entry["name"]] = _value(entry)
            at = entry.end()
        else:
            raise Wrong(_finding(text, at))
    return found


def _finding(text: str, at: int) -> Finding:
    line = text.count("\n", 0, at) + 1
    opened = _OPENED.match(text, at)
    if opened is None:
        hint = "write KEY=value; a value is never taken from your shell"
        return Finding(f"line {line} is not KEY=value", hint)
    if re.compile(_TO_THE_END[opened[1]], re.DOTALL).match(text, opened.end()):
        return Finding(
            f"line {line} has something behind the closing quote", "put all of it between the quotes"
        )
    return Finding(f"line {line} opens a quote that is never closed", "close it, or leave it out")


def _value(entry: re.Match[str]) -> str:
    literal, escaped, plain = entry.group("literal", "escaped", "plain")
    if literal is not None:
        return str(literal)
    if escaped is not None:
        return re.sub(r"\\(.)", lambda seen: _ESCAPES.get(seen[1], seen[0]), escaped, flags=re.DOTALL)
    # A comment starts at a '#' after white space only: A=b#c is b#c.
    return re.sub(r"\s#.*", "", entry["gap"] + plain).strip()
