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
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.load import Load, Report, Settings
from tests.host import ROOT, Host, Project
from tests.remote.second_engine import PREFIX, SecondEngine

PORT = 8080
SERVER = Path(__file__).with_name("server.py")


@contextmanager
def engine_apart(*images: str) -> Iterator[SecondEngine]:
    """A second engine with these images, run by a process that ends with this one."""
    command = [sys.executable, "-m", "tests.proxies.place", *images]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdin is not None and running.stdout is not None
        told = running.stdout.readline()
        assert told, "the engine did not start: see above"
        engine = SecondEngine()
        engine.name, engine.folder, engine.socket = (
            told.strip(),
            Path(json.loads(running.stdout.readline())),
            Path(json.loads(running.stdout.readline())),
        )
        try:
            yield engine
        finally:
            running.stdin.close()


class Place(Host):
    """That engine's host. Its loopback is its own: requests are made by threads and processes that are there."""

    kind = "nginx"

    def __init__(self, folder: Path, base: str, engine: SecondEngine) -> None:
        with patch.dict(os.environ, {"DOCKER_HOST": engine.unix}):
            super().__init__(folder, base, ("127.0.0.1", PORT), {"DOCKER_HOST": engine.unix})
        self.apart = engine

    def project(self, name: str | None = None, folder: str | None = None) -> Project:
        made = super().project(name, folder)
        shutil.copy(SERVER, made.folder / "server.py")
        return made

    def switch(self, kind: str) -> str:
        """Let that kind of proxy serve; what imm says of it to people."""
        done = self.imm(self.anybody, "proxy", "up", "--kind", kind)
        assert done.result["kind"] == kind
        self.kind = kind
        return done.stderr

    @property
    def anybody(self) -> Project:
        """A folder for commands that are about no app."""
        return Project("anybody", self.folder, {"name": "anybody", "services": {"web": {}}}).write()

    def connection(self) -> http.client.HTTPConnection:
        return self.apart.connection(PORT)

    def socket(self) -> socket.socket:
        return self.apart.enter(lambda: socket.create_connection(("127.0.0.1", PORT), timeout=20))

    def tell(self, target: str, project: Project, **headers: str) -> dict[str, Any]:
        """What the app says that reached it."""
        connection = self.connection()
        try:
            connection.request("GET", target, headers={"Host": project.domain, **headers})
            answer = connection.getresponse()
            assert answer.status == 200, (answer.status, answer.read())
            return dict(json.loads(answer.read()))
        finally:
            connection.close()

    @contextmanager
    def load(self, project: Project, shapes: Mapping[str, int], **settings: Any) -> Iterator[Load]:
        """Load on an app, from a process on the engine's machine."""
        load = Load(
            f"http://127.0.0.1:{PORT}", host=project.domain, shapes=shapes, settings=Settings(**settings)
        )
        resource_tracker.ensure_running()
        self.apart.enter(load.__enter__)
        try:
            yield load
        finally:
            load.__exit__(None, None, None)

    def close(self) -> None:
        self.engine.close()
        self.apart.wipe()


def losses(report: Report) -> list[str]:
    return [f"{each.shape}: {each.cause} after {each.reused}" for each in report.losses]


if __name__ == "__main__":
    with SecondEngine.running(sys.argv[1:]) as running:
        assert running.name.startswith(PREFIX)
        print(
            running.name,
            json.dumps(str(running.folder)),
            json.dumps(str(running.socket)),
            sep="\n",
            flush=True,
        )
        sys.stdin.read()
