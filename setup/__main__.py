"""python3 -m setup [GROUP...]: make this machine ready, and say what had to be done.

Groups: engine, venv, images, wheels (all four without arguments); sshd, for the tests of ssh:// engines; and
wrk, which loads the proxies for make bench.
python3 -m setup image NAME prints the reference of a base image: python, nginx, traefik or busybox.

Exit codes: 0 ready, 1 something failed, 2 usage, 4 no Docker engine.
"""

from __future__ import annotations

import sys
import time

if sys.version_info < (3, 11):  # noqa: UP036 - an older one must be told so, not fail at an import
    sys.exit("setup: Python 3.11 or newer is needed, for example: make setup PYTHON=python3.12")

from setup import engine, images, packages, step, venv

DEFAULT = ("engine", "venv", "images", "wheels")
GROUPS = (*DEFAULT, "sshd", "wrk")
# What a group needs: wheels are for the Python of the base image, images are on the engine.
NEEDS = {"images": ("engine", "venv"), "wheels": ("engine", "venv", "images")}


def main(words: list[str]) -> int:
    try:
        if words[:1] == ["image"] and len(words) == 2:
            print(images.ref(words[1]))
            return 0
        if words in (["-h"], ["--help"]):
            print(__doc__)
            return 0
        if unknown := [word for word in words if word not in GROUPS]:
            print(__doc__, file=sys.stderr)
            print(f"setup: unknown: {' '.join(unknown)}", file=sys.stderr)
            return 2
        begun = time.monotonic()
        with step.only_one():
            make_ready(words or list(DEFAULT))
        done = "ready" if step.TAKEN else "everything is there"
        print(f"setup: {done} ({time.monotonic() - begun:.1f} s)")
    except step.StopError as stopped:
        print(f"setup: {stopped}", file=sys.stderr)
        return stopped.code
    except KeyboardInterrupt:
        print("setup: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


def make_ready(asked: list[str]) -> None:
    wanted = {*asked, *(need for group in asked for need in NEEDS.get(group, ()))}
    for group in GROUPS:
        if group in wanted:
            MAKE[group]()


def make_wheels() -> None:
    python_version = images.ref("python").rsplit(":", 1)[1].split("-")[0]
    venv.wheels(python_version, images.architecture())


def make_sshd() -> None:
    """What the tests of ssh:// engines need; where it cannot be installed, those tests say so themselves."""
    _install({"sshd": "openssh-server", "ip": "iproute2"}, "ssh:// engines cannot be tested here")


def make_wrk() -> None:
    """What loads the proxies; without it those rows of the bench say so themselves."""
    _install({"wrk": "wrk"}, "the proxies cannot be measured here")


def _install(packages_of: dict[str, str], otherwise: str) -> None:
    """Install the packages of those programs that are missing."""
    missing = [name for program, name in packages_of.items() if not packages.has(program)]
    if not missing:
        return
    if packages.may_install():
        packages.install(*missing)
    else:
        step.warn(f"not installed, so {otherwise}: {' '.join(missing)}")


MAKE = {
    "engine": engine.ready,
    "venv": venv.ready,
    "images": images.ready,
    "wheels": make_wheels,
    "sshd": make_sshd,
    "wrk": make_wrk,
}

sys.exit(main(sys.argv[1:]))
