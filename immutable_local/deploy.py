"""A deployment, from top to bottom.

`up` builds and seals a release, `revert` takes one from the past, and both roll it out: start beside what is
live, wait until healthy, flip, record. Until the flip is confirmed everything undoes itself; after it nothing can
take down what is live, and what is left undone is finished by the next command.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from immutable_local import drain, health, image, instance, ledger, lock, network, prune, secret, volume
from immutable_local import labels as label
from immutable_local.app import App, Service
from immutable_local.engine import Container, Engine
from immutable_local.errors import ConfigError, ImmError, NotFound, UsageError
from immutable_local.events import Result, Teller
from immutable_local.host import Host, attach, ensure
from immutable_local.instance import Instance
from immutable_local.observed import Live, LiveService, Observed, observe
from immutable_local.plan import Change, Plan, decide
from immutable_local.proxy import Flip
from immutable_local.release import Pin, Release, numbers
from immutable_local.routes import Side, Slot, Structure, conflict, other
from immutable_local.sweep import let_go, sweep
from immutable_local.undo import Undo
from immutable_local.who import Origin, commit, origin, who

SIDE_BY_SIDE = 8
CONFIRM_TIMEOUT_SECONDS = 10.0


@dataclass
class Deployment:
    """What every step of a deployment needs: the host, the app as it was found, and whom to tell."""

    host: Host
    app: str
    command: str
    tell: Teller
    found: Observed

    @property
    def engine(self) -> Engine:
        return self.host.engine

    @property
    def still(self) -> str:
        """What is true whatever happens before the flip."""
        live = self.found.live
        return f"release {live.release} is still live" if live else f"nothing of {self.app} was live before"


@dataclass(frozen=True)
class Options:
    """What the command line adds to imm.toml."""

    wait: float = 0.0
    fresh: bool = False
    take_over: bool = False


def up(engine: Engine, app: App, folder: Path, options: Options, tell: Teller) -> Result:
    """Build, start beside, check, flip, drain, retire. Raises ImmError; what was live is then still live."""
    with deployment(engine, app.name, "up", options, tell) as at:
        secret.check_all_set(app, at.found.secrets)
        _check_claims(at.host, at.found, app)
        asked, source, built = _asked(at, app, folder, options)
        asked = _same_source(at, asked, source, options)
        plan = decide(asked, at.found)
        if plan.nothing_to_do:
            _discard(at, built)
            tell.skip("seal")
            return _unchanged(at, app)
        _check_origin(at, origin(folder), options, built)
        with tell.step("seal"), Undo(tell.warn) as undo:
            undo.by(_discard, at, built)
            release, is_new = _sealed(at, asked, source)
            undo.keep()
        return roll_out(
            at, release, plan, is_new, app.keep, event="went_live", commit=commit(folder), folder=folder
        )


def revert(engine: Engine, app: str, number: int | None, options: Options, keep: int, tell: Teller) -> Result:
    """Make an earlier release live again, code and settings of then. Without a number: the one live before."""
    with deployment(engine, app, "revert", options, tell) as at:
        release = _earlier(at.found, number)
        secret.check_all_set(release.app, at.found.secrets)
        plan = decide(release, at.found)
        if plan.nothing_to_do:
            return _unchanged(at, release.app)
        git = next(
            (
                r.get("git")
                for r in reversed(at.found.records)
                if r["release"] == release.number and r.get("git")
            ),
            None,
        )
        was = (git, False) if git else None
        return roll_out(at, release, plan, is_new=False, keep=keep, event="reverted", commit=was, folder=None)


def plan_up(engine: Engine, app: App, folder: Path, options: Options, tell: Teller) -> tuple[Plan, Observed]:
    """What `up` would do now. Builds, as only the image says whether it changed, and changes nothing else."""
    host = attach(engine)
    with ExitStack() as ending:
        if host is not None:
            ending.callback(host.close)
        found = observe(engine, host.session if host else None, app.name)
        if host is not None:
            _check_claims(host, found, app)
        at = Deployment(host, app.name, "plan", tell, found)  # type: ignore[arg-type]
        asked, source, built = _asked(at, app, folder, options)
        asked = _same_source(at, asked, source, options)
        _discard(at, built)
        return decide(asked, found), found


def down(engine: Engine, app: str, options: Options, tell: Teller) -> Result:
    """Take the app off this host: route first, then drained, then removed. Volumes and ledger stay."""
    host = attach(engine)
    if host is None and not engine.containers({label.APP: app, label.ROLE: "instance"}):
        return Result("unchanged", seconds=tell.seconds)
    if host is not None:
        host.close()
    with deployment(engine, app, "down", options, tell) as at:
        found, session = at.found, at.host.session
        has_network = any(each.name == network.app_network(app) for each in engine.networks())
        if found.live is None and found.structure is None and not found.containers and not has_network:
            return Result("unchanged", seconds=tell.seconds)
        release = found.live_release
        services = release.app.services if release else ()
        with tell.step("flip"):
            session.ask("unpoint", app=app)
            with lock.host(session, "down"):
                others = [each for each in at.host.structures() if each.app != app]
                at.host.proxy.load(engine, session, others, settle=False)
        with tell.step("record"):
            live = found.live.release if found.live else None
            ledger.append(session, app, "down", release=live, seconds=tell.seconds)
        with tell.step("drain"):
            drain.wait_until_idle(at.host, app, found.live.slots if found.live else {}, services, tell)
        with tell.step("retire"):
            _retire(at, found.containers, {each.name: each for each in services})
            with lock.host(session, "down"):
                session.ask("app_remove", app=app)
            _remove_network(at)
        session.ask("doing_clear", app=app)
        volumes = [each["Name"] for each in engine.volumes({label.APP: app, label.ROLE: "volume"})]
        kept = f"kept: volumes {', '.join(volumes)}, and the history" if volumes else "kept: the history"
        return Result("down", previous=live, seconds=tell.seconds, remarks=(kept, "imm up brings it back"))


def prune_releases(engine: Engine, app: str, keep: int, options: Options, tell: Teller) -> list[int]:
    """Remove the releases that are too old to be kept; returns their numbers."""
    with deployment(engine, app, "prune", options, tell) as at:
        with tell.step("prune"):
            removed = prune.prune(engine, at.found, _live_number(at.found), keep)
        at.host.session.ask("doing_clear", app=app)
        return removed


@contextmanager
def deployment(
    engine: Engine, app: str, command: str, options: Options, tell: Teller
) -> Iterator[Deployment]:
    """Lock, look, sweep: how every command that changes things begins; and how it ends when it fails."""
    with ExitStack() as ending:
        with tell.step("lock"):
            host = ensure(engine, tell.warn)
            ending.callback(host.close)
            lock.take(host.session, app, command, options.wait)
        at = Deployment(host, app, command, tell, observe(engine, host.session, app))
        with tell.step("sweep"):
            at.found = sweep(host, at.found, tell)
        tell.at_step = lambda step: _doing(at, step)
        try:
            yield at
        except BaseException as failed:
            with Undo(tell.warn) as recording:
                recording.by(_record_failure, at, failed)
            raise


def roll_out(
    at: Deployment,
    release: Release,
    plan: Plan,
    is_new: bool,
    keep: int,
    event: str,
    commit: tuple[str, bool] | None,
    folder: Path | None,
) -> Result:
    """Make a sealed release live as the plan says."""
    before, tell, session = at.found.live, at.tell, at.host.session
    tell.release = release.number
    tell.skip("test")
    with Undo(tell.warn) as undo:
        if is_new:
            undo.by(at.engine.remove_image, f"{image.repository(at.app)}:{release.number}")
        gap = _make_room(at, plan, undo)
        tell.skip("snapshot", "release_command")
        with tell.step("start"):
            structure = _prepare(at, release, plan, undo)
            started = _start(at, release, plan, structure, undo)
        with tell.step("check_health"):
            _check_health(at, release, started)
        with tell.step("flip"):
            live = _live(at, release, plan, started, commit)
            for each in started:
                at.engine.keep_running(each.container)
            undo.by(_point_back, at)
            at.host.proxy.point(session, at.app, live.slots, (), live.to_json())
            at.host.proxy.confirm(session, _flips(release, plan, structure))
            undo.keep()  # the point of no return: the release is live
    # From here on a failure leaves the release live, and the next command finishes what is left.
    with tell.step("record"):
        previous = before.release if before else None
        git, dirty = commit or (None, None)
        ledger.append(
            session,
            at.app,
            event,
            release=release.number,
            seconds=tell.seconds,
            previous=previous,
            git=git,
            dirty=dirty,
        )
        if folder is not None:
            mark = origin(folder)
            session.ask("origin_write", app=at.app, told={"marks": sorted(mark.marks), "where": mark.where})
    tell.skip("watch")
    with tell.step("drain"):
        _mirror(at, release, plan, structure)
        leaving = {
            name: slot for name, slot in (before.slots if before else {}).items() if name in plan.leaving
        }
        was = at.found.live_release
        drain.wait_until_idle(
            at.host, at.app, leaving, was.app.services if was else release.app.services, tell
        )
    with tell.step("retire"):
        names = live.instances
        old = [each for each in at.found.containers if each.name not in names]
        _retire(at, old, {each.name: each for each in (was or release).app.services})
    with tell.step("prune"):
        prune.prune(at.engine, observe(at.engine, session, at.app), release.number, keep)
    session.ask("doing_clear", app=at.app)
    return Result(
        "live",
        release.number,
        previous,
        tell.seconds,
        url_of(at.host, release.app),
        remarks=tuple(_remarks(at, plan, gap)),
    )


def url_of(host: Host, app: App) -> str | None:
    """Where the app answers, or None when it takes no traffic."""
    return next(
        (
            host.asked.url(domain, each.path)
            for each in app.services
            if each.takes_traffic
            for domain in each.domains
        ),
        None,
    )


# Before the flip


def _asked(
    at: Deployment, app: App, folder: Path, options: Options
) -> tuple[Release, str | None, Pin | None]:
    """The release that imm.toml and the folder ask for, not sealed yet; what it was built from; what was built."""
    pins: dict[str, Pin] = {}
    source = built = None
    if app.builds:
        with at.tell.step("build"):
            built, source = image.build(at.engine, app, folder, at.tell, options.fresh)
            pins[""] = built
    else:
        at.tell.skip("build")
    for service in app.services:
        if service.image is not None:
            pins[service.name] = image.pin(at.engine, service, at.tell)
    return Release(app, pins), source, built


def _same_source(at: Deployment, asked: Release, source: str | None, options: Options) -> Release:
    """A rebuild without a cache gives other layers of the same source: what was sealed of it before is taken.

    `--fresh` takes what was built.
    """
    if (
        source is None
        or options.fresh
        or asked.identity in {labels.get(label.IDENTITY) for _, labels in at.found.sealed.values()}
    ):
        return asked
    by_recency = sorted(
        at.found.sealed, key=lambda number: (number == _live_number(at.found), number), reverse=True
    )
    for number in by_recency:
        earlier = at.found.release(number)
        if earlier is None or at.engine.image(earlier.pins[""].id if "" in earlier.pins else "") is None:
            continue
        if at.found.sealed[number][1].get(label.SOURCE) == source:
            return replace(asked, pins={**asked.pins, "": earlier.pins[""]})
    return asked


def _sealed(at: Deployment, asked: Release, source: str | None) -> tuple[Release, bool]:
    """The release sealed and numbered, and whether it is new. The same content keeps its number for ever."""
    identity = asked.identity
    for number, (image_id, labels) in at.found.sealed.items():
        if labels.get(label.IDENTITY) == identity:
            return replace(asked, number=number, image=image_id), False
    known = numbers(at.found.records)
    number = known.get(identity) or max([*known.values(), *at.found.sealed], default=0) + 1
    release = image.seal(at.engine, asked, number, source)
    ledger.append(at.host.session, at.app, "sealed", release=number, identity=identity)
    return release, True


def _earlier(found: Observed, number: int | None) -> Release:
    """The release to go back to. Raises NotFound with what can be reverted to."""
    can = ", ".join(str(each) for each in found.revertable)
    hint = f"can be reverted to: {can}" if can else "nothing can be reverted to yet: imm up makes releases"
    if number is None:
        back = (
            [each for each in found.way_back[:-1] if each in found.sealed] if found.live else found.way_back
        )
        if not back or back[-1] not in found.sealed:
            raise NotFound(
                f"no release of {found.app} was live before release {found.live.release}"
                if found.live
                else f"{found.app} is not deployed on this host",
                code="nothing_to_revert_to",
                hint=hint if can else "imm up deploys it",
            )
        number = back[-1]
    release = found.release(number)
    if release is None or (number not in found.revertable and number != _live_number(found)):
        known = any(record["release"] == number for record in found.records)
        gone = (
            f"release {number} of {found.app} is no longer kept"
            if known
            else f"{found.app} has no release {number}"
        )
        raise NotFound(gone, code="unknown_release", hint=hint)
    return release


def _make_room(at: Deployment, plan: Plan, undo: Undo) -> bool:
    """Stop the old instances whose volume allows one writer; returns whether traffic is held meanwhile."""
    live, was = at.found.live, at.found.live_release
    if not plan.stop_first or live is None or was is None:
        at.tell.skip("hold", "stop_old")
        return False
    stopping = [was.app.service(name) for name in plan.stop_first]
    held = tuple(each.name for each in stopping if each.takes_traffic)
    undo.by(_start_again, at)
    with at.tell.step("hold"):
        holding = replace(live, held=held)
        at.host.proxy.point(at.host.session, at.app, live.slots, held, holding.to_json())
        slots = {name: live.services[name].slot for name in held}
        drain.wait_until_idle(at.host, at.app, slots, stopping, at.tell)
    with at.tell.step("stop_old"):
        names = {name for each in plan.stop_first for name in live.services[each].instances}
        for container in at.found.containers:
            if container.name in names and container.running:
                grace = was.app.service(container.labels[label.SERVICE]).stop_grace_period
                at.engine.stop(container.id, grace)
    return bool(held)


def _start_again(at: Deployment) -> None:
    """Undo `_make_room`: the old instances run again, and get their traffic."""
    found = observe(at.engine, at.host.session, at.app)
    if found.live is not None:
        let_go(at.host, found, replace(found.live, held=()), at.tell)


def _prepare(at: Deployment, release: Release, plan: Plan, undo: Undo) -> Structure:
    """Network, volumes, addresses and routes: what must be there before an instance starts.

    Routes that are new are given to the idle side, and answer only after the flip.
    """
    app = release.app
    labels = {label.ROLE: "network", label.APP: app.name}
    name = network.app_network(app.name)
    if network.ensure_network(at.engine, name, at.host.asked.pool, at.host.image, labels):
        undo.by(_remove_network, at)
    subnet = next(each.subnet for each in at.engine.networks() if each.name == name) or ""
    _join_proxy(at, name, subnet)
    for change in plan.moving:
        service = app.service(change.service)
        volume.ensure(at.engine, app, service, release.image_of(service))
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
        if structure != before:
            _refuse_conflict(conflict(structure, everybody))
            undo.by(_restore_structure, at, before)
            _load(at, structure, settle=at.found.live is not None)
    return structure


def _start(at: Deployment, release: Release, plan: Plan, structure: Structure, undo: Undo) -> list[Instance]:
    """Every new instance, side by side; services with an image of their own first, as the app may need them."""
    wanted = secret.values(
        at.host.session, at.app, sorted({name for each in release.app.services for name in each.secrets})
    )
    started: list[Instance] = []

    def start(change: Change, service: Service, replica: int) -> None:
        given = (
            structure.addresses.get(service.name, {}).get(change.slot, ()) if service.takes_traffic else ()
        )
        made = instance.start(
            at.engine,
            release,
            service,
            change.slot,
            replica,
            given[replica - 1] if given else None,
            change.spec,
            {name: wanted[name] for name in service.secrets},
        )
        undo.by(instance.discard, at.engine, at.host.session, at.app, made.container, made.name)
        started.append(made)

    waves = [
        [each for each in plan.moving if (release.app.service(each.service).image is None) is own]
        for own in (False, True)
    ]
    for wave in [each for each in waves if each]:
        already = list(started)
        if already:
            _check_health(at, release, already)
        with ThreadPoolExecutor(SIDE_BY_SIDE) as beside:
            begun = [
                beside.submit(start, change, service, replica)
                for change in wave
                for service in [release.app.service(change.service)]
                for replica in range(1, service.replicas + 1)
            ]
        for each in begun:
            each.result()
    return started


def _check_health(at: Deployment, release: Release, started: Sequence[Instance]) -> None:
    what = f"release {release.number} of {at.app}"
    health.wait_until_healthy(at.engine, at.host.session, started, at.tell, what, at.still)


def _live(
    at: Deployment, release: Release, plan: Plan, started: Sequence[Instance], commit: tuple[str, bool] | None
) -> Live:
    """What the live link is to say."""
    services = {}
    for change in plan.changes:
        if change.verb == "keep" and at.found.live is not None:
            services[change.service] = at.found.live.services[change.service]
        elif change.verb in ("create", "replace"):
            names = sorted(each.name for each in started if each.service.name == change.service)
            secrets = {name: at.found.secrets[name] for name in release.app.service(change.service).secrets}
            services[change.service] = LiveService(change.slot, change.spec, tuple(names), secrets)
    since = at.host.session.ask("hello")["at"]
    git = commit[0] if commit else None
    return Live(release.number, release.identity, release.image, since, services, git)


def _flips(release: Release, plan: Plan, structure: Structure) -> list[Flip]:
    """A request for each service that moves, which one of its new instances must answer."""
    flips = []
    for change in plan.moving:
        service = release.app.service(change.service)
        if service.takes_traffic:
            side = structure.sides[service.name][change.slot]
            timeout = min(service.healthcheck.timeout, CONFIRM_TIMEOUT_SECONDS)
            answering = tuple(f"{address}:{side.port}" for address in side.addresses)
            flips.append(Flip(service.name, answering, side.domains[0], _public_path(service), timeout))
    return flips


def _public_path(service: Service) -> str:
    """The path outside, through the proxy, of what the health check asks inside."""
    asked = service.healthcheck.path or "/"
    if service.strip_path:
        return service.path.rstrip("/") + asked
    inside = service.path == "/" or asked == service.path or asked.startswith(service.path + "/")
    return asked if inside else service.path


def _point_back(at: Deployment) -> None:
    if at.found.live is None:
        at.host.session.ask("unpoint", app=at.app)
    else:
        at.host.proxy.point(at.host.session, at.app, at.found.live.slots, (), at.found.live.to_json())


def _join_proxy(at: Deployment, name: str, subnet: str) -> None:
    proxy = at.engine.containers({label.ROLE: "proxy"})[0]
    if name not in proxy.addresses:
        at.engine.join(name, proxy.id, network.proxy_address(subnet))


def _remove_network(at: Deployment) -> None:
    name = network.app_network(at.app)
    for proxy in at.engine.containers({label.ROLE: "proxy"}):
        at.engine.leave(name, proxy.id)
    at.engine.remove_network(name)


def _load(at: Deployment, structure: Structure, settle: bool) -> None:
    at.host.session.ask("structure_write", app=at.app, told=structure.to_json())
    at.host.proxy.load(at.engine, at.host.session, at.host.structures(), settle)


def _restore_structure(at: Deployment, before: Structure | None) -> None:
    with lock.host(at.host.session, at.command):
        if before is not None:
            _load(at, before, settle=False)
        else:
            at.host.session.ask("app_remove", app=at.app)
            at.host.proxy.load(at.engine, at.host.session, at.host.structures(), settle=False)


# After the flip


def _mirror(at: Deployment, release: Release, plan: Plan, structure: Structure) -> None:
    """Let the idle side look like the live one: what only the old release served is let go, and the next
    release of this shape changes no structure."""
    mirrored = structure
    for change in plan.moving:
        service = release.app.service(change.service)
        if service.takes_traffic:
            idle: Slot = other(change.slot)
            side = Side.of(service, structure.addresses[service.name][idle])
            mirrored = mirrored.with_side(service.name, idle, side)
        else:
            mirrored = mirrored.without(service.name)
    for change in plan.changes:
        if change.verb == "remove":
            mirrored = mirrored.without(change.service)
    if mirrored != structure:
        with lock.host(at.host.session, at.command):
            _load(at, mirrored, settle=False)


def _retire(at: Deployment, containers: Sequence[Container], services: dict[str, Service]) -> None:
    def retire(container: Container) -> None:
        service = services.get(container.labels.get(label.SERVICE, ""))
        grace = service.stop_grace_period if service else 10.0
        instance.retire(at.engine, at.host.session, at.app, container.id, container.name, grace)

    with ThreadPoolExecutor(SIDE_BY_SIDE) as beside:
        list(beside.map(retire, containers))


def _remarks(at: Deployment, plan: Plan, gap: bool) -> list[str]:
    remarks = []
    if gap:
        names = ", ".join(plan.stop_first)
        remarks.append(
            f"{names} has a volume for one writer: the old instance stopped before the new one started,"
            " and requests were answered 503 meanwhile"
        )
    if at.command == "revert" and at.found.live is not None:
        remarks.append(f"to return: imm revert {at.found.live.release}")
    return remarks


# Around it


def _unchanged(at: Deployment, app: App) -> Result:
    at.host.session.ask("doing_clear", app=at.app)
    number = _live_number(at.found)
    return Result("unchanged", number, number, at.tell.seconds, url_of(at.host, app))


def _live_number(found: Observed) -> int | None:
    return found.live.release if found.live else None


def _doing(at: Deployment, step: str) -> Any:
    told = {"command": at.command, "step": step, "release": at.tell.release, "by": who()}
    return at.host.session.ask("doing_write", app=at.app, told=told)


def _record_failure(at: Deployment, failed: BaseException) -> None:
    """History says why it failed; a mistake in the question, which touched nothing, isn't history."""
    if not isinstance(failed, UsageError | NotFound):
        reason = failed.message if isinstance(failed, ImmError) else f"interrupted ({type(failed).__name__})"
        ledger.append(
            at.host.session,
            at.app,
            "failed",
            release=at.tell.release,
            seconds=at.tell.seconds,
            error=reason,
            step=at.tell.current,
        )
    at.host.session.ask("doing_clear", app=at.app)


def _discard(at: Deployment, built: Pin | None) -> None:
    if built is not None:
        image.discard(at.engine, built)


def _check_claims(host: Host, found: Observed, app: App) -> None:
    """Refuse a domain and path that another app of this host serves, before anything is built."""
    claiming = Structure(
        app.name,
        0,
        {each.name: {"green": Side.of(each, ())} for each in app.services if each.takes_traffic},
        {},
    )
    _refuse_conflict(conflict(claiming, host.structures()))


def _refuse_conflict(found: tuple[str, str, str] | None) -> None:
    if found is not None:
        domain, path, owner = found
        raise ConfigError(
            f"{domain}{path} is already served by the app {owner} of this host",
            code="domain_taken",
            hint=f"give the service another domain or path, or take {owner} off with imm down",
        )


def _check_origin(at: Deployment, mine: Origin, options: Options, built: Pin | None) -> None:
    """Two projects with one name don't replace one another, unless told so."""
    known = at.found.origin
    if known is None or known.same_project(mine.marks) or options.take_over:
        return
    _discard(at, built)
    raise UsageError(
        f"another project's app is named {at.app} on this host: it came from {known.where}",
        code="other_project",
        still=at.still,
        hint="choose another name in imm.toml; or, if this is the same project, imm up --take-over",
    )
