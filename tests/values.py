"""Values for the pure tests: apps, releases, what was observed of them; and strategies that make any app."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from immutable_local.app import App, Build, HealthCheck, Mount, Service, Volume
from immutable_local.listed import Container
from immutable_local.live import Live, LiveService
from immutable_local.observed import Observed
from immutable_local.release import Pin, Release, spec_of
from immutable_local.routes import Slot

NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
ENTRIES = st.dictionaries(NAMES, TEXTS, max_size=3)
SECONDS = st.floats(0, 1000, allow_nan=False)
PATHS = st.from_regex(r"(/[a-z0-9]{1,5}){1,3}", fullmatch=True)
STATUSES = st.tuples(st.integers(100, 599), st.integers(100, 599))
HEALTH_CHECKS = st.builds(
    HealthCheck,
    path=st.none() | PATHS,
    command=st.none() | st.lists(TEXTS, min_size=1, max_size=3).map(tuple),
    interval=SECONDS,
    timeout=SECONDS,
    start_period=SECONDS,
    status=st.none() | STATUSES,
)


def services(names: Sequence[str], volumes: Sequence[str]) -> st.SearchStrategy[tuple[Service, ...]]:
    """One service of each name, which mounts some of the volumes."""
    mounts = st.lists(st.builds(Mount, st.sampled_from(list(volumes) or [""]), PATHS), max_size=2).map(tuple)

    def service(name: str) -> st.SearchStrategy[Service]:
        return st.builds(
            Service,
            name=st.just(name),
            port=st.none() | st.integers(1, 65535),
            domains=st.lists(NAMES, max_size=2).map(tuple),
            path=PATHS,
            strip_path=st.booleans(),
            image=st.none() | NAMES,
            command=st.none() | st.lists(TEXTS, min_size=1, max_size=3).map(tuple),
            environment=ENTRIES,
            secrets=st.lists(NAMES, max_size=2).map(tuple),
            volumes=mounts if volumes else st.just(()),
            tmpfs=st.lists(PATHS, max_size=2).map(tuple),
            replicas=st.integers(1, 50),
            healthcheck=HEALTH_CHECKS,
            drain=SECONDS,
            stop_grace_period=SECONDS,
            user=st.none() | NAMES,
            read_only=st.booleans(),
            cap_add=st.lists(NAMES, max_size=2).map(tuple),
            memory=st.none() | st.integers(1, 2**40),
            cpus=st.none() | st.floats(0.01, 64),
        )

    return st.tuples(*(service(name) for name in names))


@st.composite
def apps(draw: st.DrawFn) -> App:
    """Any app that a file could describe."""
    volumes = draw(st.lists(NAMES, max_size=2, unique=True))
    return App(
        name=draw(NAMES),
        services=draw(services(draw(st.lists(NAMES, min_size=1, max_size=3, unique=True)), volumes)),
        build=draw(st.builds(Build, context=TEXTS, dockerfile=TEXTS, target=st.none() | TEXTS, args=ENTRIES)),
        volumes=tuple(Volume(name, draw(st.sampled_from(["one", "many"]))) for name in volumes),
        keep=draw(st.integers(1, 100)),
    )


def release(
    *services: Service, volumes: Sequence[Volume] = (), number: int = 1, content: str = "c1"
) -> Release:
    """A release of the app `shop`; services with an image of their own are pinned to it."""
    app = App("shop", services or (Service("web", port=8000),), volumes=tuple(volumes))
    own = {
        each.name: Pin(each.image, f"id-{each.image}", f"c-{each.image}")
        for each in app.services
        if each.image
    }
    return Release(app, {"": Pin("", f"id-{content}", content), **own}, number, f"image-{number}")


def observed(
    live: Release | None, *, secrets: Mapping[str, str] | None = None, gone: Sequence[str] = ()
) -> Observed:
    """A host where this release is live on the green slots; the instances named in `gone` don't run."""
    known = dict(secrets or {})
    sealed: dict[int, tuple[str, Mapping[str, str]]] = {}
    containers: list[Container] = []
    now = None
    if live is not None:
        live_services = {}
        for service in live.app.services:
            names = tuple(
                f"shop-{service.name}-{live.number}-green-{replica}"
                for replica in range(1, service.replicas + 1)
            )
            given = {name: known[name] for name in service.secrets}
            live_services[service.name] = LiveService("green", spec_of(live, service, known), names, given)
            containers += [container(name) for name in names if name not in gone]
        now = Live(live.number, live.identity, live.image, "2026-01-01T00:00:00.000Z", live_services)
        sealed[live.number] = (live.image, seal_labels(live))
    return Observed("shop", now, None, None, None, known, [], containers, sealed)


def seal_labels(sealed: Release) -> dict[str, str]:
    return {"imm.sealed": sealed.sealed(), "imm.release": str(sealed.number), "imm.identity": sealed.identity}


def container(name: str, state: str = "running") -> Container:
    return Container(name, name, "image", {}, state, {"imm-app-shop": "10.201.1.3"})


def record(event: str, release: int | None, **more: Any) -> dict[str, Any]:
    return {"event": event, "release": release, **more}


def slots(found: Sequence[Any]) -> dict[str, Slot]:
    return {each.service: each.slot for each in found}
