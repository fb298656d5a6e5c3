"""What the way back from making room for one writer begins with, as values."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from immutable_local import hold
from immutable_local.app import Mount, Service, Volume, Writers
from immutable_local.errors import EngineRefused
from immutable_local.events import Teller
from immutable_local.live import Live
from immutable_local.observed import Observed
from tests.values import container, observed, release, seal_labels

WEB = Service("web", port=8000, volumes=(Mount("data", "/data"),))


def started_again(monkeypatch: pytest.MonkeyPatch, found: Observed, held: tuple[str, ...]) -> list[Live]:
    """What is asked to be let go where this is found."""
    let_go: list[Live] = []
    monkeypatch.setattr(hold, "observe", lambda *_: found)
    monkeypatch.setattr(hold, "let_go", lambda host, found, live: let_go.append(live))
    tell = Teller(lambda event: None)
    at: Any = SimpleNamespace(engine=None, host=SimpleNamespace(session=None), app="shop", tell=tell)
    try:
        hold.start_again(at, (), held)
    except EngineRefused:
        # The next command is told so, and tries again.
        assert not tell.undone
        assert tell.stands.startswith("release 1 has stopped; ")
    return let_go


def test_a_hold_that_comes_late_is_taken_back(monkeypatch: pytest.MonkeyPatch):
    """The link doesn't name it yet: whoever was interrupted didn't wait until it did."""
    found = observed(release(WEB, volumes=[Volume("data")]))
    [live] = started_again(monkeypatch, found, held=("web",))
    assert live.held == ("web",)


@pytest.mark.parametrize(
    ("writers", "state", "beside"),
    [("one", "running", False), ("one", "exited", True), ("many", "running", True)],
)
def test_nothing_is_started_beside_a_new_instance_that_writes_alone(
    monkeypatch: pytest.MonkeyPatch, writers: Writers, state: str, beside: bool
):
    """It could not be stopped: a process that hangs on its volume, an engine that fails."""
    new = release(WEB, volumes=[Volume("data", writers)], number=2)
    marks = {**seal_labels(new), "imm.service": "web"}
    stray = replace(container("shop-web-2-blue-1", state), labels=marks)
    found = observed(release(WEB, volumes=[Volume("data")]))
    found = replace(found, containers=[*found.containers, stray])
    assert bool(started_again(monkeypatch, found, held=())) is beside
