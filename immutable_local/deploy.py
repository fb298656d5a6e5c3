"""A deployment, from top to bottom.

`up` builds and seals a release, `revert` takes one from the past, and both roll it out: start beside what is
live, wait until healthy, flip, record. Until the flip is confirmed everything undoes itself; after it nothing
can take down what is live, and what is left undone is finished by the next command.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from immutable_local import (
    cache,
    drain,
    flip,
    hold,
    image,
    instance,
    ledger,
    lock,
    network,
    parking,
    prune,
    seal,
    secret,
    start,
    structure,
    watch,
)
from immutable_local import labels as label
from immutable_local.app import App
from immutable_local.deployment import FREEING, Deployment, Options, deployment
from immutable_local.engine import Engine
from immutable_local.errors import ImmError, NotFound, Superseded, UsageError
from immutable_local.events import Result, Teller
from immutable_local.host import Begun, Host, attach, begin, untouched
from immutable_local.live import Live
from immutable_local.observed import Observed, observe
from immutable_local.plan import Plan, decide
from immutable_local.release import Pin, Release, unmounted
from immutable_local.routes import Slot
from immutable_local.sweep import history_is_lost, retire, stray_instances
from immutable_local.unbroken import ahead, unbroken
from immutable_local.undo import Undo
from immutable_local.who import Origin, commit, origin

ENDED_BY_ANOTHER = "another command ended the watch: see imm history"


def up(begun: Begun, app: App, folder: Path, options: Options, tell: Teller) -> Result:
    """Build, start beside, check, flip, drain, retire. Raises ImmError; what was live is then still live."""
    # Other programs are asked while the engine is busy: docker's command lines take 50 ms, git even more.
    builder = ahead(image.buildkit_program)
    engine = begun.engine
    if untouched(begun):
        secret.check_all_set(app, {})
    with deployment(begun, app.name, "up", options, tell) as at:
        secret.check_all_set(app, at.found.secrets)
        structure.check_claims(at.host, app)
        before = watch.begin(at, app.watch)
        asked, source, built = seal.asked_for(
            engine, at.host.session, at.found, app, folder, options, tell, builder
        )
        plan = decide(asked, at.found)
        if plan.nothing_to_do:
            _seal_again(at, asked, source)
            seal.discard(engine, at.found, built)
            return _unchanged(at, app)
        # What is watched stays up beside its successor: one writer may not, and without one it just stays.
        if plan.stop_first or not plan.moving:
            before = None
        git = ahead(commit, folder)
        project = origin(folder)
        with Undo(tell.warn) as undo:
            undo.by(_discard, at, built)
            _check_origin(at.found, project, options)
            with tell.step("seal"):
                release = unbroken(seal.sealed, at, asked, source, undo)
                tell.release = release.number
            return roll_out(
                at,
                release,
                plan,
                undo,
                app.keep,
                event="went_live",
                commit=git(),
                project=project,
                watched=before,
            )


def revert(begun: Begun, app: str, number: int | None, options: Options, keep: int, tell: Teller) -> Result:
    """Make an earlier release live again, code and settings of then. No number: the one live before."""
    if untouched(begun):
        _earlier(Observed.nothing(app), number)

    def spare(at: Deployment) -> None:
        """What a watch left up of the release to go back to stays up for that, where it is all of it."""
        with suppress(NotFound):
            release = _earlier(at.found, number)
            plan = decide(release, at.found)
            up = start.standing(at.found, release, plan, at.found.structure)
            all_of_it = at.found.doing is None and len(up) == len(stray_instances(at.found))
            if all_of_it and not plan.stop_first:
                at.spared = frozenset(each.name for each in up.values())

    with deployment(begun, app, "revert", options, tell, first=spare) as at:
        release = _earlier(at.found, number)
        secret.check_all_set(release.app, at.found.secrets)
        plan = decide(release, at.found)
        if plan.nothing_to_do:
            return _unchanged(at, release.app)
        structure.check_claims(at.host, release.app, release.number)
        image.require(at.engine, release, [release.app.service(each.service) for each in plan.moving], tell)
        was = _commit_of(at.found, release.number)
        tell.release = release.number
        tell.skip("build", "seal")
        with Undo(tell.warn) as undo:
            return roll_out(at, release, plan, undo, keep, event="reverted", commit=was, project=None)


def plan_up(engine: Engine, app: App, folder: Path, options: Options, tell: Teller) -> tuple[Plan, Observed]:
    """What `up` would do now. Builds, as only the image says whether it changed; what is live stays."""
    host = attach(engine)
    with ExitStack() as ending:
        if host is not None:
            ending.callback(host.close)
        session = host.session if host else None
        found = observe(engine, session, app.name)
        secret.check_all_set(app, found.secrets)
        if host is not None:
            structure.check_claims(host, app)
        builder = image.buildkit_program
        asked, _, built = seal.asked_for(engine, session, found, app, folder, options, tell, builder)
        seal.discard(engine, found, built)
        _check_origin(found, origin(folder), options)
        return decide(asked, found), found


def down(begun: Begun, app: str, options: Options, tell: Teller) -> Result:
    """Take the app off this host: route first, then drained, then removed. Volumes and ledger stay."""
    engine = begun.engine
    if begun.host is None:
        host = attach(engine)
        if host is None and not instance.all_of(engine, app):
            return Result("unchanged", seconds=tell.seconds)
        if host is not None:
            host.close()
    with deployment(begun, app, "down", options, tell) as at:
        found, session = at.found, at.host.session
        has_network = network.mine(engine, app) is not None
        if found.live is None and found.structure is None and not found.containers and not has_network:
            return Result("unchanged", seconds=tell.seconds)
        release = found.live_release
        services = release.app.services if release else ()
        live = found.live.release if found.live else None
        with Undo(tell.warn) as undo:
            with tell.step("flip"):
                undo.by(structure.stay, at)
                at.host.proxy.withdraw(session, app)
                with lock.host(session, "down"):
                    others = [each for each in at.host.structures() if each.app != app]
                    at.host.proxy.load(engine, session, others, settle=False)
            with tell.step("record"):

                def no_return() -> None:
                    # An earlier one that was interrupted after this is only brought to its end.
                    if live is not None:
                        ledger.append(session, app, "down", release=live, seconds=tell.seconds)
                    undo.keep()
                    tell.reached = f"{app} is off this host"

                unbroken(no_return)
        with tell.step("drain"):
            drain.wait_until_idle(at.host, app, _slots(found.live), services, tell)
        with tell.step("retire"):
            retire(at.host, app, found.containers, tell)
            structure.forget(at)
            secret.sweep(engine, app)
        session.ask("doing_clear", app=app)
        volumes = [each["Name"] for each in engine.volumes({label.APP: app, label.ROLE: "volume"})]
        named = {"volumes": volumes, "secrets": sorted(found.secrets)}
        kept = "".join(f"{kind} {', '.join(names)}, " for kind, names in named.items() if names)
        remarks = (f"kept: {kept}{'and ' if kept else ''}the history", "imm up brings it back")
        return Result("down", previous=live, seconds=tell.seconds, remarks=remarks)


def prune_releases(engine: Engine, app: str, keep: int, options: Options, tell: Teller) -> prune.Removed:
    """Remove the releases that are too old to be kept, and the builder's cache that was theirs alone."""
    begun = begin(engine)
    if untouched(begun):
        return prune.Removed([], 0, 0)
    removed: set[int] = set()

    def remove(at: Deployment) -> None:
        found, live = at.found, _live_number(at.found)
        # What the sweep is to find again would seem to be left over, or too old.
        if not history_is_lost(found) and not found.nameless:
            images = found.sealed, found.unsealed
            removed.update(prune.prune(engine, at.host.session, app, *images, found.records, live, keep))

    # On a full disk nothing can be written, by the sweep neither, until something has gone.
    with deployment(begun, app, FREEING, options, tell, first=remove) as at:
        with tell.step("prune"):
            secret.sweep(engine, app)
            remove(at)
            if at.found.live is None:
                structure.forget(at)
            records, size = _prune_cache(at)
        at.host.session.ask("doing_clear", app=app)
        return prune.Removed(sorted(removed), records, size)


def roll_out(
    at: Deployment,
    release: Release,
    plan: Plan,
    undo: Undo,
    keep: int,
    event: str,
    commit: tuple[str, bool | None] | None,
    project: Origin | None,
    watched: watch.Before | None = None,
) -> Result:
    """Make a sealed release live as the plan says; what fails before it is live is left to `undo`.

    `watched`: what to compare with, when the old release is to stay up for a while after the flip.
    """
    before, tell, session = at.found.live, at.tell, at.host.session
    tell.release = release.number
    tell.skip("test")
    routes, held = hold.make_room(at, release, plan, undo)
    tell.skip("snapshot", "release_command")
    with tell.step("start"):
        routes = routes or structure.prepare(at, release, plan, undo)
        started = start.start_beside(at, release, plan, routes, undo)
    with tell.step("check_health"):
        start.check_health(at, release, started)
    with tell.step("flip"):
        live = flip.next_live(at, release, plan, started, commit, counted=watched is not None)
        start.keep_running(at, started)
        undo.only_after(flip.point_back, at, release, plan, held)
        if live.counted:
            watch.counted_to_the_end(at, live)
        counts = watch.counts(at, live.slots) if watched else {}
        proofs = flip.proofs(release, plan, routes, at.host.structures())
        at.host.proxy.point(session, at.app, live)
        at.host.proxy.confirm(session, proofs)

        def no_return() -> None:
            undo.keep()  # the release is live
            tell.reached = f"release {release.number} is live"
            # What waits and has begun here can't go back to the old instance, nor before the proof come here.
            parking.release(at.host, routes, held, _slots(before), live.slots)

        unbroken(no_return)
    # From here on a failure leaves the release live, and the next command finishes what is left.
    with tell.step("record"):
        _record(at, plan, event, live, commit, project)
    if watched is None:
        tell.skip("watch")
    else:
        with tell.step("watch"):
            mine = watch.until_over(at, watched, watch.After(release, live, routes, started, counts))
        if not mine:
            return _ended_by_another(at, release, plan)
    with tell.step("drain"):
        structure.mirror(at, release, live, routes)
        leaving = {name: slot for name, slot in _slots(before).items() if name in plan.leaving_late}
        services = (at.found.live_release or release).app.services
        drain.wait_until_idle(at.host, at.app, leaving, services, tell, lasting=lambda: watch.count(at, live))
    # An engine that has hundreds of images takes its time to list them: it does while the old instances end.
    images = ahead(image.of_app, at.engine, at.app)
    with tell.step("retire"):
        old = [each for each in at.found.containers if each.name not in live.instances]
        retire(at.host, at.app, old, tell)
        structure.give_back(at, release, live, routes)
        if at.found.secrets:
            secret.sweep(at.engine, at.app)
    with tell.step("prune"):
        records = ledger.read(session, at.app)
        prune.prune(at.engine, session, at.app, *images(), records, release.number, keep)
    session.ask("doing_clear", app=at.app)
    return _live(at, release, _remarks(at, release, plan, held), plan.causes)


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


def _prune_cache(at: Deployment) -> tuple[int, int]:
    """How many of the builder's records went, and their bytes; whether it can be done decides nothing."""
    try:
        kept = cache.marks(image.of_app(at.engine, at.app)[0], at.found.live_release)
        return cache.prune(at.engine, at.host.session, at.app, kept, at.tell)
    except ImmError as failed:
        at.tell.warn(f"the builder's cache stays as it is: {failed.message}")
        return 0, 0


# Before the flip


def _discard(at: Deployment, built: Pin | None) -> None:
    at.host.session.ask("still_locked", name=f"app-{at.app}")
    seal.discard(at.engine, at.found, built)


def _seal_again(at: Deployment, asked: Release, source: str | None) -> None:
    """What is live can be reverted to later, also when somebody removed its image."""
    if at.found.live is None or at.found.live.release in at.found.sealed:
        at.tell.skip("seal")
        return
    with at.tell.step("seal"), Undo(at.tell.warn) as undo:
        unbroken(seal.sealed, at, asked, source, undo)
        undo.keep()


def _earlier(found: Observed, number: int | None) -> Release:
    """The release to go back to. Raises NotFound with what can be reverted to."""
    can = ", ".join(str(each) for each in found.revertable)
    hint = f"can be reverted to: {can}; for one of them: imm revert N" if can else "imm up makes releases"
    if number is None:
        back = (
            [each for each in found.way_back[:-1] if each in found.sealed] if found.live else found.way_back
        )
        if not back or back[-1] not in found.sealed:
            first = (
                f"no release of {found.app} that is still kept was live before release {_live_number(found)}"
            )
            raise NotFound(
                first if found.live else f"{found.app} is not deployed on this host",
                code="nothing_to_revert_to",
                hint=hint,
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


def _commit_of(found: Observed, release: int) -> tuple[str, bool | None] | None:
    """The commit that the history has of a release."""
    told = [each for each in found.records if each["release"] == release and each.get("git")]
    return (told[-1]["git"], told[-1].get("dirty")) if told else None


# After the flip


def _record(
    at: Deployment,
    plan: Plan,
    event: str,
    live: Live,
    commit: tuple[str, bool | None] | None,
    project: Origin | None,
) -> None:
    session, (git, dirty) = at.host.session, commit or (None, None)
    ledger.append(
        session,
        at.app,
        event,
        release=at.tell.release,
        seconds=at.tell.seconds,
        previous=_live_number(at.found),
        git=git,
        dirty=dirty,
        causes=plan.causes,
        since=live.since,
    )
    if project is not None and project != at.found.origin:
        told = {"marks": sorted(project.marks), "where": project.where}
        session.ask("origin_write", app=at.app, told=told)


def _ended_by_another(at: Deployment, release: Release, plan: Plan) -> Result:
    """The release is live as long as it is. Raises Superseded when something else is by now, or nothing."""
    now = at.host.session.ask("live_release", app=at.app)
    if now is not None and now["release"] == release.number:
        return _live(at, release, (ENDED_BY_ANOTHER,), plan.causes)
    at.tell.reached = f"release {now['release']} is live" if now else f"{at.app} is off this host"
    raise Superseded(
        f"release {release.number} of {at.app} went live, and is not any more:"
        " another command ended its watch",
        still=at.tell.reached,
        hint=f"imm history says who did what; imm revert {release.number} makes it live again",
    )


def _slots(live: Live | None) -> dict[str, Slot]:
    return live.slots if live else {}


def _remarks(at: Deployment, release: Release, plan: Plan, held: Sequence[str]) -> list[str]:
    remarks = []
    if plan.stop_first:
        names = ", ".join(plan.stop_first)
        first = "has a volume for one writer: the old instance stopped before the new one started"
        if held:
            remarks.append(f"{', '.join(held)} {first}, and requests waited meanwhile")
        if unreached := [name for name in plan.stop_first if name not in held]:
            remarks.append(f"{', '.join(unreached)} {first}; {hold.UNREACHED}")
        if at.command == "up" and release.app.watch:
            remarks.append(f"not watched: {names} stopped first, and there is nothing up to flip back to")
    elif at.command == "up" and release.app.watch and at.found.missing:
        remarks.append(
            f"not watched: {', '.join(at.found.missing)} did not run, so nothing whole was up to flip back to"
        )
    remarks += [
        f"{service.name}: its image keeps data in {path}, where no volume is mounted: it is gone with the"
        f' instance; add volumes = ["NAME:{path}"]'
        for service in release.app.services
        for path in unmounted(release, service)
    ]
    if at.command == "revert" and at.found.live is not None:
        remarks.append(f"to return: imm revert {at.found.live.release}")
    return remarks


# Around it


def _live(at: Deployment, release: Release, remarks: Sequence[str], causes: Sequence[str] = ()) -> Result:
    return Result(
        "live",
        release.number,
        previous=_live_number(at.found),
        seconds=at.tell.seconds,
        url=url_of(at.host, release.app),
        remarks=tuple(remarks),
        causes=tuple(causes),
    )


def _unchanged(at: Deployment, app: App) -> Result:
    at.host.session.ask("doing_clear", app=at.app)
    number = _live_number(at.found)
    return Result("unchanged", number, number, at.tell.seconds, url_of(at.host, app))


def _live_number(found: Observed) -> int | None:
    return found.live.release if found.live else None


def _check_origin(found: Observed, mine: Origin, options: Options) -> None:
    """Two projects with one name don't replace one another, unless told so."""
    known = found.origin
    if known is None or known.same_project(mine.marks) or options.take_over:
        return
    raise UsageError(
        f"another project's app is named {found.app} on this host: it came from {known.where}",
        code="other_project",
        hint="choose another name in imm.toml; or, if this is the same project, imm up --take-over",
    )
