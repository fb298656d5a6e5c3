"""What Traefik is given: which router wins, and that no two services share a name."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import assume, given

from immutable_local.proxy.traefik import _of_app
from immutable_local.routes import SLOTS, Side, Structure
from tests.test_nginx import PREFIXES


def written(sides: dict[str, Side], app: str = "shop", counted: bool = False) -> dict[str, Any]:
    """The routers, services and middlewares of an app that is live, and answers for the host itself too."""
    structure = Structure(app, 1, {name: dict.fromkeys(SLOTS, side) for name, side in sides.items()}, {})
    slots = dict.fromkeys(sides, SLOTS[0])
    return dict(json.loads(_of_app(structure, slots, {}, default_site=True, counted=counted))["http"])


def side(path: str = "/", domain: str = "shop.localhost", **more: Any) -> Side:
    return Side(8000, ("10.201.1.3",), (domain,), path, False, **more)


@given(PREFIXES, PREFIXES)
def test_the_longest_path_wins_before_the_bound_of_a_shorter_ones_bodies(above: str, beneath: str):
    """What is too large for one service may be what another one, beneath it, is there for."""
    above, beneath = above.rstrip("/"), beneath.rstrip("/")
    assume(beneath)
    told = written({"web": side(above or "/"), "api": side(above + beneath)})["routers"].items()
    for rule in ("Host(`shop.localhost`)", "HostRegexp"):
        alike = {name: each["priority"] for name, each in told if rule in each["rule"]}
        web, api = ([each for name, each in alike.items() if service in name] for service in ("web", "api"))
        assert len(web) == len(api) == 3
        assert max(web) < min(api)
        # Its refusal before itself.
        for service in ("web", "api"):
            mine = [(each, "large" in name) for name, each in alike.items() if service in name]
            assert [large for _, large in sorted(mine)] == [False, False, True]
            assert len({each for each, _ in mine}) == 2
