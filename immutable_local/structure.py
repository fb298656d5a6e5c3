"""Network, volumes, addresses and routes of an app: what is there before an instance starts, what goes."""

from __future__ import annotations

from dataclasses import replace

from immutable_local import labels as label
from immutable_local import lock, network, volume
from immutable_local.app import App
from immutable_local.deployment import Deployment
from immutable_local.errors import ConfigError, UsageError
from immutable_local.host import Host, find
from immutable_local.live import Live
from immutable_local.plan import Plan
from immutable_local.release import Release
from immutable_local.routes import Conflict, Side, Structure, conflict, other
from immutable_local.unbroken import unbroken
from immutable_local.undo import Undo


def check_claims(host: Host, app: App, earlier: int | None = None) -> None:
    """Refuse a domain and path that another app of this host serves, before anything is built or stopped.

    `earlier`: the release of the past that claims it; imm.toml may say something else by now.
    """
    claiming = Structure(
        app.name,
        0,
        {each.name: {"green": Side.of(each, ())} for each in app.services if each.takes_traffic},
        {},
    )
    found = conflict(claiming, host.structures())
    if found is not None and earlier is not None:
        raise UsageError(
            f"release {earlier} of {app.name} is for {found.domain}{found.path}, which the app {found.owner}"
            " of this host serves by now",
            code="domain_taken",
            hint=f"take {found.owner} off with imm down, or imm up with another domain or path",
        )
    refuse_conflict(found)


def refuse_conflict(found: Conflict | None) -> None:
    if found is not None:
        raise ConfigError(
            f"services.{found.service}.domains: {found.domain}{found.path} is already served by the app"
            f" {found.owner} of this host",
            key=("services", found.service, "domains"),
            code="domain_taken",
            hint=f"give the service another domain or path, or take {found.owner} off with imm down",
        )


def prepare(at: Deployment, release: Release, plan: Plan, undo: Undo) -> Structure:
    """Network, volumes, addresses and routes: what must be there before an instance starts.

    Routes that are new are given to the idle side, and answer only after the flip. A service whose routes go
    has its live side alone: with the flip nothing of it is live.
    """
    app = release.app
    labels = {label.ROLE: "network", label.APP: app.name}
    name = network.app_network(app.name)

    def ensure() -> str:
        subnet, made = network.ensure_network(at.engine, name, at.host.asked.pool, at.host.image, labels)
        if made:
            undo.by(remove_network, at)
        return subnet

    subnet = unbroken(ensure)
    join_proxy(at, name, subnet)
    volume.ensure(at.engine, release, [app.service(change.service) for change in plan.moving])
    _say_each_slot(at, app)
    with lock.host(at.host.session, at.command):
        everybody = at.host.structures()
        before = at.found.structure
        arrived = before.arrived if before else max((each.arrived for each in everybody), default=0) + 1
        structure = before or Structure(app.name, arrived, {}, {})
        for change in plan.moving:
            service = app.service(change.service)
            if service.takes_traffic:
                structure = network.give_addresses(structure, subnet, service.name, service.replicas)
                side = Side.of(service, structure.addresses[service.name][change.slot])
                structure = structure.with_side(service.name, change.slot, side)
            else:
                structure = structure.with_side(service.name, change.slot, None)
        for change in plan.removed:
            structure = structure.with_side(change.service, other(change.slot), None)
        if structure != before:
            refuse_conflict(conflict(structure, everybody))
            undo.by(restore, at, before)
            at.host.session.ask("structure_write", app=at.app, told=structure.to_json())
        # Also when nothing changed: a command killed before it loaded what it wrote left the proxy behind.
        others = [each for each in everybody if each.app != app.name]
        settle = at.found.live is not None
        at.host.proxy.load(at.engine, at.host.session, [*others, structure], settle)
    return structure


def _say_each_slot(at: Deployment, app: App) -> None:
    """A service whose routes go is looked for by its flag. What imm 0.1.0 made live has those of green."""
    serving = {each.name for each in app.services if each.takes_traffic}
    if at.found.structure is None or not at.found.structure.sides.keys() - serving:
        return
    told = at.host.session.ask("live_release", app=at.app)
    if told is not None:
        at.host.proxy.point(at.host.session, at.app, Live.from_json(told))


def mirror(at: Deployment, release: Release, live: Live, structure: Structure) -> None:
    """Let go what only the old release served, from the side that is idle now too.

    Its addresses stay known: what is in flight to them is still looked for.
    """
    settled = structure.settled(release.app.services, live.slots)
    mirrored = replace(settled, addresses=structure.addresses)
    if mirrored != structure:
        with lock.host(at.host.session, at.command):
            load(at, mirrored, settle=False)


def give_back(at: Deployment, release: Release, live: Live, structure: Structure) -> None:
    """The addresses of what has gone are free for others."""
    settled = structure.settled(release.app.services, live.slots)
    if settled.addresses != structure.addresses:
        with lock.host(at.host.session, at.command):
            at.host.session.ask("structure_write", app=at.app, told=settled.to_json())


def load(at: Deployment, structure: Structure, settle: bool) -> None:
    at.host.session.ask("structure_write", app=at.app, told=structure.to_json())
    at.host.proxy.load(at.engine, at.host.session, at.host.structures(), settle)


def restore(at: Deployment, before: Structure | None) -> None:
    with lock.host(at.host.session, at.command):
        if before is not None:
            load(at, before, settle=False)
        else:
            at.host.session.ask("app_remove", app=at.app)
            at.host.proxy.load(at.engine, at.host.session, at.host.structures(), settle=False)


def stay(at: Deployment) -> None:
    """Undo a withdrawal: what was live, and then the routes, which the proxy may still know."""
    at.tell.reached = f"{at.app} may be off this host already: imm status tells"
    if at.found.live is not None:
        at.host.proxy.point(at.host.session, at.app, at.found.live)
    if at.found.structure is not None:
        with lock.host(at.host.session, at.command):
            # As they were written: what is withdrawn keeps its routes until all is over.
            at.host.proxy.load(at.engine, at.host.session, at.host.structures(), settle=False)
    at.tell.reached = ""


def forget(at: Deployment) -> None:
    """No routes and no network of an app that isn't live."""
    with lock.host(at.host.session, at.command):
        at.host.session.ask("app_remove", app=at.app)
        at.host.proxy.load(at.engine, at.host.session, at.host.structures(), settle=False)
    remove_network(at)


def join_proxy(at: Deployment, name: str, subnet: str) -> None:
    proxy = at.found.proxy
    if proxy is not None and name not in proxy.addresses:
        at.engine.join(name, proxy.id, network.proxy_address(subnet))


def remove_network(at: Deployment) -> None:
    # A client that lost its lock must not take the network from under its successor.
    at.host.session.ask("still_locked", name=f"app-{at.app}")
    found = network.mine(at.engine, at.app)
    if found is None:
        return
    name = found.name
    for each in find(at.engine).values():
        if name in each.addresses:
            at.engine.leave(name, each.id)
    network.remove(at.engine, found, at.tell.warn)
