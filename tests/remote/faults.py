"""Faults of a host, each at a step that a command tells; and what must be true after.

A `Scene` is one app on the engine of the tests' own. Faults happen to it again and again, while other people's
things of similar names stand by and must not change.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

from immutable_local.engine import ABANDONED_SECONDS
from immutable_local.wait import until
from tests.host import HEALTHCHECK, Outcome, Project
from tests.kills import Command, Subject, check, command, live_number, look
from tests.remote.conftest import Apart

RETURN_SECONDS = 60.0
# How late the engine tells what happened.
EVENT_SECONDS = 10.0
# Whatever goes wrong with a host ends in one of these.
CODES = {
    "engine_unreachable",
    "engine_refused",
    "session_lost",
    "proxy_failed",
    "proxy_absent",
    "unhealthy",
    "disk_full",
    "build_failed",
    "not_started",
}
STRANGERS = {"container": "t-other-web-1-blue-1", "network": "imm-app-other", "volume": "imm-other-data"}


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with a host; whether what is live then answers again by itself; what a person
    has to put right before the next command."""

    name: str
    strike: Callable[[Scene], None]
    heals: bool = True
    repair: Callable[[Scene], None] | None = None

    def __str__(self) -> str:
        return self.name


class Scene:
    """One app that faults happen to."""

    def __init__(self, host: Apart, writers: str = "many", kind: str = "nginx", **web: Any) -> None:
        self.host = host
        self.kind = kind
        self.subject = Subject(
            host, writers, replicas=1, healthcheck={**HEALTHCHECK, "start_period": "20s"}, **web
        )
        self.app = self.subject.app
        # Where all of the engine's data is, on a disk that can be filled.
        self.disk = host.second.folder / "data"
        self.subject.next_version()
        self.live = self.subject.deploy()
        engine = host.engine
        if engine.networks(names=[STRANGERS["network"]]):
            return
        engine.create_network(STRANGERS["network"])
        engine.create_volume(STRANGERS["volume"])
        made = engine.create_container(
            host.base, ["sleep", "1000"], name=STRANGERS["container"], stop_signal="SIGKILL"
        )
        engine.start(made["Id"])

    def settle(self) -> Scene:
        """Whatever an earlier test left, this one begins with what its folder holds, live."""
        self.live = self.subject.deploy()
        return self

    # What happens

    def suffer(self, fault: Fault, step: str) -> Outcome:
        """The fault strikes `imm up` when it begins that step; after one more command everything is right."""
        was = self.live
        version = self.subject.next_version()
        with command(self.host, self.app, "up") as running:
            assert running.begun(step), f"no step {step}: {running}"
            fault.strike(self)
            ended = running.ended()
        still = told_plainly(ended, was)
        if fault.heals:
            self.answers_again(self.subject.versions[was], version)
            live = self.host.status(self.app)["live"]["release"]
            assert still in (live, None)
            assert self.host.get("/version", self.app) == self.subject.versions.get(live, version)
        if fault.repair is not None:
            fault.repair(self)
        result = self.host.up(self.app).result
        self.live = int(result["release"])
        self.subject.versions[self.live] = version
        if still not in (was, None):
            assert (result["outcome"], self.live) == ("unchanged", still)
        self.right(version)
        return ended

    def right(self, version: str) -> None:
        """I3, I4 and I5: the app, the proxy, and what isn't imm's."""
        check(self.host, self.app, self.live, version)
        assert proxies(self.host) == ["imm-proxy", "imm-sidecar"]
        assert no_task_stays(self.host), tasks(self.host)
        engine = self.host.engine
        assert engine.inspect_container(STRANGERS["container"])["Config"]["Cmd"] == ["sleep", "1000"]
        assert engine.inspect_network(STRANGERS["network"])["Labels"] == {}
        assert engine.inspect_volume(STRANGERS["volume"])["Labels"] in (None, {})

    def answers_again(self, *versions: str) -> None:
        """Without a command: what is live answers, as a client outside would see it."""
        last: object = None

        def answers() -> bool:
            nonlocal last
            try:
                last = answer = self.host.ask("/version", self.app)
            except OSError as failed:
                last = failed
                return False
            return answer.status == 200 and answer.text in versions

        assert until(answers, RETURN_SECONDS, pause=0.05), f"{last}, not {versions}"

    # Where things are

    def state(self) -> dict[str, Any]:
        return look(self.host, self.app)

    def instances(self, release: int | None = None, state: str = "running") -> list[str]:
        return [
            each["Names"][0].lstrip("/")
            for each in self.host.instances(self.app)
            if each["State"] == state and release in (None, int(each["Labels"]["imm.release"]))
        ]

    def newest(self) -> str:
        """The running instance of the release that isn't live yet, or has just become so."""

        def found() -> str | None:
            new = [name for name in self.instances() if f"-web-{self.live}-" not in name]
            return new[0] if new else None

        name = until(found, RETURN_SECONDS, pause=0.01)
        assert name is not None
        return name

    def old(self) -> str:
        return self.instances(self.live)[0]

    def inside(self, container: str, path: str) -> Path:
        """A path inside a container, as this machine reaches it: at once, and whatever the engine does."""
        return Path(f"/proc/{self.host.inspect(container)['State']['Pid']}/root{path}")

    def kill(self, container: str) -> None:
        """Its first process ends at once, as in a crash."""
        os.kill(self.host.inspect(container)["State"]["Pid"], Signals.SIGKILL)

    def fill(self, leave: int) -> None:
        """Let the small disk have only so many bytes left."""
        with (self.disk / "filling").open("ab") as filling:
            while True:
                about = os.statvfs(self.disk)
                free = about.f_bavail * about.f_frsize - leave
                if free <= 0:
                    return
                try:
                    os.posix_fallocate(filling.fileno(), os.fstat(filling.fileno()).st_size, free)
                except OSError as full:
                    # Others took some of it meanwhile.
                    if full.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        (self.disk / "filling").unlink(missing_ok=True)

    def remove(self, container: str) -> None:
        self.host.engine.remove_container(container, force=True)


def told_plainly(ended: Outcome, was: int) -> int | None:
    """A known end: exit code, what is still true, what to do next. Returns the release that is still live,
    or None when only `imm status` can tell."""
    if ended.code == 0:
        assert ended.result["outcome"] == "live", ended.result
        return int(ended.result["release"])
    error = ended.error
    assert ended.code in (1, 4), error
    assert error["code"] in CODES, error
    assert error["message"] and error["hint"], error
    assert "Traceback" not in ended.stderr, ended.stderr
    new = ended.result["release"]
    known = {
        "what was live is still live": was,
        f"release {was} is still live": was,
        f"release {new} is live": new,
    }
    unknown = f"release {new} may be live already: imm status tells"
    assert error["still"] in (*known, unknown), error
    return known.get(error["still"])


def proxies(host: Apart) -> list[str]:
    """The containers of the host's own that run, by name."""
    found = host.engine.containers(filters={"label": ["imm.role"]})
    return sorted(
        each["Names"][0].lstrip("/") for each in found if each["Labels"]["imm.role"] in ("proxy", "sidecar")
    )


def standing(host: Apart) -> dict[str, str]:
    """The very containers of the host's own, by name."""
    return {name: host.inspect(name)["Id"] for name in proxies(host)}


def tasks(host: Apart) -> list[str]:
    """The containers of a moment."""
    found = host.engine.containers(all=True, filters={"label": ["imm.role=task"]})
    return [f"{each['Names'][0]} {each['State']}" for each in found]


def no_task_stays(host: Apart) -> bool:
    """The engine removes by itself what has ended: a command that is over may have left it to that."""
    return bool(until(lambda: not tasks(host), ABANDONED_SECONDS, pause=0.1))


def host_is_right(host: Apart, app: Project) -> None:
    """One proxy, one sidecar, the app as it was, and after a while no container of a moment."""
    check(host, app, live_number(look(host, app)), "1")
    assert proxies(host) == ["imm-proxy", "imm-sidecar"]

    def swept() -> bool:
        if not tasks(host):
            return True
        # One that never started is known by its age.
        host.up(app)
        return False

    assert until(swept, ABANDONED_SECONDS + 10, pause=1.0), tasks(host)


def struck_at(
    host: Apart,
    project: Project,
    *words: str,
    moment: tuple[str, str],
    which: Signals = Signals.SIGKILL,
    alone: bool = True,
    unguarded: bool = True,
) -> Outcome:
    """A command that gets a signal the moment the engine tells that this happened to the thing of that name,
    or of that `imm.role`: (create, imm-proxy), `alone` or with its guard. How it ended; `unguarded`: once its
    guard, too, has."""
    struck = threading.Event()
    # From before the command began: an event is told however late the engine comes to it.
    told: Any = host.engine.events(since=f"{time.time():.9f}", decode=True)
    with command(host, project, *words) as running:

        def strike() -> None:
            if comes(told, moment):
                running.send(which, alone)
                struck.set()

        threading.Thread(target=strike, daemon=True).start()
        try:
            ended = running.ended(unguarded=unguarded)
            assert struck.wait(EVENT_SECONDS), f"{moment} never came: {running}"
        finally:
            told.close()
    return ended


@contextmanager
def frozen_at(host: Apart, project: Project, *words: str, moment: tuple[str, str]) -> Iterator[Command]:
    """A command that was stopped (SIGSTOP) the moment that the engine told this of that name, or `imm.role`."""
    told: Any = host.engine.events(since=f"{time.time():.9f}", decode=True)
    with command(host, project, *words) as running:
        try:
            assert comes(told, moment), running
            running.send(Signals.SIGSTOP)
        finally:
            told.close()
        yield running


def comes(told: Iterable[Mapping[str, Any]], moment: tuple[str, str]) -> bool:
    """Wait until the engine tells that this happened to the thing of that name, or of that `imm.role`."""
    action, name = moment
    for each in told:
        about: Mapping[str, str] = each["Actor"]["Attributes"]
        names = (each["Actor"]["ID"], about.get("name"), about.get("imm.role"))
        if each["Action"] == action and name in names:
            return True
    return False
