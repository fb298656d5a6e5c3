"""What an interrupted command left is put right, before the next one does anything.

The live link says what is live: what it names stays, other instances of the app go, the ledger is completed.
Never by a tag, an age or a name.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from immutable_local import health, image, instance, ledger, parking
from immutable_local.engine import Container
from immutable_local.events import Teller
from immutable_local.host import Host
from immutable_local.instance import Instance
from immutable_local.observed import Live, Observed, observe
from immutable_local.release import Release


def sweep(host: Host, observed: Observed, tell: Teller) -> Observed:
    """Leave what is live, and nothing else; returns what is there then."""
    strays = stray_instances(observed)
    orphans = [number for number in observed.sealed if number not in _known(observed)]
    if not strays and not orphans and observed.doing is None and not (observed.live and observed.live.held):
        return observed
    _complete_ledger(host, observed)
    with ThreadPoolExecutor(8) as beside:
        list(beside.map(lambda each: _retire(host, observed, each), strays))
    # After the strays: where one writer is allowed, the old one starts when the new one is gone.
    if observed.live is not None and observed.live.held:
        let_go(host, observed, observed.live, tell)
    for number in orphans:
        host.engine.remove_image(f"{image.repository(observed.app)}:{number}")
    for built in image.leftovers(host.engine, observed.app):
        host.engine.remove_image(built)
    host.session.ask("doing_clear", app=observed.app)
    if strays:
        tell.note(f"swept what an interrupted command left: {', '.join(each.name for each in strays)}")
    return observe(host.engine, host.session, observed.app)


def stray_instances(observed: Observed) -> list[Container]:
    """Instances of the app that the live link doesn't name."""
    named = observed.live.instances if observed.live else set()
    return [each for each in observed.containers if each.name not in named]


def let_go(host: Host, observed: Observed, live: Live, tell: Teller) -> None:
    """Start again what was stopped to make room, wait until it is healthy, and send traffic to it."""
    release = observed.live_release
    stopped = [each for each in observed.containers if each.name in live.instances and not each.running]
    for each in stopped:
        host.engine.start(each.id)
        host.engine.keep_running(each.id)
    if release is not None:
        what = f"the old instance of release {live.release}"
        instances = [_instance(release, observed, live, each) for each in stopped]
        health.wait_until_healthy(host.engine, host.session, instances, tell, what, "")
    host.proxy.point(host.session, observed.app, live.slots, (), replace(live, held=()).to_json())
    parking.release(host, observed.structure, live.slots, live.held)


def _known(observed: Observed) -> set[int]:
    """The releases that a record of the ledger names: a sealed image that none names was never announced."""
    live = {observed.live.release} if observed.live else set()
    return live | {record["release"] for record in observed.records if record["event"] == "sealed"}


def _instance(release: Release, observed: Observed, live: Live, container: Container) -> Instance:
    service = next(name for name, each in live.services.items() if container.name in each.instances)
    slot = live.services[service].slot
    asked = release.app.service(service)
    side = observed.structure.sides.get(service, {}).get(slot) if observed.structure else None
    position = live.services[service].instances.index(container.name)
    address = side.addresses[position] if side and position < len(side.addresses) else None
    return Instance(container.name, container.id, asked, slot, address)


def _complete_ledger(host: Host, observed: Observed) -> None:
    """Say what happened: where the command was interrupted, and what was found live."""
    live = observed.live.release if observed.live else None
    recorded = observed.way_back[-1] if observed.way_back else None
    doing = observed.doing or {}
    if observed.live is not None and live != recorded:
        event = "reverted" if doing.get("command") == "revert" else "went_live"
        git = observed.live.git
        ledger.append(host.session, observed.app, event, release=live, previous=recorded, git=git)
    if observed.doing is not None:
        step = doing.get("step", "the begin")
        found = f"found release {live} live" if live is not None else "found nothing live"
        ledger.append(
            host.session,
            observed.app,
            "interrupted",
            release=doing.get("release"),
            error=f"{doing.get('command')} by {doing.get('by')} was interrupted at {step}; {found}",
        )


def _retire(host: Host, observed: Observed, container: Container) -> None:
    grace = 10.0
    release = observed.live_release
    service = container.labels.get("imm.service", "")
    if release is not None and any(each.name == service for each in release.app.services):
        grace = release.app.service(service).stop_grace_period
    instance.retire(host.engine, host.session, observed.app, container.id, container.name, grace)
