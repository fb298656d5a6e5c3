"""Wait until the new instances are healthy, and say why not.

HTTP is asked by the sidecar, of each instance alone, in the proxy's own network namespace: what it reaches
the proxy reaches. Commands run inside the instance. A container that ends is noticed at once: nobody waits
for the deadline of something that is dead.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from immutable_local import explain
from immutable_local.engine import Engine, StillRuns
from immutable_local.errors import EngineRefused, ImmError, Unhealthy
from immutable_local.instance import Instance
from immutable_local.sidecar.session import Session
from immutable_local.wait import until

# How long a service without traffic and without a health check must stay up to count as ready.
STAYS_UP_SECONDS = 2.0
POLL_SECONDS = 0.2
# Health commands that are late and still run inside one instance.
LATE_AT_MOST = 3
# What Docker gives an image's HEALTHCHECK that doesn't say how long it may take.
IMAGE_SECONDS = 30.0
# Any answer under 500: the application itself speaks, whatever it says.
ANY_ANSWER = (100, 499)
SUCCESS = (200, 299)


def http_target(instance: Instance) -> dict[str, Any] | None:
    """What the sidecar asks of an instance; None when its health isn't asked by HTTP."""
    check = instance.service.healthcheck
    if instance.address is None or check.command is not None:
        return None
    return {
        "address": instance.address,
        "port": instance.service.port,
        "host": instance.service.domains[0] if instance.service.domains else "localhost",
        "path": check.path or "/",
        "status": check.status or (ANY_ANSWER if check.path is None else SUCCESS),
        "interval": check.interval,
        "timeout": check.timeout,
    }


def command_of(instance: Instance, config: Mapping[str, Any]) -> list[str] | None:
    """The command that says whether an instance is healthy: imm.toml's, else the image's HEALTHCHECK.

    `config` is the container's; it matters only where `heeds_image_healthcheck`.
    """
    check = instance.service.healthcheck
    if check.command is not None:
        return list(check.command)
    if not instance.service.heeds_image_healthcheck:
        return None
    test = (config.get("Healthcheck") or {}).get("Test") or []
    if test[:1] == ["CMD"]:
        return list(test[1:])
    if test[:1] == ["CMD-SHELL"]:
        shell = config.get("Shell") or ["/bin/sh", "-c"]
        return [*shell, test[1]]
    return None


class Command:
    """The command that says whether an instance is healthy: run inside it, each run within its time.

    The engine can't end a command, and not every image has what could: one that is late runs on, as it may
    only have been unlucky. Of those there are LATE_AT_MOST; then each run waits for one of them to end.
    """

    def __init__(self, engine: Engine, container: str, words: Sequence[str], seconds: float) -> None:
        self.engine = engine
        self.container = container
        self.words = words
        self.seconds = seconds
        self.late: list[str] = []

    @classmethod
    def of(cls, engine: Engine, instance: Instance, config: Mapping[str, Any]) -> Self | None:
        """That of an instance, as `command_of`; an image's HEALTHCHECK may take as long as it says itself."""
        words = command_of(instance, config)
        if words is None:
            return None
        seconds = instance.service.healthcheck.timeout
        if instance.service.healthcheck.command is None:
            nanoseconds = config["Healthcheck"].get("Timeout")
            seconds = max(seconds, nanoseconds / 1e9 if nanoseconds else IMAGE_SECONDS)
        return cls(engine, instance.container, words, seconds)

    def run(self) -> Mapping[str, Any]:
        """What came of one run: its exit code and the end of what it printed; no code when it was late."""
        if until(self._has_room, self.seconds, POLL_SECONDS):
            try:
                code, printed = self.engine.execute(self.container, self.words, seconds=self.seconds)
                return {"code": code, "printed": printed.decode(errors="replace").strip()[-300:]}
            except StillRuns as late:
                self.late.append(late.execution)
        return {"code": None, "seconds": self.seconds}

    def _has_room(self) -> bool:
        self.late = [each for each in self.late if self.engine.still_runs(each)]
        return len(self.late) < LATE_AT_MOST


@dataclass
class _Asking:
    """One instance that is being asked."""

    instance: Instance
    deadline: float
    command: Command | None = None
    number: int | None = None  # the sidecar's check
    healthy: bool = False
    seen: list[Mapping[str, Any]] = field(default_factory=list)


def wait_until_healthy(
    engine: Engine, session: Session, instances: Sequence[Instance], what: str, still: str
) -> None:
    """Return when every instance is healthy. `what` and `still` begin and complete the error's sentence.

    Raises Unhealthy with the reason as soon as an instance has ended, or at its service's deadline.
    """
    if not instances:
        return
    began = time.monotonic()
    asked = [_begin(engine, instance, began) for instance in instances]
    by_http = [each for each in asked if each.number is not None]
    for each, target in zip(by_http, session.ask("check_begin", targets=_targets(by_http)), strict=True):
        each.number = target
    stop = threading.Event()
    for each in asked:
        if each.command is not None:
            threading.Thread(target=_run_commands, args=(each.command, each, stop), daemon=True).start()
    try:
        while not all(each.healthy for each in asked):
            _look(session, asked, by_http, began)
            running = engine.running([each.instance.container for each in asked])
            for each in asked:
                late = not each.healthy and time.monotonic() > each.deadline
                if late or each.instance.container not in running:
                    raise _unhealthy(engine, each, what, still)
    finally:
        stop.set()
        if by_http:
            session.tell("check_end", numbers=[each.number for each in by_http])


def _begin(engine: Engine, instance: Instance, began: float) -> _Asking:
    asking = _Asking(instance, began + instance.service.healthcheck.start_period)
    heeds = instance.service.heeds_image_healthcheck
    config = engine.inspect(instance.container)["Config"] if heeds else {}
    asking.command = Command.of(engine, instance, config)
    if asking.command is None and http_target(instance) is not None:
        asking.number = 0
    return asking


def _targets(asked: Sequence[_Asking]) -> list[dict[str, Any]]:
    return [target for each in asked if (target := http_target(each.instance)) is not None]


def _look(session: Session, asked: Sequence[_Asking], by_http: Sequence[_Asking], began: float) -> None:
    """One look at what the checks have seen; takes POLL_SECONDS at most, less when all are healthy."""
    if by_http:
        told = session.ask("check_poll", numbers=[each.number for each in by_http], wait=POLL_SECONDS)
        for each, answer in zip(by_http, told, strict=True):
            each.healthy, each.seen = answer["healthy"], answer["seen"]
    else:
        time.sleep(POLL_SECONDS / 4)
    for each in asked:
        if each.number is None and each.command is None:
            each.healthy = time.monotonic() - began >= STAYS_UP_SECONDS


def _run_commands(command: Command, asking: _Asking, stop: threading.Event) -> None:
    """Run the health command again and again until it succeeds."""
    times: dict[tuple[tuple[str, Any], ...], int] = {}
    while not stop.is_set():
        try:
            came = command.run()
        except EngineRefused as refused:
            came = {"code": -1, "printed": refused.explanation[-300:]}
        except ImmError:
            # The engine is gone: whoever waits finds out by itself.
            stop.wait(POLL_SECONDS)
            continue
        if came["code"] == 0:
            asking.healthy = True
            return
        key = tuple(came.items())
        times[key] = times.get(key, 0) + 1
        asking.seen = [{**dict(key), "times": count} for key, count in times.items()]
        stop.wait(asking.instance.service.healthcheck.interval)


def _unhealthy(engine: Engine, asking: _Asking, what: str, still: str) -> Unhealthy:
    instance = asking.instance
    inspected = engine.inspect(instance.container)
    period = instance.service.healthcheck.start_period
    ended = not inspected["State"]["Running"]
    message = f"{what} did not become healthy" + ("" if ended else f" within {period:g} s")
    target = http_target(instance) if asking.number is not None else None
    words = asking.command.words if asking.command else None
    details, hint = explain.why(engine, instance, inspected, target, words, asking.seen)
    return Unhealthy(message, details=[f"{instance.name}:", *details], still=still, hint=hint)
