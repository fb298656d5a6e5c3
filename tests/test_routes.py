"""Which address serves which domain and path, as values."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immutable_local.app import Service
from immutable_local.routes import SLOTS, Conflict, Side, Slot, Structure, conflict, other
from tests.values import NAMES, PATHS

ADDRESSES = st.lists(st.ip_addresses(v=4).map(str), min_size=1, max_size=3).map(tuple)
SIDES = st.builds(
    Side,
    port=st.integers(1, 65535),
    addresses=ADDRESSES,
    domains=st.lists(NAMES, min_size=1, max_size=3).map(tuple),
    path=PATHS | st.just("/"),
    strip_path=st.booleans(),
)
STRUCTURES = st.builds(
    Structure,
    app=NAMES,
    arrived=st.integers(1, 99),
    sides=st.dictionaries(NAMES, st.dictionaries(st.sampled_from(SLOTS), SIDES, min_size=1), max_size=3),
    addresses=st.dictionaries(
        NAMES, st.dictionaries(st.sampled_from(SLOTS), ADDRESSES, min_size=2), max_size=3
    ),
)


@given(STRUCTURES)
def test_a_structure_survives_being_written_and_read(structure: Structure):
    assert Structure.from_json(json.loads(json.dumps(structure.to_json()))) == structure


def test_a_side_has_as_many_addresses_as_there_are_replicas():
    web = Service("web", port=8000, domains=("a.localhost",), replicas=2)
    assert Side.of(web, ["10.0.0.3", "10.0.0.4", "10.0.0.5"]).addresses == ("10.0.0.3", "10.0.0.4")


def test_each_slot_is_the_other_ones_other():
    assert [other(slot) for slot in SLOTS] == ["green", "blue"]


def test_what_is_settled_serves_from_both_sides_what_is_live_and_nothing_else():
    """Whatever a command that was killed had given to the idle side, or to a service that never went live."""
    web = Service("web", port=8000, domains=("a.localhost",))
    addresses = {"blue": ("10.0.0.3",), "green": ("10.0.0.4",)}
    live = Side.of(web, addresses["green"])
    new = Side.of(Service("web", port=9000, domains=("a.localhost", "b.localhost")), addresses["blue"])
    extra = Side.of(Service("api", port=8000, domains=("c.localhost",)), ("10.0.0.5",))
    before = Structure(
        "shop",
        1,
        {"web": {"green": live, "blue": new}, "api": {"blue": extra}},
        {"web": addresses, "api": {"blue": ("10.0.0.5",), "green": ("10.0.0.6",)}},
    )
    after = before.settled((web, Service("worker")), {"web": "green", "worker": "blue"})
    assert after.sides == {"web": {"green": live, "blue": Side.of(web, addresses["blue"])}}
    assert after.addresses == {"web": addresses}
    assert after.settled((web,), {"web": "green"}) == after


def test_what_is_settled_has_an_address_for_each_replica_and_no_more():
    """What replicas of before had is free for others."""
    addresses = {"blue": ("10.0.0.3", "10.0.0.5"), "green": ("10.0.0.4", "10.0.0.6")}
    web = Service("web", port=8000, domains=("a.localhost",))
    before = Structure("shop", 1, {"web": {"green": Side.of(web, addresses["green"])}}, {"web": addresses})
    after = before.settled((web,), {"web": "green"})
    assert after.addresses == {"web": {"blue": ("10.0.0.3",), "green": ("10.0.0.4",)}}
    assert after.sides["web"]["green"] == before.sides["web"]["green"]


class TestWhoGetsWhatWaits:
    """`web` was live on green; something else is live now."""

    WAS = Side(8000, ("10.0.0.3",), ("a.example", "b.example"), "/", False)
    NEXT = replace(WAS, addresses=("10.0.0.9",))

    def of(self, now: dict[str, Side | None]) -> Side | None:
        """All that is live now is on blue."""
        sides: dict[str, dict[Slot, Side]] = {"web": {"green": self.WAS}}
        for service, each in now.items():
            if each is not None:
                sides.setdefault(service, {})["blue"] = each
        structure = Structure("shop", 1, sides, {})
        return structure.successor("web", "green", dict.fromkeys(now, "blue"))

    def test_its_own_new_instances(self):
        assert self.of({"web": self.NEXT}) == self.NEXT

    def test_its_own_also_where_its_domain_is_another_now(self):
        moved = replace(self.NEXT, domains=("c.example",))
        assert self.of({"web": moved}) == moved

    def test_who_has_its_domain_by_now(self):
        """It was renamed; or its domain went to another service, and it has another one itself."""
        assert self.of({"site": self.NEXT}) == self.NEXT
        assert self.of({"web": replace(self.NEXT, domains=("c.example",)), "site": self.NEXT}) == self.NEXT
        one_of_two = replace(self.NEXT, domains=("b.example",))
        assert self.of({"site": one_of_two}) == one_of_two

    def test_nobody_where_nobody_serves_it_or_nobody_knows_who(self):
        """It is gone, takes no traffic any more, has another path; or its two domains are two services' now."""
        assert self.of({}) is None
        assert self.of({"web": None}) is None
        assert self.of({"site": replace(self.NEXT, path="/site")}) is None
        halves = [replace(self.NEXT, domains=(each,)) for each in self.WAS.domains]
        assert self.of({"one": halves[0], "two": halves[1]}) is None

    def test_the_old_ones_where_they_are_live_again(self):
        """A release that failed had given the domain to another service."""
        structure = Structure("shop", 1, {"web": {"green": self.WAS}, "site": {"green": self.NEXT}}, {})
        assert structure.successor("web", "green", {"web": "green"}) == self.WAS

    def test_who_has_its_domain_also_where_nobody_knows_its_slot(self):
        """The command that replaced it was killed."""
        structure = Structure("shop", 1, {"web": {"green": self.WAS}, "site": {"blue": self.NEXT}}, {})
        assert structure.successor("web", None, {"site": "blue"}) == self.NEXT


def side(*domains: str, path: str = "/") -> Side:
    return Side(8000, ("10.0.0.3",), domains, path, False)


def structure(app: str, *sides: Side) -> Structure:
    return Structure(app, 1, {f"s{n}": {"green": each} for n, each in enumerate(sides)}, {})


@pytest.mark.parametrize(
    ("mine", "theirs", "taken"),
    [
        (side("a.example"), side("a.example"), ("s0", "a.example", "/", "theirs")),
        (side("a.example", "b.example"), side("b.example"), ("s0", "b.example", "/", "theirs")),
        (side("a.example"), side("b.example"), None),
        (side("a.example", path="/api"), side("a.example"), None),
        (
            side("a.example", path="/api"),
            side("a.example", path="/api"),
            ("s0", "a.example", "/api", "theirs"),
        ),
    ],
    ids=["same", "one of two", "other domain", "other path", "same path"],
)
def test_a_domain_and_path_belong_to_one_app(mine: Side, theirs: Side, taken: tuple | None):
    others = [structure("mine", mine), structure("theirs", theirs)]
    assert conflict(structure("mine", mine), others) == (Conflict(*taken) if taken else None)


def test_a_conflict_names_the_service_that_claims():
    mine = structure("mine", side("a.example"), side("b.example"))
    found = conflict(mine, [structure("theirs", side("b.example"))])
    assert found == Conflict("s1", "b.example", "/", "theirs")


def test_what_only_the_idle_side_would_serve_is_taken_as_well():
    """It was promised to the release that is on its way."""
    both = Structure("theirs", 1, {"web": {"blue": side("old.example"), "green": side("new.example")}}, {})
    found = conflict(structure("mine", side("old.example")), [both])
    assert found == Conflict("s0", "old.example", "/", "theirs")


def test_a_service_whose_last_side_went_is_gone_and_its_addresses_stay():
    """They are given to the next one that is asked for under that name."""
    begun = Structure("shop", 1, {"web": {"green": side("a.example")}}, {"web": {"green": ("10.0.0.3",)}})
    gone = begun.with_side("web", "green", None)
    assert (gone.sides, gone.addresses) == ({}, begun.addresses)
    assert begun.without("web") == Structure("shop", 1, {}, {})


def test_routes_that_an_older_imm_wrote_are_read_with_the_defaults_of_today():
    """All apps of a host are looked at: one that was deployed long ago must not stop the others."""
    written = structure("shop", side("a.example")).to_json()
    for of_service in written["sides"].values():
        for each in of_service.values():
            del each["max_body"], each["response_timeout"]
    assert Structure.from_json(written) == structure("shop", side("a.example"))
