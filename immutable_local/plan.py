"""What a deployment is to do, and why: worked out from what was asked and what was observed. Pure.

`imm plan` prints it, `imm up` executes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from immutable_local.app import App, Service
from immutable_local.live import Live
from immutable_local.observed import Observed
from immutable_local.release import Release, spec_of
from immutable_local.routes import Slot, other

Verb = Literal["create", "replace", "keep", "remove"]
MOST_TOLD = 6
SECONDS = ("drain", "hold", "response_timeout", "stop_grace_period")


@dataclass(frozen=True)
class Change:
    """What happens to one service, and why. `slot` is where its instances will be (or are, when kept)."""

    verb: Verb
    service: str
    cause: str
    slot: Slot
    spec: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.service}" + (f": {self.cause}" if self.cause else "")


@dataclass(frozen=True)
class Plan:
    """The changes of a deployment, one for each service."""

    changes: tuple[Change, ...]
    stop_first: tuple[str, ...] = ()
    cause: str = ""

    @property
    def moving(self) -> tuple[Change, ...]:
        """The services that get new instances."""
        return tuple(each for each in self.changes if each.verb in ("create", "replace"))

    @property
    def removed(self) -> tuple[Change, ...]:
        """The live services that the release hasn't."""
        return tuple(each for each in self.changes if each.verb == "remove")

    @property
    def leaving(self) -> tuple[str, ...]:
        """The live services whose instances go."""
        return tuple(each.service for each in self.changes if each.verb in ("replace", "remove"))

    @property
    def leaving_late(self) -> tuple[str, ...]:
        """Those of them whose old instances are still up when the new ones are live."""
        return tuple(name for name in self.leaving if name not in self.stop_first)

    @property
    def causes(self) -> list[str]:
        """Why, service by service: names of settings and secrets, never their values."""
        return [f"{each.service}: {each.cause}" for each in self.changes if each.cause]

    @property
    def nothing_to_do(self) -> bool:
        return not self.cause and all(each.verb == "keep" for each in self.changes)


def decide(asked: Release, observed: Observed) -> Plan:
    """What takes the app from what is live to the release asked for."""
    live = observed.live
    before = observed.live_release
    changes = []
    for service in asked.app.services:
        spec = spec_of(asked, service, observed.secrets)
        if live is None or service.name not in live.services:
            cause = "first release" if live is None else "new service"
            changes.append(Change("create", service.name, cause, "green", spec))
            continue
        now = live.services[service.name]
        cause = _why(asked, before, service, observed, spec)
        if cause:
            changes.append(Change("replace", service.name, cause, other(now.slot), spec))
        else:
            changes.append(Change("keep", service.name, "", now.slot, now.spec))
    if live is not None:
        wanted = {service.name for service in asked.app.services}
        for name in sorted(set(live.services) - wanted):
            changes.append(Change("remove", name, "no longer in imm.toml", live.services[name].slot))
    cause = ""
    if live is not None and live.identity != asked.identity:
        cause = f"release {live.release} is live"
    return Plan(tuple(changes), _stop_first(changes, asked.app, before, live), cause)


def differences(before: Service, after: Service) -> list[str]:
    """What changed between two versions of a service: 'replicas 1 → 2', 'environment changed: X'."""
    found = []
    for key in Service.__dataclass_fields__:
        old, new = getattr(before, key), getattr(after, key)
        if old == new or key == "name":
            continue
        if key == "domains":
            found.append(_domains(old, new))
        elif isinstance(old, Mapping) and isinstance(new, Mapping):
            names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
            found.append(f"{key} changed: {', '.join(names)}")
        elif isinstance(old, int | float | str | None) and isinstance(new, int | float | str | None):
            found.append(f"{key} {_said(key, old)} → {_said(key, new)}")
        else:
            found.append(f"{key} changed")
    return found


def _domains(before: Sequence[str], after: Sequence[str]) -> str:
    told = [f"{each} gone" for each in before if each not in after]
    told += [f"{each} new" for each in after if each not in before]
    if not told:
        return "domains in another order"
    more = len(told) - MOST_TOLD
    return f"domains changed: {', '.join(told[:MOST_TOLD])}" + (f" and {more} more" if more > 0 else "")


def _why(asked: Release, before: Release | None, service: Service, observed: Observed, spec: str) -> str:
    """Why the live instances of a service can't stay; empty when they can."""
    assert observed.live is not None
    now = observed.live.services[service.name]
    if now.spec != spec:
        causes = []
        was = _service(before, service.name)
        if before is None or was is None:
            causes.append(f"the image of release {observed.live.release} is gone")
        else:
            if before.content_of(was) != asked.content_of(service):
                causes.append("image changed")
            causes += differences(was, service)
        changed = [
            name
            for name in service.secrets
            if name in now.secrets and now.secrets[name] != observed.secrets.get(name)
        ]
        if changed:
            causes.append(f"secret changed: {', '.join(changed)}")
        return "; ".join(causes) or "its settings changed"
    reached = {each.name for each in observed.running(service.name)}
    missing = [name for name in now.instances if name not in reached]
    if not missing:
        return ""
    running = {each.name for each in observed.containers if each.running}
    cut_off = all(name in running for name in missing)
    return f"instance {'cut off from its network' if cut_off else 'gone'}: {', '.join(missing)}"


def _stop_first(
    changes: list[Change], app: App, before: Release | None, live: Live | None
) -> tuple[str, ...]:
    """The live services that must stop before their successors start: they share a volume for one writer."""
    if live is None or before is None:
        return ()
    one_writer = {
        volume.name for each in (app, before.app) for volume in each.volumes if volume.writers == "one"
    }
    moving = {each.service for each in changes if each.verb in ("create", "replace")}
    wanted = {mount.volume for service in app.services if service.name in moving for mount in service.volumes}
    stopping = []
    for change in changes:
        was = _service(before, change.service)
        # Of one that isn't known no instance is left: nobody is there to stop.
        if change.verb in ("replace", "remove") and was is not None:
            mounted = {mount.volume for mount in was.volumes}
            if mounted & one_writer & wanted:
                stopping.append(change.service)
    return tuple(stopping)


def _service(release: Release | None, name: str) -> Service | None:
    return next((each for each in release.app.services if each.name == name), None) if release else None


def _said(key: str, value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:g}s" if key in SECONDS else str(value)
