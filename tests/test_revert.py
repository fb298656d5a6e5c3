"""The way back: code and settings of then, without a build."""

from __future__ import annotations

import io

import pytest

from tests.host import Host, Project


@pytest.fixture(scope="module")
def three(shared: Host) -> Project:
    """Three releases: another colour, then another version. Each test ends with the third one live."""
    app = shared.project()
    shared.up(app.version("1", environment={"COLOUR": "red"}))
    shared.up(app.version("1", environment={"COLOUR": "blue"}))
    shared.up(app.version("2"))
    return app


def test_a_changed_environment_variable_alone_is_a_release(shared: Host, three: Project):
    """The image is the same; the settings are part of the release."""
    sealed = [each["release"] for each in shared.history(three) if each["event"] == "sealed"]
    assert sealed == [1, 2, 3]
    images = [shared.engine.inspect_image(f"imm.local/app/{three.name}:{number}") for number in sealed]
    layers = [each["RootFS"]["Layers"] for each in images]
    assert layers[0] == layers[1] != layers[2]


def test_revert_goes_further_back_each_time_and_never_forward(shared: Host, three: Project):
    """Settings come back with the code; behind the first release is nothing; a number leads anywhere."""
    result = shared.revert(three).result
    assert (result["outcome"], result["release"], result["previous"]) == ("live", 2, 3)
    assert "to return: imm revert 3" in result["remarks"]
    assert (shared.get("/version"), shared.get("/env?COLOUR")) == ("1", "blue")
    assert shared.revert(three).result["release"] == 1
    assert (shared.get("/version"), shared.get("/env?COLOUR")) == ("1", "red")
    error = shared.revert(three, expect=1).error
    assert error["code"] == "nothing_to_revert_to"
    assert error["hint"].startswith("can be reverted to: 3, 2;")
    assert shared.revert(three, "3").result["release"] == 3
    assert (shared.get("/version"), shared.get("/env?COLOUR")) == ("2", "blue")
    assert [each["event"] for each in shared.history(three)[-3:]] == ["reverted"] * 3


def test_revert_takes_numbers_that_are_there_and_tells_which(shared: Host, three: Project):
    """An unknown number touches nothing, and the live one is nothing to do."""
    with shared.nothing_left_over():
        error = shared.revert(three, "9", expect=1).error
        assert error["code"] == "unknown_release"
        assert error["hint"].startswith("can be reverted to: 2, 1;")
        unchanged = shared.revert(three, "3").result
    assert (unchanged["outcome"], unchanged["release"]) == ("unchanged", 3)


def test_the_content_of_an_earlier_release_keeps_its_number(shared: Host, three: Project):
    """`up` of what release 1 was makes release 1 live again; and revert builds nothing."""
    first = shared.up(three.version("1", environment={"COLOUR": "red"})).result
    assert (first["outcome"], first["release"], first["previous"]) == ("live", 1, 3)
    assert shared.releases(three) == [1, 2, 3]
    assert shared.revert(three, "3").states("build", "seal", "test") == ["skipped"] * 3


def test_a_revert_to_an_app_that_was_never_there_says_so(host: Host, app: Project):
    error = host.revert(app, expect=1).error
    assert error["code"] == "nothing_to_revert_to"
    assert "imm up" in error["hint"]


def test_a_revert_to_a_domain_that_is_another_apps_by_now_stops_nothing(host: Host):
    """Its one writer goes on as if nothing had been, and nothing was."""
    app = host.project().set(volumes={"data": {"writers": "one"}})
    was = f"was-{app.domain}"
    host.up(app.version("1", domains=[was], volumes=["data:/data"]))
    host.up(app.version("2", domains=[app.domain]))
    other = host.project()
    host.up(other.version("1", domains=[was]))
    with host.nothing_left_over():
        outcome = host.revert(app, "1", expect=2)
    assert outcome.error["code"] == "domain_taken"
    assert f"release 1 of {app.name} is for {was}/, which the app {other.name}" in outcome.error["message"]
    assert "imm.toml" not in outcome.error["message"]
    assert {each["step"] for each in outcome.told if each["event"] == "step"} == {"lock", "sweep"}


def test_a_revert_whose_image_is_gone_says_so_before_anything_stops(host: Host):
    """`docker image prune -a` takes what only a release that isn't live names: nothing of imm's is in it."""
    app = host.project()
    app.settings["services"] = {}
    db = {"command": ["python3", "-c", "import signal; signal.pause()"], "stop_grace_period": "0s"}
    for number in (1, 2):
        image = f"{app.name}-db:{number}"
        dockerfile = f"FROM {host.base}\nENV N={number}\nLABEL imm.app={app.name}\n"
        list(host.engine.build(fileobj=io.BytesIO(dockerfile.encode()), tag=image, rm=True))
        host.up(app.service("db", image=image, volumes=["data:/data"], **db))
    host.engine.remove_image(f"{app.name}-db:1")
    with host.nothing_left_over():
        outcome = host.revert(app, expect=1)
    assert outcome.error["code"] == "no_image"
    assert f"{app.name}-db:1, as db of release 1 ran it" in outcome.error["message"]
    assert outcome.error["still"] == "release 2 is still live"
    assert {each["step"] for each in outcome.told if each["event"] == "step"} == {"lock", "sweep"}
