"""What is wrong with an imm.toml: gathered key by key, so that one run tells all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

KeyPath = tuple[str | int, ...]
"""The way to a value: names of keys, and positions (from 0) in arrays."""


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
