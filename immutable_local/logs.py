"""The logs of an app: of what runs, from the engine; of what is gone, from what was kept of it."""

from __future__ import annotations

import base64
import queue
import threading
from collections.abc import Iterator, Sequence

from immutable_local import labels as label
from immutable_local.engine import Engine
from immutable_local.errors import ImmError, NotFound, shown
from immutable_local.host import begin, look
from immutable_local.listed import Container
from immutable_local.observed import Observed, observe


def lines(
    engine: Engine, app: str, service: str | None, release: int | None, follow: bool, tail: int | None
) -> Iterator[tuple[str, str]]:
    """Instance name and line, instance by instance; with `follow` as they are written, until interrupted.

    Raises NotFound when there is no such log.
    """
    host = look(begin(engine))
    if host is None:
        raise NotFound(f"{app} is not deployed on this host", hint="imm up deploys it")
    try:
        found = observe(engine, host.session, app)
        running = _chosen(found, service, release)
        kept = []
        if release is not None or not running:
            kept = [
                name
                for name in host.session.ask("log_list", app=app)
                if _matches(app, name, service, release)
            ]
            kept = [name for name in kept if name not in {each.name for each in running}]
            if release is None and kept:
                # Nothing runs: what was the last to go.
                latest = _release_in(app, kept[-1])
                kept = [name for name in kept if _release_in(app, name) == latest]
        if not running and not kept:
            raise _nothing(found, service, release)
        for name in kept:
            content = base64.b64decode(host.session.ask("log_read", app=app, name=name) or "")
            for line in _last(content.decode(errors="replace").splitlines(), tail):
                yield name, line.partition(" ")[2]
    finally:
        host.close()
    if follow:
        yield from _follow(engine, running, tail)
    else:
        for each in running:
            log = engine.logs(each.id, "all" if tail is None else tail)
            for line in log.decode(errors="replace").splitlines():
                yield each.name, line


def _chosen(found: Observed, service: str | None, release: int | None) -> list[Container]:
    """The containers meant: those of that release, else those that are live."""
    chosen = []
    for each in sorted(found.containers, key=lambda each: each.name):
        if service is not None and each.labels.get(label.SERVICE) != service:
            continue
        live = found.live is not None and each.name in found.live.instances
        if each.labels.get(label.RELEASE) == str(release) if release is not None else live:
            chosen.append(each)
    return chosen


def _matches(app: str, name: str, service: str | None, release: int | None) -> bool:
    """Whether a kept log's name is the one meant."""
    parts = _parts(app, name)
    if len(parts) != 4:
        return False
    return (service is None or parts[0] == service) and (release is None or parts[1] == str(release))


def _release_in(app: str, name: str) -> str:
    return _parts(app, name)[1]


def _parts(app: str, name: str) -> list[str]:
    """What a kept log's name tells: APP-SERVICE-RELEASE-SLOT-REPLICA."""
    return name.removeprefix(f"{app}-").rsplit("-", 3)


def _follow(engine: Engine, containers: Sequence[Container], tail: int | None) -> Iterator[tuple[str, str]]:
    arrived: queue.Queue[tuple[str, str] | None] = queue.Queue()

    def read(container: Container) -> None:
        rest = b""
        try:
            for part in engine.follow(container.id, "all" if tail is None else tail):
                *whole, rest = (rest + part).split(b"\n")
                for line in whole:
                    arrived.put((container.name, line.decode(errors="replace").rstrip("\r")))
        except ImmError:
            # The engine or the instance went away: its log has ended.
            return
        finally:
            arrived.put(None)

    for each in containers:
        threading.Thread(target=read, args=(each,), daemon=True).start()
    ended = 0
    while ended < len(containers):
        item = arrived.get()
        if item is None:
            ended += 1
        else:
            yield item


def _nothing(found: Observed, service: str | None, release: int | None) -> NotFound:
    services = sorted(found.live.services) if found.live else []
    if service is not None and services and service not in services:
        return NotFound(
            f"{found.app} has no service {shown(service)}", hint=f"its services: {', '.join(services)}"
        )
    what = f"release {release} of {found.app}" if release is not None else found.app
    return NotFound(
        f"there is no log of {what}", hint="imm history shows what happened; logs of old releases are bounded"
    )


def _last(all_lines: list[str], tail: int | None) -> list[str]:
    return all_lines if tail is None else all_lines[len(all_lines) - min(tail, len(all_lines)) :]
