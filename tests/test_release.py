"""A release is code and settings: its identity, its seal, its number, and the way back."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immutable_local.app import App, Build, HealthCheck, Mount, Service, Volume
from immutable_local.release import (
    Pin,
    Release,
    content_of,
    declared_volumes,
    numbers,
    settings,
    spec_of,
    unmounted,
    unseal,
    way_back,
)
from tests.values import apps, record, release, seal_labels


@given(apps())
def test_a_seal_holds_all_of_a_release(app: App):
    """The number and the image's id come from the image itself."""
    pins = {"": Pin("", "sha256:1", "c1"), "db": Pin("postgres:16", "sha256:2", "c2", "postgres@sha256:3")}
    made = Release(app, pins, 7, "sha256:9")
    again = unseal(seal_labels(made), "sha256:9")
    assert again == made
    assert again.identity == made.identity


@given(st.text('\\"#a \n', max_size=40))
def test_a_seal_can_stand_on_lines_of_a_dockerfile(value: str):
    """Cut anywhere: a line that begins with # would be a comment, one of backslashes alone has no end."""
    made = Release(App("shop", (Service("web", port=8000, environment={"V": value}),)), {}, 1, "sha256:9")
    assert "#" not in made.sealed() and "\\\\" not in made.sealed()
    assert unseal(seal_labels(made), "sha256:9") == made


@pytest.mark.parametrize(
    ("service", "lost"),
    [
        (Service("db", image="postgres:16", read_only=False), ["/tmp/cache", "/var/lib/data"]),
        (Service("db", image="postgres:16", volumes=(Mount("data", "/var/lib/data/"),)), []),
        (Service("db", image="postgres:16", volumes=(Mount("data", "/var/lib"),)), ["/var/lib/data"]),
        (Service("db", image="postgres:16", volumes=(Mount("data", "/var/lib/data/x"),)), ["/var/lib/data"]),
        (Service("db", image="postgres:16", tmpfs=("/var/lib",)), []),
        (Service("db", image="postgres:16", tmpfs=("/var/lib/da",)), ["/var/lib/data"]),
    ],
    ids=["nothing", "there", "further up", "further down", "in memory", "in memory elsewhere"],
)
def test_where_an_image_declares_a_volume_and_nothing_is_mounted(service: Service, lost: list[str]):
    """A tmpfs says that it may be lost: the one at /tmp, where the root can't be written, too."""
    paths = declared_volumes({"Volumes": {"/var/lib/data/": {}, "/tmp/cache": {}}})
    made = Release(App("shop", (service,)), {"db": Pin("postgres:16", "sha256:2", "c2", volumes=paths)})
    assert unmounted(made, service) == lost
    assert declared_volumes({}) == ()


WEB = Service("web", port=8000, environment={"A": "1", "B": "2"}, volumes=(Mount("data", "/data"),))
DATA = Volume("data")


class TestIdentity:
    """The same code and settings are the same release; anything else is another."""

    def test_it_does_not_depend_on_the_order_of_entries(self):
        other = replace(WEB, environment={"B": "2", "A": "1"})
        assert release(WEB, volumes=[DATA]).identity == release(other, volumes=[DATA]).identity

    def test_it_does_not_depend_on_image_ids_references_or_numbers(self):
        one = release(WEB, volumes=[DATA])
        pins = {"": Pin("shop:latest", "sha256:elsewhere", "c1", "shop@sha256:1")}
        assert Release(one.app, pins, 9, "image-9").identity == one.identity

    def test_it_does_not_depend_on_how_the_image_was_built_or_how_many_are_kept(self):
        one = release(WEB, volumes=[DATA])
        other = replace(
            one, app=replace(one.app, build=Build("elsewhere", args={"A": "1"}), keep=99, watch=9.0)
        )
        assert other.identity == one.identity

    def test_what_is_at_its_default_is_not_part_of_it(self):
        """So a later version of imm may have more keys, and the same imm.toml is the same release."""
        assert settings(App("shop", (Service("web", port=8000),))) == {
            "name": "shop",
            "services": [{"name": "web", "port": 8000}],
        }

    @pytest.mark.parametrize(
        "change",
        [
            {"port": 8001},
            {"domains": ("shop.example.com",)},
            {"path": "/shop"},
            {"strip_path": True},
            {"command": ("run",)},
            {"environment": {"A": "1", "B": "3"}},
            {"environment": {"A": "1"}},
            {"secrets": ("TOKEN",)},
            {"volumes": ()},
            {"tmpfs": ("/run",)},
            {"replicas": 2},
            {"max_body": 1024},
            {"response_timeout": 9.0},
            {"healthcheck": HealthCheck(path="/up")},
            {"drain": 1.0},
            {"stop_grace_period": 1.0},
            {"user": "1000"},
            {"read_only": False},
            {"cap_add": ("CHOWN",)},
            {"memory": 1},
            {"cpus": 1.0},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_it_changes_with_every_setting_and_so_does_the_instance(self, change: dict):
        one, other = release(WEB, volumes=[DATA]), release(replace(WEB, **change), volumes=[DATA])
        assert other.identity != one.identity
        assert spec_of(other, other.app.services[0], {}) != spec_of(one, one.app.services[0], {})

    def test_it_changes_with_the_code_a_volumes_writers_and_a_services_own_image(self):
        one = release(WEB, volumes=[DATA])
        many = release(WEB, volumes=[Volume("data", "many")])
        assert len({one.identity, many.identity, release(WEB, volumes=[DATA], content="c2").identity}) == 3
        db = Service("db", image="postgres:16")
        assert release(db).identity != release(replace(db, image="postgres:17")).identity


class TestSpec:
    """What an instance is made from: a different one means a new instance."""

    def test_a_secrets_version_makes_another_instance_of_the_same_release(self):
        web = Service("web", secrets=("TOKEN",))
        one = release(web)
        assert spec_of(one, web, {"TOKEN": "v1"}) != spec_of(one, web, {"TOKEN": "v2"})
        assert spec_of(one, web, {"TOKEN": "v1"}) == spec_of(one, web, {"TOKEN": "v1", "OTHER": "v9"})

    def test_another_services_change_makes_no_other_instance(self):
        web, worker = Service("web"), Service("worker")
        before, after = release(web, worker), release(web, replace(worker, command=("run",)))
        assert spec_of(before, web, {}) == spec_of(after, web, {})

    def test_an_image_of_its_own_is_independent_of_the_apps_code(self):
        db = Service("db", image="postgres:16")
        assert spec_of(release(db, content="c1"), db, {}) == spec_of(release(db, content="c2"), db, {})


class TestContent:
    """What an image is, whoever built it."""

    CONFIG: ClassVar = {"Cmd": ["run"], "Env": ["A=1"], "Labels": {"maintainer": "me"}}

    def test_imms_own_labels_and_the_builders_own_fields_are_left_out(self):
        sealed = {
            **self.CONFIG,
            "Labels": {"maintainer": "me", "imm.role": "build"},
            "Image": "sha256:1",
            "Hostname": "x",
        }
        assert content_of(["l1"], sealed) == content_of(["l1"], self.CONFIG)

    def test_an_empty_field_is_a_missing_field(self):
        """Builders differ in this."""
        assert content_of(["l1"], {**self.CONFIG, "User": "", "Volumes": None}) == content_of(
            ["l1"], self.CONFIG
        )

    @pytest.mark.parametrize("change", [{"Cmd": ["walk"]}, {"User": "1"}, {"Labels": {}}, {"Env": []}])
    def test_layers_and_everything_that_decides_how_it_runs_count(self, change: dict):
        assert content_of(["l1"], {**self.CONFIG, **change}) != content_of(["l1"], self.CONFIG)
        assert content_of(["l2"], self.CONFIG) != content_of(["l1"], self.CONFIG)


@pytest.mark.parametrize(
    ("told", "path"),
    [
        ("", []),
        ("1", [1]),
        ("1 2 3", [1, 2, 3]),
        ("1 2 3 r2", [1, 2]),
        ("1 2 3 r2 r1", [1]),
        ("1 2 3 r1", [1]),
        ("1 2 r1 3", [1, 3]),
        ("1 2 3 r2 4", [1, 2, 4]),
        ("1 2 1", [2, 1]),
        ("1 2 3 r1 r3", [1, 3]),
    ],
)
def test_the_way_back_leads_further_back_and_never_forward(told: str, path: list[int]):
    """`3` is release 3 going live by up, `r3` by revert."""
    records = [
        record("reverted" if each[0] == "r" else "went_live", int(each.lstrip("r"))) for each in told.split()
    ]
    noise = [record("sealed", 9), record("failed", 8), record("down", 1), record("interrupted", 2)]
    assert way_back([each for one in records for each in (one, *noise)]) == path


def test_a_number_is_given_once_and_kept_by_its_content():
    records = [record("sealed", 1, identity="a"), record("went_live", 1), record("sealed", 2, identity="b")]
    assert numbers(records) == {"a": 1, "b": 2}
