"""Make room for one writer: hold the requests, stop the old instances; and the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from immutable_local import drain, parking, structure
from immutable_local import labels as label
from immutable_local.app import Service
from immutable_local.deployment import Deployment
from immutable_local.errors import EngineRefused
from immutable_local.listed import Container
from immutable_local.observed import observe
from immutable_local.plan import Plan
from immutable_local.release import Release
from immutable_local.routes import Slot, Structure
from immutable_local.sweep import in_the_way, let_go
from immutable_local.unbroken import side_by_side
from immutable_local.undo import Undo

# A part of `hold` is for what is in flight, the rest for the old instance to stop and the new one to boot.
DRAIN_IN_HOLD = 3
# What is true of a service without a port: no request to it passes the proxy.
UNREACHED = "nobody could be made to wait for it, and who asked it meanwhile may have got no answer"
# Nothing of these runs, nor ever will again, and the engine refuses to update them.
GONE = ("removing", "dead")


def make_room(
    at: Deployment, release: Release, plan: Plan, undo: Undo
) -> tuple[Structure | None, tuple[str, ...]]:
    """Stop the old instances whose volume allows one writer.

    Returns the release's routes, if they had to be prepared for that, and the services whose requests wait.
    """
    live, was = at.found.live, at.found.live_release
    if not plan.stop_first or live is None or was is None:
        at.tell.skip("hold", "stop_old")
        return None, ()
    stopping = [was.app.service(name) for name in plan.stop_first]
    waiting = [each for each in stopping if each.takes_traffic]
    held = tuple(each.name for each in waiting)
    at.be_guarded()
    with at.tell.step("hold"):
        # Before anybody has to wait: it takes a while where routes change, and may be refused.
        routes = structure.prepare(at, release, plan, undo)
        undo.by(start_again, at, [each.name for each in stopping if each not in waiting], held)
        if waiting:
            slots = {name: live.services[name].slot for name in held}
            _drain_once_held(at, slots, waiting)
            parking.begin(at.host, routes, live.slots, waiting)
            at.host.proxy.point(at.host.session, at.app, replace(live, held=held))
            _drain(at, slots, waiting)
    with at.tell.step("stop_old"):
        parking.stopping(at.host, at.app, waiting)
        names = {name for each in plan.stop_first for name in live.services[each].instances}

        def stop(container: Container) -> None:
            # A client that was away and lost its lock stops nothing of what its successor made of it.
            at.host.session.ask("still_locked", name=f"app-{at.app}")
            # An engine that is restarted meanwhile must not start it beside the new one.
            at.engine.keep_stopped(container.id)
            at.engine.stop(container.id, was.app.service(container.labels[label.SERVICE]).stop_grace_period)

        # Whatever state it was found in: one that crashed runs again by now, or is about to be started.
        # The engine goes on stopping what it was asked to stop: only what has stopped can be started again.
        mine = [each for each in at.found.containers if each.name in names and each.state not in GONE]
        side_by_side(stop, mine)
    return routes, held


def _drain_once_held(at: Deployment, slots: Mapping[str, Slot], waiting: Sequence[Service]) -> None:
    """What waited for a release that failed went back to the old instance, and may still be at it.

    Once others wait, it can't be told from those.
    """
    once_held = partial(at.host.proxy.busy_once_held, at.host.session, at.app)
    drain.wait_until_idle(at.host, at.app, slots, waiting, at.tell, busy_with=once_held)


def _drain(at: Deployment, slots: Mapping[str, Slot], waiting: Sequence[Service]) -> None:
    """Requests wait already while others end: those get what the ones that wait can spare."""
    bounded = [replace(each, drain=drain_of(each)) for each in waiting]
    why = (
        " before `drain` is over, at a third of `hold`, so that the requests that wait meanwhile are answered"
        " in time; a longer `hold` gives both more"
    )
    shorter = {each.name: why for each in waiting if drain_of(each) < each.drain}
    in_flight = partial(at.host.proxy.busy, at.host.session, at.app, holding=True)
    drain.wait_until_idle(at.host, at.app, slots, bounded, at.tell, early=shorter, busy_with=in_flight)


def drain_of(service: Service) -> float:
    """How long what is in flight to one writer may go on, in seconds: no longer than a third of `hold`.

    With a `hold` of zero nothing waits, and nobody is kept waiting by the whole `drain`.
    """
    return min(service.drain, service.hold / DRAIN_IN_HOLD) if service.hold else service.drain


def start_again(at: Deployment, unreached: Sequence[str], held: tuple[str, ...]) -> None:
    """Undo `make_room`: the old instances run again, and get the requests that waited for those `held`.

    Of those that are `unreached`, as they have no port, it is told that they were away. Raises EngineRefused
    where a new instance is still in their way.
    """
    found = observe(at.engine, at.host.session, at.app)
    if found.live is None:
        return
    if writing := in_the_way(at.engine, found):
        # The next command's sweep ends these first, and starts the old ones then.
        at.tell.undone = False
        again = "the next imm up, revert, down or prune tries to start it"
        at.tell.stands = f"release {found.live.release} has stopped; {again}"
        raise EngineRefused(
            f"{', '.join(writing)} could not be stopped, and nothing is started beside what writes alone"
        )
    away = [name for name in unreached if set(found.missing) & set(found.live.services[name].instances)]
    # Whoever was interrupted didn't wait for the hold to be there: it may come after this look.
    let_go(at.host, found, replace(found.live, held=held))
    if away:
        at.tell.warn(f"{', '.join(away)}: the old instance had stopped, and runs again; {UNREACHED}")
