"""What a service sets about its requests, and what happens to a release that fails them: behind both kinds."""

from __future__ import annotations

import pytest

from immutable_local.wait import until
from tests.host import Project
from tests.kills import Clients, look
from tests.proxies.place import Place

pytestmark = pytest.mark.engine


@pytest.fixture(scope="session")
def watched(place: Place, first: Project, kind: str) -> Project:
    app = place.project(f"watched-{kind}")
    place.up(app.version("good", behave="hasty", max_body="10k", response_timeout="3s"))
    return app.set(release={"watch": "40s"})


def test_a_body_may_be_as_large_as_the_service_says(place: Place, watched: Project):
    assert place.ask("/upload", watched, method="POST", body=b"x" * 10_240).status == 200
    assert place.ask("/upload", watched, method="POST", body=b"x" * 10_241).status == 413


def test_an_answer_must_begin_as_soon_as_the_service_says(place: Place, watched: Project, kind: str):
    """One that has begun may take its time. Who waited for nothing is told so."""
    assert place.ask("/slow?seconds=0.2", watched).status == 200
    late = place.ask("/slow?seconds=10", watched)
    assert late.status == 504
    assert late.text.startswith("504: " if kind == "nginx" else "Gateway Timeout")
    assert place.ask("/events?count=4&interval=1.2", watched).text.count("id: ") == 4


def test_a_release_that_fails_its_requests_goes_back_to_the_one_before(place: Place, watched: Project):
    """By the proxy's own counts, in the time of a flip."""
    with place.begun(watched.version("failing"), "up", step="watch") as running:
        assert place.told("/refuse", watched)["version"] == "failing"
        until(lambda: place.ask("/version", watched).status == 200, 30.0, pause=0.01)
        error = running.ends(1).error
    assert error["code"] == "flipped_back"
    assert "5xx" in error["message"]
    assert place.version(watched) == "good"
    assert len(place.instances(watched)) == 1


def test_what_two_releases_answer_is_told_for_as_long_as_a_drain_lasts(place: Place, watched: Project):
    """Neither watched nor draining, nothing is counted: that costs each request a little."""
    place.up(watched.set(release={"watch": "0s"}).version("slow", behave="hasty", drain="30s"))
    streaming = place.connection()
    streaming.request("GET", "/events?count=6&interval=1", headers={"Host": watched.domain})
    stream = streaming.getresponse()
    with place.begun(watched.version("next"), "up", step="drain") as running, Clients(place, watched):
        told = until(lambda: place.status(watched)["traffic"], 10.0, pause=0.1)
        assert told is not None
        assert stream.read().count(b"id: ") == 6
        result = running.ends().result
    assert [each["release"] for each in told] == [result["release"], result["previous"]]
    assert told[0]["requests_per_second"] > 0
    assert not look(place, watched)["live"]["counted"]
