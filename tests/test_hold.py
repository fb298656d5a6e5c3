"""What the way back from making room for one writer begins with, as values."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from immutable_local import hold
from immutable_local.app import Mount, Service, Volume
from immutable_local.live import Live
from immutable_local.observed import Observed
from tests.values import observed, release

WEB = Service("web", port=8000, volumes=(Mount("data", "/data"),))


def started_again(monkeypatch: pytest.MonkeyPatch, found: Observed, held: tuple[str, ...]) -> list[Live]:
    """What is asked to be let go where this is found."""
    let_go: list[Live] = []
    monkeypatch.setattr(hold, "observe", lambda *_: found)
    monkeypatch.setattr(hold, "let_go", lambda host, found, live: let_go.append(live))
    at: Any = SimpleNamespace(engine=None, host=SimpleNamespace(session=None), app="shop")
    hold.start_again(at, (), held)
    return let_go


def test_a_hold_that_comes_late_is_taken_back(monkeypatch: pytest.MonkeyPatch):
    """The link doesn't name it yet: whoever was interrupted didn't wait until it did."""
    found = observed(release(WEB, volumes=[Volume("data")]))
    [live] = started_again(monkeypatch, found, held=("web",))
    assert live.held == ("web",)
