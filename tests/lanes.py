"""The tests in two lanes, side by side: what drives the first engine, and what drives one of its own.

The tests of a lane share an engine and its host, and run one after another in their order.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parent.parent
APART = ("tests/remote/", "tests/proxies/")
# Who drives the first engine does it by one of these.
DRIVERS = re.compile(r"^from tests\.(host|kills|sequences) import ", re.MULTILINE)


class Lanes(LoadScopeScheduling):
    """What needs no engine fills the lane that is done first, file by file."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file.startswith(APART):
            return "an engine of its own"
        return "the engine" if drives_the_engine(file) else file


@cache
def drives_the_engine(file: str) -> bool:
    return DRIVERS.search((ROOT / file).read_text()) is not None
