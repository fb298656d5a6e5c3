"""Which command says whether an instance is healthy, and how long it may take."""

from __future__ import annotations

import threading
import time
from typing import Any

import docker
import pytest

from immutable_local.app import HealthCheck, Service
from immutable_local.engine import Engine
from immutable_local.health import Command, _Asking, _run_commands
from immutable_local.instance import Instance

NANOSECONDS = 1_000_000_000


def command(check: HealthCheck, **image: Any) -> Command | None:
    """That of an instance whose image has such a HEALTHCHECK; nothing is asked of the engine yet."""
    instance = Instance("shop-web-1-green-1", "", Service("web", port=8000, healthcheck=check), "green", None)
    engine = Engine(None, "", "")
    return Command.of(engine, instance, {"Healthcheck": image} if image else {})


def test_a_command_of_imm_toml_may_take_its_timeout():
    found = command(HealthCheck(command=("check",), timeout=2.0), Test=["CMD", "other"])
    assert found is not None
    assert (found.words, found.seconds) == (["check"], 2.0)


@pytest.mark.parametrize(
    ("timeout", "says", "seconds"),
    [(5.0, None, 30.0), (5.0, 0, 30.0), (5.0, 8, 8.0), (5.0, 2, 5.0), (45.0, None, 45.0)],
)
def test_an_images_healthcheck_may_take_as_long_as_it_says_itself(
    timeout: float, says: int | None, seconds: float
):
    """Where it says nothing, as long as Docker would give it; never less than imm.toml grants."""
    image = {"Test": ["CMD", "ready"]} | ({} if says is None else {"Timeout": says * NANOSECONDS})
    found = command(HealthCheck(timeout=timeout), **image)
    assert found is not None
    assert (found.words, found.seconds) == (["ready"], seconds)


def test_an_image_without_a_healthcheck_has_no_command():
    assert command(HealthCheck()) is None
    assert command(HealthCheck(), Test=["NONE"]) is None


def test_an_engine_that_is_lost_during_a_health_command_is_left_to_whoever_waits():
    """They are told; this thread has nobody to tell, and would print a traceback."""
    client = docker.APIClient("unix:///nonexistent/docker.sock", version="1.41")
    lost = Command(Engine(client, "", ""), "shop-web-1", ["check"], seconds=1.0)
    service = Service("web", port=8000, healthcheck=HealthCheck(command=("check",)))
    asking = _Asking(Instance("shop-web-1", "", service, "green", None), deadline=time.monotonic())
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    _run_commands(lost, asking, stop)
    assert (asking.healthy, asking.seen) == (False, [])
