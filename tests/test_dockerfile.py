"""What a Dockerfile says of the images that it reads from."""

from __future__ import annotations

import pytest

from immutable_local.dockerfile import images_read

READ = {
    "FROM alpine": {"alpine"},
    "FROM scratch": set(),
    "FROM --platform=linux/amd64 alpine AS Build\nFROM build\nCOPY --from=build /a /b": {"alpine"},
    "FROM alpine\nCOPY --chown=1 --from=busybox /a /b": {"alpine", "busybox"},
    "FROM alpine AS a\nFROM scratch\nCOPY --from=0 /a /b": {"alpine"},
    "FROM alpine\nRUN --mount=type=bind,from=tools:1,target=/t --network=none make": {"alpine", "tools:1"},
    "FROM alpine\nRUN --mount=from=tools make": {"alpine", "tools"},
    "FROM alpine AS a\nRUN --mount=type=bind,from=a,target=/t make": {"alpine"},
    "FROM alpine\nRUN make --from=nothing --mount=from=nothing": {"alpine"},
    "FROM alpine\nRUN <<END\nCOPY --from=nothing /a /b\nEND": {"alpine"},
    "# FROM nothing\nFROM \\\n  # why\n  alpine": {"alpine"},
    "ARG V=1\nFROM alpine:$V": {"alpine:1"},
    "ARG V=1\nARG GIVEN=2\nFROM alpine:${V}-$GIVEN": {"alpine:1-3"},
    "FROM alpine:${V:-edge}": {"alpine:edge"},
    "FROM alpine AS a\nARG V=1\nFROM busybox:$V": None,
    "FROM alpine:$NOWHERE": None,
    "FROM": None,
    "FROM alpine\nADD https://example.org/a /b": None,
    "FROM alpine\nADD git@example.org:a.git /b": None,
}


@pytest.mark.parametrize("text", READ)
def test_the_images_that_a_build_reads_are_known_or_said_to_be_unknown(text: str):
    assert images_read(text, {"GIVEN": "3"}) == READ[text]
