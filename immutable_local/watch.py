"""After the flip the new release is watched; the old one stays up in its slot, and is one flip away.

No lock is held meanwhile: the next command that changes something ends the watch by sweeping the old release
away. The lock is taken again to act: to go back, or to go on when the time is over.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from immutable_local import drain, explain, flip, health, instance, ledger, lock, structure
from immutable_local import labels as label
from immutable_local.deployment import Deployment, doing
from immutable_local.errors import EngineRefused, FlippedBack, ImmError, Locked, SessionLost
from immutable_local.instance import Instance
from immutable_local.live import Live
from immutable_local.proxy import Counts
from immutable_local.release import Release
from immutable_local.routes import Slot, Structure
from immutable_local.sidecar.session import ANSWER_SECONDS
from immutable_local.sweep import retire
from immutable_local.unbroken import unbroken
from immutable_local.undo import Undo

POLL_SECONDS = 0.5
# So many health checks in a row must fail: one late answer of a busy application is not its end.
FAILURES_IN_A_ROW = 3
# Errors are well beyond what they were when there are so many, and so much more of all requests, and when
# that is no chance: so many standard errors above.
LEAST_ERRORS = 5
LEAST_RISE = 0.05
STANDARD_ERRORS = 3.0
# Of a release that answered little, little is known: it is taken for one that answered so many more well.
TAKEN_FOR_GRANTED = 10
TOLD_EVERY_SECONDS = 10.0
# Whether the old release would do is asked once, and quickly: the new one does harm meanwhile.
OLD_ANSWERS_SECONDS = 2.0
# A command that looks in for a moment, as `secret set` does, is waited for.
LOCK_SECONDS = 2.0

BySlot = Mapping[tuple[str, Slot], Counts]


@dataclass(frozen=True)
class Before:
    """What was live before the flip, what was counted when counting began, how long it stays up after."""

    seconds: float
    live: Live
    release: Release
    counts: BySlot

    def leaving(self, live: Live) -> set[str]:
        """The instances that go when the watch is over; the others are kept, and part of both releases."""
        return self.live.instances - live.instances


@dataclass(frozen=True)
class After:
    """What is live since the flip: the new release and its instances, the routes, what was counted then."""

    release: Release
    live: Live
    routes: Structure
    started: Sequence[Instance]
    counts: BySlot


@dataclass(frozen=True)
class Trouble:
    """Why the new release must not stay: one sentence, and facts."""

    reason: str
    details: Sequence[str] = ()
    hint: str = ""


class Probe(threading.Thread):
    """Asks one instance for its health, as its release says, until it is told to stop."""

    def __init__(self, at: Deployment, subject: Instance) -> None:
        super().__init__(daemon=True, name=f"imm-watch-{subject.name}")
        self.at = at
        self.subject = subject
        inspected = at.engine.inspect(subject.container)
        self.command = health.Command.of(at.engine, subject, inspected["Config"])
        self.target = health.http_target(subject) if self.command is None else None
        self.failures = 0
        self.seen: Mapping[str, Any] = {}
        self.ended = threading.Event()

    def run(self) -> None:
        pause = max(POLL_SECONDS, self.subject.service.healthcheck.interval)
        while (self.command or self.target) and not self.ended.wait(pause):
            try:
                healthy, seen = self._ask()
            except ImmError:
                # The engine or the session is gone: whoever watches finds out by itself.
                continue
            self.failures = 0 if healthy else self.failures + 1
            self.seen = seen if not healthy else self.seen

    def trouble(self) -> Trouble | None:
        """What is wrong with the instance now."""
        try:
            return self._trouble()
        except EngineRefused as refused:
            if refused.status != 404:
                raise
            hint = "imm did not: see who has access to the engine"
            return Trouble(f"{self.subject.name} was removed", hint=hint)

    def _trouble(self) -> Trouble | None:
        engine, name = self.at.engine, self.subject.name
        inspected = engine.inspect(self.subject.container)
        state = inspected["State"]
        # The engine starts none again before it is live: this one ended since, be it before the first look.
        if int(inspected["RestartCount"]) > 0:
            log = engine.logs(self.subject.container, tail=15).decode(errors="replace").splitlines()
            return Trouble(
                f"{name} ended, and the engine had to start it again", ["last lines of its log:", *log]
            )
        if not state["Running"]:
            details, hint = explain.why(engine, self.subject, inspected, None, None, ())
            return Trouble(f"{name} ended", details, hint)
        if self.failures >= FAILURES_IN_A_ROW:
            words = self.command.words if self.command else None
            details, hint = explain.why(engine, self.subject, inspected, self.target, words, [self.seen])
            return Trouble(f"{name} turned unhealthy", details, hint)
        return None

    def _ask(self) -> tuple[bool, Mapping[str, Any]]:
        if self.command is not None:
            came = self.command.run()
            return came["code"] == 0, {**came, "times": FAILURES_IN_A_ROW}
        assert self.target is not None
        within = self.target["timeout"] + ANSWER_SECONDS
        [answer] = self.at.host.session.ask("ask_all", targets=[self.target], within=within)
        return bool(answer.get("healthy")), {**answer, "times": FAILURES_IN_A_ROW}


def begin(at: Deployment, seconds: float) -> Before | None:
    """Begin to count what the live release answers, to compare with; None when nothing will be watched:
    there is nothing to go back to, or not all of it."""
    live, release = at.found.live, at.found.live_release
    if not seconds or live is None or release is None or at.found.missing:
        return None
    count(at, live)
    return Before(seconds, live, release, counts(at, live.slots))


def until_over(at: Deployment, before: Before, after: After) -> bool:
    """Watch what has just gone live; returns whether this command still has the say when that is over.

    Raises FlippedBack when the old release had to go live again.
    """
    session = at.host.session
    session.ask("doing_clear", app=at.app)
    session.ask("unlock", name=f"app-{at.app}")
    try:
        trouble = _look(at, before, after)
    except BaseException:
        # What failed is recorded under the lock; without it, the command that has it tells the story.
        _mine_again(at, after.live)
        raise
    if not _mine_again(at, after.live):
        return False
    if trouble is not None:
        _go_back(at, before, after, trouble)
    elif gone := before.leaving(after.live) - _running(at):
        at.tell.warn(f"the watch ended early: {', '.join(sorted(gone))} ended, and with it the way back")
    return True


def beyond(old: Counts, new: Counts) -> bool:
    """Whether the new release's share of errors is well beyond the old one's, and not by chance. Pure."""
    if new.errors < LEAST_ERRORS:
        return False
    granted = (old.errors + 0.5) / (old.requests + TAKEN_FOR_GRANTED)
    was = max(granted, old.errors / old.requests if old.requests else 0.0)
    now = new.errors / new.requests
    deviation = math.sqrt(
        was * (1 - was) / (old.requests + TAKEN_FOR_GRANTED) + now * (1 - now) / new.requests
    )
    return now - was >= LEAST_RISE and now - was >= STANDARD_ERRORS * deviation


def _look(at: Deployment, before: Before, after: After) -> Trouble | None:
    """Look again and again; returns at the first trouble, when time is over, or when there is no way back."""
    old = _total(before.counts, after.counts, before.live.slots)
    kept = before.live.instances & after.live.instances
    probes = [Probe(at, each) for each in after.started]
    for probe in probes:
        probe.start()
    seconds = before.seconds
    began = told = time.monotonic()
    at.tell.note(
        f"release {before.live.release} stays up for {seconds:g} s, should this one not do", "waiting"
    )
    try:
        while (elapsed := time.monotonic() - began) < seconds:
            time.sleep(min(POLL_SECONDS, seconds - elapsed))
            running = _running(at)
            if not _still_live(at, after.live) or before.leaving(after.live) - running:
                return None
            if ended := sorted(kept - running):
                return Trouble(f"{', '.join(ended)} ended", hint="see imm logs, then run imm up")
            for probe in probes:
                if (trouble := probe.trouble()) is not None:
                    return trouble
            new = _total(after.counts, counts(at, after.live.slots), after.live.slots)
            if beyond(old, new):
                return Trouble(
                    f"{new.errors} of {new.requests} requests to it ended with 5xx;"
                    f" of release {before.live.release} it was {old.errors} of {old.requests}",
                    hint=f"see imm logs --release {after.release.number}; correct the application,"
                    " then run imm up",
                )
            if time.monotonic() - told >= TOLD_EVERY_SECONDS:
                told = time.monotonic()
                at.tell.note(
                    f"watching for {seconds - (told - began):.0f} s more: {new.requests} requests,"
                    f" {new.errors} of them 5xx",
                    "waiting",
                )
        return None
    finally:
        for probe in probes:
            probe.ended.set()


def _go_back(at: Deployment, before: Before, after: After, trouble: Trouble) -> None:
    """Flip back to the old release, and end the new one. Raises FlippedBack, or says why it can't."""
    session, old, release = at.host.session, before.live, after.release
    error = FlippedBack(
        f"release {release.number} of {at.app} did not stand its watch: {trouble.reason}",
        details=trouble.details,
        hint=trouble.hint or f"see imm logs --release {release.number}, then run imm up",
    )
    proofs = flip.proofs_of(before.release, old.slots, after.routes, at.host.structures())
    running = _running(at)
    targets = _asked_by_http(at, [each for each in _instances(before, after.routes) if each.name in running])
    answers = session.ask("ask_all", targets=[{**each, "timeout": OLD_ANSWERS_SECONDS} for each in targets])
    if not would_do(old, running, answers):
        error.message += f"; but release {old.release} isn't healthy either"
        error.still = f"release {release.number} is live"
        raise error
    # Should it be killed from here on, the ledger tells that what is live then was gone back to.
    doing(at, "watch", "revert")
    began = time.monotonic()
    with Undo(at.tell.warn) as undo:
        undo.by(_point, at, after.live)
        back = replace(old, since=session.ask("hello")["at"])
        _point(at, back)
        at.host.proxy.confirm(session, proofs)
        took = time.monotonic() - began

        def no_return() -> None:
            undo.keep()
            at.tell.reached = f"release {old.release} is live again"
            ledger.append(
                session,
                at.app,
                "reverted",
                release=old.release,
                seconds=at.tell.seconds,
                error=trouble.reason,
                previous=release.number,
                since=back.since,
            )

        unbroken(no_return)
    at.tell.warn(f"{trouble.reason}: flipped back to release {old.release} in {took * 1000:.0f} ms")
    leaving: dict[str, Slot] = {each.service.name: each.slot for each in after.started}
    drain.wait_until_idle(at.host, at.app, leaving, release.app.services, at.tell)
    names = {each.name for each in after.started}
    mine = [each for each in instance.all_of(at.engine, at.app) if each.name in names]
    retire(at.host, at.app, mine, at.tell)
    structure.restore(at, at.found.structure)
    error.still = at.tell.reached
    # What failed is the new release, and what was live before is live: as with every failure before a flip.
    at.tell.reached = ""
    raise error


def would_do(old: Live, running: Collection[str], answers: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the old release can be gone back to: all of it runs, and who was asked is healthy. Pure.

    Workers, and services with a health command, their image's included, give no answers.
    """
    return old.instances <= set(running) and all(answer.get("healthy") for answer in answers)


def _asked_by_http(at: Deployment, instances: Sequence[Instance]) -> list[Mapping[str, Any]]:
    """What the sidecar asks of them; of one that has a command for that, be it its image's, nothing."""
    targets: list[Mapping[str, Any]] = []
    for each in instances:
        target = health.http_target(each)
        if target and health.command_of(each, at.engine.inspect(each.container)["Config"]) is None:
            targets.append(target)
    return targets


def _instances(before: Before, routes: Structure) -> list[Instance]:
    """The old release's instances, and where those that take traffic are to be asked."""
    found = []
    for name, live in before.live.services.items():
        for each in live.instances:
            address = routes.address(name, live.slot, instance.replica_of(each))
            found.append(Instance(each, each, before.release.app.service(name), live.slot, address))
    return found


def _running(at: Deployment) -> set[str]:
    instances = at.engine.containers({label.APP: at.app, label.ROLE: "instance"}, running_only=True)
    return {each.name for each in instances}


def _still_live(at: Deployment, live: Live) -> bool:
    now = at.host.session.ask("live_release", app=at.app)
    # What is held was about to be replaced, by a command that was killed: whoever sweeps it has the say.
    return now is not None and now["since"] == live.since and not now["held"]


def _mine_again(at: Deployment, live: Live) -> bool:
    """Take the lock again; False when another command has it, or had it and changed what is live."""
    try:
        lock.take(at.host.session, at.app, at.command, LOCK_SECONDS)
    except Locked:
        return False
    return _still_live(at, live)


def count(at: Deployment, live: Live) -> None:
    """What is live is counted to the end of this command: it costs each request a little."""
    if at.found.structure is None:
        return
    counted_to_the_end(at, live)
    try:
        _point(at, replace(live, counted=True))
    except SessionLost:
        raise
    except ImmError as failed:
        # That nobody can compare decides nothing.
        at.tell.warn(f"requests are not counted: {failed.message}")


def counted_to_the_end(at: Deployment, live: Live) -> None:
    """Whatever becomes of this command: when it ends, this is counted no more."""

    def count_no_more() -> None:
        # Without its session, or without its lock, this command leaves it to the next one's sweep.
        with suppress(ImmError):
            told = at.host.session.ask("live_release", app=at.app)
            if told is not None and told["since"] == live.since and told["counted"]:
                _point(at, replace(Live.from_json(told), counted=False))

    at.ending.callback(count_no_more)


def _point(at: Deployment, live: Live) -> None:
    at.host.proxy.point(at.host.session, at.app, live)


def counts(at: Deployment, slots: Mapping[str, Slot]) -> BySlot:
    """What each slot of these services has answered so far."""
    return at.host.proxy.counts(at.host.session, at.app, list(slots))


def _total(earlier: BySlot, later: BySlot, slots: Mapping[str, Slot]) -> Counts:
    """What the services at these slots answered between two looks."""
    each = [later.get(where, Counts()).since(earlier.get(where, Counts())) for where in slots.items()]
    return Counts(sum(one.requests for one in each), sum(one.errors for one in each))
