"""Commands killed from outside, driven by the steps that they tell; and what must be true after.

A `Subject` is one app that is killed again and again. What is true is read from the places themselves: the state
that the sidecar holds, the containers and their labels, the images and networks. Nothing in imm helps.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

from immutable_local.guard import RECOVER
from immutable_local.sidecar.program import HEARTBEAT_SECONDS
from immutable_local.wait import until
from tests.host import Host, Outcome, Project

# Longer than a swap takes on a busy machine: requests that the next command holds all come through.
HOLD_SECONDS = 20.0
COMMAND_SECONDS = 120.0
# A guard waits some 20 s for a host that went away, and as long as an instance takes to boot.
GUARD_SECONDS = 60.0
PAUSE_SECONDS = 0.02
FLIPPED = ("went_live", "reverted")
# About how long a step takes here: a kill in its middle comes somewhere within.
LASTS = {
    "lock": 0.09,
    "build": 0.2,
    "seal": 0.13,
    "hold": 0.06,
    "stop_old": 0.11,
    "start": 0.3,
    "check_health": 0.05,
    "flip": 0.03,
    "record": 0.01,
    "drain": 0.01,
    "retire": 0.12,
    "prune": 0.03,
}
TAIL = ("start", "check_health", "flip", "record", "drain", "retire")
ROOM = ("hold", "stop_old")
STEPS = {
    ("up", "many"): ("lock", "sweep", "build", "seal", *TAIL, "prune"),
    ("up", "one"): ("lock", "sweep", "build", "seal", *ROOM, *TAIL, "prune"),
    ("revert", "many"): ("lock", "sweep", *TAIL, "prune"),
    ("revert", "one"): ("lock", "sweep", *ROOM, *TAIL, "prune"),
    ("down", "many"): ("lock", "sweep", "flip", "record", "drain", "retire"),
    ("down", "one"): ("lock", "sweep", "flip", "record", "drain", "retire"),
}
SIGNALS = (Signals.SIGKILL, Signals.SIGINT, Signals.SIGTERM)
AFTER_FLIP = ("record", "drain", "retire", "prune")
# Run in the sidecar. Whoever looks takes the lock first, as the next command would: what a killed client's last
# request still did is done by then.
LOOK = """
import fcntl, hashlib, json, os, pathlib, re, sys, time
app, patience = sys.argv[1], float(sys.argv[2])
state, home = pathlib.Path("/imm/state/data"), pathlib.Path("/imm/proxy/data/apps") / app
def read(path):
    return json.loads(path.read_text()) if path.exists() else None
def names(path):
    return sorted(os.listdir(path)) if path.is_dir() else []
began = time.monotonic()
lock = open(state / "locks" / f"app-{app}", "a")
while True:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
    except BlockingIOError:
        if time.monotonic() > began + patience:
            print(json.dumps({"locked": pathlib.Path(lock.name).read_text()}))
            sys.exit()
        time.sleep(0.01)
waited = time.monotonic() - began
records, broken = [], []
for name in names(state / "ledger" / app):
    content = (state / "ledger" / app / name).read_bytes()
    if re.fullmatch(r"[0-9]{8}-[0-9a-f]{16}\\.json", name) and hashlib.sha256(content).hexdigest()[:16] == name[9:25]:
        records.append(json.loads(content))
    else:
        broken.append(name)
halves = [str(path) for folder in (state / "ledger" / app, state / "doing", state / "origins", state / "logs" / app,
          state / "secrets" / app, home) for path in (folder.glob(".*") if folder.is_dir() else [])
          if folder.name == app or app in path.name]
print(json.dumps({
    "waited": waited, "live": read(home / "live" / "release.json"), "flags": names(home / "live"), "home": names(home),
    "structure": read(home / "structure.json"), "doing": read(state / "doing" / f"{app}.json"), "records": records,
    "broken": broken, "halves": halves,
}))
"""
RENAMES = ("before", "after")
# The moment before is shorter than a busy machine may be away.
RENAME_TRIES = 8
# Run in the sidecar: the session that holds an app's lock is stopped when it is just about to rename the live
# link, or has just done so; then it tells which, of that process.
STOP_AT_THE_RENAME = """
import contextlib, os, pathlib, signal, sys, time
app, moment = sys.argv[1:]
home = pathlib.Path("/imm/proxy/data/apps") / app
def files(process):
    with contextlib.suppress(OSError):
        for each in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                yield os.readlink(each)
def at_rest(process):
    with contextlib.suppress(OSError):
        return {each.read_text().rpartition(")")[2].split()[0] for each in process.glob("task/*/stat")} == {"T"}
lock = f"/imm/state/data/locks/app-{app}"
[session] = [each for each in pathlib.Path("/proc").glob("[0-9]*") if lock in files(each)]
was, there = os.readlink(home / "live"), set(os.listdir(home))
print("waits", flush=True)
if moment == "before":
    while set(os.listdir(home)) == there:
        time.sleep(0.0001)
else:
    while os.readlink(home / "live") == was:
        time.sleep(0.0001)
os.kill(int(session.name), signal.SIGSTOP)
while not at_rest(session):
    time.sleep(0.001)
print(session.name, "before" if os.readlink(home / "live") == was else "after", flush=True)
"""


@dataclass(frozen=True)
class Kill:
    """A signal to a command: at the begin of a step, or some seconds later; and the next command."""

    command: str
    writers: str
    step: str
    signal: Signals
    delay: float = 0.0
    then: str = "up"  # the same version again; 'up-other', 'revert', 'down', 'prune'
    alone: bool = True  # not together with its guard

    def __str__(self) -> str:
        when = f"{self.delay * 1000:.0f}ms" if self.delay else "begin"
        which = self.signal.name + ("" if self.alone else "-both")
        return f"{self.command}-{self.writers}-{self.step}-{which}-{when}-{self.then}"


@dataclass(frozen=True)
class Asked:
    """One request of a client's: when it began, how long it took, and what came."""

    began: float
    seconds: float
    status: int
    text: str


class Clients:
    """Kept-alive clients that go on asking for /version, and note every answer."""

    def __init__(self, host: Host, project: Project, clients: int = 2) -> None:
        self.host = host
        self.project = project
        self.answers: list[Asked] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Clients:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for each in self._threads:
            each.join(timeout=30)

    def lost(self, but: Sequence[tuple[float, float]] = ()) -> list[Asked]:
        """What wasn't answered 200; a 503 that began within one of `but` doesn't count."""
        return [
            each
            for each in list(self.answers)
            if each.status != 200
            and not (each.status == 503 and any(begin <= each.began <= end for begin, end in but))
        ]

    def _ask(self) -> None:
        connection = self.host.connection()
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                connection.request("GET", "/version", headers={"Host": self.project.domain})
                response = connection.getresponse()
                status, text = response.status, response.read().decode()
            except (OSError, http.client.HTTPException) as failed:
                status, text = 0, f"{type(failed).__name__}: {failed}"
                connection.close()
            self.answers.append(Asked(began, time.monotonic() - began, status, text))
            self._stop.wait(PAUSE_SECONDS)
        connection.close()


class Command:
    """imm at work, and what it tells, line by line, as it tells it."""

    def __init__(self, host: Host, project: Project, *words: str) -> None:
        self.host, self.project = host, project
        self.words = words
        self.process = subprocess.Popen(
            [sys.executable, "-m", "immutable_local", "--file", str(project.file), *words, "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=project.folder,
            env={**os.environ, **host.environment},
        )
        self.lines: list[str] = []
        self.complaints: list[str] = []
        self._told = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=each, daemon=True)
            for each in ((self.process.stdout, self.lines), (self.process.stderr, self.complaints))
        ]
        for each in self._readers:
            each.start()

    def _read(self, stream: Any, into: list[str]) -> None:
        for line in stream:
            with self._told:
                into.append(line)
                self._told.notify_all()
        with self._told:
            self._told.notify_all()

    def begun(self, step: str) -> bool:
        """Wait until the step has begun; False when the command ended without."""
        wanted = re.compile(rf'"step": "{step}", "state": "begun"')
        with self._told:
            self._told.wait_for(
                lambda: any(wanted.search(line) for line in self.lines) or not self._readers[0].is_alive(),
                timeout=COMMAND_SECONDS,
            )
            return any(wanted.search(line) for line in self.lines)

    def loaded(self) -> None:
        """Wait until imm's own code runs: an interruption of Python's begin is Python's to tell."""
        libraries = Path(f"/proc/{self.process.pid}/maps")
        # Nothing that Python itself begins with needs it.

        def at_work() -> bool:
            return self.process.poll() is not None or "_socket" in libraries.read_text()

        assert until(at_work, COMMAND_SECONDS, pause=0.005), self

    def complained(self, of: str) -> bool:
        """Wait until it says so on standard error; False when it ended without."""
        with self._told:
            self._told.wait_for(
                lambda: any(of in line for line in self.complaints) or not self._readers[1].is_alive(),
                timeout=COMMAND_SECONDS,
            )
            return any(of in line for line in self.complaints)

    def send(self, which: Signals, alone: bool = True) -> None:
        """Nothing happens when it has ended already. Not `alone`: with SIGKILL its guard is killed, too."""
        both = which == Signals.SIGKILL and not alone
        if both:
            kill_guards(self.host, self.project)
        self.process.send_signal(which)
        if both:
            # One that had only just been started is still loading what it would need.
            self.process.wait(timeout=COMMAND_SECONDS)
            kill_guards(self.host, self.project)

    def ended(self, seconds: float = COMMAND_SECONDS, unguarded: bool = True) -> Outcome:
        """How it ended, and all it said; `unguarded`: once its guard, too, has done what it could."""
        try:
            code = self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(
                f"imm {' '.join(self.words)} did not end within {seconds} s: {self}"
            ) from None
        for each in self._readers:
            each.join(timeout=10)
        if unguarded and code == -Signals.SIGKILL:
            wait_for_guards(self.host, self.project)
        return Outcome(code, "".join(self.lines), "".join(self.complaints))

    def __str__(self) -> str:
        return f"imm {' '.join(self.words)} said:\n{''.join(self.lines)}{''.join(self.complaints)}"


@contextmanager
def command(host: Host, project: Project, *words: str) -> Iterator[Command]:
    """A command that doesn't outlive the test."""
    running = Command(host, project, *words)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.send(Signals.SIGCONT)
            running.send(Signals.SIGKILL)
        running.process.wait(timeout=10)


def guards(host: Host, project: Project) -> list[int]:
    """The guards of commands about this app, and of those that replace the proxy, on this engine."""
    engine = {**os.environ, **host.environment}.get("DOCKER_HOST", "")
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # Others' processes are among them: their words may be any bytes.
            words = (process / "cmdline").read_text(errors="replace").rstrip("\0").split("\0")
            if RECOVER not in words or words[words.index(RECOVER) + 3 :] not in ([], [project.name]):
                continue
            environment = (process / "environ").read_text(errors="replace")
            known = dict(line.partition("=")[::2] for line in environment.split("\0"))
        except OSError:
            # It has just ended.
            continue
        if known.get("DOCKER_HOST", "") == engine:
            found.append(int(process.name))
    return found


def kill_guards(host: Host, project: Project) -> None:
    """They put nothing right."""
    for each in guards(host, project):
        with suppress(ProcessLookupError):
            os.kill(each, Signals.SIGKILL)


def wait_for_guards(host: Host, project: Project) -> None:
    """Those whose command was killed end by themselves."""
    assert until(lambda: not guards(host, project), GUARD_SECONDS, pause=0.02), guards(host, project)


def struck(
    host: Host, project: Project, *words: str, at: str, which: Signals = Signals.SIGKILL, delay: float = 0.0
) -> Outcome:
    """A command that gets a signal `delay` seconds after a step began; how it ended."""
    with command(host, project, *words) as running:
        assert running.begun(at), running
        time.sleep(delay)
        running.send(which)
        ended = running.ended()
    if which == Signals.SIGKILL:
        # Its lock is free once the sidecar has done what it was last told, and reads that nobody is there.
        look(host, project)
    return ended


def look(host: Host, project: Project, patience: float = HEARTBEAT_SECONDS + 2) -> dict[str, Any]:
    """What the state volumes hold of an app. Fails when its lock isn't free within `patience` seconds."""
    told = json.loads(host.printed("imm-sidecar", "python3", "-c", LOOK, project.name, str(patience)))
    assert "locked" not in told, f"the lock is still held after {patience} s: {told['locked']}"
    return dict(told)


def recorded(state: Mapping[str, Any]) -> int | None:
    """The release that is live as the ledger tells it."""
    last = [each for each in state["records"] if each["event"] in (*FLIPPED, "down")]
    return last[-1]["release"] if last and last[-1]["event"] in FLIPPED else None


def live_number(state: Mapping[str, Any]) -> int | None:
    return state["live"]["release"] if state["live"] else None


def check(host: Host, project: Project, live: int | None, version: str | None = None) -> dict[str, Any]:
    """I3 and I4: one live release, nothing that it doesn't name, no half record, no lock, all of one mind."""
    state = look(host, project, patience=0.0)
    assert live_number(state) == live
    assert recorded(state) == live, state["records"]
    assert [each["number"] for each in state["records"]] == list(range(1, len(state["records"]) + 1))
    assert (state["broken"], state["halves"], state["doing"]) == ([], [], None)
    found = host.engine.containers(all=True, filters={"label": f"imm.app={project.name}"})
    by_name = {each["Names"][0].lstrip("/"): each for each in found}
    named = state["live"]["services"] if state["live"] else {}
    assert sorted(by_name) == sorted(name for each in named.values() for name in each["instances"])
    for name, service in named.items():
        for instance in service["instances"]:
            container = by_name[instance]
            marks = container["Labels"]
            assert container["State"] == "running", container
            assert (marks["imm.role"], marks["imm.service"]) == ("instance", name)
            assert (marks["imm.slot"], marks["imm.spec"]) == (service["slot"], service["spec"])
            assert host.inspect(instance)["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert sorted(each for each in state["home"] if not each.startswith(("structure.json", "gen-"))) == (
        ["live"] if live else []
    )
    assert len([each for each in state["home"] if each.startswith("gen-")]) == (1 if live else 0), state[
        "home"
    ]
    slots = [f"{name}.{each['slot']}" for name, each in named.items()]
    assert state["flags"] == (
        sorted(["alive", "open", "release.json", "release.json.copy", *slots]) if live else []
    )
    assert (state["structure"] is None) == (live is None)
    networks = host.engine.networks(filters={"label": f"imm.app={project.name}"})
    assert [each["Name"] for each in networks] == ([f"imm-app-{project.name}"] if live else [])
    sealed = {each["release"] for each in state["records"] if each["event"] in ("sealed", "found")}
    tags = [f"imm.local/app/{project.name}:{number}" for number in host.releases(project)]
    assert host.images(project) == sorted(tags), "a build or a sealed image that nobody announced is left"
    assert set(host.releases(project)) <= sealed
    if live is not None:
        assert live in host.releases(project)
        answer = host.ask("/version", project)
        assert answer.status == 200 and version in (None, answer.text), answer
    return state


class Subject:
    """One app that is killed again and again."""

    def __init__(self, host: Host, writers: str, **web: Any) -> None:
        self.host = host
        self.writers = writers
        self.app = host.project()
        self.count = 0
        self.interrupted_at: str | None = None
        self.guarded = False
        self.versions: dict[int, str] = {}
        if writers == "one":
            web = {"volumes": ["data:/data"], "hold": f"{HOLD_SECONDS:g}s", **web}
            self.app.set(volumes={"data": {"writers": "one"}})
        else:
            web = {"replicas": 2, **web}
        self.app.service("web", **web)

    def next_version(self) -> str:
        self.count += 1
        version = f"{self.app.name} v{self.count}"
        self.app.version(version)
        return version

    def deploy(self) -> int:
        """The version that the folder holds goes live; returns its release."""
        result = self.host.up(self.app).result
        number = int(result["release"])
        self.versions[number] = (self.app.folder / "VERSION").read_text()
        return number

    def ready(self, kill: Kill) -> tuple[dict[str, Any], list[str]]:
        """Something is live, with an earlier release to go back to; the words that will be killed."""
        while len(self.versions) < (1 if (kill.command, kill.then) == ("up", "up") else 2):
            self.next_version()
            self.deploy()
        state = look(self.host, self.app, patience=0.0)
        if state["live"] is None:
            self.deploy()
            state = look(self.host, self.app, patience=0.0)
        if kill.command == "up":
            self.next_version()
            return state, ["up"]
        if kill.command == "revert":
            back = [n for n in self.host.releases(self.app) if n != live_number(state) and n in self.versions]
            return state, ["revert", str(back[-1])]
        if kill.command == "prune":
            self.app.set(release={"keep": 1})
        return state, [kill.command]

    def endure(self, kill: Kill) -> None:
        """Be killed, and be right again after one command."""
        before, words = self.ready(kill)
        was = live_number(before)
        assert was is not None
        goal = {"up": None, "revert": int(words[-1]) if kill.command == "revert" else None}.get(
            kill.command, was
        )
        holdings = self.holdings()
        if kill.command == "down":
            with Clients(self.host, self.app) as clients:
                self._die(kill, words)
                look(self.host, self.app)
            # Nobody notices before the app is taken off.
            assert "flip" in self.begun or not clients.lost(), clients.lost()[:3]
            self._after(kill, before, was, goal, holdings, None)
            return
        with Clients(self.host, self.app) as clients:
            killed = self._die(kill, words)
            again = time.monotonic()
            self._after(kill, before, was, goal, holdings, clients)
            if not self.guarded:
                again = time.monotonic()
        # Killed before it stopped the old instance, requests go on to that one; else until the guard was there.
        stops = self.writers == "one" and kill.command != "prune"
        held = stops and kill.signal == Signals.SIGKILL and self.interrupted_at != "hold"
        lost = clients.lost(but=[(killed - HOLD_SECONDS, again)] if held else [])
        assert not lost, (
            f"{len(lost)} of {len(clients.answers)} lost; kill at {killed}, again at {again}: {lost[:3]}"
        )
        slow = [each for each in clients.answers if each.seconds > HOLD_SECONDS + 2]
        assert not slow, slow

    def endure_at_the_rename(self, moment: str) -> None:
        """Killed with its session just before the live link's rename, or just after: that alone decides."""
        for _ in range(RENAME_TRIES):
            old = self.next_version()
            self.app.service("web", environment=None)
            was = self.deploy()
            new = self.next_version()
            self.app.service("web", behave="wait")
            with Clients(self.host, self.app) as clients:
                met = self._stop_at_the_rename(moment)
                after = look(self.host, self.app)
                goal = max(each["release"] for each in after["records"] if each["event"] == "sealed")
                assert goal != was
                survivor, version = (was, old) if met == "before" else (goal, new)
                assert live_number(after) == survivor, (met, was, goal)
                self.host.imm(self.app, "prune")
                check(self.host, self.app, survivor, version)
            assert not clients.lost(), clients.lost()[:3]
            self.app.service("web", environment=None)
            if met == moment:
                return
        raise AssertionError(f"never met just {moment} the rename in {RENAME_TRIES} times")

    def _stop_at_the_rename(self, moment: str) -> str:
        """`up`, killed there; on which side of the rename that was."""
        engine = self.host.engine
        with command(self.host, self.app, "up") as running:
            # It boots when it is let go: until then nothing is renamed.
            assert running.begun("check_health"), running
            words = ["python3", "-c", STOP_AT_THE_RENAME, self.app.name, moment]
            told = engine.exec_start(engine.exec_create("imm-sidecar", words)["Id"], stream=True)
            assert next(told) == b"waits\n"
            self.host.let_go(self.app)
            session, met = next(told).decode().split()
            running.send(Signals.SIGKILL)
            assert self.host.execute("imm-sidecar", "sh", "-c", f"kill -KILL {session}") == (0, "")
            running.ended()
        return met

    def _die(self, kill: Kill, words: Sequence[str]) -> float:
        with command(self.host, self.app, *words) as running:
            if kill.command != "prune":
                assert running.begun(kill.step), f"no step {kill.step}: {running}"
            else:
                running.loaded()
            time.sleep(kill.delay)
            running.send(kill.signal, kill.alone)
            at = time.monotonic()
            self.outcome = running.ended()
        return at

    def _guarded(self, kill: Kill) -> tuple[bool, ...]:
        """Whether its guard had something to put right; either, where that can't be told from its steps."""
        steps = STEPS.get((kill.command, kill.writers), ())
        if "hold" not in steps or self.outcome.code != -Signals.SIGKILL or not kill.alone:
            return (False,)
        reached = self._reached(kill)
        # The guard is there a moment before "hold" is told; and all is done a moment before the command ends.
        if reached in (steps[steps.index("hold") - 1], "prune"):
            return (False, True)
        return ("hold" in self.begun,)

    @property
    def begun(self) -> set[str]:
        """The steps that it had begun when it ended."""
        return {each["step"] for each in self.outcome.told if each.get("state") == "begun"}

    def _after(
        self,
        kill: Kill,
        before: Mapping[str, Any],
        was: int,
        goal: int | None,
        holdings: Mapping[str, Any],
        clients: Clients | None,
    ) -> None:
        after = look(self.host, self.app)
        told = [each for each in after["records"][len(before["records"]) :] if each["event"] == "interrupted"]
        assert len(told) <= 1, told
        self.guarded = bool(told)
        assert self.guarded in self._guarded(kill), (told, after["doing"], self.outcome)
        self.interrupted_at = (after["doing"] or {}).get("step")
        if told:
            self.interrupted_at = re.findall(r"was interrupted at (\w+);", told[0]["error"])[0]
        survivor = live_number(after)
        new = [
            each["release"]
            for each in after["records"][len(before["records"]) :]
            if each["event"] == "sealed"
        ]
        goal = goal or (new[0] if new else None)
        if kill.command == "up" and goal is not None:
            self.versions[goal] = (self.app.folder / "VERSION").read_text()
        self._survivor(kill, was, goal, survivor)
        early = kill.command == "prune" and not self.outcome.stdout
        if self.guarded:
            self._put_right(kill, told[0], survivor)
        if kill.signal != Signals.SIGKILL and not early and not self._came_too_late():
            self._interrupted(kill, before, after, was, holdings)
        if self.writers == "many" and clients is not None:
            assert not clients.lost()
        if kill.then == "down" and clients is not None:
            clients.stop()
        self._recover(kill, after, survivor)

    def _came_too_late(self) -> bool:
        """Whether the command had said that it was done before the signal arrived."""
        said = self.outcome.told[-1] if self.outcome.stdout else {}
        return (
            self.outcome.code == 0
            or said.get("outcome") in ("live", "unchanged", "down")
            or "removed" in said
        )

    def _survivor(self, kill: Kill, was: int, goal: int | None, survivor: int | None) -> None:
        """Before the flip the old one lives on; after it the new one does; in it either."""
        if kill.command == "prune":
            assert survivor == was
            return
        reached = self._reached(kill)
        if kill.command == "down":
            # Until it is recorded Ctrl-C brings the app back.
            open_steps = ("flip",) if kill.signal == Signals.SIGKILL else ("flip", "record")
            either = (was, None) if reached in open_steps else (None,) if reached in AFTER_FLIP else (was,)
            assert survivor in either, (was, survivor, reached)
        elif reached in AFTER_FLIP:
            assert survivor == goal, (goal, survivor, reached)
        elif reached == "flip":
            assert survivor in (was, goal), (was, goal, survivor)
        else:
            assert survivor == was, (was, survivor, reached)

    def _reached(self, kill: Kill) -> str:
        """The last step that it had begun when the signal ended it: on a busy machine not the one it was meant for."""
        return [step for step in STEPS[kill.command, kill.writers] if step in self.begun][-1]

    def _interrupted(
        self,
        kill: Kill,
        before: Mapping[str, Any],
        after: Mapping[str, Any],
        was: int,
        holdings: Mapping[str, Any],
    ) -> None:
        """It undid what wasn't live, says so, and leaves nothing over."""
        outcome, live = self.outcome, live_number(after)
        assert outcome.code == 1, f"exit code {outcome.code}: {outcome.stdout}{outcome.stderr}"
        assert "error" in outcome.result, f"{outcome.stdout}{outcome.stderr}"
        error = outcome.error
        assert error["code"] == "interrupted", error
        assert "Traceback" not in outcome.stderr, outcome.stderr
        assert "while undoing" not in outcome.stderr, outcome.stderr
        assert after["doing"] is None
        assert (after["broken"], after["halves"]) == ([], [])
        added = [each["event"] for each in after["records"][len(before["records"]) :]]
        # What was pruned stays gone.
        assert kill.command != "prune" or "undone" not in error["message"], error
        if live == was and kill.command != "prune":
            assert "undone" in error["message"] or "still live" in error["message"], error
            now = self.holdings()
            assert now == holdings, {
                key: (holdings[key], now[key]) for key in now if now[key] != holdings[key]
            }
            assert set(added) <= {"failed", "sealed"}, added
        elif live is not None and live != was:
            assert f"release {live} is live" in error["message"], error
            assert "failed" not in added, added
            assert recorded(after) == live, after["records"]
        elif live is None:
            assert "off this host" in error["message"] or "no longer" in error["message"], error
            assert recorded(after) is None, after["records"]

    def _recover(self, kill: Kill, after: Mapping[str, Any], survivor: int | None) -> None:
        """One next command, of whatever kind that changes things."""
        self.app.set(release={"keep": 5})
        expected: int | None = survivor
        if kill.then in ("up", "up-other"):
            if kill.then == "up-other":
                self.next_version()
            result = self.host.up(self.app).result
            expected = result["release"]
            self.versions[expected] = (self.app.folder / "VERSION").read_text()
            if kill.then == "up-other":
                assert result["outcome"] == "live"
            elif self.versions.get(survivor or 0) == self.versions[expected]:
                assert (result["outcome"], expected) == ("unchanged", survivor)
        elif kill.then == "revert":
            back = [n for n in self.host.releases(self.app) if n != survivor and n in self.versions]
            expected = back[0]
            self.host.revert(self.app, str(expected))
        elif kill.then == "down":
            self.host.imm(self.app, "down")
            expected = None
        elif kill.then == "prune":
            self.host.imm(self.app, "prune")
        state = check(self.host, self.app, expected, self.versions.get(expected or 0))
        self._told(kill, after, state, survivor)

    def _told(
        self, kill: Kill, after: Mapping[str, Any], state: Mapping[str, Any], survivor: int | None
    ) -> None:
        """History says where it was interrupted and what was found live, once."""
        history = self.host.history(self.app)
        assert history == state["records"]
        told = [each for each in history[len(after["records"]) :] if each["event"] == "interrupted"]
        if after["doing"] is None:
            assert not told, told
            return
        assert kill.signal == Signals.SIGKILL
        assert len(told) == 1, told
        self._told_where(kill, told[0], survivor)

    def _told_where(self, kill: Kill, told: Mapping[str, Any], survivor: int | None) -> None:
        step, steps = self.interrupted_at, STEPS.get((kill.command, kill.writers), ("prune",))
        # A step that takes a millisecond is over before the signal arrives.
        assert step in steps[steps.index(kill.step) :], (step, kill)
        found = f"found release {survivor} live" if survivor else "found nothing live"
        assert f"{kill.command} by " in told["error"], told
        assert f"interrupted at {step}; {found}" in told["error"], told

    def _put_right(self, kill: Kill, told: Mapping[str, Any], survivor: int | None) -> None:
        """Without another command: all is right, and history says where it was interrupted."""
        check(self.host, self.app, survivor, self.versions.get(survivor or 0))
        self._told_where(kill, told, survivor)

    def holdings(self) -> dict[str, Any]:
        """What the engine holds of this app, images' layers and containers' states included."""
        mine = {"label": f"imm.app={self.app.name}"}
        return {
            "containers": sorted(
                (
                    each["Id"],
                    each["State"],
                    self.host.inspect(each["Id"])["HostConfig"]["RestartPolicy"]["Name"],
                )
                for each in self.host.engine.containers(all=True, filters=mine)
            ),
            "images": self.host.images(self.app),
            "networks": [each["Id"] for each in self.host.engine.networks(filters=mine)],
            "volumes": [each["Name"] for each in self.host.engine.volumes(filters=mine)["Volumes"] or []],
        }


def at_the_begin(command: str, writers: str, which: Signals, choice: random.Random) -> list[Kill]:
    """A kill at the begin of each step of a command."""
    return [
        Kill(command, writers, step, which, 0.0, choice.choice(["up", "up-other"]), choice.random() < 0.5)
        for step in STEPS[command, writers]
    ]


def in_the_middle(command: str, writers: str, which: Signals, choice: random.Random) -> list[Kill]:
    """A kill somewhere within each step of a command; those that take no time are left to their begin."""
    return [
        Kill(
            command,
            writers,
            step,
            which,
            round(choice.uniform(0.001, LASTS[step]), 3),
            choice.choice(["up", "up-other", "revert", "prune", "down"]),
            choice.random() < 0.5,
        )
        for step in STEPS[command, writers]
        if step in LASTS
    ]


def at_each_step(choice: random.Random) -> list[Kill]:
    """Each step's begin and middle, of each command that tells its steps, by each signal."""
    return [
        kill
        for which in SIGNALS
        for told in STEPS
        for some in (at_the_begin, in_the_middle)
        for kill in some(*told, which, choice)
    ]


def while_pruning(choice: random.Random, times: int) -> list[Kill]:
    """`prune` tells no steps: it is killed at so many moments of its half second, by each signal."""
    return [
        Kill(
            "prune",
            writers,
            "prune",
            which,
            round(choice.uniform(0.0, 0.5), 3),
            choice.choice(["up", "up-other"]),
        )
        for writers in ("many", "one")
        for which in SIGNALS
        for _ in range(times)
    ]
