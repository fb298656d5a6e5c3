"""What is wrong with an imm.toml: gathered key by key, so that one run tells all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from immutable_local.errors import shown

KeyPath = tuple[str | int, ...]
"""The way to a value: names of keys, and positions (from 0) in arrays."""


def told_path(path: KeyPath) -> str:
    """The way to a value as TOML writes it; positions in brackets."""
    told = ""
    for part in path:
        if isinstance(part, int):
            told += f"[{part}]"
        else:
            bare = part.isascii() and part.replace("-", "a").replace("_", "a").isalnum()
            told += ("." if told else "") + bare_or_shown(part, bare)
    return told


def bare_or_shown(name: str, may_be_bare: bool) -> str:
    """A name as it is, where it is short and nothing is against it."""
    return name if may_be_bare and len(name) <= 80 else shown(name)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where, what, and what to do about it."""

    what: str
    hint: str = ""
    path: KeyPath = ()
    code: str = "config"

    def under(self, *path: str | int) -> Finding:
        return replace(self, path=(*path, *self.path))


class Wrong(Exception):
    """A value can't be what it says; never leaves this package."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__(*findings)
        self.findings: Sequence[Finding] = findings


class Findings:
    """Goes on after a wrong key, to look at the others too."""

    def __init__(self) -> None:
        self._found: list[Finding] = []

    @contextmanager
    def at(self, *path: str | int) -> Iterator[None]:
        """Keeps what the block raises `Wrong` about, as lying under `path`."""
        try:
            yield
        except Wrong as wrong:
            self._found += [finding.under(*path) for finding in wrong.findings]

    def settle(self) -> None:
        """Raises `Wrong` with everything that was found, if anything was."""
        if self._found:
            raise Wrong(*self._found)
