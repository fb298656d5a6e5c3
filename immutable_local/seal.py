"""From imm.toml and a folder to a sealed, numbered release."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from immutable_local import cache, image, ledger
from immutable_local import labels as label
from immutable_local.app import App
from immutable_local.deployment import Deployment, Options
from immutable_local.engine import Engine
from immutable_local.errors import ConfigError, ImmError
from immutable_local.events import Teller
from immutable_local.observed import Observed
from immutable_local.release import Pin, Release, announced, numbers
from immutable_local.sidecar.session import Session
from immutable_local.undo import Undo


def asked_for(
    engine: Engine,
    session: Session | None,
    found: Observed,
    app: App,
    folder: Path,
    options: Options,
    tell: Teller,
    builder: Callable[[], str | None],
) -> tuple[Release, str | None, Pin | None]:
    """The release that imm.toml and the folder ask for, unsealed; what it was built from; what was built."""
    _check_processors(engine, app)
    pins: dict[str, Pin] = {}
    source = built = None
    if app.builds:
        began = time.monotonic()
        try:
            with tell.step("build"):
                built, source = image.build(engine, app, folder, tell, builder(), options.fresh)
                pins[""] = built
        except BaseException:
            # What went wrong is told, not that it couldn't be noted.
            with suppress(ImmError):
                cache.note(session, app.name, time.monotonic() - began, ())
            raise
        cache.note(session, app.name, time.monotonic() - began, (built.id, *([source] if source else [])))
    else:
        tell.skip("build")
    for service in app.services:
        if service.image is not None:
            pins[service.name] = image.pin(engine, service, tell)
    asked = Release(app, pins)
    return asked if options.fresh else same_source(engine, found, asked, source), source, built


def _check_processors(engine: Engine, app: App) -> None:
    """Raises ConfigError for more of them than the engine has: it would make no such container."""
    # Every engine has one: most apps don't ask for more, and needn't ask it, either.
    limited = [service for service in app.services if service.cpus is not None and service.cpus > 1]
    most = int(engine.info()["NCPU"]) if limited else 0
    for service in limited:
        if service.cpus is not None and service.cpus > most:
            raise ConfigError(
                f"services.{service.name}.cpus: must be {most} at most, as many as the engine has,"
                f" not {service.cpus:g}",
                key=("services", service.name, "cpus"),
                hint="lower it, or leave it out: then there is no limit",
            )


def same_source(engine: Engine, found: Observed, asked: Release, source: str | None) -> Release:
    """A rebuild without a cache gives other layers of one source: what was sealed of it before is taken."""
    sealed = {labels.get(label.IDENTITY) for _, labels in found.sealed.values()}
    if source is None or asked.identity in sealed:
        return asked
    by_recency = sorted(
        found.sealed,
        key=lambda number: (number == (found.live.release if found.live else None), number),
        reverse=True,
    )
    for number in by_recency:
        if found.sealed[number][1].get(label.SOURCE) != source:
            continue
        earlier = found.release(number)
        if earlier is not None and engine.image(earlier.pins[""].id) is not None:
            pin = replace(earlier.pins[""], volumes=asked.pins[""].volumes)
            return replace(asked, pins={**asked.pins, "": pin})
    return asked


def sealed(at: Deployment, asked: Release, source: str | None, undo: Undo) -> Release:
    """The release sealed and numbered. The same content keeps its number for ever."""
    identity = asked.identity
    for number, (image_id, labels) in at.found.sealed.items():
        if labels.get(label.IDENTITY) == identity:
            return replace(asked, number=number, image=image_id)
    known, live = numbers(at.found.records), at.found.live
    if live is not None:
        known[live.identity] = live.release
    # A record may be gone, moved away when it was broken: what another one names is given to nothing else.
    given = {*known.values(), *announced(at.found.records), *at.found.sealed}
    number = known.get(identity) or max(given, default=0) + 1
    undo.by(forget, at, number)
    # A client that was away and lost its lock takes no number that its successor gave to something else.
    at.host.session.ask("still_locked", name=f"app-{at.app}")
    release = image.seal(at.engine, asked, number, source)
    ledger.append(at.host.session, at.app, "sealed", release=number, identity=identity)
    return release


def forget(at: Deployment, number: int) -> None:
    """Remove a sealed release that never went live, unless the lock is lost: it may be another's by then."""
    at.host.session.ask("still_locked", name=f"app-{at.app}")
    at.engine.remove_image(f"{image.repository(at.app)}:{number}")


def discard(engine: Engine, found: Observed, built: Pin | None) -> None:
    """Remove a built image that no release was made of."""
    live = found.live_release
    if built is not None and not (live and built in live.pins.values()):
        image.discard(engine, built)
