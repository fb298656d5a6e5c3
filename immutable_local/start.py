"""Start a release's new instances beside what is live, and wait until they are healthy."""

from __future__ import annotations

from collections.abc import Sequence

from immutable_local import health, instance, secret
from immutable_local import labels as label
from immutable_local.app import Service
from immutable_local.deployment import Deployment
from immutable_local.instance import Instance
from immutable_local.listed import Container
from immutable_local.network import app_network
from immutable_local.observed import Observed
from immutable_local.plan import Change, Plan
from immutable_local.release import Release
from immutable_local.routes import Slot, Structure
from immutable_local.sweep import stray_instances
from immutable_local.unbroken import side_by_side
from immutable_local.undo import Undo


def start_beside(
    at: Deployment, release: Release, plan: Plan, structure: Structure, undo: Undo
) -> list[Instance]:
    """Every new instance, side by side; services with an image of their own first: the app may need them."""
    wanted = secret.values(
        at.host.session, at.app, sorted({name for each in release.app.services for name in each.secrets})
    )
    up = standing(at.found, release, plan, structure)
    started: list[Instance] = []
    # What the app has of its own ends before what that depends on.
    undo.by(_discard, at, started, False)
    undo.by(_discard, at, started, True)

    def start(asked: tuple[Change, Service, int]) -> None:
        change, service, replica = asked
        if (there := up.get((service.name, replica))) is not None:
            address = structure.address(service.name, change.slot, replica)
            started.append(Instance(there.name, there.id, service, change.slot, address))
            return
        given = (
            structure.addresses.get(service.name, {}).get(change.slot, ()) if service.takes_traffic else ()
        )
        made = instance.start(
            at.engine,
            at.host.session,
            release,
            service,
            change.slot,
            replica,
            given[replica - 1] if given else None,
            change.spec,
            {name: wanted[name] for name in service.secrets},
        )
        started.append(made)

    waves = [
        [each for each in plan.moving if (release.app.service(each.service).image is None) is own]
        for own in (False, True)
    ]
    for wave in [each for each in waves if each]:
        already = list(started)
        if already:
            check_health(at, release, already)
        side_by_side(
            start,
            [
                (change, service, replica)
                for change in wave
                for service in [release.app.service(change.service)]
                for replica in range(1, service.replicas + 1)
            ],
        )
    return started


def standing(
    found: Observed, release: Release, plan: Plan, structure: Structure | None
) -> dict[tuple[str, int], Container]:
    """What is up already, by service and replica, just as the plan wants it: a watch kept it for that."""
    wanted = {(each.service, each.slot): each.spec for each in plan.moving}
    up = {}
    for each in stray_instances(found):
        name, replica = each.labels[label.SERVICE], int(each.labels[label.REPLICA])
        slot: Slot = "green" if each.labels[label.SLOT] == "green" else "blue"
        if not each.running or wanted.get((name, slot)) != each.labels[label.SPEC]:
            continue
        # One that the proxy asks must be where it is asked.
        given = structure.address(name, slot, replica) if structure else None
        if not release.app.service(name).takes_traffic or each.addresses.get(app_network(found.app)) == given:
            up[name, replica] = each
    return up


def _discard(at: Deployment, started: Sequence[Instance], own: bool) -> None:
    """Undo `start_beside`, of the app's `own` image or of others': each has its time to end what it is at."""

    def discard(each: Instance) -> None:
        grace = each.service.stop_grace_period
        instance.discard(at.engine, at.host.session, at.app, each.container, each.name, grace)

    side_by_side(discard, [each for each in started if (each.service.image is None) is own])


def keep_running(at: Deployment, started: Sequence[Instance]) -> None:
    """What is live comes up again by itself, from its first moment on; also what has ended just before."""

    def keep(each: Instance) -> None:
        at.engine.keep_running(each.container)
        at.engine.start(each.container)

    side_by_side(keep, started)


def check_health(at: Deployment, release: Release, started: Sequence[Instance]) -> None:
    what = f"release {release.number} of {at.app}"
    health.wait_until_healthy(at.engine, at.host.session, started, what, at.still)
