"""The virtual environment, as requirements.lock says, and the wheels of the sample app's image."""

from __future__ import annotations

import compileall
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

from setup import packages
from setup.layer import EPOCH
from setup.step import ROOT, StopError, run, step, whole_file

VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
SAMPLE_LOCK = ROOT / "sample_app" / "requirements.lock"
WHEELS = ROOT / "sample_app" / "wheels"
PACKAGES_STAMP = "imm-setup.packages"
ITSELF_STAMP = "imm-setup.itself"
WHEELS_STAMP = ".imm-setup"

# What the images' C library understands; pip takes the newest that a package offers.
PLATFORMS = [f"manylinux_2_{minor}" for minor in (36, 35, 34, 31, 28, 27, 26, 24, 17, 12, 5)]
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def ready() -> None:
    """Make `.venv` as the lock says. When its stamps fit, nothing is done. Raises StopError."""
    # From nothing each time: pip leaves what a newer lock no longer names, and its scripts name this folder.
    wanted = _digest(LOCK.read_bytes(), str(sys.version_info).encode(), str(ROOT).encode())
    if _stamped(VENV / PACKAGES_STAMP) != wanted or not (VENV / "bin" / "python").exists():
        _make()
        with step("installing the packages of requirements.lock"):
            packages.pip("install", "--requirement", str(LOCK))
        _stamp(VENV / PACKAGES_STAMP, wanted)
    itself = _digest((ROOT / "pyproject.toml").read_bytes())
    if _stamped(VENV / ITSELF_STAMP) != itself:
        with step("installing immutable_local, editable"):
            packages.pip("install", "--no-build-isolation", "--no-deps", "--editable", str(ROOT))
        _stamp(VENV / ITSELF_STAMP, itself)
    # Where Python is told not to write what it compiles, each command would compile imm anew: 0.1 s.
    compileall.compile_dir(ROOT / "immutable_local", quiet=1)


def wheels(python_version: str, architecture: str) -> None:
    """Download what the sample app needs, for the base image's Python. Raises StopError.

    `python_version` is major and minor, `architecture` is Docker's word for it.
    """
    if not SAMPLE_LOCK.exists():
        return
    wanted = _digest(SAMPLE_LOCK.read_bytes(), python_version.encode(), architecture.encode())
    if _stamped(WHEELS / WHEELS_STAMP) == wanted:
        return
    machine = MACHINES.get(architecture)
    if machine is None:
        raise StopError(f"no wheels are known for the engine's architecture, {architecture}")
    with step("downloading the sample app's wheels"):
        fresh = Path(tempfile.mkdtemp(dir=WHEELS.parent, prefix=".wheels-"))
        try:
            platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_{machine}")]
            packages.pip(
                *("download", "--dest", str(fresh), "--requirement", str(SAMPLE_LOCK)),
                *("--only-binary=:all:", "--implementation", "cp", "--python-version", python_version),
                *platforms,
            )
            _stamp(fresh / WHEELS_STAMP, wanted)
            for path in (*fresh.iterdir(), fresh):
                # COPY keeps dates and modes, and an image id must not tell when the download was.
                path.chmod(0o755 if path.is_dir() else 0o644)
                os.utime(path, (EPOCH, EPOCH))
            shutil.rmtree(WHEELS, ignore_errors=True)
            fresh.rename(WHEELS)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _make() -> None:
    if importlib.util.find_spec("ensurepip") is None:
        if not packages.may_install():
            raise StopError("this Python has no venv: 'sudo apt-get install python3-venv', then try again")
        packages.install("python3-venv")
    with step("making the virtual environment .venv"):
        shutil.rmtree(VENV, ignore_errors=True)
        python = Path(sys.executable)
        if not python.exists():
            # .venv is activated, and was this program's own.
            python = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
        run([python, "-m", "venv", VENV], timeout=120)


def _stamped(stamp: Path) -> str:
    try:
        return stamp.read_text()
    except FileNotFoundError:
        return ""


def _stamp(stamp: Path, digest: str) -> None:
    with whole_file(stamp) as unfinished:
        unfinished.write_text(digest)


def _digest(*parts: bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()
