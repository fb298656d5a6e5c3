"""What a deployment is to do, and why: decisions as values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from immutable_local.app import HealthCheck, Mount, Service, Volume
from immutable_local.plan import decide, differences
from tests.values import observed, release, seal_labels, slots

WEB = Service("web", port=8000, domains=("shop.localhost",))
WORKER = Service("worker", command=("run",))


def told(plan) -> list[str]:
    return [str(each) for each in plan.changes]


def test_where_nothing_is_live_everything_is_created_on_the_green_side():
    plan = decide(release(WEB, WORKER), observed(None))
    assert told(plan) == ["create web: first release", "create worker: first release"]
    assert slots(plan.changes) == {"web": "green", "worker": "green"}
    assert plan.stop_first == ()


def test_what_is_live_already_is_nothing_to_do():
    one = release(WEB, WORKER)
    plan = decide(one, observed(one))
    assert told(plan) == ["keep web", "keep worker"]
    assert plan.nothing_to_do and plan.moving == () and plan.leaving == ()


def test_only_what_changed_moves_to_its_other_side():
    one, two = release(WEB, WORKER), release(WEB, replace(WORKER, environment={"Q": "1"}), number=2)
    plan = decide(two, observed(one))
    assert told(plan) == ["keep web", "replace worker: environment changed: Q"]
    assert slots(plan.changes) == {"web": "green", "worker": "blue"}
    assert [each.service for each in plan.moving] == ["worker"]
    assert plan.leaving == ("worker",)


def test_a_new_service_is_created_and_a_missing_one_removed():
    plan = decide(release(WORKER, number=2), observed(release(WEB)))
    assert told(plan) == ["create worker: new service", "remove web: no longer in imm.toml"]
    assert plan.leaving == ("web",)


def test_another_image_replaces_every_service_that_runs_it():
    db = Service("db", image="postgres:16")
    plan = decide(release(WEB, WORKER, db, content="c2", number=2), observed(release(WEB, WORKER, db)))
    assert told(plan) == ["replace web: image changed", "replace worker: image changed", "keep db"]


def test_an_instance_that_does_not_run_any_more_is_named():
    """All instances of its service are replaced, on the other side."""
    one = release(replace(WEB, replicas=2))
    plan = decide(one, observed(one, gone=["shop-web-1-green-2"]))
    assert told(plan) == ["replace web: instance gone: shop-web-1-green-2"]


def test_an_instance_that_nothing_leads_to_is_as_good_as_gone() -> None:
    """It runs, and somebody took it out of the app's network."""
    one = release(WEB)
    found = observed(one)
    cut_off = [replace(each, addresses={"bridge": "172.17.0.2"}) for each in found.containers]
    plan = decide(one, replace(found, containers=cut_off))
    names = ", ".join(each.name for each in cut_off)
    assert told(plan) == [f"replace web: instance cut off from its network: {names}"]
    assert not plan.nothing_to_do


def test_a_changed_secret_replaces_the_services_that_use_it():
    web = replace(WEB, secrets=("TOKEN",))
    one = release(web, WORKER)
    before = observed(one, secrets={"TOKEN": "v1"})
    plan = decide(one, replace(before, secrets={"TOKEN": "v2"}))
    assert told(plan) == ["replace web: secret changed: TOKEN", "keep worker"]


def test_a_setting_that_no_instance_is_made_from_makes_a_release_all_the_same():
    """A declared volume that nobody mounts: the settings are other, the instances stay."""
    one, two = release(WEB), release(WEB, volumes=[Volume("later")], number=2)
    plan = decide(two, observed(one))
    assert told(plan) == ["keep web"]
    assert not plan.nothing_to_do
    assert plan.cause == "release 1 is live"


def test_a_live_release_whose_image_somebody_removed_is_replaced():
    one = release(WEB)
    gone = replace(observed(one), sealed={})
    assert told(decide(release(WEB, content="c2", number=2), gone)) == [
        "replace web: the image of release 1 is gone"
    ]


class TestOneWriter:
    """Who shares a volume for one writer stops before its successor starts."""

    MOUNTING = replace(WEB, volumes=(Mount("data", "/data"),))

    def stop_first(self, before: list[Service], after: list[Service], *volumes: Volume, content: str = "c2"):
        one = release(*before, volumes=volumes)
        return decide(release(*after, volumes=volumes, content=content, number=2), observed(one)).stop_first

    def test_a_service_that_is_replaced_stops_first(self):
        assert self.stop_first([self.MOUNTING], [self.MOUNTING], Volume("data")) == ("web",)

    def test_with_many_writers_it_does_not(self):
        assert self.stop_first([self.MOUNTING], [self.MOUNTING], Volume("data", "many")) == ()

    def test_a_service_that_is_kept_does_not(self):
        both = [self.MOUNTING, WORKER], [self.MOUNTING, replace(WORKER, replicas=2)]
        assert self.stop_first(*both, Volume("data"), content="c1") == ()

    def test_a_first_release_stops_nobody(self):
        assert decide(release(self.MOUNTING, volumes=[Volume("data")]), observed(None)).stop_first == ()

    def test_a_volume_that_goes_from_one_service_to_another_stops_the_one_that_has_it(self):
        heir = replace(WORKER, volumes=self.MOUNTING.volumes)
        assert self.stop_first([self.MOUNTING, WORKER], [WEB, heir], Volume("data")) == ("web",)

    def test_a_volume_that_only_the_old_release_mounted_stops_nobody(self):
        assert self.stop_first([self.MOUNTING], [WEB], Volume("data")) == ()

    @pytest.mark.parametrize(("before", "after"), [("one", "many"), ("many", "one")])
    def test_either_release_may_call_for_one_writer(self, before: str, after: str):
        """Until the old one is gone, its word counts too."""
        one = release(self.MOUNTING, volumes=[Volume("data", before)])
        two = release(self.MOUNTING, volumes=[Volume("data", after)], number=2)
        assert decide(two, observed(one)).stop_first == ("web",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"replicas": 2}, ["replicas 1 → 2"]),
        ({"port": None}, ["port 8000 → none"]),
        ({"environment": {"A": "1", "B": "2"}}, ["environment changed: A, B"]),
        ({"drain": 5.0}, ["drain 30s → 5s"]),
        ({"read_only": False}, ["read_only True → False"]),
        ({"domains": ("a", "b")}, ["domains changed: shop.localhost gone, a new, b new"]),
        (
            {"domains": ("shop.localhost", *"abcdefgh")},
            ["domains changed: a new, b new, c new, d new, e new, f new and 2 more"],
        ),
        ({"healthcheck": HealthCheck(path="/up")}, ["healthcheck changed"]),
        ({"command": ("run",)}, ["command changed"]),
        ({"user": "1000", "memory": 64}, ["user none → 1000", "memory none → 64"]),
        ({}, []),
    ],
    ids=str,
)
def test_a_difference_is_told_in_words(change: dict, words: list[str]):
    assert differences(WEB, replace(WEB, **change)) == words


def test_a_value_of_the_environment_is_never_told():
    """It may be what somebody should have made a secret."""
    before, after = replace(WEB, environment={"A": "hidden"}), replace(WEB, environment={"A": "hushed"})
    assert differences(before, after) == ["environment changed: A"]


def test_what_is_live_is_known_by_its_instances_where_its_image_is_gone():
    """Else nobody would know that a volume is for one writer, and two would write to it."""
    db = Service("db", image="postgres:16", volumes=(Mount("data", "/data"),))
    before = release(db, volumes=[Volume("data", "one")])
    after = release(replace(db, environment={"N": "1"}), volumes=[Volume("data", "one")])
    found = observed(before)
    sealed = [replace(each, labels=seal_labels(before)) for each in found.containers]
    found = replace(found, sealed={}, containers=sealed)
    known = found.live_release
    assert known is not None
    assert (known.app.services, known.app.volumes, known.number) == ((db,), before.app.volumes, before.number)
    plan = decide(after, found)
    assert plan.stop_first == ("db",)
    assert plan.changes[0].cause == "environment changed: N"
    assert replace(found, containers=[]).live_release is None


def test_one_writer_is_known_where_the_image_and_another_services_instances_are_gone():
    """`docker system prune -a` takes the release's image and what has stopped; who writes runs on."""
    db = Service("db", image="postgres:16", volumes=(Mount("data", "/data"),))
    before = release(WEB, WORKER, db, volumes=[Volume("data")])
    found = observed(before, gone=["shop-web-1-green-1", "shop-worker-1-green-1"])
    sealed = [replace(each, labels=seal_labels(before)) for each in found.containers]
    changed = replace(db, environment={"N": "1"}), replace(WORKER, environment={"N": "1"})
    plan = decide(
        release(WEB, *changed, volumes=[Volume("data")]), replace(found, sealed={}, containers=sealed)
    )
    assert plan.stop_first == ("db",)
    assert sorted(told(plan)) == [
        "replace db: environment changed: N",
        "replace web: instance gone: shop-web-1-green-1",
        "replace worker: the image of release 1 is gone",
    ]
