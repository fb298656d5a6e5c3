"""imm's state on a full disk, and imm's state gone: told plainly, with how to go on; what is live goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.remote.faults")

from immutable_local.wait import until  # noqa: E402
from tests.host import Project  # noqa: E402
from tests.kills import check, struck  # noqa: E402
from tests.remote.conftest import Apart, apart, base_image  # noqa: E402
from tests.remote.faults import RETURN_SECONDS, Fault, Scene  # noqa: E402
from tests.remote.second_engine import SecondEngine  # noqa: E402

pytestmark = pytest.mark.engine
SOAK = os.environ.get("IMM_SOAK") == "1"
DISK_MEGABYTES = 480
# What a deployment of the tests' app takes, and then some.
LEFT_BYTES = 8 * 1024**2


@pytest.fixture(scope="class")
def small(second: SecondEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """An app on an engine whose disk can be filled."""
    images = [base_image("python"), base_image("nginx")]
    with (
        second.small_disk(DISK_MEGABYTES, images),
        apart(second, tmp_path_factory.mktemp("small")) as host,
    ):
        scene = Scene(host)
        yield scene
        # Taking it away must not find it full.
        scene.free()


class TestFullDisk:
    """The disk under the engine, with imm's state on it, is full in the middle of a deployment."""

    @pytest.mark.parametrize(
        "step",
        ["build", "seal", "start", "check_health", "retire"] if SOAK else ["build", "start", "retire"],
    )
    def test_it_is_told_and_once_there_is_space_everything_is_right(self, small: Scene, step: str):
        """What is live answers meanwhile, and can be asked for."""
        small.fill(LEFT_BYTES)
        full = Fault("full", lambda each: each.fill(0), repair=lambda each: each.free())
        ended = small.suffer(full, step)
        if ended.code:
            assert ended.error["code"] == "disk_full", ended.error
            assert "docker system df" in ended.error["hint"]

    def test_full_just_after_the_flip_the_release_is_live_and_recorded_later(self, small: Scene):
        """The error says so, and the next command completes the history."""
        small.fill(LEFT_BYTES)

        def fill_when_flipped(each: Scene) -> None:
            link = each.inside("imm-sidecar", f"/imm/proxy/data/apps/{each.app.name}/live")
            before = os.readlink(link)
            assert until(lambda: os.readlink(link) != before, RETURN_SECONDS, pause=0.0005)
            each.fill(0)

        was = small.live
        ended = small.suffer(
            Fault("full", fill_when_flipped, repair=lambda each: each.free()), "check_health"
        )
        assert ended.error["code"] == "disk_full"
        assert ended.error["still"] == f"release {small.live} is live" and small.live != was
        last = [each["event"] for each in small.state()["records"] if each["release"] == small.live]
        assert "went_live" in last

    def test_down_that_fails_says_whether_the_app_is_still_live(self, small: Scene):
        """What it took away it may have no space to write again."""
        small.settle().fill(0)
        failed = small.host.imm(small.app, "down", expect=1)
        answers = small.host.ask("/version", small.app).status == 200
        small.free()
        assert failed.error["code"] == "disk_full"
        still = f"release {small.live} is still live" if answers else "may be off this host already"
        assert still in failed.error["still"]
        version = small.subject.versions[small.live]
        small.live = small.host.up(small.app).result["release"]
        small.right(version)


class TestFullState:
    """imm's state is on a disk of its own, which is full to the last byte."""

    @pytest.fixture
    def scene(self, bare: Apart) -> Scene:
        """Of three releases the first one is one too many."""
        scene = Scene(bare)
        for _ in range(2):
            scene.subject.next_version()
            scene.live = scene.subject.deploy()
        scene.app.set(release={"keep": 1})
        return scene

    def test_status_tells_and_prune_removes(self, scene: Scene):
        """They need no byte: who holds the lock, and where prune is, is only told to others."""
        with full_state(scene.host):
            assert scene.host.status(scene.app)["live"]["release"] == 3
            assert scene.host.imm(scene.app, "prune").result["removed"] == [1]
            assert scene.host.imm(scene.app, "prune").result["removed"] == []
        assert scene.host.releases(scene.app) == [2, 3]

    def test_what_prune_should_remove_goes_although_the_sweep_before_it_cannot_write(self, scene: Scene):
        """What a killed command left is swept, and told, once there is space."""
        scene.subject.next_version()
        struck(scene.host, scene.app, "up", at="check_health")
        with full_state(scene.host):
            assert scene.host.imm(scene.app, "prune", expect=1).error["code"] == "disk_full"
            assert scene.host.releases(scene.app) == [2, 3, 4]
        scene.host.imm(scene.app, "prune")
        assert scene.host.releases(scene.app) == [2, 3]
        scene.right(scene.subject.versions[scene.live])


@contextmanager
def full_state(host: Apart) -> Iterator[None]:
    state = Path(host.engine.inspect_volume("imm-state")["Mountpoint"]) / "data"
    kept = host.folder / "state"
    for words in (
        ["cp", "-a", str(state), str(kept)],
        ["mount", "-t", "tmpfs", "-o", "size=1m", "imm-test", str(state)],
        ["cp", "-a", f"{kept}/.", str(state)],
    ):
        subprocess.run(words, check=True)
    host.engine.restart("imm-sidecar", timeout=0)
    try:
        with (state / "filling").open("wb", buffering=0) as filling, suppress(OSError):
            while True:
                filling.write(bytes(512))
        yield
    finally:
        (state / "filling").unlink()
        subprocess.run(["rm", "-rf", str(kept)], check=True)
        subprocess.run(["cp", "-a", str(state), str(kept)], check=True)
        subprocess.run(["umount", "--lazy", str(state)], check=True)
        subprocess.run(["cp", "-a", f"{kept}/.", str(state)], check=True)
        host.engine.restart("imm-sidecar", timeout=0)


class TestLostState:
    """A volume of imm's was removed: what that means is told by the next command, with how to go on."""

    @pytest.fixture
    def deployed(self, bare: Apart) -> Project:
        app = bare.project()
        bare.up(app)
        bare.up(app.version("2"))
        return app

    def test_without_history_what_is_live_goes_on_and_earlier_releases_are_found(
        self, bare: Apart, deployed: Project
    ):
        forget(bare, "imm-state", "imm-sidecar")
        assert bare.get("/version") == "2"
        assert bare.imm(deployed, "status", expect=1).error["code"] == "proxy_absent"
        said = bare.up(deployed)
        assert (said.result["outcome"], said.result["release"]) == ("unchanged", 2)
        assert "the volume imm-state is gone" in said.stderr
        assert "can be reverted to: 1" in said.stderr
        check(bare, deployed, 2, "2")
        assert bare.revert(deployed).result["release"] == 1
        check(bare, deployed, 1, "1")
        assert bare.up(deployed).result["release"] == 2
        assert bare.up(deployed.version("3")).result["release"] == 3

    def test_lost_secrets_are_named_and_running_instances_keep_theirs(self, bare: Apart, deployed: Project):
        bare.imm(deployed, "secret", "set", "TOKEN", told="one")
        bare.up(deployed.version("2", secrets=["TOKEN"]))
        forget(bare, "imm-state", "imm-sidecar")
        said = bare.up(deployed, expect=2)
        assert said.error["code"] == "secret_missing" and said.error["hint"] == "imm secret set TOKEN"
        assert "set again: imm secret set TOKEN" in said.stderr
        assert bare.get("/read?/run/secrets/TOKEN").endswith(" one")
        bare.imm(deployed, "secret", "set", "TOKEN", told="two")
        assert bare.up(deployed).result["outcome"] == "live"
        assert bare.get("/read?/run/secrets/TOKEN").endswith(" two")

    def test_without_the_word_of_what_is_live_the_apps_that_nobody_reaches_are_named(
        self, bare: Apart, deployed: Project
    ):
        """The proxy was removed with its volume. `up` brings the app back, its releases keep their numbers."""
        forget(bare, "imm-proxy", "imm-sidecar", "imm-proxy")
        said = bare.up(deployed)
        assert "the volume imm-proxy is gone" in said.stderr and deployed.name in said.stderr
        assert (said.result["outcome"], said.result["release"]) == ("live", 2)
        check(bare, deployed, 2, "2")
        assert bare.revert(deployed).result["release"] == 1

    def test_how_the_proxy_was_to_run_is_told_as_lost_with_how_it_runs_now(
        self, bare: Apart, second: SecondEngine
    ):
        """The ledger doesn't have it; `live` and exit code 0 alone would let nobody look for it."""
        second.load([base_image("traefik")])
        app = bare.project()
        bare.imm(app, "proxy", "up", "--kind", "traefik", "--http-port", "8081")
        bare.up(app)
        forget(bare, "imm-proxy", "imm-sidecar", "imm-proxy")
        said = bare.up(app)
        assert "from here on it is nginx on 127.0.0.1:8080" in said.stderr
        assert "imm proxy up --kind, --bind, --http-port" in said.stderr
        assert said.result["url"] == f"http://{app.domain}:8080" and bare.get("/version") == "1"

    def test_with_everything_of_imms_gone_the_images_are_found(self, bare: Apart, deployed: Project):
        forget(bare, "imm-proxy", "imm-sidecar", "imm-proxy")
        bare.engine.remove_volume("imm-state")
        said = bare.up(deployed)
        assert (said.result["outcome"], said.result["release"]) == ("live", 2)
        assert "can be reverted to: 1" in said.stderr
        check(bare, deployed, 2, "2")


def forget(host: Apart, volume: str, *containers: str) -> None:
    for each in containers:
        host.engine.remove_container(each, force=True)
    host.engine.remove_volume(volume)
