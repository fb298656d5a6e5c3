"""How looking, and an `up` with nothing to do, grow with the ledger's records and the engine's apps.

python -m bench.scale [--records 1000] [--apps 100] prints what each takes with one record and one app, what
it takes with all of them, and the ratio. Its apps are taken away again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from immutable_local import labels as label
from immutable_local.app import App, Service
from immutable_local.engine import connect, endpoint
from immutable_local.image import repository, seal
from immutable_local.ledger import append
from immutable_local.network import app_network
from immutable_local.observed import Live, LiveService
from immutable_local.release import Pin, Release
from immutable_local.routes import Side, Structure
from immutable_local.sidecar.session import Session
from tests.host import ROOT, Host, Project

COMMANDS = (("status",), ("history",), ("up",))
TIMES = 7


def printed(*words: str) -> str:
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


class Neighbours:
    """Apps as they lie on an engine: sealed image, network, instance, routes and live link.

    Deployed by imm each would take seconds; for whoever looks at another app they are the same.
    """

    def __init__(self, count: int, image: str) -> None:
        self.engine = connect()
        self.names = [f"n-{number:03}" for number in range(count)]
        self.image = image

    def __enter__(self) -> Self:
        for number, name in enumerate(self.names):
            self._make(number, name)
        return self

    def _make(self, number: int, name: str) -> None:
        service = Service("web", port=8000, domains=(f"{name}.localhost",), image=self.image)
        pin = Pin(self.image, self.image, "content")
        sealed = seal(self.engine, Release(App(name, (service,)), {"web": pin}), 1, None)
        network, subnet = app_network(name), f"10.99.{number}"
        self.engine.create_network(
            network,
            f"{subnet}.0/24",
            f"{subnet}.128/25",
            f"{subnet}.1",
            {label.ROLE: "network", label.APP: name},
        )
        instance = f"{name}-web-1-green-1"
        labels = {label.ROLE: "instance", label.APP: name, label.SERVICE: "web", label.RELEASE: "1"}
        container = self.engine.create(
            instance,
            self.image,
            command=["sleep", "3600"],
            labels={**labels, label.SEALED: sealed.sealed()},
            networks={network: endpoint(f"{subnet}.3")},
            network_mode=network,
        )
        self.engine.start(container)
        side = Side.of(service, (f"{subnet}.3",))
        routes = Structure(
            name, 1000 + number, {"web": {"green": side}}, {"web": {"green": (f"{subnet}.3",)}}
        )
        services = {"web": LiveService("green", "spec", (instance,))}
        live = Live(1, sealed.identity, sealed.image, "2026-01-01T00:00:00.000Z", services)
        with Session(self.engine, "imm-sidecar") as session:
            for lock in (f"app-{name}", "host"):
                session.ask("lock", name=lock, who={"command": "bench"}, wait=10)
            session.ask("structure_write", app=name, told=routes.to_json())
            session.ask("point", app=name, flags=["alive", "web.green"], release=live.to_json())

    def __exit__(self, *_: object) -> None:
        for name in self.names:
            with Session(self.engine, "imm-sidecar") as session:
                for lock in (f"app-{name}", "host"):
                    session.ask("lock", name=lock, who={"command": "bench"}, wait=10)
                session.ask("app_remove", app=name)
            self.engine.remove(f"{name}-web-1-green-1")
            self.engine.remove_network(app_network(name))
            self.engine.remove_image(f"{repository(name)}:1")


def seconds(host: Host, app: Project, words: Sequence[str]) -> float:
    """The median of TIMES runs, in seconds."""
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        host.imm(app, *words)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def all_seconds(host: Host, app: Project) -> dict[str, float]:
    return {" ".join(words): seconds(host, app, words) for words in COMMANDS}


def fill(app: Project, records: int) -> None:
    """As many more records as there would be after as many failures."""
    with Session(connect(), "imm-sidecar") as session:
        session.ask("lock", name=f"app-{app.name}", who={"command": "bench"})
        for number in range(records):
            append(
                session, app.name, "failed", release=number, seconds=3.2, error="it did not become healthy"
            )


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--records", type=int, default=1000)
    asked.add_argument("--apps", type=int, default=100)
    told = asked.parse_args()
    base, small = (printed("setup", "image", name).strip() for name in ("python", "busybox"))
    proxy = json.loads(printed("immutable_local", "proxy", "up", "--json"))
    with tempfile.TemporaryDirectory(prefix="imm-scale-") as folder:
        host = Host(Path(folder), base, (proxy["bind"], proxy["port"]))
        try:
            app = host.project()
            host.up(app)
            one = all_seconds(host, app)
            print(f"one: {one}", flush=True)
            fill(app, told.records - len(host.history(app)))
            recorded = all_seconds(host, app)
            print(f"{told.records} records: {recorded}", flush=True)
            with Neighbours(told.apps - 1, small):
                full = all_seconds(host, app)
        finally:
            host.close()
    print(f"seconds, median of {TIMES}: 1 record and 1 app; {told.records} records; and {told.apps} apps")
    for name, alone in one.items():
        print(
            f"{name:8} {alone:6.3f}  {recorded[name]:6.3f} ({recorded[name] / alone:4.2f})"
            f"  {full[name]:6.3f} ({full[name] / alone:4.2f})"
        )


if __name__ == "__main__":
    main()
