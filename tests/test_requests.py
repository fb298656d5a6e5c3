"""How often a command asks the engine: a count, which doesn't depend on how busy the machine is.

Each request costs a round trip, and the engine may be far away. Whoever needs one more raises the number here,
knowing it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bench.speed.relay import Relay, counting
from immutable_local.engine import connect
from tests.host import Host, Project


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[tuple[Relay, Mapping[str, str]]]:
    """What stands between imm and the engine, and the environment that leads through it."""
    local = connect().local
    if not local.startswith("unix://"):
        pytest.skip(f"requests to {local} can't be counted: it is no unix socket")
    with counting(tmp_path / "relay.sock", Path(local.removeprefix("unix://"))) as between:
        yield between, {"DOCKER_HOST": f"unix://{tmp_path / 'relay.sock'}"}


def test_a_command_asks_the_engine_and_the_sidecar_no_more_often_than_it_must(
    host: Host, app: Project, relay: tuple[Relay, Mapping[str, str]]
):
    """For an app of one service and one instance: a look, a deployment with nothing to do, a whole one."""
    between, way = relay
    host.up(app)
    counted = {}
    for name, words in {"status": ["status"], "unchanged": ["up"], "changed": ["up"]}.items():
        if name == "changed":
            app.version("2")
        between.noted.clear()
        host.imm(app, *words, **way)
        counted[name] = (settled(between.of_kind("request")), settled(between.of_kind("sidecar")))
    most = {"status": (6, 2), "unchanged": (7, 8), "changed": (20, 38)}
    for name, (requests, asked) in counted.items():
        assert len(requests) <= most[name][0], (name, requests)
        assert len(asked) <= most[name][1], (name, asked)


def settled(noted: list[str]) -> list[str]:
    """Without the looks at whether an app is up: how many there are depends on how long it takes."""
    return [each for each in noted if each != "check_poll" and "%22id%22" not in each]
