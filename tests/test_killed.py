"""Killed anywhere, right again at the next command; frozen, and two at once.

The default run takes SIGKILL at the begin of each step once, a few known kills, and a seeded sample of the
rest. All of it: IMM_SOAK=1; other moments and another sample: IMM_SEED=7. The apps are killed side by side; each
test waits for its own kill.
"""

from __future__ import annotations

import getpass
import json
import os
import random
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

import pytest

from immutable_local import ledger, lock
from immutable_local.engine import connect
from immutable_local.host import attach
from immutable_local.sidecar.program import HEARTBEAT_SECONDS
from tests.conftest import SOAK, Machine
from tests.host import HEALTHCHECK, Host, Project
from tests.kills import (
    RENAMES,
    STEPS,
    Clients,
    Kill,
    Subject,
    at_each_step,
    check,
    command,
    live_number,
    look,
    struck,
    while_pruning,
)

SEED = int(os.environ.get("IMM_SEED", "4"))
SIDE_BY_SIDE = 2
SAMPLE = 3
# It has every step.
ONCE = ("up", "one")
# Ctrl-C and SIGTERM where most is to be undone, and a `down` that has taken nothing off yet.
ALWAYS = (
    ("up", "many", "check_health", "SIGINT"),
    ("up", "many", "check_health", "SIGTERM"),
    ("down", "many", "sweep", "SIGKILL"),
)
FORGET_LAST_RECORD = """\
import pathlib, sys
state = pathlib.Path("/imm/state/data")
max((state / "ledger" / sys.argv[1]).iterdir()).unlink()
(state / "doing" / f"{sys.argv[1]}.json").write_text(sys.argv[2])
"""
SLOW_TO_STOP = ["sh", "-c", "trap 'sleep 1; kill $!; exit 0' TERM; python3 server.py & wait"]


def every_kill() -> list[Kill]:
    """Each step's begin and middle, by each signal; `prune` at twelve moments by each."""
    choice = random.Random(SEED)
    # The same moment may have been drawn twice.
    return list(dict.fromkeys(at_each_step(choice) + while_pruning(choice, 12)))


def chosen() -> list[Kill]:
    kills = every_kill()
    if SOAK:
        return kills
    at_begin = [kill for kill in kills if not kill.delay]
    begin = [
        kill for kill in at_begin if kill.signal == Signals.SIGKILL and (kill.command, kill.writers) == ONCE
    ]
    known = [kill for kill in at_begin if (kill.command, kill.writers, kill.step, kill.signal.name) in ALWAYS]
    pruning = [kill for kill in kills if kill.command == "prune" and kill.signal == Signals.SIGKILL][:2]
    always = begin + known + pruning
    rest = [kill for kill in kills if kill not in always]
    return always + random.Random(SEED).sample(rest, SAMPLE)


@dataclass(frozen=True)
class Freeze:
    """A client that is stopped (SIGSTOP) at the begin of a step, and woken up when another one is done."""

    command: str
    writers: str
    step: str

    def __str__(self) -> str:
        return f"{self.command}-{self.writers}-{self.step}"


FREEZES = (
    [
        Freeze(*told, step)
        for told in (("up", "many"), ("up", "one"), ("down", "many"))
        for step in STEPS[told]
    ]
    if SOAK
    else [Freeze("up", "many", "start"), Freeze("up", "one", "stop_old")]
)


class Background:
    """What the tests of this file wait for, done side by side: a chain of kills for each app."""

    def __init__(self, open_host: Callable[[], Host], items: list[Any]) -> None:
        self._open = open_host
        self._hosts: list[Host] = []
        self._noting = threading.Lock()
        self._ended: dict[Any, Future[None]] = {item: Future() for item in items}
        self._workers = ThreadPoolExecutor(SIDE_BY_SIDE)
        chains: dict[Any, list[Any]] = {}
        for item in items:
            chains.setdefault((item.command, item.writers) if isinstance(item, Kill) else item, []).append(
                item
            )
        # The longest first: the end doesn't wait for one that began late.
        for chain in sorted(chains.values(), key=len, reverse=True):
            self._workers.submit(self._endure, chain)

    def _endure(self, chain: list[Any]) -> None:
        subject = None
        for item in chain:
            try:
                if subject is None:
                    with self._noting:
                        host = self._open()
                        self._hosts.append(host)
                    subject = Subject(host, item.writers)
                if isinstance(item, Kill):
                    subject.endure(item)
                else:
                    freeze(subject, item)
                self._ended[item].set_result(None)
            except BaseException as failed:
                # The next one begins with an app of its own: one defect is told once.
                subject = None
                self._ended[item].set_exception(failed)

    def wait_for(self, item: Any) -> None:
        self._ended[item].result()

    def close(self) -> None:
        self._workers.shutdown(cancel_futures=True)
        with ThreadPoolExecutor(SIDE_BY_SIDE) as beside:
            list(beside.map(Host.close, self._hosts))


@pytest.fixture(scope="module")
def background(request: pytest.FixtureRequest, machine: Machine, tmp_path_factory) -> Iterator[Background]:
    """Only what this run selected."""
    asked = [
        item.callspec.params["item"]
        for item in request.session.items
        if item.path == request.path and "item" in getattr(getattr(item, "callspec", None), "params", {})
    ]
    begun = Background(lambda: Host(tmp_path_factory.mktemp("killed"), machine.base, machine.proxy), asked)
    yield begun
    begun.close()


# Others of this file look at their own apps meanwhile: these are begun first and waited for last.
@pytest.fixture(autouse=True)
def begun(background: Background) -> None:
    return


def freeze(subject: Subject, at: Freeze) -> None:
    """Its lock is free within the heartbeat, and woken up it changes nothing."""
    host, app = subject.host, subject.app
    # Stopped at its last steps, too, it has not ended before the signal arrives.
    app.service("web", command=SLOW_TO_STOP)
    was = subject.next_version()
    subject.deploy()
    if at.command == "up":
        subject.next_version()
    with Clients(host, app) as clients, command(host, app, at.command) as running:
        assert running.begun(at.step), running
        running.send(Signals.SIGSTOP)
        told_who_holds_it(host.up(app, expect=3).error["message"], at.command)
        result = host.up(app, "--wait", f"{HEARTBEAT_SECONDS + 5:.0f}s").result
        assert result["outcome"] in ("live", "unchanged")
        version = (app.folder / "VERSION").read_text()
        before = check(host, app, result["release"], version)
        holdings = subject.holdings()
        running.send(Signals.SIGCONT)
        woken = running.ended()
        if at.command == "up" and subject.writers == "many":
            assert not clients.lost()
    assert woken.code == 1, woken
    assert woken.error["code"] in ("session_lost", "engine_refused"), woken.error
    after = check(host, app, result["release"], version)
    assert {**after, "waited": 0} == {**before, "waited": 0}
    assert subject.holdings() == holdings
    assert was


def told_who_holds_it(message: str, what: str) -> None:
    assert (
        f"{what} by {getpass.getuser()}@{socket.gethostname()} from {socket.gethostname()} (process "
        in message
    )
    assert re.search(r"since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", message)


class TestTwoAtOnce:
    """One wins; the others are told who holds the lock, from where, since when, or wait."""

    def test_of_several_at_the_same_moment_those_that_dont_win_are_refused(self, host: Host):
        subject = Subject(host, "many", environment={"BOOT": "2"})
        subject.next_version()
        with ThreadPoolExecutor(4) as beside:
            codes = list(beside.map(lambda _: self.code_of(host, subject), range(4)))
        assert codes.count(0) >= 1 and set(codes) <= {0, 3}, codes
        assert 3 in codes
        check(host, subject.app, 1, (subject.app.folder / "VERSION").read_text())

    @staticmethod
    def code_of(host: Host, subject: Subject) -> int:
        with command(host, subject.app, "up") as running:
            ended = running.ended()
        if ended.code == 3:
            assert ended.error["code"] == "locked"
            told_who_holds_it(ended.error["message"], "up")
        return ended.code

    def test_those_that_wait_all_get_their_turn_with_what_each_of_them_asks(self, host: Host, tmp_path: Path):
        """Never two releases mixed: the last one's version is live, whole."""
        subject = Subject(host, "many")
        subject.next_version()
        subject.deploy()
        folders = []
        for number in range(3):
            folder = tmp_path / f"client-{number}"
            shutil.copytree(subject.app.folder, folder)
            (folder / "VERSION").write_text(f"from client {number}")
            folders.append(folder)
        # From several folders of one project: each of them is named its origin when it comes.
        with ThreadPoolExecutor(3) as beside:
            results = list(
                beside.map(
                    lambda f: host.up(subject.app.at(f), "--take-over", "--wait", "60s").result, folders
                )
            )
        assert sorted(each["release"] for each in results) == [2, 3, 4]
        state = look(host, subject.app)
        live = next(i for i, each in enumerate(results) if each["release"] == live_number(state))
        check(host, subject.app, live_number(state), f"from client {live}")
        flips = [each["release"] for each in state["records"] if each["event"] == "went_live"]
        assert flips == [1, 2, 3, 4]


@pytest.fixture(scope="module")
def many(shared: Host) -> Subject:
    """One app for those tests that leave one behind."""
    return Subject(shared, "many")


@pytest.fixture(scope="module")
def slow_to_stop(shared: Host) -> Subject:
    return Subject(shared, "one", command=SLOW_TO_STOP, stop_grace_period="5s")


class TestWhatKillsFound:
    """Each defect that the kills found, by itself."""

    def test_a_request_that_the_old_instance_is_at_survives_the_sweep(self, many: Subject):
        """Killed while it drained: the next command lets it end before it stops what it was begun on."""
        was = many.next_version()
        live = many.deploy()
        with closing(many.host.connection()) as connection:
            connection.request("GET", "/stream?4", headers={"Host": many.app.domain})
            # With its head the old instance is at it.
            answer = connection.getresponse()
            many.next_version()
            struck(many.host, many.app, "up", at="drain")
            many.host.up(many.app)
            first, *_, last = answer.read().decode().splitlines()
        assert (first, last) == (was, "end")
        check(many.host, many.app, live + 1)

    @pytest.mark.parametrize("moment", RENAMES)
    def test_killed_just_before_or_just_after_the_live_links_rename_that_one_decides(
        self, many: Subject, moment: str
    ):
        """Before it the old release is live, after it the new one."""
        many.endure_at_the_rename(moment)

    def test_a_flip_that_nobody_recorded_is_told_to_be_of_who_made_it(self, shared: Host):
        """The command was killed between the two; here its record is removed, and its word is put back."""
        app = shared.project()
        git = ["git", "-C", app.folder, "-c", "user.name=tests", "-c", "user.email=tests@localhost"]
        for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
            subprocess.run([*git, *words], check=True)
        shared.up(app)
        doing = {"command": "up", "step": "record", "release": 1, "by": "alice@laptop", "at": "2026-01-01"}
        forget = FORGET_LAST_RECORD, app.name, json.dumps(doing)
        assert shared.execute("imm-sidecar", "python3", "-c", *forget)[0] == 0
        shared.imm(app, "prune")
        _, live, interrupted = shared.history(app)
        assert (live["event"], live["by"]) == ("went_live", "alice@laptop")
        # Of a folder in which nothing was committed yet.
        assert (live["git"], live["dirty"]) == (shared.status(app)["live"]["git"], True)
        assert interrupted["by"] != "alice@laptop"

    @pytest.mark.parametrize("which", [Signals.SIGINT, Signals.SIGKILL], ids=lambda which: which.name)
    def test_an_instance_that_the_engine_is_stopping_runs_again(self, slow_to_stop: Subject, which: Signals):
        """The engine goes on stopping what it was asked to stop, also when nobody waits for it any more."""
        host, app = slow_to_stop.host, slow_to_stop.app
        version = slow_to_stop.next_version()
        live = slow_to_stop.deploy()
        app.version("another")
        struck(host, app, "up", at="stop_old", which=which, delay=0.2)
        struck_at = time.time()
        app.version(version)
        result = host.up(app).result
        assert (result["outcome"], result["release"]) == ("unchanged", live)
        # Whatever the engine was asked before it has done by the end of the grace period, and it tells.
        [running] = host.running(app)
        told = host.engine.events(
            since=host.inspect(running)["State"]["StartedAt"],
            until=struck_at + 6.0,
            filters={"container": running, "event": "die"},
            decode=True,
        )
        assert list(told) == []
        check(host, app, live, version)

    def test_a_sweep_that_wakes_up_starts_no_old_instance_beside_the_new_one(self, shared: Host):
        """Frozen while it waited for the one that a killed command was stopping: two would write what only one may."""
        slow = ["sh", "-c", "trap 'sleep 4; kill $!; exit 0' TERM; python3 server.py & wait"]
        subject = Subject(shared, "one", command=slow, stop_grace_period="8s")
        app, version = subject.app, subject.next_version()
        subject.deploy()
        [old] = shared.running(app)
        with command(shared, app.version("another"), "up") as killed:
            assert killed.begun("stop_old"), killed
            time.sleep(0.2)
            killed.send(Signals.SIGKILL, alone=False)
            killed.ended()
        app.version(version)
        told: Any = shared.engine.events(
            since=f"{time.time():.9f}", filters={"container": old, "event": ["kill", "die"]}, decode=True
        )
        with command(shared, app, "up") as frozen:
            assert next(told)["Action"] == "kill"
            frozen.send(Signals.SIGSTOP)
            told.close()
            app.version(
                subject.next_version(), behave="wait", healthcheck={**HEALTHCHECK, "start_period": "60s"}
            )
            patient = ("up", "--wait", f"{HEARTBEAT_SECONDS + 5:.0f}s")
            with shared.begun(app, *patient, step="check_health") as successor:
                frozen.send(Signals.SIGCONT)
                woken = frozen.ended()
                assert old not in shared.running(app)
                assert shared.inspect(old)["HostConfig"]["RestartPolicy"]["Name"] == "no"
                shared.let_go(app)
                live = successor.ends().result["release"]
        assert (woken.code, woken.error["code"]) == (1, "session_lost")
        check(shared, app, live)

    def test_what_a_sweep_takes_away_ends_in_its_own_releases_time(self, shared: Host):
        """Killed before it retired the old instance, whose successor is given no time at all."""
        slow = "trap 'sleep 2; echo ended in peace; kill $!; exit 0' TERM; python3 server.py & wait"
        app = shared.project().version("old", command=["sh", "-c", slow], stop_grace_period="20s")
        shared.up(app)
        struck(shared, app.version("new", command=None, stop_grace_period="0s"), "up", at="record")
        shared.imm(app, "prune")
        check(shared, app, 2, "new")
        told = [each["line"] for each in shared.imm(app, "logs", "--release", "1").told]
        assert "ended in peace" in told, told

    def test_a_release_that_is_live_again_after_down_stands_in_the_history_again(self, many: Subject):
        """Killed between the flip and its record."""
        many.next_version()
        live = many.deploy()
        many.host.imm(many.app, "down")
        struck(many.host, many.app, "up", at="record")
        many.host.imm(many.app, "prune")
        state = check(many.host, many.app, live)
        told = [each["event"] for each in state["records"] if each["event"] in ("went_live", "down")]
        assert told[-3:] == ["went_live", "down", "went_live"]

    def test_down_that_is_brought_to_its_end_by_another_one_is_told_once(self, many: Subject):
        """Interrupted when it had taken the app off, and only cleared up."""
        many.next_version()
        live = many.deploy()
        struck(many.host, many.app, "down", at="retire", which=Signals.SIGINT)
        many.host.imm(many.app, "down")
        state = check(many.host, many.app, None)
        told = [(each["event"], each["release"]) for each in state["records"]]
        assert told.count(("down", live)) == 1
        assert ("down", None) not in told

    def test_down_that_was_killed_after_the_flip_is_recorded_by_the_next_command(self, many: Subject):
        """And the network goes with it, whatever command comes next."""
        many.next_version()
        many.deploy()
        struck(many.host, many.app, "down", at="flip", delay=0.05)
        survivor = live_number(look(many.host, many.app))
        many.host.imm(many.app, "prune")
        check(many.host, many.app, survivor)

    def test_killed_twice_history_tells_both(self, many: Subject):
        """The second one while it swept what the first one left."""
        version = many.next_version()
        live = many.deploy()
        before = len(look(many.host, many.app)["records"])
        # It boots when it is let go, which it never is: the kill can't come too late.
        many.app.version("another", behave="wait")
        for step, delay in (("check_health", 0.0), ("sweep", 0.05)):
            struck(many.host, many.app, "up", at=step, delay=delay)
        many.app.version(version, environment=None)
        assert many.host.up(many.app).result["outcome"] == "unchanged"
        state = check(many.host, many.app, live, version)
        told = [each["error"] for each in state["records"][before:] if each["event"] == "interrupted"]
        assert len([each for each in told if "interrupted at check_health" in each]) == 1, told
        assert len([each for each in told if "interrupted at check_health" not in each]) <= 1, told

    def test_a_sweep_that_was_killed_when_it_had_told_of_the_first_tells_nothing_twice(self, many: Subject):
        """Its record is written, and that it is the sweep that is at work now is not."""
        version = many.next_version()
        many.deploy()
        before = len(look(many.host, many.app)["records"])
        many.app.version("another", behave="wait")
        struck(many.host, many.app, "up", at="check_health")
        ready = attach(connect())
        assert ready is not None
        with ready.session as session:
            lock.take(session, many.app.name, "a test")
            ledger.append(session, many.app.name, "interrupted", error="up was interrupted at check_health")
        many.app.version(version, environment=None)
        assert many.host.up(many.app).result["outcome"] == "unchanged"
        told = [each["event"] for each in look(many.host, many.app)["records"][before:]]
        assert told.count("interrupted") == 1, told

    def test_what_a_killed_command_claimed_another_app_may_have(self, shared: Host):
        """A domain of what was live, and one of a service that never went live."""
        app, other = shared.project().version("1"), shared.project()
        shared.up(app)
        claimed = [f"a.{app.domain}", f"b.{app.domain}"]
        app.version("2", behave="wait", domains=[app.domain, claimed[0]])
        app.service("api", port=8000, domains=[claimed[1]], behave="wait")
        struck(shared, app, "up", at="check_health")
        del app.settings["services"]["api"]
        app.version("1", domains=None, environment=None)
        assert shared.up(app).result["outcome"] == "unchanged"
        shared.up(other.version("other", domains=[other.domain, *claimed]))
        assert {shared.get("/version", other, domain=each) for each in claimed} == {"other"}
        check(shared, app, 1, "1")

    def test_an_instance_that_cannot_be_removed_stops_no_command(self, shared: Host):
        """It is told of, and tried again."""
        app = shared.project().version("1")
        shared.up(app)
        struck(shared, app.version("2", behave="wait"), "up", at="check_health")
        left = next(each["Id"] for each in shared.instances(app) if each["Labels"]["imm.release"] == "2")
        stuck = Path(shared.engine.info()["DockerRootDir"], "containers", left, "hostname")
        if subprocess.run(["chattr", "+i", str(stuck)], check=False, capture_output=True).returncode:
            pytest.skip("nothing here is unremovable")
        try:
            said = shared.imm(app, "prune")
        finally:
            subprocess.run(["chattr", "-i", str(stuck)], check=True)
        assert "stays, until the next command tries again" in said.stderr
        shared.imm(app, "prune")
        check(shared, app, 1, "1")

    def test_an_old_instance_that_cannot_be_removed_is_no_failure_of_the_new_one(self, shared: Host):
        """That one is live, and the deployment is through but for the old one."""
        app = shared.project().version("1")
        shared.up(app)
        [old] = [each["Id"] for each in shared.instances(app)]
        stuck = Path(shared.engine.info()["DockerRootDir"], "containers", old, "hostname")
        if subprocess.run(["chattr", "+i", str(stuck)], check=False, capture_output=True).returncode:
            pytest.skip("nothing here is unremovable")
        try:
            said = shared.up(app.version("2"))
        finally:
            subprocess.run(["chattr", "-i", str(stuck)], check=True)
        assert said.states("retire", "prune") == ["done", "done"]
        assert "stays, until the next command tries again" in said.stderr
        shared.imm(app, "prune")
        check(shared, app, 2, "2")

    def test_an_interrupted_sweep_leaves_nobody_waiting(self, shared: Host):
        """Its guard would end with it: what waits for the old instance is answered all the same."""
        subject = Subject(shared, "one", environment={"BOOT": "1.5"})
        was = subject.next_version()
        live = subject.deploy()
        subject.next_version()
        with command(shared, subject.app, "up") as running:
            assert running.begun("start"), running
            running.send(Signals.SIGKILL, alone=False)
            running.ended()
        look(shared, subject.app)
        ended = struck(shared, subject.app, "up", at="sweep", which=Signals.SIGINT, delay=0.3)
        assert ended.error["code"] == "interrupted"
        assert shared.get("/version", subject.app) == was
        check(shared, subject.app, live, was)

    def test_one_instance_that_cannot_be_started_again_leaves_no_other_one_down(self, shared: Host):
        """Both were stopped for one writer's sake; somebody else's container has an address of imm's meanwhile."""
        app = shared.project().set(volumes={"one": {"writers": "one"}, "two": {"writers": "one"}})
        app.version("1", volumes=["one:/data"], hold="1s")
        app.service("api", port=8000, domains=[f"api.{app.domain}"], volumes=["two:/data"], hold="1s")
        shared.up(app)
        listed = [
            each["Names"][0].lstrip("/")
            for each in shared.engine.containers(filters={"label": f"imm.app={app.name}"})
        ]
        first, second = listed
        network = f"imm-app-{app.name}"
        address = shared.inspect(first)["NetworkSettings"]["Networks"][network]["IPAddress"]
        with command(shared, app.version("2"), "up") as running:
            assert running.begun("start"), running
            running.send(Signals.SIGKILL, alone=False)
            running.ended()
        look(shared, app)
        where = shared.engine.create_endpoint_config(ipv4_address=address)
        theirs = shared.engine.create_container(
            shared.base,
            ["sleep", "1000"],
            host_config=shared.engine.create_host_config(network_mode=network),
            networking_config=shared.engine.create_networking_config({network: where}),
        )["Id"]
        shared.engine.start(theirs)
        try:
            said = shared.imm(app, "prune")
            assert "Docker refused to start" in said.stderr
            assert shared.running(app) == [second]
        finally:
            shared.engine.remove_container(theirs, force=True)
        shared.up(app)
        check(shared, app, 2, "2")

    def test_a_network_that_somebody_else_gave_the_apps_name_stays(self, shared: Host):
        """Of an app that isn't deployed there is nothing to take away, whatever is named like it."""
        app = shared.project()
        theirs = f"imm-app-{app.name}"
        made = shared.engine.create_network(theirs)["Id"]
        try:
            assert shared.imm(app, "down").result["outcome"] == "unchanged"
            shared.imm(app, "prune")
            assert [each["Id"] for each in shared.engine.networks(names=[theirs])] == [made]
        finally:
            shared.engine.remove_network(made)

    def test_a_container_of_an_image_made_of_an_instance_is_somebodys(self, shared: Host):
        """It inherits imm's labels: it is neither swept away nor in the way, and nor is one of odd labels."""
        app = shared.project().version("1")
        shared.up(app)
        [name] = shared.running(app)
        copied = shared.engine.commit(name, repository=f"{app.name}-copy")["Id"]
        odd = {"imm.app": app.name, "imm.role": "instance", "imm.release": "the first", "imm.slot": "red"}
        kept = [
            shared.engine.create_container(copied, name=f"{app.name}-debug")["Id"],
            shared.engine.create_container(shared.base, labels=odd, name=f"{app.name}-odd")["Id"],
        ]
        try:
            assert shared.up(app).result["outcome"] == "unchanged"
            assert shared.up(app.version("2")).result["outcome"] == "live"
            assert shared.status(app)["live"]["release"] == 2
            shared.imm(app, "down")
            assert sorted(each["Id"] for each in shared.instances(app)) == sorted(kept)
        finally:
            for each in kept:
                shared.engine.remove_container(each)
            shared.engine.remove_image(copied, force=True)

    def test_an_instance_that_somebody_renamed_is_still_imms(self, shared: Host):
        """It holds an address of imm's: what the live link doesn't name goes, whatever it is called."""
        app = shared.project().version("1")
        shared.up(app)
        [name] = shared.running(app)
        shared.engine.rename(name, f"{app.name}-renamed")
        shared.up(app)
        check(shared, app, 1, "1")

    def test_a_history_that_was_begun_anew_and_cut_off_is_gone_on_with(self, shared: Host):
        """Its releases are found again one after the other; one that isn't named yet is no orphan."""
        app = shared.project()
        for version in ("1", "2", "3"):
            shared.up(app.version(version))
        forget_records(shared, app, "*")
        shared.up(app)
        forget_records(shared, app, "00000002-*", "00000003-*", "00000004-*")
        said = shared.imm(app, "prune")
        assert "can be reverted to: 1, 2" in said.stderr
        assert shared.releases(app) == [1, 2, 3]
        assert shared.revert(app).result["release"] == 2
        check(shared, app, 2, "2")

    def test_a_release_whose_seal_was_moved_away_is_kept_and_its_number_given_to_nobody(self, shared: Host):
        """A broken record is moved away by hand: others still name what was live."""
        app = shared.project()
        shared.up(app)
        forget_records(shared, app, "00000001-*")
        shared.up(app.version("2"))
        assert shared.releases(app) == [1, 2]
        sealed = next(each for each in look(shared, app)["records"] if each["event"] == "sealed")
        forget_records(shared, app, f"{sealed['number']:08d}-*")
        shared.revert(app)
        shared.engine.remove_image(f"imm.local/app/{app.name}:2")
        assert shared.up(app.version("3")).result["release"] == 3

    def test_a_first_release_killed_while_it_starts_goes_live_at_the_next_command(self, host: Host):
        """Network, routes and a container of a moment may be there or not."""
        choice = random.Random(SEED)
        for _ in range(10 if SOAK else 2):
            subject = Subject(host, "many")
            subject.next_version()
            struck(host, subject.app, "up", at="start", delay=choice.uniform(0.0, 0.6))
            release = host.up(subject.app).result["release"]
            check(host, subject.app, release, (subject.app.folder / "VERSION").read_text())

    def test_a_first_release_interrupted_while_it_starts_leaves_nothing(self, host: Host):
        choice = random.Random(SEED)
        for which in (Signals.SIGINT, Signals.SIGTERM):
            subject = Subject(host, "many")
            subject.next_version()
            nothing = subject.holdings()
            ended = struck(host, subject.app, "up", at="start", which=which, delay=choice.uniform(0.0, 0.3))
            if ended.code == 0:
                continue
            assert (ended.code, ended.error["code"]) == (1, "interrupted")
            assert subject.holdings() == nothing
            check(host, subject.app, None)


def forget_records(host: Host, app: Project, *names: str) -> None:
    """Records of the app's ledger that are not there any more."""
    folder = f"/imm/state/data/ledger/{app.name}"
    for each in names:
        assert host.execute("imm-sidecar", "sh", "-c", f"rm {folder}/{each}") == (0, "")


@pytest.mark.parametrize("item", FREEZES, ids=str)
def test_a_frozen_client_loses_its_lock_and_changes_nothing_when_it_wakes_up(
    background: Background, item: Freeze
):
    background.wait_for(item)


@pytest.mark.parametrize("item", chosen(), ids=str)
def test_killed_and_right_again_at_the_next_command(background: Background, item: Kill):
    background.wait_for(item)
