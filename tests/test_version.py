"""The version, as a person asks for it."""

from __future__ import annotations

import subprocess
import sys

from immutable_local import __version__


def test_version_alone_is_an_answer_and_no_command_is_missing() -> None:
    """Also in a folder without an imm.toml, and without an engine."""
    done = subprocess.run(
        [sys.executable, "-m", "immutable_local", "--version"],
        capture_output=True,
        text=True,
        cwd="/",
        env={"DOCKER_HOST": "unix:///nowhere"},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"imm {__version__}\n", "")
