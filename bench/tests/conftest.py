"""Servers to load: the sample app in a process, and one that misbehaves as it is told."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass
class SampleApp:
    """The sample app on a port of its own, without Docker."""

    port: int
    data: Path
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, version: str) -> None:
        """Start this version, and return once it is up."""
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "uvicorn",
                "sample_app.app:app",
                "--port",
                str(self.port),
                "--no-access-log",
            ],
            cwd=ROOT,
            env={**os.environ, "DATA": str(self.data), "SAMPLE_VERSION": version},
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/up", timeout=5).close()
                return
            except OSError:
                time.sleep(0.02)
        raise TimeoutError("the sample app did not come up within 20 s")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it with this signal, and return once it has ended."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(timeout=20)
            self.process = None

    def count(self) -> int:
        """How many notes its data holds, asked of the file."""
        from sample_app.notes import Notes

        return Notes.beneath(self.data).count()


@pytest.fixture
def sample(tmp_path: Path) -> Iterator[SampleApp]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        app = SampleApp(free.getsockname()[1], tmp_path)
    app.start("1")
    yield app
    app.stop(signal.SIGKILL)
