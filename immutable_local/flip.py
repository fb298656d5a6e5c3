"""What a flip makes live, how it is proved, and the way back."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from urllib.parse import unquote

from immutable_local import drain
from immutable_local.app import Service
from immutable_local.deployment import Deployment
from immutable_local.instance import Instance, replica_of
from immutable_local.live import Live, LiveService
from immutable_local.plan import Plan
from immutable_local.proxy import Flip
from immutable_local.release import Release
from immutable_local.routes import Slot, Structure

CONFIRM_TIMEOUT_SECONDS = 10.0


def next_live(
    at: Deployment,
    release: Release,
    plan: Plan,
    started: Sequence[Instance],
    commit: tuple[str, bool | None] | None,
    counted: bool,
) -> Live:
    """What the live link is to say."""
    services = {}
    for change in plan.changes:
        if change.verb == "keep" and at.found.live is not None:
            services[change.service] = at.found.live.services[change.service]
        elif change.verb in ("create", "replace"):
            mine = [each.name for each in started if each.service.name == change.service]
            names = sorted(mine, key=replica_of)
            secrets = {name: at.found.secrets[name] for name in release.app.service(change.service).secrets}
            services[change.service] = LiveService(change.slot, change.spec, tuple(names), secrets)
    since = at.host.session.ask("hello")["at"]
    git, dirty = commit or (None, None)
    return Live(release.number, release.identity, release.image, since, services, git, dirty, counted=counted)


def proofs(release: Release, plan: Plan, structure: Structure, others: Sequence[Structure]) -> list[Flip]:
    """A request for each service that moves, which one of its new instances must answer."""
    return proofs_of(release, {each.service: each.slot for each in plan.moving}, structure, others)


def proofs_of(
    release: Release, slots: Mapping[str, Slot], structure: Structure, others: Sequence[Structure]
) -> list[Flip]:
    """A request for each of these services, which an instance at its slot must answer.

    `others`: the routes of the other apps, which may serve paths beneath one of these services' own.
    """
    claims = [claim for each in (structure, *others) for claim in each.claims()]
    flips = []
    for name, slot in slots.items():
        service = release.app.service(name)
        if service.takes_traffic:
            side = structure.sides[name][slot]
            domain = side.domains[0]
            prefixes = {prefix for claimed, prefix in claims if claimed == domain}
            timeout = min(service.healthcheck.timeout, CONFIRM_TIMEOUT_SECONDS)
            answering = tuple(f"{address}:{side.port}" for address in side.addresses)
            flips.append(Flip(service.name, answering, domain, _public_path(service, prefixes), timeout))
    return flips


def _public_path(service: Service, prefixes: Collection[str]) -> str:
    """The path outside, through the proxy, of what the health check asks inside.

    The service's own path where that leads elsewhere: outside of it, or to a longer one of `prefixes`.
    """
    asked = service.healthcheck.path or "/"
    if service.strip_path:
        asked = service.path.rstrip("/") + asked
    sent = asked.partition("?")[0]
    # Proxies go by what a path means, or by how it is spelled.
    spelled = (sent, posixpath.normpath(unquote(sent)))
    return asked if all(_longest(prefixes, each) == service.path for each in spelled) else service.path


def _longest(prefixes: Collection[str], path: str) -> str:
    beneath = [each for each in prefixes if f"{path}/".startswith(f"{each.rstrip('/')}/")]
    return max(beneath, key=len, default="")


def point_back(at: Deployment, release: Release, plan: Plan, held: Sequence[str]) -> None:
    """Undo a flip: what was live is live again, or waited for again; what the new one is at may end."""
    # Until it is taken back nobody knows: the session may have ended before it flipped, or after.
    at.tell.reached = f"release {release.number} may be live already: imm status tells"
    live = at.found.live
    if live is None:
        at.host.proxy.withdraw(at.host.session, at.app)
    else:
        at.host.proxy.point(at.host.session, at.app, replace(live, held=tuple(held)))
    at.tell.reached = ""
    # What waits counts as in flight.
    leaving = {each.service: each.slot for each in plan.moving if each.service not in held}
    drain.wait_until_idle(at.host, at.app, leaving, release.app.services, at.tell)
