"""What of a build's context reaches the builder: a .dockerignore, read as BuildKit reads it.

The rules are those of github.com/moby/patternmatcher: a pattern is a whole path, with regard to case; `*`
stays within a folder, `**` doesn't; what leaves out a folder leaves out all that is beneath; of the patterns
that match a path, or a folder that it is in, the last one decides. The Docker SDK's matcher has other rules.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from immutable_local.errors import BuildFailed

# What makes more of a pattern than one path.
SPECIAL = re.compile(r"[*?\[\]\\]")


@dataclass(frozen=True)
class Pattern:
    """One line: what it matches, and whether it takes in again what lines before it left out."""

    text: str
    takes_in: bool

    def matches(self, path: str) -> bool:
        return path == self.text if self._expression is None else bool(self._expression.fullmatch(path))

    def may_match_beneath(self, folder: str) -> bool:
        beneath = f"{folder}/"
        return self._beginning.startswith(beneath) or (
            self._expression is not None and beneath.startswith(self._beginning)
        )

    @cached_property
    def _beginning(self) -> str:
        """What every path that it matches begins with."""
        return SPECIAL.split(self.text, maxsplit=1)[0]

    @cached_property
    def _expression(self) -> re.Pattern[str] | None:
        return re.compile(_expression(self.text), re.DOTALL) if SPECIAL.search(self.text) else None


def context_paths(root: Path, dockerfile: str) -> set[str]:
    """Every path beneath a folder that its .dockerignore doesn't leave out, and the folders that lead there.

    The Dockerfile and the .dockerignore are always among them. Links aren't followed. Raises BuildFailed for
    a .dockerignore that makes no sense, OSError for what can't be looked at.
    """
    own = root / f"{dockerfile}.dockerignore"
    ignore = own if own.exists() else root / ".dockerignore"
    patterns = _patterns(ignore) if ignore.exists() else []
    always = [os.path.normpath(dockerfile), os.path.relpath(ignore, root)]
    # These come last, so they decide.
    patterns += [Pattern(name, takes_in=True) for name in always] if patterns else []
    found: set[str] = set()
    _look_into(str(root), "", patterns, [False] * len(patterns), found)
    return found


def _look_into(
    folder: str, inside: str, patterns: Sequence[Pattern], matched: Sequence[bool], found: set[str]
) -> None:
    """Add what reaches the builder of a folder, which itself, or one that it is in, is `matched` by these."""
    with os.scandir(folder) as entries:
        for entry in entries:
            path = inside + entry.name
            matches = [
                already or pattern.matches(path) for pattern, already in zip(patterns, matched, strict=True)
            ]
            kept = _is_kept(patterns, matches)
            if entry.is_dir(follow_symlinks=False) and (
                kept or any(each.takes_in and each.may_match_beneath(path) for each in patterns)
            ):
                before = len(found)
                _look_into(entry.path, f"{path}/", patterns, matches, found)
                kept = kept or len(found) > before
            if kept:
                found.add(path)


def _is_kept(patterns: Sequence[Pattern], matches: Sequence[bool]) -> bool:
    """The last that matches decides."""
    last = next((p for p, m in zip(reversed(patterns), reversed(matches), strict=True) if m), None)
    return last is None or last.takes_in


def _patterns(ignore: Path) -> list[Pattern]:
    if not ignore.is_file():
        raise BuildFailed(f"{ignore.name} is not a file", hint="remove it, or write a file of patterns")
    # As the builder reads it: also with a byte order mark.
    lines = ignore.read_text("utf-8-sig", errors="surrogateescape").split("\n")
    found = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or line.startswith("#"):
            continue
        pattern = Pattern(_cleaned(text.removeprefix("!").strip()), text.startswith("!"))
        try:
            pattern.matches("")
            found.append(pattern)
        except (re.error, ValueError) as wrong:
            raise BuildFailed(
                f"{ignore.name}, line {number}, holds a pattern that can't be understood: {wrong}",
                hint="correct that line",
            ) from wrong
    return found


def _cleaned(text: str) -> str:
    """A path from the context's folder on, without what it can do without."""
    return os.path.normpath(text).lstrip("/")


def _expression(pattern: str) -> str:
    """A pattern as a regular expression. Raises ValueError for what is none."""
    # Up to the last *, up to the one after it, and since.
    done, since, star = "", "", False
    # Several **/ in a row match what one does, and would be tried in every division of a path among them.
    rest = re.sub(r"(?<![\\*])(\*\*/)+(?=\*\*/)", "", pattern)
    while rest:
        letter, rest = rest[0], rest[1:]
        if letter == "*" and rest.startswith("*"):
            rest = rest[1:].removeprefix("/")
            # At the begin, before a plain name without a slash: whatever ends so.
            ends_so = not done + since and pattern[2:3] != "/" and not SPECIAL.search(rest)
            done += ("[^/]*" if star else "") + since + (".*" if not rest or ends_so else "(.*/)?")
            since, star = "", False
        elif letter == "*":
            # What stands between two of them is as good in the first place where it is found as in any: to
            # try the others, too, would take for ever.
            done += f"(?>[^/]*?{since})" if star else since
            since, star = "", True
        elif letter == "?":
            since += "[^/]"
        elif letter == "\\":
            if not rest:
                raise ValueError("it ends with a backslash")
            since += letter + rest[0]
            rest = rest[1:]
        elif letter == "[":
            # A ] that comes first is one of the letters.
            letters = re.match(r"(\^?\]?(?:\\.|[^\]\\])*)\]", rest)
            if letters is None:
                raise ValueError("a [ without its ]")
            since += "[" + re.sub(r"[\[&~|]", r"\\\g<0>", letters[1]) + "]"
            rest = rest[letters.end() :]
        else:
            since += re.escape(letter)
    return done + ("[^/]*" if star else "") + since
