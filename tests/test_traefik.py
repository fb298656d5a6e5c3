"""What Traefik is given: which router wins, and that no two services share a name."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import assume, example, given

from immutable_local.proxy.traefik import _of_app
from immutable_local.routes import SLOTS, Side, Structure
from tests.test_nginx import APPS, PREFIXES, SERVICES


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
        assert len(web) == len(api) == 4
        assert max(web) < min(api)
        # The refusal of what is too large before all, and what becomes no websocket before what is as it came.
        for service in ("web", "api"):
            mine = [(each, name.rpartition("_")[2]) for name, each in alike.items() if service in name]
            assert [name for _, name in sorted(mine)][2:] == ["stays", "large"]
            assert len({each for each, _ in mine}) == 3


def test_one_service_answers_at_each_path_for_those_who_name_no_site():
    """Of two routers with one rule and one priority Traefik takes either, and another one after the next flip."""
    sides = {"web": side(), "admin": side(domain="admin.localhost"), "api": side("/api")}
    told = written(sides)["routers"]
    default = {name for name in told if name.endswith("_default")}
    assert default == {"shop_admin_default", "shop_api_default"}
    rules = [(each["rule"], each["priority"], tuple(each["entryPoints"])) for each in told.values()]
    assert len(set(rules)) == len(rules)


@given(APPS, SERVICES, APPS, SERVICES)
@example("a", "b--c", "a--b", "c")
@example("a", "web", "a", "web--proof")
@example("a", "web", "a", "web--blue")
@example("a", "web", "a", "web-strip")
def test_no_two_services_share_a_name(app: str, service: str, other_app: str, other: str):
    """Else one of them would answer for both, or neither."""
    assume((app, service) != (other_app, other))

    def names(app: str, service: str) -> list[tuple[str, str]]:
        told = written({service: Side(8000, ("10.201.1.3",), ("a.localhost",), "/a", True)}, app)
        return [(kind, name) for kind, of_kind in told.items() for name in of_kind if "-mark-" not in name]

    one, two = names(app, service), names(other_app, other)
    assert len(one) == 8 + 1 + 2 + 1
    assert not set(one) & set(two)


def test_imms_own_proof_of_a_flip_is_not_counted():
    """What clients were answered is compared, and a release that is proved often has no more clients."""
    routers = written({"web": side()}, counted=True)["routers"]
    counted = {
        name: each["observability"]["metrics"] for name, each in routers.items() if "large" not in name
    }
    assert counted == {
        name: "proof" not in each["entryPoints"] for name, each in routers.items() if name in counted
    }
    assert set(counted.values()) == {True, False}
