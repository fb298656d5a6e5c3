"""A build's own arguments reach the build, and nothing else of this machine."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immutable_local.image import build_arguments

NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,12}", fullmatch=True)


def test_a_value_stands_in_no_argument_list():
    """Every user of this machine can read that."""
    assert build_arguments({"VERSION": "1"}) == (["--build-arg", "VERSION"], {"VERSION": "1"})


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "HOME",
        "LD_PRELOAD",
        "DOCKER_HOST",
        "DOCKER_CONFIG",
        "BUILDKIT_HOST",
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
        assert name not in given or name not in os.environ
