"""The host made ready: its proxy and sidecar, their network and their two volumes; and taken down again."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

from immutable_local import instance, lock, network
from immutable_local import labels as label
from immutable_local.containers import (
    configuration,
    create_proxy,
    refuse_strangers,
    remove_ours,
    seed,
    start_proxy,
    start_sidecar,
)
from immutable_local.engine import TASK, Engine, volume_mount
from immutable_local.errors import (
    EngineRefused,
    ImmError,
    Locked,
    ProxyError,
    SessionLost,
    UsageError,
    name_taken,
    shown,
)
from immutable_local.guard import guard
from immutable_local.host import (
    Asked,
    Begun,
    Host,
    asked_of,
    attached,
    begin,
    begun_or_attached,
    find,
    host_of,
    runs,
)
from immutable_local.listed import (
    NEXT,
    PROXY,
    PROXY_VOLUME,
    SIDECAR,
    STATE_VOLUME,
    Container,
    by_role,
)
from immutable_local.proxy import Proxy, choose
from immutable_local.sidecar.program import HEARTBEAT_SECONDS
from immutable_local.sidecar.session import BEAT_SECONDS
from immutable_local.unbroken import unbroken
from immutable_local.undo import UndoWhileHeld
from immutable_local.wait import until

PYTHON_IMAGES = ("imm.local/python:3.11", "python:3.11-slim")
START_SECONDS = 20.0
# The name that whoever makes the host holds meanwhile.
MAKING = "imm-making"
MAKING_SECONDS = 60.0
# What is true when a proxy left, and no way led back.
DARK = "the proxy may not run: then nobody reaches what is live"
# How long a proxy that is replaced may finish what it is answering; its port is unattended meanwhile.
LEAVING_SECONDS = 5.0
# One that the engine was asked to stop has stopped this long after that, or was never asked to.
STOPPED_SECONDS = 1.0


def ensure(begun: Begun, report: Callable[[str], Any], change: Mapping[str, Any] | None = None) -> Host:
    """The host made ready: what is missing is made, what stopped is started.

    `change` holds fields of Asked to change; `report` is told of undo steps that fail. A proxy that was asked
    to run otherwise is replaced, its apps stay. Raises ImmError when a name or the port is taken, and then
    leaves nothing behind that wasn't there before; SessionLost when this command was frozen meanwhile, and
    the change isn't made.
    """
    engine, change = begun.engine, change or {}
    for each in begun.listed:
        # Those of an app are swept by whoever has its lock.
        if each.labels[label.ROLE] == TASK and label.APP not in each.labels and each.state == "created":
            engine.remove_never_started(each.id)
    ready = _ready_already(*begun_or_attached(begun), change)
    if ready is not None:
        return ready
    python = image_for(engine, PYTHON_IMAGES)
    # Before there is a sidecar there is no lock of its: of several first deployments one makes the host.
    with ExitStack() as held:
        named = _host_or_name(engine, python, change, held)
        if isinstance(named, Host):
            return named
        undo = UndoWhileHeld(report, named)
        try:
            return _made(engine, change, held, undo, report)
        except SessionLost:
            if not undo.lost:
                raise
    # Nothing was undone. What another command made of it since stays; else this one goes on from there.
    ready = ensure(begin(engine), report)
    if replace(ready.asked, **change) != ready.asked:
        ready.close()
        raise _name_lost()
    return ready


def _made(
    engine: Engine,
    change: Mapping[str, Any],
    held: ExitStack,
    undo: UndoWhileHeld,
    report: Callable[[str], Any],
) -> Host:
    """The host made ready by whoever holds the name."""
    found, host = attached(engine)
    with _undoing(undo):
        ready = _ready_already(found, host, change) or _rejoined(engine, found, change, undo)
        if ready is not None:
            return ready
        found = _settled(engine, find(engine), undo)
        served = runs(found.get("proxy"))
        try:
            _make(engine, _asked(engine, found, change), found, held, undo, report)
        except ImmError as failed:
            if "proxy" in found and not served:
                failed.still = DARK
            raise
        host = _ready(engine)
        try:
            with lock.host(host.session, "proxy up"):
                try:
                    host.proxy.load(engine, host.session, host.structures(), settle=False)
                except ImmError:
                    if not served:
                        # One with the routes that it last had is more than none.
                        unbroken(_take_over, host, undo)
                    raise
                unbroken(_take_over, host, undo)
        except BaseException:
            # Also where nothing is undone.
            host.close()
            raise
        return host


def _still_mine(undo: UndoWhileHeld) -> None:
    """To be asked before what would hurt a proxy that another command made since. Raises SessionLost."""
    if not undo.still_held():
        raise _name_lost()


def _name_lost() -> SessionLost:
    """Who was frozen, or cut off from the engine, or the engine was restarted."""
    return SessionLost(
        f"the name {MAKING}, held while this command made the host's proxy, was lost:"
        " another command may have gone on with it",
        hint="run the command again",
    )


@contextmanager
def _undoing(undo: UndoWhileHeld) -> Iterator[None]:
    """Undo steps; where one fails, too, the error doesn't say that all is as it was."""
    try:
        with undo:
            yield
    except ImmError as failed:
        if undo.lost:
            raise _name_lost() from failed
        if not undo.whole:
            failed.still = DARK
        raise
    except KeyboardInterrupt as stopped:
        if undo.whole:
            raise
        raise ImmError(
            "interrupted", code="interrupted", still=DARK, hint="imm proxy up starts the proxy again"
        ) from stopped


def _host_or_name(
    engine: Engine, image: str, change: Mapping[str, Any], held: ExitStack
) -> Host | Callable[[], bool]:
    """The host that another command has made meanwhile; or this one holds the name and is to make it, and
    whether it still does can be asked."""

    def got() -> Host | Callable[[], bool] | None:
        try:
            return held.enter_context(engine.name_held(MAKING, image, HEARTBEAT_SECONDS, BEAT_SECONDS))
        except EngineRefused as refused:
            if refused.status != 409:
                raise
        refuse_strangers(engine, MAKING)
        begun = begin(engine)
        return _ready_already(by_role(begun.listed), begun.host, change)

    ended = until(got, MAKING_SECONDS, pause=0.1)
    if ended is None:
        raise Locked(
            f"another command has been making this host's proxy for {MAKING_SECONDS:.0f} s",
            hint="run the command again when that one has ended; if its client is gone or frozen, that is so"
            f" within {HEARTBEAT_SECONDS:.0f} s",
        )
    return ended


def checked(change: Mapping[str, Any]) -> Mapping[str, Any]:
    """The change, when it makes sense. Raises UsageError."""
    if "kind" in change:
        choose(change["kind"])
    bind, pool = change.get("bind", "127.0.0.1"), change.get("pool", network.DEFAULT_POOL)
    try:
        address = ipaddress.IPv4Address(bind)
    except ValueError as wrong:
        hint = "0.0.0.0 is every address"
        raise UsageError(f"--bind {shown(bind)}: not an IPv4 address", hint=hint) from wrong
    if address.is_multicast or address.is_reserved:
        what = f"--bind {address}: nothing can listen on such an address"
        raise UsageError(what, hint="0.0.0.0 is every address of this host")
    hint = f"write it like {network.DEFAULT_POOL}"
    try:
        subnets = ipaddress.IPv4Network(pool)
    except ValueError as wrong:
        what = f"--pool {shown(pool)}: not the first address of an IPv4 network and its length"
        raise UsageError(what, hint=hint) from wrong
    if subnets.prefixlen > 23 or not any(subnets.subnet_of(each) for each in network.MAY_BE_POOLS):
        what = f"--pool {subnets}: a private network of /23 or larger is needed, a /24 for each app"
        raise UsageError(what, hint=hint)
    return change


def proxy_images(asked: Asked) -> Sequence[str]:
    """The images that this kind of proxy can run from, the one to pull last."""
    return choose(asked.kind).images


def take_down(engine: Engine, report: Callable[[str], Any]) -> list[str]:
    """Remove the proxy, its sidecar and its network; the volumes stay. Returns what was removed.

    `report` is told why the network stays.
    """
    removed = []
    for role in ("sidecar", "next", "proxy"):
        found = find(engine).get(role)
        if found is not None:
            try:
                engine.stop(found.id, 5)
            except EngineRefused as refused:
                # Somebody else removes it, too.
                if refused.status != 404:
                    raise
            engine.remove(found.id)
            removed.append(found.name)
    for each in engine.networks():
        mine = each.name == network.PROXY_NETWORK and label.ROLE in each.labels
        if mine and network.remove(engine, each, report):
            removed.append(each.name)
    return removed


def image_for(engine: Engine, candidates: Sequence[str]) -> str:
    """The first of these images that the engine has, else the last one, pulled. Raises ImmError."""
    for each in candidates:
        if engine.image(each) is not None:
            return each
    try:
        engine.pull(candidates[-1])
    except EngineRefused as refused:
        raise ImmError(
            f"the engine has no image {' or '.join(candidates)}, and could not pull one",
            code="no_image",
            details=[refused.explanation],
            hint="where no registry answers, make setup in imm's own folder builds these from packages",
        ) from refused
    return candidates[-1]


def _ready_already(
    found: Mapping[str, Container], host: Host | None, change: Mapping[str, Any]
) -> Host | None:
    """The host when nothing has to be made."""
    if host is None:
        return None
    try:
        # Where the proxy restarted by itself, the sidecar is still in the network namespace that it left.
        if _right(found, change) and host.session.ask("hello")["interfaces"]:
            return host
    except SessionLost:
        # It went away since: another command may just be bringing it back.
        return None
    host.close()
    return None


def _right(found: Mapping[str, Container], change: Mapping[str, Any]) -> bool:
    """Whether the proxy that runs is as asked. Out of its network nobody reaches it: it is made anew."""
    proxy = found.get("proxy")
    if proxy is None or not proxy.running or "next" in found:
        return False
    if network.PROXY_NETWORK not in proxy.addresses:
        return False
    asked = asked_of(proxy)
    return replace(asked, **change) == asked


def _rejoined(
    engine: Engine, found: Mapping[str, Container], change: Mapping[str, Any], undo: UndoWhileHeld
) -> Host | None:
    """The host, its sidecar restarted as the proxy left it behind. Whoever does this holds the name: another
    one's session would end with it."""
    if not _right(found, change) or not runs(found.get("sidecar")):
        return None
    _still_mine(undo)
    try:
        engine.restart(SIDECAR, grace=0)
    except EngineRefused:
        # The proxy that it belonged to is gone.
        return None
    return _ready(engine)


def _settled(engine: Engine, found: dict[str, Container], undo: UndoWhileHeld) -> dict[str, Container]:
    """Finish or undo a making or a change of the proxy that was interrupted; returns what there is then."""
    if "next" in found and runs(found.get("proxy")):
        # The engine goes on stopping what it was asked to stop: what will run is known when that is over.
        until(
            lambda: not runs(find(engine).get("proxy")),
            LEAVING_SECONDS + STOPPED_SECONDS,
            pause=0.05,
        )
        found = find(engine)
    _still_mine(undo)
    for role in ("proxy", "next"):
        if role in found and found[role].state == "created":
            # One that never started may not be all there.
            engine.remove(found.pop(role).id)
    before, after = found.get("proxy"), found.get("next")
    if after is None:
        return found
    if before is not None and (before.running or not after.running):
        engine.remove(after.id)
        if before.running and after.running:
            # Both start with an engine that is restarted, and the second one took the first one's sockets.
            engine.restart(before.id)
    else:
        if before is not None:
            engine.remove(before.id)
        if "sidecar" in found:
            # Else others would come in as soon as the proxy has its name; it is made anew in any case.
            engine.remove(found["sidecar"].id)
        engine.rename(after.id, PROXY)
    return find(engine)


def _asked(engine: Engine, found: Mapping[str, Container], change: Mapping[str, Any]) -> Asked:
    """How the proxy is asked to run: as its label says, or its sidecar's, or what is left on the volume; but
    for the change."""
    return replace(_asked_before(engine, found, change), **change)


def _asked_before(engine: Engine, found: Mapping[str, Container], change: Mapping[str, Any]) -> Asked:
    for role in ("proxy", "sidecar"):
        if role in found and label.CONFIGURATION in found[role].labels:
            return asked_of(found[role])
    if engine.volume(PROXY_VOLUME) is not None:
        image = image_for(engine, PYTHON_IMAGES)
        mounts = [volume_mount(PROXY_VOLUME, "/imm/proxy", read_only=True)]
        told = engine.run_once(image, ["cat", "/imm/proxy/data/host.json"], mounts=mounts)
        if told.strip():
            return _told(told, change)
    return Asked()


def _told(told: bytes, change: Mapping[str, Any]) -> Asked:
    try:
        return Asked(**json.loads(told))
    except (ValueError, TypeError) as broken:
        if {"kind", "bind", "http_port"} <= change.keys():
            return Asked()
        raise ImmError(
            f"host.json in the volume {PROXY_VOLUME}, how this host's proxy is to run, is broken: {broken}",
            code="broken_state",
            hint="say it anew: imm proxy up --kind nginx --bind 127.0.0.1 --http-port 8080",
        ) from broken


def _make(
    engine: Engine,
    wanted: Asked,
    found: Mapping[str, Container],
    held: ExitStack,
    undo: UndoWhileHeld,
    report: Callable[[str], Any],
) -> None:
    """Let a proxy as wanted run, and a sidecar beside it.

    One that is made is `imm-proxy-next` until all is ready: nobody comes in before, so that whatever was made
    can be undone.
    """
    refuse_strangers(engine, PROXY, NEXT, SIDECAR)
    proxy = choose(wanted.kind)
    python = image_for(engine, PYTHON_IMAGES)
    image = image_for(engine, proxy.images)
    before = found or instance.all_of(engine)
    for name in (STATE_VOLUME, PROXY_VOLUME):
        volume = engine.volume(name)
        if volume is None and before:
            report(_lost(engine, name, wanted))
        if volume is None:
            engine.create_volume(name, {label.ROLE: "state"})
            undo.by(engine.remove_volume, name)
        elif label.ROLE not in (volume.get("Labels") or {}):
            raise name_taken("volume", name)
    _, made = network.ensure_network(
        engine, network.PROXY_NETWORK, wanted.pool, python, {label.ROLE: "network"}
    )
    if made:
        undo.by(engine.remove_network, network.PROXY_NETWORK)
    current = found.get("proxy")
    if (
        current is None
        or current.labels.get(label.CONFIGURATION) != configuration(wanted)
        or (current.running and network.PROXY_NETWORK not in current.addresses)
        or _lost_a_network(engine, current)
    ):
        with _written_beforehand(engine, proxy, current, found.get("sidecar")) as write:
            _still_mine(undo)
            container = create_proxy(engine, proxy, image, wanted, current, undo)
            if current is None:
                start_proxy(engine.start, container, wanted)
            else:
                _change_over(engine, python, container, wanted, current, held, undo, report, write)
        _still_mine(undo)
        # An old one belongs to a network namespace that is gone.
        remove_ours(engine, SIDECAR)
        undo.by(engine.remove, SIDECAR)
        start_sidecar(engine, python, wanted, container)
    else:
        # One that crashes again and again runs for a moment, or the engine is waiting to start it.
        crashed = seed(engine, proxy, current.id) or not current.running
        _still_mine(undo)
        start_proxy(engine.restart if crashed else engine.start, PROXY, wanted)
        _still_mine(undo)
        # Made anew: an old one may belong to a network namespace that is gone.
        remove_ours(engine, SIDECAR)
        # This proxy has its name: others come in with the sidecar's start.
        undo.keep()
        start_sidecar(engine, python, wanted, current.id)


def _take_over(host: Host, undo: UndoWhileHeld) -> None:
    """The point of no return: once the proxy has its name others come in, and the old one is no way back."""
    _still_mine(undo)
    host.session.ask("proxy_write", name="host.json", content=configuration(host.asked))
    found = find(host.engine)
    undo.keep()
    if "next" in found:
        if "proxy" in found:
            host.engine.remove(found["proxy"].id)
        host.engine.rename(found["next"].id, PROXY)


def _lost_a_network(engine: Engine, proxy: Container) -> bool:
    """Whether a network that it joins when it starts is gone: another of that name isn't what it means."""
    networks = engine.inspect(proxy.id)["NetworkSettings"]["Networks"].values()
    return not {each["NetworkID"] for each in networks} <= {each.id for each in engine.networks()}


def _lost(engine: Engine, volume: str, wanted: Asked) -> str:
    """What went with a volume that somebody removed, and how to go on."""
    if volume == STATE_VOLUME:
        return (
            f"the volume {volume} is gone, and with it every app's history, secrets and kept logs;"
            " what is live stays live. Set secrets again with imm secret set"
        )
    apps = sorted({each.labels[label.APP] for each in instance.all_of(engine)})
    return (
        f"the volume {volume} is gone, and with it which releases are live: nobody reaches"
        f" {', '.join(apps) or 'any app'}. imm up brings an app back, each from its own folder. How the proxy"
        f" was to run is lost, too: from here on it is {wanted.kind} on {wanted.bind}:{wanted.http_port}, and"
        " imm proxy up --kind, --bind, --http-port and --pool let it run otherwise"
    )


@contextmanager
def _written_beforehand(
    engine: Engine, proxy: Proxy, current: Container | None, sidecar: Container | None
) -> Iterator[Callable[[], None]]:
    """Let the new proxy find its whole configuration when it starts: the port is unattended until then.

    To be called for what goes live meanwhile. Without a sidecar beside a proxy that runs nobody can write.
    """
    if current is None or sidecar is None or not (current.running and sidecar.running):
        yield lambda: None
        return
    host = host_of(engine, current, sidecar)
    try:
        with lock.host(host.session, "proxy up"):

            def write() -> None:
                proxy.write(host.session, host.structures())

            write()
            yield write
    finally:
        host.close()


def _change_over(
    engine: Engine,
    python: str,
    container: str,
    wanted: Asked,
    current: Container,
    held: ExitStack,
    undo: UndoWhileHeld,
    report: Callable[[str], Any],
    write: Callable[[], None],
) -> None:
    """Stop one proxy and start the other, which is there whole.

    Nobody listens meanwhile: from there on, until `held` ends, this command is guarded.
    """
    # It makes the proxy, as this does.
    from immutable_local.recovery import recover

    began = time.monotonic()
    unbroken(held.enter_context, guard(recover, report=report))

    def stop() -> None:
        _still_mine(undo)
        if current.state != "exited":
            undo.by(serve_again, engine, python, container, current, undo)
        engine.stop(current.id, LEAVING_SECONDS)

    # The engine goes on stopping what it was asked to stop: only what has stopped can be started again.
    unbroken(stop)
    with suppress(ImmError):
        # What was written is of before the stop, which took up to LEAVING_SECONDS.
        write()
    start_proxy(engine.start, container, wanted)
    report(f"nobody listened for {time.monotonic() - began:.1f} s, while one proxy made room for the other")


def serve_again(engine: Engine, python: str, container: str, before: Container, undo: UndoWhileHeld) -> None:
    """Let the proxy of before serve again, with a sidecar beside it."""
    engine.remove(container)
    engine.start(before.id)
    _still_mine(undo)
    sidecar = engine.find(SIDECAR)
    if sidecar is not None and sidecar["HostConfig"]["NetworkMode"] == f"container:{before.id}":
        engine.restart(SIDECAR, grace=0)
    else:
        remove_ours(engine, SIDECAR)
        start_sidecar(engine, python, asked_of(before), before.id)


def _ready(engine: Engine) -> Host:
    """Wait until the proxy and the sidecar run and the sidecar sees the proxy's network."""

    def ready() -> Host | None:
        found = find(engine)
        # Where one is to take over, it is that one.
        proxy, sidecar = found.get("next", found.get("proxy")), found.get("sidecar")
        if proxy is None or sidecar is None or not (proxy.running and sidecar.running):
            return None
        try:
            host = host_of(engine, proxy, sidecar)
            if host.session.ask("hello")["interfaces"]:
                return host
        except (EngineRefused, SessionLost):
            # It went away again: the engine is just restarting it.
            return None
        host.close()
        return None

    host = until(ready, START_SECONDS, pause=0.05)
    if host is None:
        raise _did_not_come_up(engine)
    return host


def _did_not_come_up(engine: Engine) -> ProxyError:
    said = [
        line
        for name in (NEXT if engine.find(NEXT) else PROXY, SIDECAR)
        if engine.find(name) is not None
        for line in engine.logs(name, tail=5).decode(errors="replace").splitlines()
    ]
    return ProxyError(
        f"the proxy and its sidecar did not come up within {START_SECONDS:.0f} s",
        details=said,
        hint="see docker logs imm-proxy and docker logs imm-sidecar",
    )
