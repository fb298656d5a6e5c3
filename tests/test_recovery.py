"""How long a host that went away is waited for, without one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from immutable_local import recovery
from immutable_local.deployment import put_right
from immutable_local.errors import ImmError, SessionLost
from immutable_local.events import Note, Teller
from immutable_local.recovery import once_back

GONE = SessionLost("the connection to the sidecar ended (point)", hint="run the command again")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "RETURN_SECONDS", 0.5)


def test_it_is_tried_until_the_host_is_back():
    left = [GONE, GONE]

    def act() -> str:
        if left:
            raise left.pop()
        return "done"

    assert once_back(act) == "done"


def test_a_host_that_stays_away_is_not_waited_for_without_end():
    """What it said last is told."""
    told = []

    def act() -> None:
        told.append(SessionLost(f"lost {len(told)}", hint="again"))
        raise told[-1]

    with pytest.raises(SessionLost) as last:
        once_back(act)
    assert last.value is told[-1] and len(told) > 1


def test_what_is_no_matter_of_the_host_is_not_tried_again():
    """A broken file, say, is as broken a moment later."""
    tried = []

    def act() -> None:
        tried.append(1)
        raise ImmError("broken", code="broken_state", hint="mend it")

    with pytest.raises(ImmError, match="broken"):
        once_back(act)
    assert tried == [1]


def test_a_command_whose_engine_stays_away_leaves_the_rest_to_the_next_one(monkeypatch: pytest.MonkeyPatch):
    """It says how long it waits, why it ends, and who sweeps."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    told: list[Note] = []
    closed: list[bool] = []
    host = SimpleNamespace(close=lambda: closed.append(True))
    tell = Teller(told.append)
    put_right(SimpleNamespace(host=host, tell=tell, app="shop", command="up"), GONE)
    waiting, stopped = (each.text for each in told)
    assert waiting == "waiting for the host to come back, about 20 s at most"
    assert "/nonexistent/docker.sock" in stopped
    assert stopped.endswith("; what this command left is swept by the next one")
    assert closed and not tell.undone
