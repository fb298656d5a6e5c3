"""The app that is deployed, in a folder of its own, and imm's command line driving it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import docker

ROOT = Path(__file__).parents[2]
SERVER = Path(__file__).with_name("app") / "server.py"
COMMAND_SECONDS = 180
DOCKERFILE = """\
FROM {base}
WORKDIR /app
COPY server.py /app/
COPY VERSION /app/
USER 1000:1000
CMD ["python3", "server.py"]
"""
SETTINGS = """\
name = "{name}"

[services.web]
port = 8000
healthcheck = {{ path = "/up", interval = "50ms", timeout = "1s", start_period = "20s" }}
stop_grace_period = "5s"
{more}
"""


class BenchFailed(Exception):
    """What is to be measured doesn't work. Its text says what."""


@dataclass(frozen=True)
class Ran:
    """A command that has ended well: how long it took from outside, and what it told."""

    seconds: float
    told: tuple[Mapping[str, Any], ...]

    @property
    def outcome(self) -> str:
        return str(self.told[-1]["outcome"])

    def step(self, name: str) -> float:
        """How long a step of it took, in seconds."""
        return float(next(each["seconds"] for each in self._of(name) if each["state"] == "done"))

    def moment(self, name: str) -> float:
        """When a step of it was done, in seconds since the epoch."""
        at = next(each["at"] for each in self._of(name) if each["state"] == "done")
        return datetime.fromisoformat(at).timestamp()

    def _of(self, name: str) -> Iterator[Mapping[str, Any]]:
        return (each for each in self.told if each.get("step") == name)


class Project:
    """A folder with an imm.toml and the app; `environment` is added to that of each command."""

    def __init__(self, folder: Path, base: str, environment: Mapping[str, str] | None = None) -> None:
        self.name = f"bench-{secrets.token_hex(3)}"
        self.folder = folder / self.name
        self.environment = dict(environment or {})
        self.folder.mkdir()
        shutil.copy(SERVER, self.folder / "server.py")
        (self.folder / "Dockerfile").write_text(DOCKERFILE.format(base=base))
        self.set()
        self.version("0")

    def set(self, more: str = "") -> None:
        """Write imm.toml, with more lines for its service."""
        (self.folder / "imm.toml").write_text(SETTINGS.format(name=self.name, more=more))

    def version(self, version: str) -> None:
        """Change the one source file that changes."""
        (self.folder / "VERSION").write_text(version)

    def imm(self, *words: str) -> Ran:
        """Run a command as a user does. Raises BenchFailed when it fails."""
        command = [str(program()), "--file", str(self.folder / "imm.toml"), *words]
        environment = {**os.environ, **self.environment}
        began = time.perf_counter()
        done = subprocess.run(
            [*command, "--json"],
            capture_output=True,
            text=True,
            env=environment,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        seconds = time.perf_counter() - began
        if done.returncode:
            raise BenchFailed(
                f"imm {' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}"
            )
        return Ran(seconds, tuple(json.loads(line) for line in done.stdout.splitlines()))

    def up(self, version: str) -> Ran:
        """Deploy a new version. Raises BenchFailed when it doesn't go live."""
        self.version(version)
        ran = self.imm("up")
        if ran.outcome != "live":
            raise BenchFailed(f"imm up of a changed file: {ran.outcome}")
        return ran


def program() -> Path:
    """imm, as the virtual environment has it."""
    return Path(sys.executable).with_name("imm")


def base_image(name: str) -> str:
    """The reference of a base image that setup made or pulled."""
    done = subprocess.run(
        [sys.executable, "-m", "setup", "image", name], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchFailed(f"there is no {name} image; make setup gets it: {done.stderr}")
    return done.stdout.strip()


@contextmanager
def deployed(
    folder: Path,
    base: str,
    environment: Mapping[str, str] | None = None,
    prepare: Callable[[Project], None] = lambda project: None,
) -> Iterator[Project]:
    """A project whose version 0 is live; in the end it is down, and its images and folder are gone."""
    project = Project(folder, base, environment)
    try:
        prepare(project)
        project.imm("up")
        yield project
    finally:
        project.imm("down")
        _remove_images(project)
        shutil.rmtree(project.folder)


def _remove_images(project: Project) -> None:
    """What `imm down` keeps for a way back."""
    named = {**os.environ, **project.environment}.get("DOCKER_HOST", "")
    if named.startswith("ssh://"):
        # Of an engine that is thrown away.
        return
    client = docker.APIClient(base_url=named or None, version="auto")
    for each in client.images(filters={"label": f"imm.app={project.name}"}):
        for reference in each["RepoTags"] or [each["Id"]]:
            client.remove_image(reference, force=True)
    client.close()
