"""Many at once: one lock for an app, one host made by whoever comes first. As many as it says: IMM_SOAK=1."""

from __future__ import annotations

import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from immutable_local.wait import until
from tests.conftest import SOAK
from tests.host import Outcome, Project
from tests.kills import Command, check, live_number, look
from tests.remote.conftest import Apart
from tests.remote.faults import no_task_stays, proxies, tasks

pytestmark = pytest.mark.engine
# Twenty interpreters start on two cores.
PATIENCE_SECONDS = 240.0
CLIENTS = 20 if SOAK else 8
WAITING = 4 if SOAK else 2
APPS = 10 if SOAK else 4


def at_once(bare: Apart, asked: list[tuple[Project, list[str]]]) -> list[Outcome]:
    """Commands that all begin at the same moment, each from a folder of its own."""
    running = [Command(bare, project, *words) for project, words in asked]
    with ThreadPoolExecutor(len(running)) as beside:
        return list(beside.map(lambda each: each.ended(PATIENCE_SECONDS), running))


def test_of_many_at_once_one_goes_and_the_others_wait_or_are_refused(bare: Apart, tmp_path: Path):
    """Each from a folder of its own with a version of its own: never two of them mixed."""
    app = bare.project()
    bare.up(app)
    folders = []
    for number in range(CLIENTS):
        folder = tmp_path / f"client-{number}"
        shutil.copytree(app.folder, folder)
        (folder / "VERSION").write_text(f"from client {number}")
        folders.append(app.at(folder))
    patient = ["--wait", f"{PATIENCE_SECONDS:.0f}s"]
    ended = at_once(
        bare,
        [
            (each, ["up", "--take-over", *(patient if number < WAITING else [])])
            for number, each in enumerate(folders)
        ],
    )
    codes = [each.code for each in ended]
    assert set(codes) <= {0, 3}, [each.stderr for each in ended if each.code not in (0, 3)]
    assert codes[:WAITING] == [0] * WAITING
    refused = [each.error for each in ended if each.code == 3]
    assert refused
    for each in refused:
        assert each["code"] == "locked"
        assert (
            "up by " in each["message"] and "(process " in each["message"] and " since 20" in each["message"]
        )
    live = {each.result["release"]: number for number, each in enumerate(ended) if each.code == 0}
    assert len(live) == codes.count(0)
    state = look(bare, app)
    flips = [each["release"] for each in state["records"] if each["event"] == "went_live"]
    assert sorted(flips) == [1, *sorted(live)]
    check(bare, app, live_number(state), f"from client {live[flips[-1]]}")


def test_commands_that_meet_a_proxy_that_is_just_back_from_a_crash_all_get_through(bare: Apart):
    """The engine restarts it, and the sidecar is left behind: one of them brings that back, under nobody else's
    session."""
    apps = [bare.project() for _ in range(4)]
    for each in apps:
        bare.up(each)
    for each in apps:
        each.version("2")
    crashed = bare.inspect("imm-proxy")["State"]
    os.kill(crashed["Pid"], signal.SIGKILL)

    def back() -> bool:
        state = bare.inspect("imm-proxy")["State"]
        return state["Running"] and state["Pid"] not in (0, crashed["Pid"])

    assert until(back, PATIENCE_SECONDS, pause=0.05)
    ended = at_once(bare, [(each, ["up"]) for each in apps])
    assert [each.code for each in ended] == [0] * len(apps), [each.stderr for each in ended if each.code]
    for each in apps:
        check(bare, each, 2, "2")
    assert proxies(bare) == ["imm-proxy", "imm-sidecar"]


def test_first_deployments_at_once_on_a_host_without_a_proxy_all_go_live(bare: Apart):
    """One of them makes the proxy; none gets another's address, network or route."""
    apps = [bare.project() for _ in range(APPS)]
    for each in apps:
        each.version(f"this is {each.name}")
    ended = at_once(bare, [(each, ["up"]) for each in apps])
    assert [each.code for each in ended] == [0] * len(apps), [each.stderr for each in ended if each.code]
    for each in apps:
        check(bare, each, 1, f"this is {each.name}")
    assert proxies(bare) == ["imm-proxy", "imm-sidecar"]
    assert no_task_stays(bare), tasks(bare)
