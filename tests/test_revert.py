"""The way back: code and settings of then, without a build."""

from __future__ import annotations

import pytest

from tests.host import Host, Project


@pytest.fixture
def three(host: Host) -> Project:
    """Three releases: another colour, then another version."""
    app = host.project()
    host.up(app.version("1", environment={"COLOUR": "red"}))
    host.up(app.version("1", environment={"COLOUR": "blue"}))
    host.up(app.version("2"))
    return app


def test_a_changed_environment_variable_alone_is_a_release_and_revert_brings_the_old_value(
    host: Host, app: Project
):
    """The image is the same; the settings are part of the release."""
    host.up(app.version("1", environment={"COLOUR": "red"}))
    assert host.up(app.version("1", environment={"COLOUR": "blue"})).result["release"] == 2
    assert host.get("/env?COLOUR") == "blue"
    result = host.revert(app).result
    assert (result["outcome"], result["release"], result["previous"]) == ("live", 1, 2)
    assert host.get("/env?COLOUR") == "red"
    assert "to return: imm revert 2" in result["remarks"]


def test_revert_goes_further_back_each_time_and_never_forward(host: Host, three: Project):
    """Behind the first release there is nothing; a number leads anywhere."""
    assert host.revert(three).result["release"] == 2
    assert host.revert(three).result["release"] == 1
    assert (host.get("/version"), host.get("/env?COLOUR")) == ("1", "red")
    error = host.revert(three, expect=1).error
    assert error["code"] == "nothing_to_revert_to"
    assert error["hint"].startswith("can be reverted to: 3, 2;")
    assert host.revert(three, "3").result["release"] == 3
    assert (host.get("/version"), host.get("/env?COLOUR")) == ("2", "blue")
    assert [each["event"] for each in host.history(three)[-3:]] == ["reverted"] * 3


def test_revert_takes_numbers_that_are_there_and_tells_which(host: Host, three: Project):
    """An unknown number touches nothing; the live one is nothing to do; nothing is built."""
    with host.nothing_left_over():
        error = host.revert(three, "9", expect=1).error
        assert error["code"] == "unknown_release"
        assert error["hint"].startswith("can be reverted to: 2, 1;")
        unchanged = host.revert(three, "3").result
        assert (unchanged["outcome"], unchanged["release"]) == ("unchanged", 3)
    steps = {each["step"] for each in host.revert(three, "1").told if each["event"] == "step"}
    assert steps & {"build", "seal"} == set()
    assert host.get("/env?COLOUR") == "red"


def test_the_content_of_an_earlier_release_keeps_its_number(host: Host, three: Project):
    """`up` of what release 1 was makes release 1 live again."""
    with_one = host.up(three.version("1", environment={"COLOUR": "red"})).result
    assert (with_one["outcome"], with_one["release"], with_one["previous"]) == ("live", 1, 3)
    assert host.releases(three) == [1, 2, 3]
    assert host.up(three.version("3")).result["release"] == 4


def test_a_revert_to_an_app_that_was_never_there_says_so(host: Host, app: Project):
    error = host.revert(app, expect=1).error
    assert error["code"] == "nothing_to_revert_to"
    assert "imm up" in error["hint"]
