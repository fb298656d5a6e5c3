"""A command that is killed while others depend on it is put right at once, by its guard, without another command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from signal import Signals

import pytest

from immutable_local.guard import guard
from immutable_local.recovery import recover
from immutable_local.wait import until
from tests.host import HEALTHCHECK, Host, Project
from tests.kills import (
    check,
    command,
    guards,
    kill_guards,
    live_number,
    look,
    struck,
    wait_for_guards,
)

PATIENCE_SECONDS = 20.0
# Longer than a guard is at it on a busy machine.
WATCH = "60s"
# A command of which the guard writes down that it was needed, instead of putting anything right.
NOTING = """\
import sys
def note(): open(sys.argv[1], "w").write("needed")
"""
GUARDED = """\
import os, signal, sys
sys.path.append(os.path.dirname(sys.argv[1]) + "/programs")
from noting import note
from immutable_local.guard import guard
def killed(): os.kill(os.getpid(), signal.SIGKILL)
def interrupted(): os.kill(os.getpid(), signal.SIGINT)
def frozen(): os.kill(os.getpid(), signal.SIGSTOP)
def failing(): raise OSError("no")
def ending(): pass
with guard(note, sys.argv[1], report=print):
    globals()[sys.argv[2]]()
"""


class Guarded:
    """A process with a guard, in a process group of its own; it ends in the way of that name."""

    def __init__(self, folder: Path, way: str) -> None:
        self.note = folder / "needed"
        (folder / "programs").mkdir()
        (folder / "programs" / "noting.py").write_text(NOTING)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", GUARDED, str(self.note), way],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.DEVNULL,
            process_group=0,
        )

    def guards(self) -> list[str]:
        """The states of its guards, as the kernel has them."""
        states = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (
                    str(self.note) in (process / "cmdline").read_text(errors="replace")
                    and int(process.name) != self.process.pid
                ):
                    stat = (process / "stat").read_text(errors="replace")
                    states.append(stat.rpartition(")")[2].split()[0])
            except OSError:
                # It has just ended.
                continue
        return states


class TestTheProcess:
    """Whom it puts right, and whom it leaves alone; without an engine."""

    def test_a_command_that_was_killed_needs_it(self, tmp_path: Path):
        killed = Guarded(tmp_path, "killed")
        assert killed.process.wait(PATIENCE_SECONDS) == -Signals.SIGKILL
        assert until(killed.note.exists, PATIENCE_SECONDS, pause=0.02)

    def test_it_imports_nothing_of_the_folder_that_the_command_was_given_in(self, tmp_path: Path):
        """It may be a stranger's repository, or just have a `json.py`."""
        (tmp_path / "json.py").write_text("open('imported', 'w')")
        killed = Guarded(tmp_path, "killed")
        killed.process.wait(PATIENCE_SECONDS)
        assert until(killed.note.exists, PATIENCE_SECONDS, pause=0.02)
        assert not (tmp_path / "imported").exists()

    @pytest.mark.parametrize("way", ["ending", "failing", "interrupted"])
    def test_a_command_that_ends_by_itself_takes_it_along(self, tmp_path: Path, way: str):
        """Whatever end it is: what had to be undone is undone then."""
        ended = Guarded(tmp_path, way)
        ended.process.wait(PATIENCE_SECONDS)
        assert ended.guards() == []
        assert not ended.note.exists()

    def test_a_frozen_command_is_alive(self, tmp_path: Path):
        """Nobody acts beside it; killed after all, it needs its guard."""
        frozen = Guarded(tmp_path, "frozen")
        os.waitid(os.P_PID, frozen.process.pid, os.WSTOPPED | os.WNOWAIT)
        assert until(lambda: frozen.guards() == ["S"], PATIENCE_SECONDS, pause=0.02), frozen.guards()
        assert not frozen.note.exists()
        frozen.process.kill()
        frozen.process.wait(PATIENCE_SECONDS)
        assert until(frozen.note.exists, PATIENCE_SECONDS, pause=0.02)

    def test_what_kills_the_whole_process_group_leaves_it(self, tmp_path: Path):
        """As `timeout -s KILL` does, and a terminal that is closed."""
        frozen = Guarded(tmp_path, "frozen")
        os.waitid(os.P_PID, frozen.process.pid, os.WSTOPPED | os.WNOWAIT)
        os.killpg(frozen.process.pid, signal.SIGKILL)
        frozen.process.wait(PATIENCE_SECONDS)
        assert until(frozen.note.exists, PATIENCE_SECONDS, pause=0.02)

    def test_where_none_can_be_started_the_command_goes_on_and_says_so(self, monkeypatch: pytest.MonkeyPatch):
        """Here the kernel refuses it: its arguments are too long."""
        monkeypatch.setattr(sys, "path", ["x" * (1 << 20)])
        said: list[str] = []
        with guard(recover, "shop", report=said.append):
            said.append("goes on")
        assert len(said) == 2 and "no guard could be started" in said[0]


@pytest.fixture(scope="module")
def app(shared: Host) -> Project:
    """One writer; `old` is live whenever a test begins. A drain would outlast what waits."""
    app = shared.project()
    app.set(volumes={"data": {"writers": "one"}})
    return app.version("old", volumes=["data:/data"], hold="20s", drain="60s")


@pytest.fixture
def live(shared: Host, app: Project) -> Iterator[int]:
    app.version("old", environment=None, healthcheck=HEALTHCHECK)
    yield int(shared.up(app).result["release"])
    wait_for_guards(shared, app)


@pytest.mark.parametrize("step", ["stop_old", "check_health"])
def test_a_request_that_waits_for_a_killed_command_is_answered_by_the_old_release(
    shared: Host, app: Project, live: int, step: str
):
    """Nobody gives another command: all is as it was before, and history says what happened."""
    app.version("new", behave="wait", healthcheck={**HEALTHCHECK, "start_period": "90s"})
    with command(shared, app, "up") as running:
        assert running.begun(step), running
        running.send(Signals.SIGKILL)
        # The old instance stops, or has stopped: it waits.
        answer = shared.ask("/version", app)
        running.ended()
    assert (answer.status, answer.text) == (200, "old")
    state = check(shared, app, live, "old")
    assert state["records"][-1]["event"] == "interrupted"
    assert f"was interrupted at {step}; found release {live} live" in state["records"][-1]["error"]
    assert guards(shared, app) == []


def test_a_command_killed_when_the_new_release_was_live_is_brought_to_its_end(
    shared: Host, app: Project, live: int
):
    """What waited gets its answer of the new one."""
    app.version(f"new {time.time()}")
    struck(shared, app, "up", at="record")
    state = look(shared, app)
    new = live_number(state)
    assert new is not None and new > live
    check(shared, app, new, (app.folder / "VERSION").read_text())


def test_the_next_command_is_not_refused_for_a_guard_that_is_at_work(shared: Host, app: Project, live: int):
    """It waits: here for as long as the old instance takes to boot."""
    app.version("old", environment={"BOOT": "3"}, healthcheck={**HEALTHCHECK, "start_period": "20s"})
    slow = shared.up(app).result["release"]
    app.version("new", environment={})
    with command(shared, app, "up") as running:
        assert running.begun("start"), running
        running.send(Signals.SIGKILL)
        running.ended(unguarded=False)
    assert until(lambda: holder(shared, app).get("command") == "recovery", PATIENCE_SECONDS, pause=0.02)
    assert shared.imm(app, "prune").code == 0
    check(shared, app, slow, "old")


def test_a_guard_that_comes_second_changes_nothing(shared: Host):
    """Another command was here since it was needed, and watches its release: the old one stays up beside it."""
    app = shared.project().set(volumes={"data": {"writers": "one"}})
    shared.up(app.version("old", volumes=["data:/data"]))
    app.version("new", behave="wait", healthcheck={**HEALTHCHECK, "start_period": "90s"})
    try:
        with command(shared, app, "up") as running:
            assert running.begun("check_health"), running
            (late,) = guards(shared, app)
            os.kill(late, signal.SIGSTOP)
            running.send(Signals.SIGKILL)
            running.ended(unguarded=False)
        # What is watched shares no volume for one writer.
        app.set(volumes={}, release={"watch": WATCH})
        app.version("newer", environment=None, healthcheck=HEALTHCHECK, volumes=None)
        with shared.begun(app, "up", step="watch") as watching:
            before, both = {**look(shared, app), "waited": 0}, shared.running(app)
            holdings = shared.holdings()
            os.kill(late, signal.SIGCONT)
            # The one that watches swept while requests waited, and has a guard of its own.
            assert until(lambda: late not in guards(shared, app), PATIENCE_SECONDS, pause=0.02)
            assert (len(both), shared.running(app)) == (2, both)
            assert {**look(shared, app), "waited": 0} == before
            assert shared.holdings() == holdings
            assert not watching.has_ended
    finally:
        kill_guards(shared, app)


def holder(host: Host, app: Project) -> dict[str, str]:
    """Who is written down as the holder of the app's lock."""
    said = host.printed(
        "imm-sidecar",
        "python3",
        "-c",
        f"print(open('/imm/state/data/locks/app-{app.name}').read() or '{{}}')",
    )
    return dict(json.loads(said))
