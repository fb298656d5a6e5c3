"""A build's own arguments reach the build, and nothing else of this machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immutable_local.image import LIKE_A_SECRET, build_arguments
from tests.host import Host, Project

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}(_TOKEN|_KEY|)", fullmatch=True)


@pytest.mark.parametrize("name", ["NPM_TOKEN", "BUILD_KEY", "npm_authToken", "DB_PASSWORD", "CLIENT_SECRET"])
def test_a_value_that_is_named_like_a_secret_stands_in_no_argument_list(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    """Every user of this machine can read that. Also where a pipeline exports another under that name."""
    monkeypatch.setenv(name, "theirs")
    assert build_arguments({name: "mine"}) == (["--build-arg", name], {name: "mine"})


@pytest.mark.parametrize("name", ["SETTING", "BUILD_TOKEN"])
def test_the_value_of_imm_toml_is_built_with_and_not_what_is_exported(name: str, host: Host, app: Project):
    app.set(build={"args": {name: "mine"}})
    dockerfile = (app.folder / "Dockerfile").read_text()
    app.dockerfile(dockerfile + f'ARG {name}\nRUN test "${name}" = mine\n')
    assert host.up(app, **{name: "theirs"}).result["outcome"] == "live"


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
        "PS4",
        "PYTHONPATH",
        "CLOUDSDK_PYTHON",
        "AWS_PROFILE",
        "GCONV_PATH",
        "BROWSER",
        "SSH_ASKPASS",
        "PASSWORD_STORE_GPG_OPTS",
        "http_proxy",
        "GODEBUG",
        "VERSION",
    ],
)
def test_no_other_name_reaches_the_environment_of_a_program(name: str):
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
        assert (name in given) == bool(LIKE_A_SECRET.fullmatch(name))
