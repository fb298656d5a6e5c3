"""The tests in two lanes, side by side: what drives the first engine, and what drives one of its own.

The tests of a lane share an engine and its host, and run one after another in their order.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

APART = ("tests/remote/", "tests/proxies/")


class Lanes(LoadScopeScheduling):
    """What needs no engine fills the lane that is done first, file by file."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if not file.startswith("tests/"):
            return file
        return "an engine of its own" if file.startswith(APART) else "the engine"
