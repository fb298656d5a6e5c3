"""One snapshot of what the engine and the state have of an app."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from immutable_local import image, instance
from immutable_local import labels as label
from immutable_local.app import App, Service, Volume
from immutable_local.engine import TASK, Engine
from immutable_local.listed import Container, by_role
from immutable_local.live import Live
from immutable_local.network import app_network
from immutable_local.release import WAS_LIVE, Pin, Release, unseal, way_back
from immutable_local.routes import Structure
from immutable_local.sidecar.session import Session
from immutable_local.unbroken import ahead
from immutable_local.who import Origin


@dataclass(frozen=True)
class Observed:
    """What there is of an app, at one moment."""

    app: str
    live: Live | None
    structure: Structure | None
    doing: Mapping[str, Any] | None
    origin: Origin | None
    secrets: Mapping[str, str]
    records: Sequence[Mapping[str, Any]]
    containers: Sequence[Container]
    sealed: Mapping[int, tuple[str, Mapping[str, str]]]
    # What only an interrupted command leaves: images of which no release was made, containers of a moment.
    unsealed: Sequence[str] = ()
    tasks: Sequence[Container] = ()
    # The host's proxy, with its addresses in the networks that it is in.
    proxy: Container | None = None
    # Somebody took the name of the live release's image away.
    nameless: bool = False

    @classmethod
    def nothing(cls, app: str) -> Observed:
        """Of an app that nobody knows."""
        return cls(app, None, None, None, None, {}, (), (), {})

    def release(self, number: int) -> Release | None:
        """A sealed release that the engine still holds."""
        if number not in self.sealed:
            return None
        image_id, labels = self.sealed[number]
        return unseal(labels, image_id)

    @property
    def live_release(self) -> Release | None:
        """What is live, unsealed; where somebody removed its image, as its instances' own seals tell it.

        Then without the services of which no instance is left. None also when none of any is.
        """
        if self.live is None:
            return None
        return self.release(self.live.release) or self._as_instances_tell(self.live)

    @property
    def revertable(self) -> list[int]:
        """The releases that were live and that the engine still holds, newest first."""
        was_live = {each["release"] for each in self.records if each["event"] in WAS_LIVE}
        live = self.live.release if self.live else None
        return sorted((number for number in was_live & set(self.sealed) if number != live), reverse=True)

    @property
    def way_back(self) -> list[int]:
        return way_back(self.records)

    @property
    def missing(self) -> list[str]:
        """The live instances that don't run."""
        running = {each.name for each in self.containers if each.running}
        return sorted((self.live.instances if self.live else set()) - running)

    def _as_instances_tell(self, live: Live) -> Release | None:
        """An instance that was kept is of an earlier release, in which its service was the very same."""
        services: list[Service] = []
        volumes: dict[str, Volume] = {}
        pins: dict[str, Pin] = {}
        sealed = [each for each in self.containers if label.SEALED in each.labels]
        for name, now in live.services.items():
            made = next((each for each in sealed if each.name in now.instances), None)
            if made is None:
                continue
            of_then = unseal(made.labels, made.image)
            service = of_then.app.service(name)
            services.append(service)
            volumes |= {mount.volume: of_then.app.volume(mount.volume) for mount in service.volumes}
            key = "" if service.image is None else name
            pins[key] = of_then.pins[key]
        app = App(self.app, tuple(services), volumes=tuple(volumes.values()))
        return Release(app, pins, live.release, live.image) if services else None

    def running(self, service: str) -> list[Container]:
        """The live instances of a service that run, and that the app's network leads to."""
        if self.live is None or service not in self.live.services:
            return []
        mine = self.live.services[service]
        side = self.structure.sides.get(service, {}).get(mine.slot) if self.structure else None
        found = []
        for each in self.containers:
            address = each.addresses.get(app_network(self.app))
            reached = address in side.addresses if side is not None else address is not None
            if each.name in mine.instances and each.running and reached:
                found.append(each)
        return found


NOTHING: Mapping[str, Any] = {
    "live": None,
    "structure": None,
    "doing": None,
    "origin": None,
    "secrets": {},
    "ledger": [],
}


def _state(session: Session | None, app: str) -> Mapping[str, Any]:
    return dict(session.ask("app_state", app=app)) if session else NOTHING


# What the engine's own builder runs the instruction in that gives an image imm's labels: it never starts.
LABELLING = re.compile(rf"#\(nop\)\W+LABEL .*{re.escape(label.ROLE)}=")


def _of_a_moment(engine: Engine, container: Container) -> bool:
    """Whether only an interrupted command leaves such a one: made for a moment, or by an engine that died
    while it sealed. What somebody made of an image with these labels isn't that."""
    if container.labels[label.ROLE] == TASK:
        return not engine.gives_role(container.image, TASK)
    return container.state == "created" and LABELLING.search(container.command) is not None


def observe(engine: Engine, session: Session | None, app: str) -> Observed:
    """Look at an app. Without a session, on a host that has no proxy, only the engine is asked."""
    # Side by side: a session that has just begun is busy with its own start, and a long history, many images
    # and many containers take their time, each somewhere else.
    state = ahead(_state, session, app)
    images = ahead(image.of_app, engine, app)
    everybody = engine.containers({label.ROLE: ""})
    containers = [each for each in everybody if each.labels.get(label.APP) == app]
    told = state()
    sealed, unsealed = images()
    origin = told["origin"]
    live = Live.from_json(told["live"]) if told["live"] else None
    nameless = live is not None and live.image in unsealed
    if live is not None and nameless:
        sealed[live.release] = (live.image, unsealed.pop(live.image))
    return Observed(
        app=app,
        live=live,
        structure=Structure.from_json(told["structure"]) if told["structure"] else None,
        doing=told["doing"],
        origin=Origin(frozenset(origin["marks"]), origin["where"]) if origin else None,
        secrets={name: each["version"] for name, each in told["secrets"].items()},
        records=told["ledger"],
        containers=instance.among(engine, containers),
        sealed=sealed,
        unsealed=list(unsealed),
        nameless=nameless,
        tasks=[each for each in containers if _of_a_moment(engine, each)],
        proxy=by_role(everybody).get("proxy"),
    )
