"""Faults of the host: each has a known end, and one more command puts everything right.

The default run takes each fault at one step where much is open; IMM_SOAK=1 takes every step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from signal import Signals

import docker
import pytest

pytest.register_assert_rewrite("tests.remote.faults")

from immutable_local.wait import until  # noqa: E402
from tests.conftest import SOAK, soak  # noqa: E402
from tests.kills import Clients, command  # noqa: E402
from tests.remote.conftest import apart, base_image  # noqa: E402
from tests.remote.faults import RETURN_SECONDS, Fault, Scene, told_plainly  # noqa: E402
from tests.remote.second_engine import SecondEngine  # noqa: E402

pytestmark = pytest.mark.engine
BOOTS = {"BOOT": "0.5"}
STEPS = (
    "lock",
    "sweep",
    "build",
    "seal",
    "start",
    "check_health",
    "flip",
    "record",
    "drain",
    "retire",
    "prune",
)


def restarted(scene: Scene) -> None:
    scene.host.second.restart()


def crashed(scene: Scene) -> None:
    scene.host.second.crash()
    scene.host.second.start()


def power_lost(scene: Scene) -> None:
    scene.host.second.lose_power()
    scene.host.second.start()


ENGINE_RESTARTED = Fault("the-engine-is-restarted", restarted)
ENGINE_KILLED = Fault("the-engine-is-killed", crashed)
POWER_LOST = Fault("the-power-goes", power_lost)
PROXY_KILLED = Fault("the-proxy-is-killed", lambda scene: scene.kill("imm-proxy"))
PROXY_REMOVED = Fault("the-proxy-is-removed", lambda scene: scene.remove("imm-proxy"), heals=False)
SIDECAR_KILLED = Fault("the-sidecar-is-killed", lambda scene: scene.kill("imm-sidecar"))
SIDECAR_REMOVED = Fault("the-sidecar-is-removed", lambda scene: scene.remove("imm-sidecar"), heals=False)
FAULTS = [
    ENGINE_RESTARTED,
    ENGINE_KILLED,
    POWER_LOST,
    PROXY_KILLED,
    PROXY_REMOVED,
    SIDECAR_KILLED,
    SIDECAR_REMOVED,
]
# Each fault once; together they strike before, in and after the flip.
CHOSEN = [
    (ENGINE_RESTARTED, "lock"),
    (ENGINE_KILLED, "check_health"),
    (POWER_LOST, "flip"),
    (PROXY_KILLED, "drain"),
    (PROXY_REMOVED, "start"),
    (SIDECAR_KILLED, "record"),
    (SIDECAR_REMOVED, "seal"),
]


@pytest.fixture(scope="module", params=["nginx", "traefik"] if SOAK else ["nginx"])
def stage(
    request: pytest.FixtureRequest, second: SecondEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    second.load([base_image(request.param)])
    with apart(second, tmp_path_factory.mktemp("faults")) as host:
        host.imm(host.project(), "proxy", "up", "--kind", request.param)
        yield Scene(host, environment=BOOTS, kind=request.param)


@pytest.fixture
def scene(stage: Scene) -> Scene:
    return stage.settle()


@pytest.mark.parametrize(
    ("fault", "step"), [(each, step) for each in FAULTS for step in STEPS] if SOAK else CHOSEN, ids=str
)
def test_a_fault_of_the_host_during_up_ends_known_and_one_more_command_puts_it_right(
    scene: Scene, fault: Fault, step: str
):
    """What is live answers again by itself, where the engine can bring it back; the error says what that is."""
    scene.suffer(fault, step)


@pytest.mark.parametrize(
    "impatient", [True, pytest.param(False, marks=soak)], ids=["ctrl-c", "patience-ends"]
)
def test_an_engine_that_stays_away_is_not_waited_for_without_end(scene: Scene, impatient: bool):
    """The command says so, and what it left is swept by the next one."""
    was = scene.live
    version = scene.subject.next_version()
    second = scene.host.second
    with command(scene.host, scene.app, "up") as running:
        assert running.begun("check_health"), running
        second.crash()
        try:
            assert running.complained("waiting for the host to come back"), running
            if impatient:
                running.send(Signals.SIGINT)
            ended = running.ended()
        finally:
            second.start()
    assert "what this command left is swept by the next one" in ended.stderr, ended.stderr
    assert told_plainly(ended, was) == was
    scene.answers_again(scene.subject.versions[was])
    scene.live = int(scene.host.up(scene.app).result["release"])
    scene.subject.versions[scene.live] = version
    scene.right(version)


@pytest.fixture(scope="module")
def alone(stage: Scene) -> Scene:
    """An app whose data is for one instance, on the same host."""
    return Scene(stage.host, "one", environment=BOOTS, kind=stage.kind)


@pytest.mark.parametrize("fault", [PROXY_KILLED, SIDECAR_KILLED, ENGINE_KILLED], ids=str)
def test_a_fault_while_one_writer_is_replaced_tells_clients_to_come_again(alone: Scene, fault: Fault):
    """The old instance has stopped. 503 with Retry-After, never a bare error, until it or the new one serves,
    which needs no other command; nothing that was written is lost."""
    alone.settle()
    assert alone.host.get(f"/write?/data/log={alone.live}.", alone.app) == "written"
    statuses = set()

    def strike(scene: Scene) -> None:
        fault.strike(scene)

        def answers() -> bool:
            try:
                answer = scene.host.ask("/version", scene.app)
            except OSError:
                # The proxy itself is just coming back.
                return False
            statuses.add((answer.status, "retry-after" in answer.headers))
            return True

        assert until(answers, RETURN_SECONDS, pause=0.05)

    written = alone.host.get("/read?/data/log", alone.app).split()[-1]
    alone.suffer(Fault(fault.name, strike), "start")
    known = {(200, False), (503, True)}
    if alone.kind == "traefik" and fault is SIDECAR_KILLED:
        # It has no page of its own, and the one of the sidecar's is gone.
        known.add((502, False))
    assert statuses <= known, statuses
    assert alone.host.get("/read?/data/log", alone.app).split()[-1] == written


class TestInstances:
    """Instances that die while a deployment is at work."""

    def test_a_new_one_that_dies_before_it_is_healthy_never_gets_a_request(self, scene: Scene):
        def go_on(each: Scene) -> None:
            each.app.service("web", environment=BOOTS)

        # It boots when it is let go, which it never is: the fault can't come too late.
        scene.app.service("web", behave="wait")
        dying = Fault("", lambda each: each.kill(each.newest()), repair=go_on)
        try:
            with Clients(scene.host, scene.app) as clients:
                ended = scene.suffer(dying, "check_health")
                assert not clients.lost()
        finally:
            go_on(scene)
        assert ended.error["code"] == "unhealthy"
        assert "exit code 137" in " ".join(ended.error["details"])

    def test_the_old_one_dying_while_the_new_one_starts_stops_nothing(self, scene: Scene):
        """The engine brings it back meanwhile; the release that comes goes live."""
        ended = scene.suffer(Fault("", lambda each: each.kill(each.old())), "start")
        assert ended.result["outcome"] == "live"

    def test_a_new_one_that_dies_right_after_the_flip_is_started_again_by_the_engine(self, scene: Scene):
        ended = scene.suffer(Fault("", lambda each: each.kill(each.newest())), "drain")
        assert ended.result["outcome"] == "live"

    def test_a_new_one_that_dies_just_when_it_goes_live_ends_known(self, scene: Scene):
        """Either the engine starts it again in time, or the old release is live again."""
        scene.suffer(Fault("", lambda each: each.kill(each.newest())), "flip")

    def test_a_live_one_that_somebody_stopped_is_replaced_by_the_next_up(self, scene: Scene):
        """The engine doesn't start what was stopped by hand."""
        scene.host.engine.stop(scene.old(), timeout=2)
        result = scene.host.up(scene.app).result
        assert (result["outcome"], result["release"]) == ("live", scene.live)
        scene.right(scene.subject.versions[scene.live])


@pytest.mark.parametrize(
    "order",
    [
        ("sidecar", "app", "proxy"),
        *([("app", "proxy", "sidecar"), ("proxy", "app", "sidecar")] if SOAK else []),
    ],
    ids="-".join,
)
def test_what_is_live_answers_in_whatever_order_its_containers_come_back(
    scene: Scene, order: tuple[str, ...]
):
    """The engine starts them as it likes: a sidecar that comes before its proxy is started by whoever asks."""
    names = {"app": scene.old(), "proxy": "imm-proxy", "sidecar": "imm-sidecar"}
    for each in names.values():
        scene.host.engine.stop(each, timeout=2)
    for each in order:
        with suppress(docker.errors.APIError):
            scene.host.engine.start(names[each])
    version = scene.subject.versions[scene.live]
    scene.answers_again(version)
    assert scene.host.status(scene.app)["live"]["release"] == scene.live
    assert scene.host.up(scene.app).result["outcome"] == "unchanged"
    scene.right(version)


class TestNetworks:
    """Somebody takes a container out of a network, or removes the network."""

    def test_a_proxy_taken_out_of_the_apps_network_is_put_back(self, scene: Scene):
        scene.host.engine.disconnect_container_from_network(
            "imm-proxy", f"imm-app-{scene.app.name}", force=True
        )
        assert scene.host.up(scene.app).result["outcome"] == "unchanged"
        scene.right(scene.subject.versions[scene.live])

    def test_a_proxy_taken_out_of_its_own_network_is_made_anew(self, scene: Scene):
        """Its published port led through that one."""
        scene.host.engine.disconnect_container_from_network("imm-proxy", "imm-0-proxy", force=True)
        assert scene.host.up(scene.app).result["outcome"] == "unchanged"
        scene.right(scene.subject.versions[scene.live])

    def test_an_app_whose_network_was_removed_gets_another_one(self, scene: Scene):
        """Also when somebody else took its subnet meanwhile."""
        engine, name = scene.host.engine, f"imm-app-{scene.app.name}"
        subnet = engine.inspect_network(name)["IPAM"]["Config"][0]["Subnet"]
        for each in ("imm-proxy", scene.old()):
            engine.disconnect_container_from_network(each, name, force=True)
        engine.remove_network(name)
        pool = {"Driver": "default", "Config": [{"Subnet": subnet}]}
        engine.create_network("somebodys", ipam=pool)
        try:
            said = scene.host.imm(scene.app, "plan").result
            assert "cut off from its network" in said["changes"][0]["cause"]
            result = scene.host.up(scene.app).result
            assert (result["outcome"], result["release"]) == ("live", scene.live)
            scene.right(scene.subject.versions[scene.live])
        finally:
            engine.remove_network("somebodys")

    def test_a_network_removed_while_an_instance_starts_is_told_and_made_again(self, scene: Scene):
        def strike(each: Scene) -> None:
            name, new = f"imm-app-{each.app.name}", each.newest()
            for container in ("imm-proxy", each.old(), new):
                each.host.engine.disconnect_container_from_network(container, name, force=True)
            each.host.engine.remove_network(name)

        ended = scene.suffer(Fault("", strike, heals=False), "check_health")
        assert ended.code == 1


class TestStrangers:
    """Somebody else has what imm needs: told whose it is, nothing of theirs is touched, what is live stays."""

    def test_a_strangers_container_of_an_instances_name_is_refused(self, scene: Scene):
        number = max(each["release"] or 0 for each in scene.state()["records"]) + 1
        slot = "blue" if "-green-" in scene.old() else "green"
        name = f"{scene.app.name}-web-{number}-{slot}-1"
        theirs = scene.host.engine.create_container(
            scene.host.base, ["sleep", "600"], name=name, stop_signal="SIGKILL"
        )["Id"]
        scene.subject.next_version()
        error = scene.host.up(scene.app, expect=1).error
        assert error["code"] == "name_taken" and name in error["message"]
        assert f"docker rename {name}" in error["hint"]
        assert error["still"] == f"release {scene.live} is still live"
        assert scene.host.inspect(name)["Id"] == theirs
        scene.remove(name)
        scene.live = scene.subject.deploy()
        scene.right(scene.subject.versions[scene.live])

    def test_a_strangers_container_at_an_instances_address_is_named(self, scene: Scene):
        network = f"imm-app-{scene.app.name}"
        addresses = scene.state()["structure"]["addresses"]["web"]
        address = addresses["blue" if "-green-" in scene.old() else "green"][0]
        engine = scene.host.engine
        theirs = engine.create_container(
            scene.host.base, ["sleep", "600"], name="squatter", stop_signal="SIGKILL"
        )["Id"]
        engine.connect_container_to_network(theirs, network, ipv4_address=address)
        engine.start(theirs)
        try:
            scene.subject.next_version()
            error = scene.host.up(scene.app, expect=1).error
            assert error["code"] == "address_taken" and "squatter" in error["message"]
            assert f"docker network disconnect {network} squatter" in error["hint"]
            assert error["still"] == f"release {scene.live} is still live"
        finally:
            scene.remove("squatter")
        scene.live = scene.subject.deploy()
        scene.right(scene.subject.versions[scene.live])

    def test_down_leaves_the_network_when_a_stranger_is_in_it(self, scene: Scene):
        """The app is off this host all the same."""
        engine, other = scene.host.engine, scene.host.project()
        scene.host.up(other)
        network = f"imm-app-{other.name}"
        theirs = engine.create_container(scene.host.base, ["sleep", "600"], stop_signal="SIGKILL")["Id"]
        engine.connect_container_to_network(theirs, network)
        engine.start(theirs)
        said = scene.host.imm(other, "down")
        assert said.result["outcome"] == "down" and f"the network {network} stays" in said.stderr
        assert scene.host.inspect(theirs)["State"]["Running"]
        scene.remove(theirs)
        scene.host.imm(other, "down")
        assert engine.networks(names=[network]) == []

    def test_a_port_taken_while_the_engine_was_down_is_told_until_it_is_free_again(self, scene: Scene):
        second = scene.host.second
        second.stop()
        with second.listening(scene.host.proxy[1]):
            second.start()
            error = scene.host.up(scene.app, expect=1).error
            assert error["code"] == "port_taken" and error["hint"]
        assert scene.host.up(scene.app).result["outcome"] == "unchanged"
        scene.right(scene.subject.versions[scene.live])


class TestImages:
    """Somebody prunes the engine's images."""

    def test_kept_releases_that_were_pruned_are_told_as_gone_and_the_live_one_stays(self, scene: Scene):
        """`docker image prune -a` takes what no container uses."""
        scene.subject.next_version()
        scene.live = scene.subject.deploy()
        before = scene.live
        kept = scene.host.status(scene.app)["revertable"]
        assert kept
        scene.host.engine.prune_images(filters={"dangling": False})
        scene.host.second.load([scene.host.base])
        assert scene.host.status(scene.app)["revertable"] == []
        error = scene.host.revert(scene.app, str(kept[0]), expect=1).error
        assert error["code"] == "unknown_release" and "no longer kept" in error["message"]
        assert scene.host.revert(scene.app, expect=1).error["code"] == "nothing_to_revert_to"
        assert scene.host.up(scene.app).result["outcome"] == "unchanged"
        scene.subject.next_version()
        scene.live = scene.subject.deploy()
        assert scene.host.revert(scene.app).result["release"] == before
        scene.live = before
        scene.right(scene.subject.versions[before])

    def test_a_live_release_whose_image_was_removed_is_sealed_again(self, scene: Scene):
        """Of an app with images of others alone no container uses the release's own."""
        other = scene.host.project()
        other.settings["services"] = {}
        serve = ["python3", "-m", "http.server", "8000"]
        other.service("web", port=8000, image=scene.host.base, command=serve, stop_grace_period="0s")
        live = scene.host.up(other).result["release"]
        scene.host.engine.remove_image(f"imm.local/app/{other.name}:{live}", force=True)
        assert scene.host.releases(other) == []
        assert scene.host.up(other).result["outcome"] == "unchanged"
        assert scene.host.releases(other) == [live]
        scene.host.up(other.service("web", environment={"A": "b"}))
        assert scene.host.revert(other).result["release"] == live
        scene.host.imm(other, "down")
