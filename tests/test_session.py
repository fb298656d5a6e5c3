"""The session's end on this machine: what it says when nobody answers."""

from __future__ import annotations

import socket

import pytest

from immutable_local.errors import SessionLost
from immutable_local.sidecar import session


def test_what_nobody_answered_is_named_and_not_what_was_told_after_it(monkeypatch: pytest.MonkeyPatch):
    """The answer to what was told is only looked at when the next thing is told."""
    monkeypatch.setattr(session, "ANSWER_SECONDS", 0.05)
    here, there = socket.socketpair()
    with there:
        silent = session.Session(here)
        silent.tell("doing_write", app="shop")
        with pytest.raises(SessionLost, match="doing_write"):
            silent.tell("check_end", numbers=[])
