"""Killed on a host that has never seen imm, at moments that the engine itself tells. All of them: IMM_SOAK=1."""

from __future__ import annotations

import os
from signal import Signals

import pytest

pytest.register_assert_rewrite("tests.remote.faults", "tests.kills")

from tests.kills import command  # noqa: E402
from tests.remote.conftest import Apart  # noqa: E402
from tests.remote.faults import at_event, host_is_right  # noqa: E402

pytestmark = pytest.mark.engine
SOAK = os.environ.get("IMM_SOAK") == "1"
MADE = [
    ("create", "imm-making"),
    ("create", "imm-state"),
    ("create", "imm-0-proxy"),
    ("create", "imm-proxy"),
    ("start", "imm-proxy"),
    ("create", "imm-sidecar"),
    ("start", "imm-sidecar"),
]


@pytest.mark.parametrize("moment", MADE if SOAK else [MADE[n] for n in (3, 5)], ids="-".join)
def test_a_first_up_killed_while_it_makes_the_host_ready_is_finished_by_the_next(
    bare: Apart, moment: tuple[str, str]
):
    app = bare.project()
    with command(bare, app, "up") as first:
        with at_event(bare, moment, lambda: first.send(Signals.SIGKILL)) as struck:
            first.ended()
        assert struck.is_set(), f"{moment} never came: {first}"
    assert bare.up(app).result["outcome"] == "live"
    host_is_right(bare, app)


@pytest.mark.parametrize("action", ["create", "start"])
def test_a_container_of_a_moment_goes_also_when_its_client_was_killed(bare: Apart, action: str):
    """By itself once it has started; one that never did goes with the next command that makes something."""
    app = bare.project()
    with command(bare, app, "doctor") as doctor:
        with at_event(bare, (action, "task"), lambda: doctor.send(Signals.SIGKILL)) as struck:
            doctor.ended()
        assert struck.is_set(), f"{action} never came: {doctor}"
    bare.up(app)
    host_is_right(bare, app)
