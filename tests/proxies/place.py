"""Where the proxies are tried: an engine of these tests' own, and requests made on its machine.

An engine is named by the process that runs it; other tests of this run may have one, so this one has a
process of its own.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.load import Load, Report, Settings
from immutable_local import labels as label
from immutable_local.listed import PROXY_VOLUME
from tests.host import ROOT, Answer, Host, Outcome, Project
from tests.remote.second_engine import SecondEngine

PORT = 8080
SERVER = Path(__file__).with_name("server.py")


def image(name: str) -> str:
    """The reference of a base image that this machine has."""
    done = subprocess.run(
        [sys.executable, "-m", "setup", "image", name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


@contextmanager
def engine_apart(*images: str) -> Iterator[SecondEngine]:
    """A second engine with these images, run by a process that ends with this one."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.proxies.place", *images],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdin is not None and running.stdout is not None
        told = running.stdout.readline()
        assert told, "the engine did not start: see above"
        engine = SecondEngine()
        engine.name, folder, its_socket = json.loads(told)
        engine.folder, engine.socket = Path(folder), Path(its_socket)
        try:
            yield engine
        finally:
            running.stdin.close()


class Place(Host):
    """That engine's host. Its loopback is its own: requests are made by threads and processes that are there."""

    def __init__(self, folder: Path, base: str, engine: SecondEngine) -> None:
        with patch.dict(os.environ, {"DOCKER_HOST": engine.unix}):
            super().__init__(folder, base, ("127.0.0.1", PORT), {"DOCKER_HOST": engine.unix})
        self.apart = engine

    # Commands

    def project(self, name: str | None = None, folder: str | None = None) -> Project:
        made = super().project(name, folder)
        shutil.copy(SERVER, made.folder / "server.py")
        return made

    def alone(self, name: str, **web: Any) -> Project:
        """An app whose data is for one instance, which ends when another one has it."""
        made = self.project(name)
        made.dockerfile((made.folder / "Dockerfile").read_text() + "COPY --chown=1000:1000 data /data\n")
        (made.folder / "data").mkdir(exist_ok=True)
        (made.folder / "data" / "notes").touch()
        made.set(volumes={"data": {"writers": "one"}})
        return made.service(
            "web", volumes=["data:/data"], environment={"DATA": "/data", "WRITER": "1", "BOOT": "0.3"}, **web
        )

    def switch(self, kind: str) -> Outcome:
        """Let that kind of proxy serve."""
        anybody = Project("anybody", self.folder, {"name": "anybody", "services": {"web": {}}}).write()
        return self.imm(anybody, "proxy", "up", "--kind", kind)

    def proxy_status(self) -> dict[str, Any]:
        anybody = Project("anybody", self.folder, {"name": "anybody", "services": {"web": {}}}).write()
        return dict(self.imm(anybody, "proxy", "status").result)

    # Requests

    def connection(self) -> http.client.HTTPConnection:
        return self.apart.connection(PORT)

    def socket(self) -> socket.socket:
        return self.apart.enter(lambda: socket.create_connection(("127.0.0.1", PORT), timeout=20))

    def told(self, target: str, project: Project | None = None, **more: Any) -> dict[str, Any]:
        """What the app says, which must be 200."""
        return dict(json.loads(self.get(target, project, **more)))

    def version(self, project: Project) -> str:
        return str(self.told("/version", project)["version"])

    def exchange(self, *pieces: bytes) -> list[Answer]:
        """Send bytes as they are on one connection, the last request closing it; every answer to them."""
        with self.socket() as connection:
            for each in pieces:
                connection.sendall(each)
            answers = []
            with connection.makefile("rb") as file:
                while head := file.readline():
                    headers = {}
                    while line := file.readline().strip():
                        name, _, value = line.decode().partition(": ")
                        headers[name.lower()] = value
                    body = file.read(int(headers["content-length"]))
                    answers.append(Answer(int(head.split()[1]), headers, body.decode()))
            return answers

    @contextmanager
    def load(
        self, project: Project, shapes: Mapping[str, int], *, port: int = PORT, **settings: Any
    ) -> Iterator[Load]:
        """Load on an app, from a process on the engine's machine."""
        load = Load(
            f"http://127.0.0.1:{port}",
            host=project.domain,
            shapes=shapes,
            seconds=3600,
            requests=10_000_000,
            settings=Settings(**settings),
        )
        # It outlives the load, and would be on that machine if it began there.
        resource_tracker.ensure_running()
        self.apart.enter(load.__enter__)
        try:
            yield load
        finally:
            load.__exit__(None, None, None)

    # What happened

    def lives(self, project: Project, since: float, until: float) -> list[tuple[str, str]]:
        """When the engine started and ended instances: start or die, and the name."""
        mine = [f"{label.APP}={project.name}", f"{label.ROLE}=instance"]
        about = {"event": ["start", "die"], "label": mine}
        told = self.engine.events(since=int(since), until=int(until) + 1, decode=True, filters=about)
        return [
            (each["Action"], each["Actor"]["Attributes"]["name"])
            for each in told
            if since <= each["timeNano"] / 1e9 <= until
        ]

    def went_live(self, project: Project) -> float:
        """When the live link was last renamed, in seconds since the epoch: the link's own time stamp."""
        return (self.live_folder(project) / "live").lstat().st_ctime_ns / 1e9

    def live_folder(self, project: Project) -> Path:
        """Where the live link is, on this machine's disk."""
        volume = Path(self.engine.inspect_volume(PROXY_VOLUME)["Mountpoint"])
        return volume / "data" / "apps" / project.name

    def close(self) -> None:
        self.engine.close()
        self.apart.wipe()


def lost(report: Report) -> list[str]:
    """What a load lost, in words, with the moment since its begin."""
    return [
        f"{each.shape}: {each.cause}, sent at {each.sent - report.began:.3f}, known at"
        f" {each.at - report.began:.3f}, after {each.reused} on this connection"
        for each in report.losses
    ]


def moment(outcome: Outcome, step: str, state: str = "done") -> float:
    """When a step began or ended, in seconds since the epoch."""
    told = next(each for each in outcome.told if each.get("step") == step and each["state"] == state)
    return datetime.fromisoformat(told["at"]).timestamp()


def seconds(outcome: Outcome, step: str) -> float:
    return float(
        next(each["seconds"] for each in outcome.told if each.get("step") == step and "seconds" in each)
    )


if __name__ == "__main__":
    with SecondEngine.running(sys.argv[1:]) as made:
        print(json.dumps([made.name, str(made.folder), str(made.socket)]), flush=True)
        sys.stdin.read()
