"""An app as plain JSON and back: a sealed release says as much as the file that it came from."""

from __future__ import annotations

import json

from hypothesis import given

from immutable_local.app import App, Mount, Service, Volume, from_json, to_json
from tests.values import apps


@given(apps())
def test_to_json_and_from_json_are_inverses_through_real_json(app: App):
    assert from_json(json.loads(json.dumps(to_json(app)))) == app


def test_a_key_of_a_newer_version_is_left_out_and_a_missing_one_takes_its_default():
    """A release that another version of imm sealed can still be reverted to."""
    told = to_json(App("shop", (Service("web", port=8000),)))
    told["services"][0]["unheard_of"] = 1
    del told["services"][0]["replicas"]
    assert from_json(told) == App("shop", (Service("web", port=8000, replicas=1),))


def test_a_service_must_stop_first_when_any_volume_of_it_allows_one_writer():
    mounts = (Mount("many", "/a"), Mount("one", "/b"))
    web, free = Service("web", volumes=mounts), Service("free", volumes=mounts[:1])
    app = App("shop", (web, free), volumes=(Volume("many", "many"), Volume("one")))
    assert (app.one_writer(web), app.one_writer(free)) == (True, False)


def test_an_app_whose_services_all_have_images_of_their_own_builds_nothing():
    db = Service("db", image="postgres:16")
    assert not App("shop", (db,)).builds
    assert App("shop", (db, Service("web"))).builds
