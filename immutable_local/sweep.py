"""What an interrupted command left is put right, before the next one does anything.

The live link says what is live: what it names stays, other instances of the app go, the ledger is completed.
Never by a tag, an age or a name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from immutable_local import drain, health, image, instance, ledger, lock, network, parking, secret
from immutable_local import labels as label
from immutable_local.app import App, Mount, Service, Volume
from immutable_local.engine import Engine
from immutable_local.errors import EngineError, EngineRefused, ImmError, SessionLost, Unhealthy
from immutable_local.events import Teller
from immutable_local.host import Host
from immutable_local.instance import Instance
from immutable_local.listed import Container
from immutable_local.live import Live
from immutable_local.observed import Observed, observe
from immutable_local.release import Release, announced, unseal
from immutable_local.routes import Slot
from immutable_local.sidecar.hands.locks import RECOVERY
from immutable_local.unbroken import side_by_side
from immutable_local.who import who


def sweep(
    host: Host, observed: Observed, command: str, tell: Teller, spared: Collection[str] = ()
) -> Observed:
    """Leave what is live, and nothing else; returns what is there then. `command` is the one that sweeps.

    `spared`: the instances that it has a use for, where nothing else is to be swept.
    """
    if _rejoin(host, observed):
        observed = observe(host.engine, host.session, observed.app)
    if history_is_lost(observed):
        observed = _begin_history_anew(host, observed, tell)
    strays = stray_instances(observed)
    orphans = [number for number in observed.sealed if number not in _known(observed)]
    if observed.live is not None and observed.nameless:
        host.engine.tag(observed.live.image, image.repository(observed.app), str(observed.live.release))
    unspared = [each for each in strays if each.name not in spared]
    left = [*unspared, *orphans, *observed.unsealed, *observed.tasks]
    held = observed.live is not None and observed.live.held
    if not left and not held and observed.doing is None and missing_record(observed) is None:
        # What is spared may be watched still, and is compared with what is live until that ends.
        return observed if spared else _count_no_more(host, observed, tell)
    if observed.live is not None:
        parking.sweeping(host, observed.app, observed.live.held)
    _complete_ledger(host, observed, command)
    _point_whole(host, observed)
    _drain(host, observed, strays, tell)
    gone = retire(host, observed.app, strays, tell)
    # After the strays: where one writer is allowed, the old one starts when the new one is gone.
    if observed.live is not None and (held or observed.doing is not None):
        try:
            let_go(host, observed, observed.live)
        except (EngineRefused, Unhealthy) as failed:
            # What is live isn't well, and the command that comes now may be the one that heals it.
            tell.warn(f"{failed.message}; {'; '.join(failed.details[:1])}".rstrip("; "))
    _settle_routes(host, observed, tell)
    for number in orphans:
        _still_locked(host, observed.app)
        host.engine.remove_image(f"{image.repository(observed.app)}:{number}")
    for each in observed.tasks:
        host.engine.remove(each.id)
    # It lists anew: what a successor builds is not this command's.
    _still_locked(host, observed.app)
    image.remove_leftovers(host.engine, observed.app)
    secret.sweep(host.engine, observed.app)
    host.session.ask("doing_clear", app=observed.app)
    if gone:
        # Nobody was interrupted where a watch kept them, or the engine could not remove them before.
        left_by = "what an interrupted command left" if observed.doing else "what an earlier release had up"
        tell.note(f"swept {left_by}: {', '.join(gone)}")
    return _count_no_more(host, observe(host.engine, host.session, observed.app), tell)


def stray_instances(observed: Observed) -> list[Container]:
    """Instances of the app that the live link doesn't name."""
    named = observed.live.instances if observed.live else set()
    return [each for each in observed.containers if each.name not in named]


def in_the_way(engine: Engine, observed: Observed) -> list[str]:
    """Strays that run, and write what only one may: what is live can't be started beside them."""
    return [each.name for each in stray_instances(observed) if each.running and _writes_alone(engine, each)]


def retire(host: Host, app: str, containers: Sequence[Container], tell: Teller) -> list[str]:
    """Stop and remove these instances, each with the grace of its own release; the names of those that went.

    Those with an image of their own go last, as they came first: the others may need them to end well. One
    that can't be removed is in nobody's way, unless it writes what only one may.
    """
    gone: list[str] = []
    services = {each.id: _service(host.engine, each) for each in containers}

    def go(container: Container) -> None:
        grace = services[container.id].stop_grace_period
        try:
            heeded = instance.retire(host.engine, host.session, app, container.id, container.name, grace)
        except EngineRefused as refused:
            if _writes_alone(host.engine, container):
                raise
            tell.warn(f"{container.name} stays, until the next command tries again: {refused.message}")
            return
        gone.append(container.name)
        if not heeded:
            tell.warn(
                f"{container.name} did not end within {grace:g} s of SIGTERM and was killed: let the"
                " application heed SIGTERM (as process 1 it must ask for it), or shorten stop_grace_period"
            )

    for last in (False, True):
        side_by_side(go, [each for each in containers if (services[each.id].image is not None) is last])
    return sorted(gone)


def _rejoin(host: Host, observed: Observed) -> bool:
    """Somebody took the proxy out of the network of an app that is live: it is put back. Whether it was."""
    name, proxy = network.app_network(observed.app), observed.proxy
    if observed.live is None or proxy is None or name in proxy.addresses:
        return False
    found = next((each for each in host.engine.networks() if each.name == name and each.subnet), None)
    # Without a network its instances are cut off, and replaced by the plan.
    if found is not None:
        host.engine.join(name, proxy.id, network.proxy_address(found.subnet or ""))
    return found is not None


def _count_no_more(host: Host, observed: Observed, tell: Teller) -> Observed:
    """Whoever compared what is live with another release is gone, or has just nothing left to compare."""
    if observed.live is None or not observed.live.counted or observed.structure is None:
        return observed
    told = replace(observed.live, counted=False)
    try:
        host.proxy.point(host.session, observed.app, told)
    except SessionLost:
        raise
    except ImmError as failed:
        # A disk that is full may be what the command that comes now is for.
        tell.warn(f"requests are still counted: {failed.message}")
        return observed
    return replace(observed, live=told)


def history_is_lost(observed: Observed) -> bool:
    """Whether there are releases and no history: imm's state volume was removed, or is another engine's.

    Or a history that only tells of releases found again, and not of all of them: it was cut off there.
    """
    if observed.doing is not None or any(record["event"] != "found" for record in observed.records):
        return False
    found = announced(observed.records)
    return not set(observed.sealed) <= found or (observed.live is not None and not found)


def _begin_history_anew(host: Host, observed: Observed, tell: Teller) -> Observed:
    """Releases that are still here keep their numbers and can be reverted to; say so, and what is lost."""
    live = observed.live.release if observed.live else None
    for number in sorted(set(observed.sealed) - announced(observed.records)):
        identity = observed.sealed[number][1][label.IDENTITY]
        ledger.append(host.session, observed.app, "found", release=number, identity=identity)
    found = [number for number in sorted(observed.sealed) if number != live]
    told = [f"the history of {observed.app} is lost"]
    told += [f"release {live} is still live"] if live is not None else []
    told += [f"found, and can be reverted to: {', '.join(map(str, found))}"] if found else []
    given = {
        name for each in (observed.live.services.values() if observed.live else ()) for name in each.secrets
    }
    gone = sorted(given - set(observed.secrets))
    told += [f"set again: imm secret set {name}" for name in gone]
    tell.warn("; ".join(told))
    return observe(host.engine, host.session, observed.app)


def let_go(host: Host, observed: Observed, live: Live) -> None:
    """Start again what was stopped to make room, wait until it is healthy, and send traffic to it."""
    release = observed.live_release
    mine = [each for each in observed.containers if each.name in live.instances]
    stopping = _stopping(observed, live)
    for each in mine:
        if each.running and each.name in stopping:
            _still_locked(host, observed.app)
            host.engine.stop(each.id, _service(host.engine, each).stop_grace_period)
    stopped = [each for each in mine if not each.running or each.name in stopping]
    refusals: list[EngineRefused] = []
    for each in stopped:
        _still_locked(host, observed.app)
        try:
            host.engine.start(each.id)
        except EngineRefused as refused:
            # The others are none the worse for it.
            refusals.append(refused)
    for each in mine:
        _still_locked(host, observed.app)
        host.engine.keep_running(each.id)
    if refusals:
        raise refusals[0]
    if release is not None:
        what = f"the old instance of release {live.release}"
        instances = [_instance(release, observed, live, each) for each in stopped]
        try:
            health.wait_until_healthy(host.engine, host.session, instances, what, "")
        except (EngineError, SessionLost):
            # Nobody can tell: requests wait for who can.
            raise
        except BaseException:
            # Not healthy, or not waited for any more: nor do requests.
            _let_pass(host, observed, live)
            raise
    _let_pass(host, observed, live)


def _still_locked(host: Host, app: str) -> None:
    """A client that was away and lost its lock changes nothing of its successor's. Raises SessionLost."""
    host.session.ask("still_locked", name=f"app-{app}")


def _let_pass(host: Host, observed: Observed, live: Live) -> None:
    try:
        if live.held:
            host.proxy.point(host.session, observed.app, replace(live, held=()))
    finally:
        # Also when nothing is held any more: the flip may have come, and the release of what waits not.
        if observed.structure is not None:
            # Of one that isn't live any more nobody remembers the slot.
            parking.release(host, observed.structure, observed.structure.sides, live.slots, live.slots)


def _known(observed: Observed) -> set[int]:
    """The releases that the ledger names: a sealed image of which no record tells was never announced."""
    return announced(observed.records) | ({observed.live.release} if observed.live else set())


def _instance(release: Release, observed: Observed, live: Live, container: Container) -> Instance:
    service = next(name for name, each in live.services.items() if container.name in each.instances)
    slot = live.services[service].slot
    asked = release.app.service(service)
    replica = instance.replica_of(container.name)
    address = observed.structure.address(service, slot, replica) if observed.structure else None
    return Instance(container.name, container.id, asked, slot, address)


def missing_record(observed: Observed) -> str | None:
    """The event that the ledger lacks: it doesn't tell yet what the live link says."""
    flips = [each for each in observed.records if each["event"] in ("went_live", "reverted", "down")]
    last = flips[-1] if flips else None
    if observed.live is None:
        return "down" if last is not None and last["event"] != "down" else None
    told = last is not None and last["event"] != "down" and last["release"] == observed.live.release
    # The same release may go live again, with other secrets or in place of an instance that is gone. What an
    # older imm wrote tells only when it was written: after that, where nobody put the host's clock back.
    since = observed.live.since
    if last is not None and told and (last["since"] == since if "since" in last else last["at"] >= since):
        return None
    return "reverted" if (observed.doing or {}).get("command") == "revert" else "went_live"


def record_live(host: Host, observed: Observed, command: str) -> None:
    """Let the ledger tell what the live link says, when its record is missing."""
    event = missing_record(observed)
    if event is None:
        return
    previous = observed.way_back[-1] if observed.way_back else None
    by = (observed.doing or {}).get("by")
    if observed.live is None:
        ledger.append(host.session, observed.app, event, release=previous, by=by)
        return
    event = "reverted" if command == "revert" else event
    live = observed.live
    ledger.append(
        host.session,
        observed.app,
        event,
        release=live.release,
        previous=previous,
        git=live.git,
        dirty=live.dirty,
        since=live.since,
        by=by,
    )


def _complete_ledger(host: Host, observed: Observed, command: str) -> None:
    """Say what happened: where the command was interrupted, and what was found live."""
    doing = observed.doing
    record_live(host, observed, (doing or {}).get("command", ""))
    # A recovery that fails is tried again, and again.
    mine = doing is not None and doing.get("command") == command == RECOVERY
    if doing is not None and not mine and not _told_already(observed, doing):
        live = observed.live.release if observed.live else None
        step = doing.get("step", "the begin")
        found = f"found release {live} live" if live is not None else "found nothing live"
        ledger.append(
            host.session,
            observed.app,
            "interrupted",
            release=doing.get("release"),
            error=f"{doing.get('command')} by {doing.get('by')} was interrupted at {step}; {found}",
        )
    # From here on it is this command that may be interrupted.
    told = {
        "command": command,
        "step": "sweep",
        "release": None,
        "by": who(),
        "stopping": _at_stopping(observed),
    }
    # What was written there before stays true where this can't be.
    host.session.ask("doing_write", app=observed.app, told=told, needed=False)


def _told_already(observed: Observed, doing: Mapping[str, Any]) -> bool:
    """Whether this one said itself where it failed, or a sweep did that was interrupted since."""
    told = [record["at"] for record in observed.records if record["event"] in ("interrupted", "failed")]
    return bool(told) and told[-1] > doing.get("at", told[-1])


def _point_whole(host: Host, observed: Observed) -> None:
    """A flip that was cut off may have moved the live link, and a proxy that has words of its own not yet:
    what the link doesn't name is about to go, so all traffic must follow it first."""
    if observed.doing is None or observed.structure is None:
        return
    if observed.live is None:
        host.proxy.withdraw(host.session, observed.app)
    else:
        host.proxy.point(host.session, observed.app, observed.live)


def _settle_routes(host: Host, observed: Observed, tell: Teller) -> None:
    """What an interrupted command claimed is claimed no more: another app may have it."""
    before, live, release, session = observed.structure, observed.live, observed.live_release, host.session
    known = {each.name for each in release.app.services} if release else set()
    if before is None or (live is not None and not live.services.keys() <= known):
        return
    settled = before.settled(release.app.services, live.slots) if live and release else None
    if settled == before:
        return
    try:
        with lock.host(session, "sweep"):
            if settled is None:
                session.ask("app_remove", app=observed.app)
            else:
                session.ask("structure_write", app=observed.app, told=settled.to_json())
            host.proxy.load(host.engine, session, host.structures(), settle=False)
    except SessionLost:
        raise
    except ImmError as failed:
        tell.warn(f"the routes of an interrupted command stay: {failed.message}")


def _drain(host: Host, observed: Observed, strays: list[Container], tell: Teller) -> None:
    """Let strays that were live end what they are at: the flip took new requests off them, no more."""
    live = observed.live.slots if observed.live else {}
    # What waits counts as in flight.
    held = observed.live.held if observed.live else ()
    for number in sorted({int(each.labels[label.RELEASE]) for each in strays}):
        release = observed.release(number)
        slots: dict[str, Slot] = {}
        for each in strays:
            service, slot = each.labels[label.SERVICE], each.labels[label.SLOT]
            mine = each.running and int(each.labels[label.RELEASE]) == number and service not in held
            if mine and live.get(service) != slot:
                slots[service] = "green" if slot == "green" else "blue"
        if release is not None:
            drain.wait_until_idle(host, observed.app, slots, release.app.services, tell)


def _at_stopping(observed: Observed) -> bool:
    """Whether a command was interrupted while it stopped instances; its sweep may have been, too, since."""
    doing = observed.doing or {}
    return doing.get("step") == "stop_old" or bool(doing.get("stopping"))


def _stopping(observed: Observed, live: Live) -> set[str]:
    """Live instances that run, and that the engine may be stopping, for one writer's sake."""
    release = observed.live_release
    if release is None or not _at_stopping(observed):
        return set()
    services = [each for each in release.app.services if each.name in live.services]
    waited_for = [
        each for each in services if each.volumes and (not each.takes_traffic or each.name in live.held)
    ]
    return {name for each in waited_for for name in live.services[each.name].instances}


def _writes_alone(engine: Engine, container: Container) -> bool:
    app = _made_for(engine, container)
    return app.one_writer(app.service(container.labels[label.SERVICE]))


def _service(engine: Engine, container: Container) -> Service:
    return _made_for(engine, container).service(container.labels[label.SERVICE])


def _made_for(engine: Engine, container: Container) -> App:
    """As its release says that it was made for.

    What imm 0.1.0 made of someone else's image has no seal: the engine says how it is to be stopped, and as
    nobody says how many may write its volumes, it is taken for the only one.
    """
    if label.SEALED in container.labels:
        return unseal(container.labels, container.image).app
    inspected = engine.find(container.id) or {"Config": {}}
    service = Service(
        container.labels[label.SERVICE],
        image=container.image,
        volumes=tuple(Mount(each, "") for each in container.volumes),
        stop_grace_period=float(inspected["Config"].get("StopTimeout", Service.stop_grace_period)),
    )
    volumes = tuple(Volume(each, writers="one") for each in container.volumes)
    return App(container.labels[label.APP], (service,), volumes=volumes)
