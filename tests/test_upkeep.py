"""Old releases go, everything else stays: what is live, volumes, and what imm didn't make."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from tests.host import Host, Project


@pytest.fixture
def planted(host: Host, app: Project) -> Iterator[set[str]]:
    """What imm didn't make, with names like its own: a container, a network, a volume, two images."""
    engine = host.engine
    host.up(app.version("1", environment={"N": "1"}))
    container = engine.create_container(host.base, ["true"], name=f"{app.name}-web-9-blue-1")["Id"]
    network = engine.create_network(f"imm-app-{app.name}-old")["Id"]
    engine.create_volume(f"imm-{app.name}-old")
    engine.tag(host.base, f"imm.local/app/{app.name}", "99", force=True)
    # A release's labels are inherited by what somebody builds from it.
    derived = f"FROM imm.local/app/{app.name}:1\nENV MINE=1\n"
    list(engine.build(fileobj=io.BytesIO(derived.encode()), tag=f"{app.name}-mine:1", rm=True))
    yield {
        f"container {container}",
        f"network imm-app-{app.name}-old",
        f"volume imm-{app.name}-old",
        f"image imm.local/app/{app.name}:99",
        f"image {app.name}-mine:1",
    }
    engine.remove_container(container)
    engine.remove_network(network)
    engine.remove_volume(f"imm-{app.name}-old")
    engine.remove_image(f"imm.local/app/{app.name}:99")
    engine.remove_image(f"{app.name}-mine:1")


def test_many_releases_leave_keep_and_the_live_one_and_what_imm_did_not_make(
    host: Host, app: Project, planted: set[str]
):
    """Through releases, a failure, reverts, prune and down; what is kept can be reverted to."""
    app.set(release={"keep": 2})
    for number in range(2, 6):
        assert host.up(app.version("1", environment={"N": str(number)})).result["release"] == number
        assert len(host.releases(app)) <= 3
        assert planted <= names(host)
    assert host.releases(app) == [3, 4, 5]
    assert len(host.instances(app)) == 1
    assert host.status(app)["revertable"] == [4, 3]
    assert host.revert(app, "1", expect=1).error["message"] == f"release 1 of {app.name} is no longer kept"
    assert host.revert(app, "99", expect=1).error["code"] == "unknown_release"
    host.up(app.version("1", behave="crash"), expect=1)
    assert host.revert(app, "3").result["outcome"] == "live"
    assert host.get("/env?N") == "3"
    host.imm(app, "prune")
    host.imm(app, "down")
    host.imm(app, "prune")
    assert planted <= names(host)


def test_prune_removes_what_is_too_old_and_says_which(host: Host, app: Project):
    for number in range(1, 4):
        host.up(app.version("1", environment={"N": str(number)}))
    host.revert(app, "2")
    removed = host.imm(app.set(release={"keep": 1}), "prune").result
    assert removed.keys() == {"app", "removed", "cache"} and removed["cache"].keys() == {"records", "bytes"}
    assert (removed["app"], removed["removed"]) == (app.name, [1])
    assert host.releases(app) == [2, 3]
    assert host.imm(app, "prune").result["removed"] == []
    assert host.get("/env?N") == "2"


def test_a_container_of_an_instances_name_is_refused_by_name_and_left_alone(host: Host, app: Project):
    """imm can't take the name, and takes nothing else for it."""
    host.up(app)
    taken = host.engine.create_container(host.base, ["true"], name=f"{app.name}-web-2-blue-1")["Id"]
    try:
        with host.nothing_left_over():
            error = host.up(app.version("2"), expect=1).error
        assert f"{app.name}-web-2-blue-1" in error["message"]
        assert host.get("/version") == "1"
    finally:
        host.engine.remove_container(taken)
    assert host.up(app).result["outcome"] == "live"


def names(host: Host) -> set[str]:
    engine = host.engine
    return {
        *(f"container {each['Id']}" for each in engine.containers(all=True)),
        *(f"network {each['Name']}" for each in engine.networks()),
        *(f"volume {each['Name']}" for each in engine.volumes()["Volumes"]),
        *(f"image {tag}" for each in engine.images() for tag in each["RepoTags"] or []),
    }
