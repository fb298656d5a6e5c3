"""How imm's commands grow with the ledger's records and the engine's apps.

python -m bench.scale [--records 1000] [--apps 100] [--times 5] prints what each takes with one record and one
app, what it takes with all of them, and how many times as long that is: for the commands that look or have
nothing to do, and for deployments, one that leaves the proxy's routes alone and one that changes them. Its
apps are taken away again. It ends with 1 where what is bounded takes longer than that.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.speed.report import told
from immutable_local import labels as label
from immutable_local.app import App, Service
from immutable_local.engine import Engine, connect, endpoint
from immutable_local.image import repository, seal
from immutable_local.ledger import append
from immutable_local.live import Live, LiveService
from immutable_local.network import app_network, proxy_address
from immutable_local.proxy import flags
from immutable_local.release import Pin, Release
from immutable_local.routes import SLOTS, Side, Structure
from immutable_local.sidecar.session import Session
from tests.host import ROOT, Host, Outcome, Project

LOOKS = ("status", "history", "up")
# Those of a deployment that the proxy has a part in.
STEPS = ("start", "flip", "drain")
BOUND = 1.5
# What the engine does at the same time; it is the engine that takes the time.
AT_ONCE = 8
PROXY = "imm-proxy"
SIDECAR = "imm-sidecar"
# Beside imm's own pool.
SUBNETS = "10.99"

Seconds = dict[str, float]


@contextmanager
def neighbours(count: int, image: str) -> Iterator[None]:
    """Apps as they lie on an engine: sealed image, network, instance, routes and live link, proxy joined.

    Deployed by imm each would take seconds; for whoever looks at another app they are the same.
    """
    engine = connect()
    numbers = range(count)
    with Session.begin(engine, SIDECAR) as session:
        session.ask("lock", name="host", who={"command": "bench"}, wait=10)
        # Another run may have been killed.
        _each(_take_away, engine, session, numbers)
        try:
            _each(partial(_make, image), engine, session, numbers)
            session.ask("unlock", name="host")
            yield
        finally:
            session.ask("lock", name="host", who={"command": "bench"}, wait=10)
            _each(_take_away, engine, session, numbers)


def _each(
    act: Callable[[Engine, Session, int], None], engine: Engine, session: Session, numbers: range
) -> None:
    with ThreadPoolExecutor(AT_ONCE) as beside:
        list(beside.map(lambda number: act(engine, session, number), numbers))


def _name(number: int) -> str:
    return f"scale-{number:03}"


def _make(image: str, engine: Engine, session: Session, number: int) -> None:
    name = _name(number)
    service = Service("web", port=8000, domains=(f"{name}.localhost",), image=image)
    pin = Pin(image, image, "content")
    sealed = seal(engine, Release(App(name, (service,)), {"web": pin}), 1, None)
    network, subnet = app_network(name), f"{SUBNETS}.{number}"
    engine.create_network(
        network,
        f"{subnet}.0/24",
        f"{subnet}.128/25",
        f"{subnet}.1",
        {label.ROLE: "network", label.APP: name},
    )
    engine.join(network, PROXY, proxy_address(f"{subnet}.0/24"))
    instance = f"{name}-web-1-green-1"
    labels = {
        label.ROLE: "instance",
        label.APP: name,
        label.SERVICE: "web",
        label.RELEASE: "1",
        label.SLOT: "green",
        label.SEALED: sealed.sealed(),
    }
    container = engine.create(
        instance,
        image,
        command=["sleep", "3600"],
        labels=labels,
        networks={network: endpoint(f"{subnet}.4")},
        network_mode=network,
    )
    engine.start(container)
    addresses = {slot: (f"{subnet}.{3 + at}",) for at, slot in enumerate(SLOTS)}
    sides = {slot: Side.of(service, each) for slot, each in addresses.items()}
    routes = Structure(name, 1000 + number, {"web": sides}, {"web": addresses})
    services = {"web": LiveService("green", "spec", (instance,))}
    live = Live(1, sealed.identity, sealed.image, "2026-01-01T00:00:00.000Z", services)
    session.ask("lock", name=f"app-{name}", who={"command": "bench"}, wait=10)
    session.ask("structure_write", app=name, told=routes.to_json())
    session.ask("point", app=name, flags=flags(live), release=live.to_json())


def _take_away(engine: Engine, session: Session, number: int) -> None:
    name = _name(number)
    session.ask("lock", name=f"app-{name}", who={"command": "bench"}, wait=10)
    session.ask("app_remove", app=name)
    engine.remove(f"{name}-web-1-green-1")
    network = app_network(name)
    if any(network in each.addresses for each in engine.containers({label.ROLE: "proxy"})):
        engine.leave(network, PROXY)
    engine.remove_network(network)
    engine.remove_image(f"{repository(name)}:1")


def fill(app: Project, records: int) -> None:
    """As many more records as after so many deployments, every third of which failed."""
    with Session.begin(connect(), SIDECAR) as session:
        session.ask("lock", name=f"app-{app.name}", who={"command": "bench"})
        live = session.ask("live_release", app=app.name)["release"]
        for number in range(records - 1):
            kind, release = number % 3, 1000 + number // 3
            if kind == 0:
                append(session, app.name, "sealed", release=release, identity=f"{release:064}")
            elif kind == 1:
                append(
                    session,
                    app.name,
                    "failed",
                    release=release,
                    seconds=3.2,
                    error="it did not become healthy",
                )
            else:
                append(session, app.name, "went_live", release=release, seconds=3.2, previous=release - 1)
        append(session, app.name, "reverted", release=live, seconds=1.0)


def looks(host: Host, app: Project, times: int) -> Seconds:
    """What looks, or has nothing to do: the shortest of so many runs, in seconds.

    What else the machine is at only adds to it, and between the first measurement and the last are minutes.
    """
    taken: dict[str, list[float]] = {word: [] for word in LOOKS}
    for _ in range(times):
        for word in LOOKS:
            began = time.perf_counter()
            host.imm(app, word)
            taken[word].append(time.perf_counter() - began)
    return {f"imm {word}": min(each) for word, each in taken.items()}


def deployments(host: Host, app: Project, times: int) -> Seconds:
    """Whole deployments, each with the steps that the proxy has a part in: the shortest, in seconds."""
    taken: dict[str, list[float]] = {}
    for number in range(times):
        more = [app.domain, f"{number}-{time.time_ns()}.localhost"]
        for what, keys in (("a changed file", {}), ("a changed domain", {"domains": more})):
            app.version(f"{what} {time.time_ns()}", **keys)
            began = time.perf_counter()
            outcome = host.up(app)
            taken.setdefault(f"imm up, {what}", []).append(time.perf_counter() - began)
            for step in STEPS:
                taken.setdefault(f"{what}: {step}", []).append(_step(outcome, step))
    return {what: min(each) for what, each in taken.items()}


def _step(outcome: Outcome, name: str) -> float:
    return next(
        float(each["seconds"])
        for each in outcome.told
        if each.get("step") == name and each["state"] == "done"
    )


def printed(*words: str) -> str:
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def rows(alone: Seconds, recorded: Seconds, full: Seconds) -> Iterator[tuple[str, ...]]:
    """What was measured, in words: alone, with all records, with all apps too, and how often longer."""
    for what, one in alone.items():
        with_records = recorded.get(what)
        bound = ("no" if what in beyond(alone, recorded, full) else "yes") if with_records else ""
        yield (
            what,
            told(one, "s"),
            told(with_records, "s") if with_records else "",
            told(full[what], "s"),
            f"{full[what] / one:.2f}",
            bound,
        )


def beyond(alone: Seconds, recorded: Seconds, full: Seconds) -> list[str]:
    """What takes longer with everything there than its bound allows; that of deployments isn't bounded."""
    return [what for what, one in alone.items() if what in recorded and full[what] > BOUND * one]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--apps", type=int, default=100)
    parser.add_argument(
        "--times", type=int, default=5, help="how often each is measured; the shortest is told"
    )
    asked = parser.parse_args()
    # However it ends, what it put on the engine is taken away again.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    base, small = (printed("setup", "image", name).strip() for name in ("python", "busybox"))
    proxy = json.loads(printed("immutable_local", "proxy", "up", "--json"))
    with tempfile.TemporaryDirectory(prefix="imm-scale-") as folder:
        host = Host(Path(folder), base, (proxy["bind"], proxy["port"]))
        try:
            app = host.project().set(release={"keep": 1})
            host.up(app)
            one = looks(host, app, asked.times) | deployments(host, app, asked.times)
            fill(app, asked.records - len(host.history(app)))
            recorded = looks(host, app, asked.times)
            with neighbours(asked.apps - 1, small):
                # The proxy hears of the neighbours with the next deployment.
                host.up(app.version("among neighbours"))
                full = looks(host, app, asked.times) | deployments(host, app, asked.times)
        finally:
            host.close()
    table = Table(
        "", "1 record, 1 app", f"{asked.records} records", f"and {asked.apps} apps", "times", f"≤ {BOUND}"
    )
    for row in rows(one, recorded, full):
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    print(f"Each is the shortest of {asked.times}. Load average at the end: {os.getloadavg()[0]:.2f}.")
    if late := beyond(one, recorded, full):
        sys.exit(f"more than {BOUND} times as long: {', '.join(late)}")


if __name__ == "__main__":
    main()
