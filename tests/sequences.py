"""Random sequences of commands and faults on one app, and a model of what each must lead to.

The model knows what was asked for and nothing of how imm does it: contents and their numbers, what went live
and when, what of it is kept, what was written to the volume. After each move what is true is read from the
places themselves, as in `tests.kills`. A fault is followed by one more command before anything is looked at.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from immutable_local.wait import until
from tests.host import HEALTHCHECK, Host, Project
from tests.kills import HOLD_SECONDS, Clients, check, command, live_number, look

KINDS = ("nginx", "traefik")
# Of a volume for one writer the second instance would end at once.
ALONE = """\
import fcntl
lock = open("/data/lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
import server
"""
BACK_SECONDS = 60.0
KILLED_STEPS = {
    "up": ("lock", "sweep", "build", "seal", "hold", "stop_old", "start", "check_health", "flip", "record",
           "watch", "drain", "retire", "prune"),
    "revert": ("lock", "sweep", "hold", "stop_old", "start", "check_health", "flip", "record", "retire"),
    "down": ("lock", "sweep", "flip", "record", "drain", "retire"),
    "prune": ("its begin",),
}  # fmt: skip
# It tells no steps: a moment is drawn from all of its half second.
PRUNE_LASTS = 5
# What of the guard of a command that was killed, when the next one comes.
GUARDS = ("done", "at work", "killed")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Content:
    """What a folder asks for: two of the same content are one release."""

    version: str = "v0"
    setting: str = "0"
    replicas: int = 1
    bad: str = ""  # what the app does wrong, or "build"


class Model:
    """What must be true of the app."""

    def __init__(self, writers: str) -> None:
        self.writers = writers
        self.folder = Content()
        self.keep = 5
        self.numbers: dict[Content, int] = {}
        self.sealed: list[int] = []
        self.flips: list[tuple[str, int]] = []  # as the ledger must tell them
        self.live: int | None = None
        self.held: set[int] = set()
        self.data = ""
        self.token = self.handed = ("t0", 0)  # a secret's value, and how often it was changed

    def content(self, number: int) -> Content:
        return next(each for each, known in self.numbers.items() if known == number)

    def seal(self) -> int:
        """The number of what the folder asks for: once given, kept."""
        if self.folder not in self.numbers:
            self.numbers[self.folder] = max(self.sealed, default=0) + 1
            self.sealed.append(self.numbers[self.folder])
        return self.numbers[self.folder]

    def flip(self, event: str, number: int) -> None:
        self.flips.append((event, number))
        self.live, self.handed = number, self.token
        self.held.add(number)

    def off(self) -> None:
        if self.live is not None:
            self.flips.append(("down", self.live))
            self.live = None

    def kept(self) -> set[int]:
        """What a prune leaves: what is live and the `keep` that were live last."""
        latest = dict.fromkeys(number for event, number in reversed(self.flips) if event != "down")
        recent = [number for number in latest if number != self.live and number in self.held]
        return self.held & {self.live, *recent[: self.keep]}

    def prune(self) -> None:
        self.held = self.kept()

    def way_back(self) -> list[int]:
        """What was live, as a path: a release is put on top, going back to one takes off what is above it."""
        path: list[int] = []
        for event, number in self.flips:
            if event == "reverted" and number in path:
                del path[path.index(number) + 1 :]
            elif event != "down":
                path = [each for each in path if each != number] + [number]
        return path

    def before(self) -> int | None:
        """Where `imm revert` without a number leads to."""
        if self.live is None:
            path = self.way_back()
            return path[-1] if path and path[-1] in self.held else None
        path = [number for number in self.way_back()[:-1] if number in self.held]
        return path[-1] if path else None

    @property
    def revertable(self) -> list[int]:
        return sorted(
            (number for number in self.held if number != self.live and self.was_live(number)), reverse=True
        )

    def was_live(self, number: int) -> bool:
        return any(event != "down" and number == each for event, each in self.flips)


class Sequence(RuleBasedStateMachine):
    """One app's life, on a host that `open_host` opens."""

    open_host: Callable[[], Host]
    kind = "nginx"
    done = 0
    moves = 0

    # The begin

    @initialize(writers=st.sampled_from(["many", "one"]), watched=st.booleans())
    def begin(self, writers: str, watched: bool) -> None:
        # What is watched stays up beside its successor: one writer may not.
        self.watch = "1s" if watched and writers == "many" else "0s"
        print(f"  a volume for {writers}, watched for {self.watch}", flush=True)
        self.model = Model(writers)
        self.host = type(self).open_host()
        self.app = self.host.project()
        self.foreign = Foreign(self.host, self.app)
        self.app.set(volumes={"data": {"writers": writers}})
        (self.app.folder / "data").mkdir()
        (self.app.folder / "data" / "log").touch()
        dockerfile = (self.app.folder / "Dockerfile").read_text()
        self.good = dockerfile + "COPY --chown=1000:1000 data /data\n"
        self.app.service("web", volumes=["data:/data"], secrets=["TOKEN"], hold=f"{HOLD_SECONDS:g}s")
        if writers == "one":
            self.app.service("web", command=["python3", "-c", ALONE])
        self.write()
        self.host.imm(self.app, "secret", "set", "TOKEN", told="t0")
        self.up()

    def write(self) -> None:
        """Let the folder ask for what the model says."""
        asked = self.model.folder
        self.app.dockerfile(self.good + ("RUN exit 3\n" if asked.bad == "build" else ""))
        self.app.set(release={"keep": self.model.keep, "watch": self.watch})
        sick = asked.bad in ("sick", "crash")
        self.app.version(
            asked.version,
            replicas=asked.replicas,
            environment={"N": asked.setting, **({"BEHAVE": asked.bad} if sick else {})},
            healthcheck={**HEALTHCHECK, "timeout": "300ms", **({"start_period": "1s"} if sick else {})},
        )

    # Commands

    @rule(
        setting=st.sampled_from("0123"),
        version=st.sampled_from(["same", "v1", "v2", "v3"]),
        two=st.booleans(),
    )
    def change(self, setting: str, version: str, two: bool) -> None:
        """Another version, other settings, or nothing new; of what was there before, too."""
        asked = replace(self.model.folder, setting=setting, bad="")
        if version != "same":
            asked = replace(asked, version=version)
        if self.model.writers == "many":
            asked = replace(asked, replicas=2 if two else 1)
        self.model.folder = asked
        self.move(f"up of {asked}")
        self.write()
        self.up()

    @rule(bad=st.sampled_from(["build", "crash", "sick"]), setting=st.sampled_from("0123"))
    def fail(self, bad: str, setting: str) -> None:
        """A version that can't be built, that ends, or that never gets healthy."""
        good = self.model.folder
        self.model.folder = replace(good, bad=bad, setting=setting)
        self.move(f"up of {self.model.folder}")
        self.write()
        with self.clients():
            outcome = self.host.up(self.app, expect=1)
        assert outcome.error["code"] == ("build_failed" if bad == "build" else "unhealthy"), outcome
        assert outcome.result["previous"] == self.model.live
        if bad != "build":
            assert outcome.result["release"] == self.model.seal()
        self.model.folder = good
        self.write()
        self.look()

    @rule()
    def revert(self) -> None:
        goal = self.model.before()
        self.move(f"revert, to {goal}")
        if goal is None:
            code = self.host.revert(self.app, expect=1).error["code"]
            assert code == "nothing_to_revert_to"
        else:
            self._revert(goal)
        self.look()

    @precondition(lambda self: self.model.sealed)
    @rule(data=st.data())
    def revert_to(self, data: st.DataObject) -> None:
        goal = data.draw(st.sampled_from(self.model.sealed))
        self.move(f"revert {goal}")
        if goal in self.model.revertable or goal == self.model.live:
            self._revert(goal, str(goal))
        else:
            assert self.host.revert(self.app, str(goal), expect=1).error["code"] == "unknown_release"
        self.look()

    @rule()
    def down(self) -> None:
        """Or up again, when it is down."""
        if self.model.live is None:
            self.move("up again")
            self.up()
            return
        self.move("down")
        assert self.host.imm(self.app, "down").result["outcome"] == "down"
        self.model.off()
        self.look()

    @rule(keep=st.integers(1, 3))
    def prune(self, keep: int) -> None:
        self.move(f"prune, keep {keep}")
        self.model.keep = keep
        self.write()
        before = set(self.model.held)
        self.model.prune()
        with self.clients():
            told = self.host.imm(self.app, "prune").result
        assert told["removed"] == sorted(before - self.model.held)
        self.look()

    @rule(value=st.sampled_from(["t0", "t1"]))
    def secret(self, value: str) -> None:
        self.move(f"secret set, {value}")
        with self.clients():
            told = self.host.imm(self.app, "secret", "set", "TOKEN", told=value).result
        was, times = self.model.token
        assert told["changed"] == (value != was)
        if value != was:
            self.model.token = (value, times + 1)
        self.look()

    @rule(kind=st.sampled_from(KINDS))
    def proxy(self, kind: str) -> None:
        self.move(f"proxy up --kind {kind}")
        # Another proxy leaves the port unattended for a moment; the same one is left alone.
        with self.clients() if kind == Sequence.kind else nullcontext():
            self.host.imm(self.app, "proxy", "up", "--kind", kind)
        Sequence.kind = kind
        self.look()

    # Faults

    @rule(
        words=st.sampled_from(["up", "up", "revert", "down", "prune"]),
        which=st.sampled_from(SIGNALS),
        delay=st.integers(0, 120),
        setting=st.sampled_from("0123"),
        then=st.sampled_from(["up", "up", "prune", "revert", "down"]),
        guard=st.sampled_from(GUARDS),
        data=st.data(),
    )
    def kill(
        self,
        words: str,
        which: signal.Signals,
        delay: int,
        setting: str,
        then: str,
        guard: str,
        data: st.DataObject,
    ) -> None:
        """A command that ends somewhere; and the next one, whatever it is."""
        step = data.draw(st.sampled_from(KILLED_STEPS[words]))
        delay *= PRUNE_LASTS if words == "prune" else 1
        if words == "up":
            self.model.folder = replace(self.model.folder, setting=setting, bad="")
            self.write()
        was, goal = self.model.live, self.model.before() if words == "revert" else None
        self.move(f"{words}, {which.name} {delay} ms after {step}, its guard {guard}; then {then}")
        # What waits for a killed command is answered 503 at its bound; nothing else may be lost.
        calm = self.model.writers == "one" and which == signal.SIGKILL
        with self.clients(but_503=calm, gone="down" in (words, then)):
            with command(self.host, self.app, words) as running:
                if words == "prune":
                    running.loaded()
                else:
                    running.begun(step)
                time.sleep(delay / 1000)
                running.send(which, alone=guard != "killed")
                outcome = running.ended(unguarded=guard == "done")
            note(f"it ended with {outcome.code}")
            assert "Traceback" not in outcome.stderr, outcome.stderr
            state = look(self.host, self.app)
            self._survived(words, was, goal, state)
            self._then(then)
        self.look()

    def _survived(self, words: str, was: int | None, goal: int | None, state: dict[str, Any]) -> None:
        """The one before is live, or the one asked for; what was sealed has its number."""
        model = self.model
        for record in state["records"]:
            if record["event"] == "sealed" and record["release"] not in model.sealed:
                assert words == "up" and record["release"] == model.seal()
        survivor = live_number(state)
        goals = {
            "up": model.numbers.get(model.folder) or was,
            "down": None,
            "revert": goal or was,
            "prune": was,
        }
        assert survivor in (was, goals[words]), (was, goals[words], survivor)
        since = state["live"]["since"] if state["live"] else None
        # The same release again, with another secret: only its moment tells that it went live.
        if survivor is None:
            model.off()
        elif survivor != was or since != self.since:
            model.flip("reverted" if words == "revert" else "went_live", survivor)
        # Whether it came to its prune isn't known; what was never live is kept until the next one.
        there = set(self.host.releases(self.app)) & set(model.sealed)
        assert model.kept() <= there, (model.kept(), there)
        model.held = there

    def _then(self, then: str) -> None:
        """The command that comes next puts right what the one before left."""
        if then == "up":
            self._up()
        elif then == "down":
            outcome = self.host.imm(self.app, "down").result["outcome"]
            assert self.model.live is None or outcome == "down", outcome
            self.model.off()
        elif then == "revert" and (goal := self.model.before()) is not None:
            self._revert(goal, clients=False)
        else:
            self.host.imm(self.app, "prune")
            self.model.prune()

    @rule(
        kind=st.sampled_from(KINDS),
        which=st.sampled_from(SIGNALS),
        delay=st.integers(0, 2400),
        guard=st.sampled_from(GUARDS),
    )
    def kill_proxy_up(self, kind: str, which: signal.Signals, delay: int, guard: str) -> None:
        """The proxy is being replaced by another kind; whichever it is then, the next command makes it serve."""
        self.move(f"proxy up --kind {kind}, {which.name} after {delay} ms, its guard {guard}")
        with command(self.host, self.app, "proxy", "up", "--kind", kind) as running:
            running.loaded()
            time.sleep(delay / 1000)
            running.send(which, alone=guard != "killed")
            assert "Traceback" not in running.ended(unguarded=guard == "done").stderr
        self.heal(replaced=False)
        Sequence.kind = self.host.imm(self.app, "proxy", "status").result["kind"]

    @precondition(lambda self: self.model.live is not None)
    @rule(crash=st.booleans())
    def lose_instance(self, crash: bool) -> None:
        """An instance crashes, and the engine starts it again; or somebody kills it, and it stays away."""
        name = self.host.running(self.app)[0]
        self.move(f"{'crash' if crash else 'docker kill'} of {name}")
        if crash:
            self.crash(name)
            # Started again it still has to boot, and the next command has nothing to do.
            assert until(self.all_healthy, BACK_SECONDS, pause=0.1), f"{name} isn't healthy"
        else:
            self.host.engine.kill(name)
        self.heal(replaced=not crash)

    @precondition(lambda self: self.model.live is not None)
    @rule()
    def lose_container(self) -> None:
        name = self.host.running(self.app)[0]
        self.move(f"docker rm -f {name}")
        self.host.engine.remove_container(name, force=True, v=True)
        self.heal(replaced=True)

    @rule(how=st.sampled_from(["crash", "kill", "rm"]))
    def lose_sidecar(self, how: str) -> None:
        self.lose("imm-sidecar", how)

    @rule(how=st.sampled_from(["crash", "kill", "restart", "rm"]))
    def lose_proxy(self, how: str) -> None:
        self.lose("imm-proxy", how)

    @precondition(lambda self: self.model.held)
    @rule(data=st.data())
    def lose_image(self, data: st.DataObject) -> None:
        """Somebody removes an image of a release, by force."""
        number = data.draw(st.sampled_from(sorted(self.model.held)))
        self.move(f"docker rmi -f of release {number}, {self.model.live} is live")
        self.host.engine.remove_image(f"imm.local/app/{self.app.name}:{number}", force=True)
        if number != self.model.live:
            self.model.held.discard(number)
        self.heal(replaced=False)

    def lose(self, name: str, how: str) -> None:
        self.move(f"{how} of {name}")
        if how == "crash":
            self.crash(name)
        elif how == "kill":
            self.host.engine.kill(name)
        elif how == "restart":
            self.host.engine.restart(name, timeout=1)
        else:
            self.host.engine.remove_container(name, force=True)
        self.heal(replaced=False)

    def crash(self, name: str) -> None:
        """Kill its process as the kernel would; the engine starts it again."""
        before = self.host.inspect(name)
        os.kill(before["State"]["Pid"], signal.SIGKILL)

        def back() -> bool:
            now = self.host.inspect(name)
            return now["State"]["Running"] and now["State"]["StartedAt"] != before["State"]["StartedAt"]

        assert until(back, BACK_SECONDS, pause=0.05), f"{name} did not come back"

    def all_healthy(self) -> bool:
        services = self.host.status(self.app)["services"]
        return all(each["health"] == "healthy" for every in services.values() for each in every)

    def heal(self, replaced: bool) -> None:
        """The one more command: what is live, asked for again."""
        model = self.model
        if model.live is None:
            self.host.imm(self.app, "prune")
            model.prune()
        else:
            model.folder = model.content(model.live)
            self.write()
            was = model.live
            result = self.host.up(self.app).result
            assert result["release"] == was, result
            changed = replaced or model.token != model.handed
            assert result["outcome"] == ("live" if changed else "unchanged"), result
            if changed:
                model.flip("went_live", was)
                model.prune()
        self.look()

    # What each command does

    def up(self) -> None:
        with self.clients():
            self._up()
        self.look()

    def _up(self) -> None:
        model = self.model
        was, number = model.live, model.seal()
        same = was == number and model.handed == model.token
        result = self.host.up(self.app).result
        expected = ("unchanged", number) if same else ("live", number)
        assert (result["outcome"], result["release"]) == expected, (result, expected)
        if not same:
            model.flip("went_live", number)
            model.prune()

    def _revert(self, goal: int, *words: str, clients: bool = True) -> None:
        model = self.model
        same = model.live == goal and model.handed == model.token
        with self.clients() if clients else nullcontext():
            result = self.host.revert(self.app, *words).result
        assert (result["outcome"], result["release"]) == ("unchanged" if same else "live", goal), result
        if not same:
            model.flip("reverted", goal)
            model.prune()

    # What must be true

    def look(self) -> None:
        """I1 to I5, after a move."""
        model, host = self.model, self.host
        version = model.content(model.live).version if model.live is not None else None
        state = check(host, self.app, model.live, version)
        self.since = state["live"]["since"] if state["live"] else None
        assert live_flips(state) == model.flips
        sealed = [record["release"] for record in state["records"] if record["event"] == "sealed"]
        assert list(dict.fromkeys(sealed)) == model.sealed
        assert set(host.releases(self.app)) == model.held, (host.releases(self.app), model.held)
        assert host.status(self.app)["revertable"] == model.revertable
        assert self.foreign.untouched()
        if model.live is None:
            assert host.ask("/version", self.app).status == 404
            return
        content = model.content(model.live)
        assert host.get("/env?N", self.app) == content.setting
        assert len(host.running(self.app)) == content.replicas
        assert host.get("/read?/run/secrets/TOKEN", self.app).endswith(f" {model.handed[0]}")
        assert host.get("/read?/data/log", self.app).split(" ", 2)[2] == model.data
        mark = f"{len(model.data) % 10}"
        assert host.get(f"/write?/data/log={mark}", self.app) == "written"
        model.data += mark

    @contextmanager
    def clients(self, but_503: bool = False, gone: bool = False) -> Iterator[None]:
        """Clients of what is live, of which no request may be lost while a command is at work."""
        if self.model.live is None or gone:
            yield
            return
        with Clients(self.host, self.app) as clients:
            yield
        lost = [each for each in clients.lost() if not (but_503 and each.status == 503)]
        assert not lost, f"{len(lost)} of {len(clients.answers)} lost: {lost[:3]}"

    def move(self, text: str) -> None:
        print(f"    {text}", flush=True)
        Sequence.moves += 1

    def teardown(self) -> None:
        if hasattr(self, "foreign"):
            self.foreign.remove()
            self.host.close()
        Sequence.done += 1


class Foreign:
    """Things without imm's labels, but with names like its own."""

    def __init__(self, host: Host, app: Project) -> None:
        self.host, self.app = host, app
        engine = host.engine
        self.container = engine.create_container(host.base, ["true"], name=f"{app.name}-web-99-blue-1")["Id"]
        self.network = engine.create_network(f"imm-app-{app.name}-old")["Id"]
        self.volume = engine.create_volume(f"imm-{app.name}-old")["Name"]
        engine.tag(host.base, f"imm.local/app/{app.name}", "99", force=True)

    def untouched(self) -> bool:
        engine = self.host.engine
        ours = engine.inspect_image(self.host.base)["RepoTags"]
        return (
            engine.inspect_container(self.container)["State"]["Status"] == "created"
            and engine.inspect_network(self.network)["Id"] == self.network
            and engine.inspect_volume(self.volume)["Name"] == self.volume
            and f"imm.local/app/{self.app.name}:99" in ours
        )

    def remove(self) -> None:
        engine = self.host.engine
        engine.remove_container(self.container)
        engine.remove_network(self.network)
        engine.remove_volume(self.volume)
        engine.remove_image(f"imm.local/app/{self.app.name}:99")


def live_flips(state: dict[str, Any]) -> list[tuple[str, int]]:
    """What went live and off, as the ledger tells it."""
    told = [each for each in state["records"] if each["event"] in ("went_live", "reverted", "down")]
    return [(each["event"], each["release"]) for each in told]
