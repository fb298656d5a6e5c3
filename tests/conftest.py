"""The fixtures: `host` for one test, `shared` for the tests of one file that only look.

What only `make soak` takes is marked `soak`, or asked of `SOAK`; the Makefile names the files.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings

# What it asserts is told like a test's own.
pytest.register_assert_rewrite("tests.host", "tests.kills")

from tests.host import ROOT, Host, Project  # noqa: E402
from tests.lanes import APART, Lanes, drives_the_engine  # noqa: E402

# A shell that starts the tests in the background ignores Ctrl-C for all that they start, and some wait for it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples each time, and no deadline: a busy machine is no defect.
settings.register_profile("imm", max_examples=60, deadline=None, derandomize=True)
settings.load_profile("imm")

SOAK = os.environ.get("IMM_SOAK") == "1"
soak = pytest.mark.skipif(not SOAK, reason="runs with IMM_SOAK=1: make soak")


@pytest.fixture
def hangups_are_heeded() -> Iterator[None]:
    """What is started meanwhile heeds SIGHUP, though nohup may have started these tests."""
    # A handler of this process is none of those that it starts: they begin with the signal's default.
    before = signal.signal(signal.SIGHUP, lambda *_: None)
    yield
    signal.signal(signal.SIGHUP, before)


@dataclass(frozen=True)
class Machine:
    """What all tests share: the image that the apps start from, and where the proxy listens."""

    base: str
    proxy: tuple[str, int]


@pytest.fixture(scope="session")
def machine() -> Machine:
    """The proxy runs from the begin to the end, so that what a test leaves over can be told from it."""
    base = _printed("setup", "image", "python").strip()
    proxy = json.loads(_printed("immutable_local", "proxy", "up", "--json"))
    return Machine(base, (proxy["bind"], proxy["port"]))


@pytest.fixture
def host(machine: Machine, tmp_path, leaving: Host) -> Iterator[Host]:
    """What a test deploys stays until the end of its file: other tests look past it."""
    opened = Host(tmp_path, machine.base, machine.proxy)
    yield opened
    leaving.projects += opened.projects
    opened.engine.close()


@pytest.fixture(scope="module")
def leaving(machine: Machine, tmp_path_factory) -> Iterator[Host]:
    """The apps of all tests of a file: taken off several at once, it takes half as long."""
    last = Host(tmp_path_factory.mktemp("leaving"), machine.base, machine.proxy)
    yield last
    last.close()


@pytest.fixture(scope="module")
def shared(machine: Machine, tmp_path_factory) -> Iterator[Host]:
    """One host for a whole file: its apps stay until the last test has looked at them."""
    opened = Host(tmp_path_factory.mktemp("shared"), machine.base, machine.proxy)
    yield opened
    opened.close()


@pytest.fixture
def app(host: Host) -> Project:
    return host.project()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "machine" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.engine)
            file = item.path.relative_to(ROOT).as_posix()
            if not file.startswith(APART) and not drives_the_engine(file):
                raise pytest.UsageError(f"{file} drives the engine: tests/lanes.py doesn't see that")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return Lanes(config, log)


def _printed(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
