"""The floor: what a deployment can't leave out, over the engine's API, on one connection that is kept."""

from __future__ import annotations

import http.client
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import docker

from bench.speed.project import BenchFailed
from immutable_local.image import buildkit_program

PORT = 8000
ANSWER_SECONDS = 20.0
PING = "import docker; docker.from_env().ping()"
PRINT = "print('imm 0.1.0')"


def python(text: str) -> float:
    """How long a Python takes that does only this."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", text], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def build(folder: Path, environment: dict[str, str] | None = None) -> tuple[str, float]:
    """BuildKit's own build of a folder: the image's id, and how long it took."""
    cli = buildkit_program()
    if cli is None:
        raise BenchFailed("no docker command line here builds with BuildKit")
    began = time.perf_counter()
    done = subprocess.run(
        [cli, "build", "--quiet", str(folder)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            **(environment or {}),
            "DOCKER_BUILDKIT": "1",
            "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
        },
        check=False,
    )
    if done.returncode:
        raise BenchFailed(f"docker build failed: {done.stderr}")
    return done.stdout.strip(), time.perf_counter() - began


class ByHand:
    """Somebody who deploys with the API alone, in a network made beforehand."""

    def __init__(self, client: Any, network: str) -> None:
        self.client = client
        self.network = network
        self.before = ""

    def start(self, image: str) -> str:
        """Create, start, and return with the first good answer."""
        made = self.client.create_container(
            image,
            host_config=self.client.create_host_config(network_mode=self.network),
        )["Id"]
        self.client.start(made)
        told = self.client.inspect_container(made)["NetworkSettings"]["Networks"]
        _first_good_answer(told[self.network]["IPAddress"])
        return str(made)

    def remove(self, container: str) -> None:
        """At once: nothing is waited for."""
        self.client.remove_container(container, force=True)

    def up(self, folder: Path) -> float:
        """Build, create, start, first good answer, remove what ran before; how long that took."""
        began = time.perf_counter()
        image, _ = build(folder)
        started = self.start(image)
        if self.before:
            self.remove(self.before)
        self.before = started
        return time.perf_counter() - began

    def back(self, image: str) -> float:
        """Create, start, first good answer of an image that is there; how long that took."""
        began = time.perf_counter()
        started = self.start(image)
        seconds = time.perf_counter() - began
        self.remove(started)
        return seconds


@contextmanager
def by_hand() -> Iterator[ByHand]:
    """Connected, with a network of its own; nothing that it started stays."""
    client = docker.from_env().api
    network = f"bench-{secrets.token_hex(3)}"
    client.create_network(network, driver="bridge")
    hand = ByHand(client, network)
    try:
        client.ping()
        yield hand
    finally:
        for each in client.containers(all=True, filters={"network": network}):
            client.remove_container(each["Id"], force=True)
        client.remove_network(network)


def _first_good_answer(address: str) -> None:
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection(address, PORT, timeout=1)
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/up")
            if connection.getresponse().status == 200:
                return
        connection.close()
        time.sleep(0.005)
    raise BenchFailed(f"{address} has not answered")
