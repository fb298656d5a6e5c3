"""Labels are inherited: what somebody makes of an image that has imm's is theirs, and is left alone."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from immutable_local.listed import by_role, container_of
from tests.host import Host, Project


def told(name: str, role: str, *volumes: str) -> dict[str, object]:
    """A container as the engine lists it."""
    mounts = [{"Type": "volume", "Name": each} for each in volumes] + [{"Type": "bind", "Source": "/"}]
    return {"Id": f"{name}-{role}", "Names": [f"/{name}"], "Labels": {"imm.role": role}, "Mounts": mounts}


def test_what_inherited_a_role_is_neither_the_proxy_nor_its_sidecar():
    """It has another name, or not what imm's own mounts."""
    strangers = [
        told("somebody", "sidecar"),
        told("somebody-else", "sidecar", "imm-state", "imm-proxy"),
        told("imm-sidecar", "sidecar"),
        told("imm-sidecar", "proxy", "imm-proxy"),
        told("somebody", "proxy"),
        told("imm-proxy", "proxy", "theirs"),
        told("imm-proxy-next", "proxy"),
        told("imm-proxy", "task", "imm-proxy"),
    ]
    assert by_role([container_of(each) for each in strangers]) == {}
    own = {
        "sidecar": told("imm-sidecar", "sidecar", "imm-state", "imm-proxy"),
        "proxy": told("imm-proxy", "proxy", "imm-proxy"),
        "next": told("imm-proxy-next", "proxy", "imm-proxy"),
    }
    expected = {role: container_of(each) for role, each in own.items()}
    assert by_role([container_of(each) for each in (*strangers, *own.values())]) == expected
    assert by_role([container_of(each) for each in (*own.values(), *strangers)]) == expected


@contextmanager
def image_of(host: Host, name: str, base: str, labels: Mapping[str, str]) -> Iterator[str]:
    """An image that somebody built with these labels."""
    lines = [f"FROM {base}", *(f"LABEL {key}={json.dumps(value)}" for key, value in labels.items())]
    list(host.engine.build(fileobj=io.BytesIO("\n".join(lines).encode()), tag=name, rm=True))
    try:
        yield name
    finally:
        host.engine.remove_image(name, force=True)


@contextmanager
def running(host: Host, image: str, start: bool = True) -> Iterator[str]:
    """Somebody's container of that image, on Docker's own network."""
    made = host.engine.create_container(image, ["sleep", "600"])["Id"]
    try:
        if start:
            host.engine.start(made)
        yield made
    finally:
        host.engine.remove_container(made, force=True)


def networks(host: Host, container: str) -> set[str]:
    return set(host.inspect(container)["NetworkSettings"]["Networks"])


@pytest.mark.parametrize("made", ["labelled", "committed"])
def test_nobody_but_the_sidecar_is_asked_and_told(host: Host, app: Project, made: str):
    """Neither what has its label, nor a copy of it; also where imm's own session comes after the SDK."""
    host.up(app)
    name = f"{app.name}-stranger"
    if made == "committed":
        host.engine.commit("imm-sidecar", repository=name)
    with (
        image_of(host, name, name if made == "committed" else host.base, {"imm.role": "sidecar"}) as image,
        running(host, image),
    ):
        assert host.status(app)["live"]["release"] == 1
        (host.folder / "config.json").write_text('{"HttpHeaders": {"X-Left-To": "the SDK"}}')
        by_sdk = host.imm(app, "status", DOCKER_CONFIG=str(host.folder))
        assert by_sdk.result["live"]["release"] == 1
        host.imm(app, "secret", "set", "TOKEN", told="kept")
        assert host.up(app.version("2")).result["release"] == 2
    assert [each["name"] for each in host.imm(app, "secret", "list").result] == ["TOKEN"]


def test_nobody_but_the_proxy_is_put_into_an_app_s_network_or_taken_out(host: Host, app: Project):
    """With a stranger that has the proxy's label apps go up and down, and it stays where it is."""
    with (
        image_of(host, f"{app.name}-stranger", host.base, {"imm.role": "proxy"}) as image,
        running(host, image) as stranger,
    ):
        before = networks(host, stranger)
        host.up(app)
        assert host.up(app.version("2")).result["release"] == 2
        assert host.get("/version") == "2"
        assert networks(host, stranger) == before
        assert host.imm(app, "proxy", "status").result["state"] == "running"
        host.engine.connect_container_to_network(stranger, f"imm-app-{app.name}")
        host.imm(app, "down")
        assert networks(host, stranger) == {*before, f"imm-app-{app.name}"}


def test_only_the_containers_of_a_moment_that_imm_made_are_swept(host: Host, app: Project):
    """Not those of an image that has the label itself, whether they run or never started."""
    host.up(app)
    labels = {"imm.role": "task", "imm.app": app.name}
    left = host.engine.create_container(host.base, ["true"], labels=labels)["Id"]
    with (
        image_of(host, f"{app.name}-stranger", host.base, labels) as image,
        running(host, image) as one,
        running(host, image, start=False) as other,
    ):
        host.up(app.version("2"))
        host.imm(app, "prune")
        host.imm(app, "down")
        assert {each["Id"] for each in host.instances(app)} == {one, other}
    assert left not in {each["Id"] for each in host.engine.containers(all=True)}


def test_only_what_the_builder_was_at_for_imm_is_swept(host: Host, app: Project):
    """An engine that dies while it builds leaves such a container; also of what somebody builds from a release."""
    host.up(app)
    release = f"imm.local/app/{app.name}:1"
    said = host.engine.history(release)[0]["CreatedBy"]
    assert said.startswith("/bin/sh -c #(nop) ") and "LABEL imm.role=release" in said
    left = [
        host.engine.create_container(release, ["/bin/sh", "-c", "#(nop) ", instruction])["Id"]
        for instruction in (said.partition("#(nop) ")[2].strip(), "ENV MINE=1", "LABEL mine=1")
    ]
    try:
        host.up(app.version("2"))
        own, *theirs = left
        there = {each["Id"] for each in host.engine.containers(all=True)}
        assert own not in there and set(theirs) <= there
    finally:
        for each in left[1:]:
            host.engine.remove_container(each)


def test_an_image_without_a_name_that_somebody_built_from_a_release_stays(host: Host, app: Project):
    """Its labels are the release's, what it holds isn't. A release that lost its name to another image goes."""
    host.up(app.version("1", environment={"N": "1"}))
    release = f"imm.local/app/{app.name}:1"
    [sealed] = [each["Id"] for each in host.engine.images(name=release)]
    ids = []
    for change in ("ENV MINE=1", "LABEL mine=1", "RUN touch /tmp/mine"):
        dockerfile = io.BytesIO(f"FROM {release}\n{change}\n".encode())
        told = host.engine.build(fileobj=dockerfile, rm=True, decode=True)
        ids += [each["aux"]["ID"] for each in told if "aux" in each]
    assert len(ids) == 3
    try:
        for number in ("2", "3"):
            host.up(app.version("1", environment={"N": number}))
        host.engine.tag(host.base, f"imm.local/app/{app.name}", "1", force=True)
        host.imm(app.set(release={"keep": 1}), "prune")
        host.imm(app, "down")
        host.imm(app, "prune")
        assert set(ids) <= {each["Id"] for each in host.engine.images()}
    finally:
        for each in ids:
            host.engine.remove_image(each, force=True)
    host.imm(app, "prune")
    assert sealed not in {each["Id"] for each in host.engine.images()}
    host.engine.remove_image(release)


def test_an_image_that_somebody_labelled_as_a_release_is_in_nobody_s_way(host: Host, app: Project):
    """Without a seal, or with one that makes no sense: it is no release, and no leftover of one."""
    host.up(app)
    labels = {"imm.role": "release", "imm.app": app.name, "imm.release": "7"}
    made = []
    for sealed in ({}, {"imm.sealed": "{}"}, {"imm.sealed": "[1"}, {"imm.sealed": '{"app": 3, "pins": []}'}):
        with image_of(host, f"{app.name}-stranger", host.base, {**labels, **sealed}) as image:
            made.append(host.engine.inspect_image(image)["Id"])
            host.engine.tag(host.base, image, force=True)
            assert host.up(app).result["outcome"] == "unchanged"
            host.imm(app, "prune")
            assert made[-1] in {each["Id"] for each in host.engine.images()}
            host.engine.remove_image(made[-1], force=True)
