"""The fixtures: an engine of the tests' own, and imm's command line driving it."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from tests.host import ROOT, Host, Project
from tests.kills import kill_guards
from tests.remote.second_engine import PROGRAMS, SSH_PROGRAMS, SecondEngine, why_not

PORT = 8080


class Apart(Host):
    """The second engine's host. Its loopback is its own, so requests to its proxy are made from within."""

    def __init__(self, folder: Path, base: str, second: SecondEngine, **environment: str) -> None:
        super().__init__(folder, base, ("127.0.0.1", PORT), environment)
        self.second = second
        self.stays = False

    def connection(self) -> http.client.HTTPConnection:
        return self.second.connection(self.proxy[1])

    def close(self) -> None:
        # One that is still waiting for this host would act on the next one's.
        for each in self.projects:
            kill_guards(self, each)
        stays = self.stays and self._has_its_proxy_alone()
        self.engine.close()
        if not stays:
            self.second.wipe()

    def _has_its_proxy_alone(self) -> bool:
        """Whether nothing but apps is beside a proxy that listens where the first one does."""
        found = {each["Names"][0]: each for each in self.engine.containers(all=True)}
        others = {name for name, each in found.items() if "imm.app" not in each["Labels"]}
        if others != {"/imm-proxy", "/imm-sidecar"}:
            return False
        return [each.get("PublicPort") for each in found["/imm-proxy"]["Ports"]] == [PORT]


@pytest.fixture(scope="session")
def second() -> Iterator[SecondEngine]:
    """The second engine, with the base images of the first."""
    if reason := why_not():
        pytest.skip(reason)
    images = [base_image("python"), base_image("nginx")]
    with SecondEngine.running(images) as engine:
        yield engine


@pytest.fixture(scope="session")
def by_ssh(second: SecondEngine) -> dict[str, str]:
    """The environment in which ssh reaches the second engine."""
    if reason := why_not((*PROGRAMS, *SSH_PROGRAMS)):
        pytest.skip(reason)
    return {**second.serve_ssh(), "DOCKER_HOST": second.ssh}


@pytest.fixture
def bare(second: SecondEngine, tmp_path: Path) -> Iterator[Apart]:
    """A host that has never seen imm."""
    second.wipe()
    with apart(second, tmp_path) as host:
        yield host


@pytest.fixture
def ready(second: SecondEngine, tmp_path: Path, wiped: None) -> Iterator[Apart]:
    """A host that may have its proxy already, and other apps: what an earlier test of the file left in order."""
    with apart(second, tmp_path) as host:
        host.stays = True
        yield host


@pytest.fixture(scope="module")
def wiped(second: SecondEngine) -> Iterator[None]:
    yield
    second.wipe()


@pytest.fixture
def app(request: pytest.FixtureRequest) -> Project:
    """On the host that the test has."""
    host: Apart = request.getfixturevalue("ready" if "ready" in request.fixturenames else "bare")
    return host.project()


# Over a unix socket alone is what all the other tests do: IMM_SOAK=1 takes both.
@pytest.fixture(scope="module", params=["unix", "ssh"] if os.environ.get("IMM_SOAK") == "1" else ["ssh"])
def remote(
    request: pytest.FixtureRequest, second: SecondEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Apart]:
    """One host for a whole file, reached in one way alone."""
    way = request.getfixturevalue("by_ssh") if request.param == "ssh" else {}
    with apart(second, tmp_path_factory.mktemp(request.param), **way) as host:
        yield host


@contextmanager
def apart(second: SecondEngine, folder: Path, **environment: str) -> Iterator[Apart]:
    with pytest.MonkeyPatch.context() as patch:
        # What isn't told otherwise, the tests' own look at the engine included, takes the socket.
        patch.setenv("DOCKER_HOST", second.unix)
        patch.delenv("DOCKER_CONTEXT", raising=False)
        host = Apart(folder, base_image("python"), second, **environment)
        try:
            yield host
        finally:
            host.close()


@cache
def base_image(name: str) -> str:
    """The reference of a base image on the first engine; the second has it by the same name."""
    environment = {key: value for key, value in os.environ.items() if key != "DOCKER_HOST"}
    done = subprocess.run(
        [sys.executable, "-m", "setup", "image", name],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
