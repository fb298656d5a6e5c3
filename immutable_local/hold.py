"""Make room for one writer: hold the requests, stop the old instances; and the way back."""

from __future__ import annotations

from dataclasses import replace

from immutable_local import drain, parking
from immutable_local import labels as label
from immutable_local.deployment import Deployment
from immutable_local.observed import observe
from immutable_local.plan import Plan
from immutable_local.sweep import let_go
from immutable_local.undo import Undo


def make_room(at: Deployment, plan: Plan, undo: Undo) -> tuple[str, ...]:
    """Stop the old instances whose volume allows one writer; returns the services whose requests wait."""
    live, was = at.found.live, at.found.live_release
    if not plan.stop_first or live is None or was is None:
        at.tell.skip("hold", "stop_old")
        return ()
    stopping = [was.app.service(name) for name in plan.stop_first]
    waiting = [each for each in stopping if each.takes_traffic]
    held = tuple(each.name for each in waiting)
    with at.tell.step("hold"):
        parking.begin(at.host, at.app, waiting)
        undo.by(start_again, at)
        holding = replace(live, held=held)
        at.host.proxy.point(at.host.session, at.app, live.slots, held, holding.to_json())
        slots = {name: live.services[name].slot for name in held}
        drain.wait_until_idle(at.host, at.app, slots, waiting, at.tell)
    with at.tell.step("stop_old"):
        names = {name for each in plan.stop_first for name in live.services[each].instances}
        for container in at.found.containers:
            if container.name in names and container.running:
                grace = was.app.service(container.labels[label.SERVICE]).stop_grace_period
                at.engine.stop(container.id, grace)
    return held


def start_again(at: Deployment) -> None:
    """Undo `make_room`: the old instances run again, and get the requests that waited."""
    found = observe(at.engine, at.host.session, at.app)
    if found.live is not None:
        let_go(at.host, found, found.live, at.tell)
