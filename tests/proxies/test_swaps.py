"""No request is lost when a container is replaced, behind either proxy: `python -m bench.swap`, in short."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.swap.references import reloaded, stopped_then_started
from bench.swap.swaps import Mix, app_on, swaps_under_load
from tests.conftest import SOAK
from tests.host import Project
from tests.proxies.place import Place, image, lost

pytestmark = pytest.mark.engine

SWAPS = 3
# What lasts is over sooner: each swap waits for it.
MIX = Mix(
    settings={
        "slow": 0.5,
        "stream_events": 5,
        "stream_interval": 0.1,
        "upload_pieces": 5,
        "upload_interval": 0.1,
        "socket_life": 0.8,
    },
)


@pytest.fixture(scope="session")
def app(place: Place, kind: str) -> Iterator[Project]:
    made = app_on(place, f"bench-{kind}")
    yield made
    place.imm(made, "down")


def test_swaps_lose_nothing_under_a_mixed_load(place: Place, kind: str, app: Project):
    """Each time another container answers, and every client of every shape has its whole answer."""
    run = swaps_under_load(place, kind, app, swaps=SWAPS, requests=0, mix=MIX)
    assert lost(run.report) == []
    assert all(shape.sent > SWAPS for shape in run.report.shapes)
    assert len(run.report.served) == len(run.first_answers) + 1 == SWAPS + 1


def test_ways_that_lose_requests_are_seen_to_lose_them(place: Place, kind: str, app: Project):
    """By the same clients: else it would prove nothing that they lost none. Of one way: IMM_SOAK=1 takes both."""
    if kind == "nginx" and not SOAK:
        pytest.skip("runs with IMM_SOAK=1: make soak")
    if kind == "nginx":
        run = reloaded(place, app, image("nginx"), flips=2, mix=MIX)
        assert {"closed", "reset"} & {each.cause for each in run.report.losses}
    else:
        run = stopped_then_started(place, app, flips=1, mix=MIX)
        assert {each.shape for each in run.report.losses} > {"busy", "idle", "distant", "slow", "websockets"}
    assert run.as_it_must_be
