"""The logs of an app: of what runs, from the engine; of what is gone, from what was kept of it."""

from __future__ import annotations

import base64
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from immutable_local import labels as label
from immutable_local.engine import Coming, Engine
from immutable_local.errors import ImmError, NotFound, shown
from immutable_local.host import begin, look
from immutable_local.instance import INSTANCE, is_one
from immutable_local.listed import Container
from immutable_local.observed import Observed, observe


def lines(
    engine: Engine,
    app: str,
    service: str | None,
    release: int | None,
    follow: bool,
    tail: int | None,
    tell: Callable[[str], Any],
) -> Iterator[tuple[str, str]]:
    """Instance name and line, instance by instance; with `follow` as they are written, until interrupted.

    Who follows goes on with each instance that is started meanwhile, of a release that never gets to be live,
    too; with a `release` until all of it has ended. Raises NotFound when there is no such log.
    """
    meant = {label.ROLE: INSTANCE, label.APP: app, **({label.SERVICE: service} if service else {})}
    # Before anybody looks: what starts in between is heard of.
    coming = engine.comings(meant) if follow and release is None else None
    host = look(begin(engine))
    if host is None:
        raise NotFound(f"{app} is not deployed on this host", hint="imm up deploys it")
    try:
        found = observe(engine, host.session, app)
        running = chosen(found, service, release, also_starting=follow)
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
            for line in _last(_lines(content), tail):
                yield name, line.partition(" ")[2]
    finally:
        host.close()
    if follow:
        over = f"nothing of {app} runs" if release is None else f"all of release {release} has ended"
        yield from _Following(engine, meant).lines(running, tail, coming, lambda: tell(over))
    else:
        for each in running:
            log = engine.logs(each.id, "all" if tail is None else tail)
            for line in _lines(log):
                yield each.name, line


def chosen(found: Observed, service: str | None, release: int | None, also_starting: bool) -> list[Container]:
    """The containers meant: those of that release, else those that are live, and may just be about to be.

    What is live has instances of earlier releases, too: of the services that didn't change since.
    """
    kept = found.live.instances if found.live is not None and found.live.release == release else set()
    chosen = []
    for each in sorted(found.containers, key=lambda each: each.name):
        if service is not None and each.labels.get(label.SERVICE) != service:
            continue
        live = found.live is not None and each.name in found.live.instances
        live |= also_starting and each.running
        of_release = each.labels.get(label.RELEASE) == str(release) or each.name in kept
        if of_release if release is not None else live:
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


class _Following:
    """The logs of several instances as they are written; each is read by a thread of its own."""

    def __init__(self, engine: Engine, meant: Mapping[str, str]) -> None:
        self.engine = engine
        self.meant = meant
        self.arrived: queue.Queue[tuple[str, str] | Coming | ImmError | None] = queue.Queue()
        self.reading = 0
        # Whose log was read, and from when on there is more of it, should it be started again.
        self.known: set[str] = set()
        self.ended: dict[str, float | None] = {}

    def lines(
        self,
        containers: Sequence[Container],
        tail: int | None,
        coming: Iterator[Coming] | None,
        nothing_runs: Callable[[], Any],
    ) -> Iterator[tuple[str, str]]:
        """Instance name and line; without `coming` until all containers have ended."""
        if coming is not None:
            threading.Thread(target=self._hear, args=(coming,), daemon=True).start()
        for each in containers:
            if not each.running:
                self.ended[each.id] = self.engine.ended_at(each.id)
            self._begin(each, "all" if tail is None else tail)
        while self.reading or coming is not None:
            item = self.arrived.get()
            if isinstance(item, ImmError):
                raise item
            if isinstance(item, Coming):
                self._heard(item)
            elif item is not None:
                yield item
            else:
                self.reading -= 1
                if not self.reading:
                    nothing_runs()

    def _heard(self, came: Coming) -> None:
        if not came.started:
            self.ended[came.container] = came.at
        elif came.container not in self.known or came.container in self.ended:
            for each in self.engine.containers(self.meant):
                if each.id == came.container and is_one(self.engine, each):
                    self._begin(each, "all", self.ended.pop(each.id, None))

    def _begin(self, container: Container, tail: int | str, since: float | None = None) -> None:
        self.known.add(container.id)
        self.reading += 1
        threading.Thread(target=self._read, args=(container, tail, since), daemon=True).start()

    def _read(self, container: Container, tail: int | str, since: float | None) -> None:
        rest = b""
        try:
            for part in self.engine.follow(container.id, tail, since):
                *whole, rest = (rest + part).split(b"\n")
                for line in whole:
                    self.arrived.put((container.name, line.decode(errors="replace").rstrip("\r")))
        except ImmError:
            # The engine or the instance went away: its log has ended.
            return
        finally:
            self.arrived.put(None)

    def _hear(self, coming: Iterator[Coming]) -> None:
        try:
            for each in coming:
                self.arrived.put(each)
        except ImmError as gone:
            self.arrived.put(gone)


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


def _lines(log: bytes) -> list[str]:
    """The lines of a log. Nothing but a line feed ends one: not the returns of a progress bar, nor U+2028."""
    whole = log.removesuffix(b"\n")
    return [each.decode(errors="replace").rstrip("\r") for each in whole.split(b"\n")] if log else []


def _last(all_lines: list[str], tail: int | None) -> list[str]:
    return all_lines if tail is None else all_lines[len(all_lines) - min(tail, len(all_lines)) :]
