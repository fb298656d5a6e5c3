"""Killed on a host that has never seen imm, at moments that the engine itself tells. All of them: IMM_SOAK=1."""

from __future__ import annotations

import os

import pytest

pytest.register_assert_rewrite("tests.remote.faults")

from tests.remote.conftest import Apart  # noqa: E402
from tests.remote.faults import host_is_right, struck_at  # noqa: E402

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
    struck_at(bare, app, "up", moment=moment)
    assert bare.up(app).result["outcome"] == "live"
    host_is_right(bare, app)


@pytest.mark.parametrize("action", ["create", "start"])
def test_a_container_of_a_moment_goes_also_when_its_client_was_killed(bare: Apart, action: str):
    """By itself once it has started; one that never did goes with the next command that makes something."""
    app = bare.project()
    struck_at(bare, app, "doctor", moment=(action, "task"))
    bare.up(app)
    host_is_right(bare, app)
