"""Debian packages and Python wheels, from wherever this machine's apt and pip get theirs."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from setup.step import ROOT, StopError, run, step

APT_SECONDS = 600
PIP_SECONDS = 900


def has_apt() -> bool:
    return shutil.which("apt-get") is not None and shutil.which("dpkg-deb") is not None


def has(program: str) -> bool:
    """Whether the program is there, also where only root's PATH leads."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin") is not None


def may_install() -> bool:
    """Whether packages can be installed here: root, with apt."""
    return has_apt() and os.geteuid() == 0


def install(*names: str) -> None:
    """Install Debian packages, without what they only recommend. Raises StopError."""
    with step(f"installing {' '.join(names)}"):
        _with_fresh_lists(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *names])


def available(name: str) -> bool:
    """Whether apt knows a package of this name."""
    return (
        "Candidate: (none)" not in (policy := run(["apt-cache", "policy", name], timeout=60)) and policy != ""
    )


def download_debs(names: Sequence[str], folder: Path) -> list[Path]:
    """The packages and all that they depend on, as if nothing were installed.

    Needs no root, only lists that are there. Raises StopError.
    """
    (folder / "partial").mkdir(parents=True)
    (folder / "status").touch()
    apart = {
        "Dir::State::status": folder / "status",
        "Dir::State::extended_states": folder / "extended_states",
        "Dir::Cache::archives": f"{folder}/",
        # The machine's own package caches describe its own status; these must neither be read nor replaced.
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Debug::NoLocking": "true",
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
    }
    options = [word for key, value in apart.items() for word in ("-o", f"{key}={value}")]
    _with_fresh_lists(["apt-get", "install", "-d", "-y", "-qq", *options, *names])
    return sorted(folder.glob("*.deb"))


def deb_version(deb: Path) -> str:
    return run(["dpkg-deb", "--field", deb, "Version"], timeout=60).strip()


def download_wheel(requirement: str, folder: Path) -> Path:
    """One wheel for this machine's architecture, without what it depends on. Raises StopError."""
    pip("download", "--no-deps", "--only-binary=:all:", "--dest", str(folder), requirement)
    name = re.split(r"[=<>]", requirement)[0].replace("-", "_")
    return next(folder.glob(f"{name}-*.whl"))


def pip(*words: str) -> str:
    """Run the virtual environment's pip. Raises StopError."""
    python = ROOT / ".venv" / "bin" / "python"
    interpreter = python if python.exists() else Path(sys.executable)
    return run(
        [interpreter, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", *words],
        timeout=PIP_SECONDS,
    )


def _with_fresh_lists(command: Sequence[str]) -> None:
    """Lists that are missing or old show as a package that cannot be found: they are renewed, once."""
    quiet = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    try:
        run(command, timeout=APT_SECONDS, env=quiet)
    except StopError:
        if os.geteuid() != 0:
            raise
        run(["apt-get", "update", "-qq"], timeout=APT_SECONDS, env=quiet)
        run(command, timeout=APT_SECONDS, env=quiet)
