"""What is live, as the contract's JSON has it. Takes no lock and changes nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from immutable_local import health, instance, ledger, network, secret
from immutable_local import labels as label
from immutable_local.app import App, Service
from immutable_local.engine import Engine
from immutable_local.errors import ProxyError, SessionLost
from immutable_local.host import Asked, Begun, Host, attach, find, look
from immutable_local.instance import Instance, replica_of
from immutable_local.listed import Container
from immutable_local.observed import Observed, observe
from immutable_local.proxy import Counts
from immutable_local.routes import Slot
from immutable_local.unbroken import side_by_side

HEALTH_SECONDS = 2.0
TRAFFIC_SECONDS = 1.0


def of_app(begun: Begun, app: App) -> dict[str, Any]:
    """The app's status; `live` is None when it isn't deployed."""
    engine, host = begun.engine, _look(begun, app.name)
    with ExitStack() as ending:
        if host is not None:
            ending.callback(host.close)
        found = observe(engine, host.session if host else None, app.name)
        live = found.live
        release = found.live_release
        told: dict[str, Any] = {"app": app.name, "live": None, "services": {}, "urls": [], "traffic": []}
        if live is not None:
            told["live"] = {
                "release": live.release,
                "image": live.image,
                "git": live.git,
                "since": live.since,
                "identity": live.identity,
            }
            told["services"] = _services(engine, host, found)
            shown = release.app if release else app
            asked = host.asked if host else Asked()
            told["urls"] = [
                asked.url(domain, each.path)
                for each in shown.services
                if each.takes_traffic
                for domain in each.domains
            ]
            told["traffic"] = _traffic(host, found) if host else []
        told["revertable"] = found.revertable
        told["proxy"] = {"kind": host.asked.kind, "state": "running"} if host else _stopped_proxy(engine)
        return told


def _look(begun: Begun, app: str) -> Host | None:
    """The host; None also where its proxy doesn't run, but nothing of the app is there to be told of."""
    try:
        return look(begun)
    except ProxyError:
        if instance.all_of(begun.engine, app) or network.mine(begun.engine, app) is not None:
            raise
        return None


def _stopped_proxy(engine: Engine) -> dict[str, Any] | None:
    proxy = of_proxy(engine)
    return None if proxy["state"] == "absent" else {key: proxy[key] for key in ("kind", "state")}


def of_proxy(engine: Engine) -> dict[str, Any]:
    """The host's proxy: its kind, state, address, and the apps that are live behind it."""
    found = find(engine)
    proxy = found.get("proxy")
    if proxy is None:
        return {"kind": None, "state": "absent", "bind": None, "port": None, "pool": None, "apps": []}
    host = attach(engine)
    with ExitStack() as ending:
        if host is not None:
            ending.callback(host.close)
        return _proxy(proxy, host, engine)


def records_of(begun: Begun, app: str) -> list[dict[str, Any]]:
    """The app's history, oldest first; empty where imm has no state."""
    host = look(begun)
    if host is None:
        return []
    with ExitStack() as ending:
        ending.callback(host.close)
        return ledger.read(host.session, app)


def secrets_of(begun: Begun, app: str) -> dict[str, Any]:
    """Names of the app's secrets, and when each was last set."""
    host = look(begun)
    if host is None:
        return {}
    with ExitStack() as ending:
        ending.callback(host.close)
        return secret.listed(host.session, app)


def _proxy(proxy: Container, host: Host | None, engine: Engine) -> dict[str, Any]:
    import json

    asked = Asked(**json.loads(proxy.labels[label.CONFIGURATION]))
    if host is not None:
        apps = [name for name, live in host.session.ask("live_releases").items() if live]
    else:
        # Without its sidecar nobody can be asked, and the proxy goes on all the same.
        apps = sorted({each.labels[label.APP] for each in instance.all_of(engine) if each.running})
    return {
        "kind": asked.kind,
        "state": proxy.state,
        "bind": asked.bind,
        "port": asked.http_port,
        "pool": asked.pool,
        "apps": apps,
    }


def _traffic(host: Host, found: Observed) -> list[dict[str, Any]]:
    """Requests and 5xx a second by release, the live one first; empty unless two of them are up, and counted.

    Measured here and now, for TRAFFIC_SECONDS: the proxy keeps counts, not rates.
    """
    assert found.live is not None
    release_of = dict.fromkeys(found.live.slots.items(), found.live.release)
    for each in found.containers:
        slot: Slot = "green" if each.labels[label.SLOT] == "green" else "blue"
        if each.running:
            release_of.setdefault((each.labels[label.SERVICE], slot), int(each.labels[label.RELEASE]))
    releases = list(dict.fromkeys(release_of.values()))
    if len(releases) < 2 or not found.live.counted:
        return []
    services = sorted({service for service, _ in release_of})
    began = time.monotonic()
    try:
        before = host.proxy.counts(host.session, found.app, services)
        time.sleep(TRAFFIC_SECONDS)
        after = host.proxy.counts(host.session, found.app, services)
    except SessionLost:
        # A proxy that restarted by itself left the sidecar behind: what is live can be told all the same.
        return []
    seconds = time.monotonic() - began
    told = []
    for number in releases:
        slots = [where for where, release in release_of.items() if release == number]
        came = [after.get(where, Counts()).since(before.get(where, Counts())) for where in slots]
        told.append(
            {
                "release": number,
                "requests_per_second": round(sum(each.requests for each in came) / seconds, 1),
                "errors_per_second": round(sum(each.errors for each in came) / seconds, 1),
            }
        )
    return told


# A row of the status, and what the sidecar is to ask to complete it; None where nobody need be asked.
Row = tuple[dict[str, Any], dict[str, Any] | None]


def _services(engine: Engine, host: Host | None, found: Observed) -> dict[str, list[dict[str, Any]]]:
    assert found.live is not None
    by_name = {each.name: each for each in found.containers if each.name in found.live.instances}
    # One that an `up` has just retired is gone, too.
    told_of = side_by_side(lambda each: engine.find(each.id), by_name.values())
    looked_at = dict(zip(by_name, told_of, strict=True))
    release = found.live_release
    settings = {each.name: each for each in release.app.services} if release else {}
    rows = {
        service: [
            _row(found, service, name, settings.get(service), looked_at.get(name)) for name in live.instances
        ]
        for service, live in found.live.services.items()
    }
    asking = [(row, target) for each in rows.values() for row, target in each if target is not None]
    if asking and host is not None:
        answers = host.session.ask("ask_if_joined", targets=[target for _, target in asking])
        for number, (row, _) in enumerate(asking):
            # The proxy may have restarted by itself, and left the sidecar in a network that is gone.
            row["health"] = "unknown" if answers is None else _health(answers[number])
    return {service: [row for row, _ in each] for service, each in rows.items()}


def _row(
    found: Observed, service: str, name: str, settings: Service | None, inspected: Mapping[str, Any] | None
) -> Row:
    """An instance as the engine has it."""
    if inspected is None:
        return {"instance": name, "state": "gone", "health": "none", "started": ""}, None
    state = inspected["State"]
    row = {
        "instance": name,
        "state": state["Status"],
        "health": _engines_view(state),
        "started": state["StartedAt"][:23].rstrip("Z") + "Z",
    }
    if settings is None or found.live is None or row["state"] != "running":
        return row, None
    slot = found.live.slots[service]
    address = found.structure.address(service, slot, replica_of(name)) if found.structure else None
    this = Instance(name, inspected["Id"], settings, slot, address)
    target = health.http_target(this) if health.command_of(this, inspected["Config"]) is None else None
    return row, {**target, "timeout": min(target["timeout"], HEALTH_SECONDS)} if target else None


def _health(answer: Mapping[str, Any]) -> str:
    return "healthy" if answer.get("healthy") else "unhealthy"


def _engines_view(state: Mapping[str, Any]) -> str:
    """What the engine says of a live instance. Where it hasn't asked yet, imm has: else it weren't live."""
    if state["Status"] != "running":
        return "unhealthy"
    return "unhealthy" if (state.get("Health") or {}).get("Status") == "unhealthy" else "healthy"
