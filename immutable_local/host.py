"""What imm runs on a host beside the apps, as it is: the proxy, its sidecar, and a session with that one.

The proxy mounts what it must know (`imm-proxy`); what it must not know, the ledger and the secrets, is in
`imm-state`, which only the sidecar mounts. Neither mounts the engine's socket.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from immutable_local import instance, network
from immutable_local import labels as label
from immutable_local.early import Early
from immutable_local.engine import Engine
from immutable_local.errors import EngineRefused, ProxyError, SessionLost
from immutable_local.listed import STATE_VOLUME, Container, by_role
from immutable_local.proxy import Proxy, choose
from immutable_local.routes import Structure
from immutable_local.sidecar.session import Session


@dataclass(frozen=True)
class Asked:
    """How the host's proxy is to run. The address and port are the engine's host's."""

    kind: str = "nginx"
    bind: str = "127.0.0.1"
    http_port: int = 8080
    pool: str = network.DEFAULT_POOL

    def url(self, domain: str, path: str = "/") -> str:
        port = "" if self.http_port == 80 else f":{self.http_port}"
        return f"http://{domain}{port}{path if path != '/' else ''}"


@dataclass
class Host:
    """A host that is ready: its proxy runs, its sidecar answers."""

    engine: Engine
    session: Session
    proxy: Proxy
    asked: Asked
    image: str  # with a Python: the sidecar's

    def structures(self) -> list[Structure]:
        return [Structure.from_json(told) for told in self.session.ask("structures").values()]

    def close(self) -> None:
        self.session.close()


@dataclass(frozen=True)
class Begun:
    """An engine that answers, who of imm's is there, and the host as it is; None where something must be done
    first. Its session has only just begun: whoever has something else to do does it meanwhile."""

    engine: Engine
    listed: Sequence[Container]
    host: Host | None


def begin(engine: Engine, early: Early | None = None) -> Begun:
    """Look who is there, and let the sidecar's program start, as far as that isn't done; changes nothing."""
    listed = early.listed if early else engine.containers({label.ROLE: ""})
    # One that has ended already says why when it is begun anew: its sidecar may just be restarted.
    session = early.session if early and early.session and not early.session.ended else None
    found = by_role(listed)
    if not (runs(found.get("proxy")) and runs(found.get("sidecar"))):
        if early is not None:
            early.forget()
        return Begun(engine, listed, None)
    return Begun(engine, listed, _still_there(engine, found["proxy"], found["sidecar"], session))


def untouched(begun: Begun) -> bool:
    """Whether nothing of imm's was ever made on this host: there is nothing to look up."""
    engine = begun.engine
    left = begun.host is not None or by_role(begun.listed) or instance.among(engine, begun.listed)
    return not left and engine.volume(STATE_VOLUME) is None


def find(engine: Engine) -> dict[str, Container]:
    """The proxy's and the sidecar's containers, as `by_role` tells them."""
    return by_role(engine.containers({label.ROLE: ""}))


def attach(engine: Engine) -> Host | None:
    """The host as it is; None when imm's proxy and sidecar don't both run.

    A sidecar that stopped is started, and nothing else: an engine that is restarted may try it before the
    proxy runs, and then leaves it stopped.
    """
    return attached(engine)[1]


def attached(engine: Engine) -> tuple[Mapping[str, Container], Host | None]:
    """Who is there now, and `attach`."""
    found = find(engine)
    # One that was created and never started may not be all there: it is made anew.
    sidecar = found.get("sidecar")
    if not runs(found.get("proxy")) or sidecar is None or sidecar.state == "created":
        return found, None
    if not sidecar.running:
        try:
            if sidecar.state == "exited":
                # Not restarted: another command may just have started it, and be at work with it.
                engine.start(sidecar.id)
            else:
                engine.restart(sidecar.id, grace=0)
        except EngineRefused:
            # The proxy that it belonged to is gone.
            return found, None
    return found, _still_there(engine, found["proxy"], sidecar)


def begun_or_attached(begun: Begun) -> tuple[Mapping[str, Container], Host | None]:
    """Who is there, and the host. What has to be brought back may have been meanwhile, by somebody who is at
    work with it: only then all is listed anew."""
    if begun.host is None:
        return attached(begun.engine)
    return by_role(begun.listed), begun.host


def look(begun: Begun) -> Host | None:
    """The host as it is; None where imm has never been.

    Raises ProxyError when what imm keeps there can't be asked: that isn't the same as nothing.
    """
    found, host = begun_or_attached(begun)
    if host is None and (found or begun.engine.volume(STATE_VOLUME) is not None):
        raise ProxyError(
            "imm's proxy or its sidecar doesn't run here: what is live and what happened can't be told",
            code="proxy_absent",
            hint="imm proxy up (or imm up) starts them; volumes, secrets and history are kept",
        )
    return host


def asked_of(container: Container) -> Asked:
    """How the proxy was asked to run, as it says itself, or its sidecar."""
    return Asked(**json.loads(container.labels[label.CONFIGURATION]))


def runs(container: Container | None) -> bool:
    """Whether it is there, and runs."""
    return container is not None and container.running


def _still_there(
    engine: Engine, proxy: Container, sidecar: Container, session: Session | None = None
) -> Host | None:
    """As `host_of`; None when the sidecar went away since it was listed: a guard may just be replacing it."""
    try:
        return host_of(engine, proxy, sidecar, session)
    except (EngineRefused, SessionLost):
        return None


def host_of(engine: Engine, proxy: Container, sidecar: Container, session: Session | None = None) -> Host:
    """The host of these two, with the session that was begun, or one that begins."""
    asked = asked_of(proxy)
    session = session or Session.begin(engine, sidecar.id)
    return Host(engine, session, choose(asked.kind, proxy.id), asked, sidecar.image)
