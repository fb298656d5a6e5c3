"""Start a release's new instances beside what is live, and wait until they are healthy."""

from __future__ import annotations

from collections.abc import Sequence

from immutable_local import health, instance, secret
from immutable_local.app import Service
from immutable_local.deployment import Deployment
from immutable_local.instance import Instance
from immutable_local.plan import Change, Plan
from immutable_local.release import Release
from immutable_local.routes import Structure
from immutable_local.unbroken import side_by_side
from immutable_local.undo import Undo


def start_beside(
    at: Deployment, release: Release, plan: Plan, structure: Structure, undo: Undo
) -> list[Instance]:
    """Every new instance, side by side; services with an image of their own first: the app may need them."""
    wanted = secret.values(
        at.host.session, at.app, sorted({name for each in release.app.services for name in each.secrets})
    )
    started: list[Instance] = []
    undo.by(_discard, at, started)

    def start(asked: tuple[Change, Service, int]) -> None:
        change, service, replica = asked
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


def _discard(at: Deployment, started: Sequence[Instance]) -> None:
    """Undo `start_beside`: each has its time to end what it is at."""

    def discard(each: Instance) -> None:
        grace = each.service.stop_grace_period
        instance.discard(at.engine, at.host.session, at.app, each.container, each.name, grace)

    side_by_side(discard, started)


def keep_running(at: Deployment, started: Sequence[Instance]) -> None:
    """What is live comes up again by itself, from its first moment on; also what has ended just before."""

    def keep(each: Instance) -> None:
        at.engine.keep_running(each.container)
        at.engine.start(each.container)

    side_by_side(keep, started)


def check_health(at: Deployment, release: Release, started: Sequence[Instance]) -> None:
    what = f"release {release.number} of {at.app}"
    health.wait_until_healthy(at.engine, at.host.session, started, what, at.still)
