"""The sample app that is deployed: a copy of its folder to change, and what it answers."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from demo.imm import Failed

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "demo" / "sample_app"
"""Always the same one, since imm lets no other folder's app take the place of one of the same name."""
PORT = "port = 8000"
WRONG_PORT = "port = 8001"
WHOLE_START_PERIOD = 'start_period = "20s"'
SHORT_START_PERIOD = 'start_period = "6s"'
PUBLIC_BASE = '"python:3.11-slim"'


class Copy:
    """A copy of the sample app's folder, so that the demo changes no file that is under version control."""

    def __init__(self) -> None:
        self.file = FOLDER / "imm.toml"

    def make(self) -> None:
        """Copy it, and let it be built on the base image that this machine has."""
        if not any((ROOT / "sample_app" / "wheels").glob("*.whl")):
            raise Failed("the sample app's wheels are not there; make setup gets them")
        shutil.rmtree(FOLDER, ignore_errors=True)
        unwanted = shutil.ignore_patterns("__pycache__", "tests")
        shutil.copytree(ROOT / "sample_app", FOLDER, ignore=unwanted)
        base = subprocess.run(
            [sys.executable, "-m", "setup", "image", "python"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if base.returncode:
            raise Failed("there is no base image; make setup gets it")
        self._replace(PUBLIC_BASE, f'"{base.stdout.strip()}"')
        # The deadline of the version that never gets healthy, which somebody watches.
        self._replace(WHOLE_START_PERIOD, SHORT_START_PERIOD)

    def set_version(self, version: str) -> None:
        """Change the app's code: it says this version."""
        (FOLDER / "VERSION").write_text(f"{version}\n")

    def mistake_the_port(self) -> None:
        """Let imm.toml name a port that the app doesn't listen on."""
        self._replace(PORT, WRONG_PORT)

    def _replace(self, old: str, new: str) -> None:
        text = self.file.read_text()
        if text.count(old) != 1:
            raise Failed(f"sample_app/imm.toml no longer says {old}")
        self.file.write_text(text.replace(old, new))


class Site:
    """The app as its users reach it: through the proxy."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.url = url
        self.host = parts.netloc
        # Not by its name: a resolver may not know that NAME.localhost is this machine.
        self.address = f"http://127.0.0.1:{parts.port or 80}"

    def version(self) -> str:
        """Which version answers."""
        return str(self._json("GET", "/version")["version"])

    def keep(self, text: str) -> None:
        """Write a note."""
        self._json("POST", "/notes", json={"text": text})

    def notes(self, containing: str = "") -> int:
        """How many notes there are with this text."""
        return int(self._json("GET", "/notes", params={"containing": containing})["count"])

    def _json(self, method: str, path: str, **more: Any) -> Any:
        answer = requests.request(
            method,
            self.address + path,
            headers={"Host": self.host},
            timeout=10,
            allow_redirects=False,
            **more,
        )
        if not answer.ok:
            raise Failed(f"{method} {path} answered {answer.status_code}")
        return answer.json()
