"""A build's own arguments reach the build, and nothing else of this machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immutable_local.image import BUILDERS_OWN, build_arguments
from tests.host import Host, Project

NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,12}", fullmatch=True)


def test_a_value_stands_in_no_argument_list():
    """Every user of this machine can read that."""
    assert build_arguments({"VERSION": "1"}) == (["--build-arg", "VERSION"], {"VERSION": "1"})


@pytest.mark.parametrize("name", ["NPM_TOKEN", "BUILD_TOKEN", "GOLANG_KEY", "PYTHON_VERSION"])
def test_nor_does_one_whose_name_this_machine_knows(name: str, monkeypatch: pytest.MonkeyPatch):
    """As where a pipeline exports it; and a name that only begins as one of the builder's is no such name."""
    monkeypatch.setenv(name, "theirs")
    assert build_arguments({name: "mine"}) == (["--build-arg", name], {name: "mine"})


def test_the_value_of_imm_toml_is_built_with_and_not_what_is_exported(host: Host, app: Project):
    app.set(build={"args": {"SETTING": "mine"}})
    dockerfile = (app.folder / "Dockerfile").read_text()
    app.dockerfile(dockerfile + 'ARG SETTING\nRUN test "$SETTING" = mine\n')
    assert host.up(app, SETTING="theirs").result["outcome"] == "live"


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "HOME",
        "LD_PRELOAD",
        "DOCKER_HOST",
        "DOCKER_CONFIG",
        "BUILDKIT_HOST",
        "BASH_ENV",
        "AWS_CONFIG_FILE",
        "http_proxy",
        "GODEBUG",
        "TMPDIR",
    ],
)
def test_a_name_that_the_builder_heeds_changes_the_build_and_not_the_builder(name: str):
    """An imm.toml of somebody else's must not choose what runs on this machine, nor which engine builds."""
    assert build_arguments({name: "x"}) == (["--build-arg", f"{name}=x"], {})


@given(st.dictionaries(NAMES, st.text(max_size=5), max_size=5))
def test_every_argument_reaches_the_build_once(args: dict[str, str]):
    words, given = build_arguments(args)
    assert words[::2] == ["--build-arg"] * len(args)
    told = {word.partition("=")[0]: word for word in words[1::2]}
    assert list(told) == list(args)
    for name, value in args.items():
        assert (told[name] == f"{name}={value}") != (given.get(name) == value and told[name] == name)
        assert (name in given) != bool(BUILDERS_OWN.fullmatch(name))
