"""What every command depends on, broken with its copy: behind both kinds, the hint brings the app back."""

from __future__ import annotations

import pytest

from tests.conftest import SOAK
from tests.host import Project
from tests.proxies.place import Place
from tests.remote.test_broken_state import follow, refused, spoil

# What is broken with its copy; that of the live release hinders others behind Traefik alone. Both: IMM_SOAK=1.
BROKEN = {"nginx": "live/release.json", "traefik": "structure.json"}
# Which app came first to this host matters to other tests of it.
pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("first")]


@pytest.fixture
def other(place: Place, kind: str) -> Project:
    app = place.project(f"whole-{kind}")
    place.up(app.version("1"))
    return app


@pytest.mark.parametrize("name", ["structure.json", "live/release.json"])
def test_an_app_whose_state_is_broken_for_good_comes_back_as_the_hint_says(
    place: Place, other: Project, kind: str, name: str
):
    """Until then nobody takes it off, and what it answers stays as it is; the other app never notices."""
    if name != BROKEN[kind] and not SOAK:
        pytest.skip("runs with IMM_SOAK=1: make soak")
    app = place.project(f"broken-{kind}-{name[:4]}")
    place.up(app)
    before = place.running(app)
    spoil(place, f"/imm/proxy/data/apps/{app.name}/{name}*")
    error = refused(place, app, "up")
    # A proxy that loaded its routes without those of the broken one would take that off.
    hindered = name == "structure.json" or kind == "traefik"
    changed = place.up(other.version("2", domains=[f"{name[:4]}.localhost"]), expect=int(hindered))
    if hindered:
        assert (changed.error["code"], changed.error["hint"]) == ("broken_state", error["hint"])
    assert (place.version(app), place.running(app)) == ("1", before)
    follow(place, error)
    assert place.up(app).result["outcome"] == "live"
    assert place.version(app) == "1"
    assert place.up(other).result["outcome"] == ("live" if hindered else "unchanged")
    assert [each["event"] for each in place.history(app)].count("sealed") == 1
    place.up(other.version("1", domains=None))
