"""A host that has never seen imm: how the proxy comes, what stands in its way, and what it outlives.

What another test proves nearly alike: IMM_SOAK=1.
"""

from __future__ import annotations

import io
import ipaddress
import os
import re
import shlex
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.remote.faults")

from immutable_local import labels as label  # noqa: E402
from immutable_local.containers import create_proxy  # noqa: E402
from immutable_local.engine import connect  # noqa: E402
from immutable_local.host import asked_of  # noqa: E402
from immutable_local.network import DEFAULT_POOL  # noqa: E402
from immutable_local.proxy import choose  # noqa: E402
from immutable_local.undo import Undo  # noqa: E402
from immutable_local.wait import until  # noqa: E402
from tests.conftest import SOAK, soak  # noqa: E402
from tests.host import Project  # noqa: E402
from tests.remote.conftest import PORT, Apart  # noqa: E402
from tests.remote.faults import struck_at  # noqa: E402

pytestmark = pytest.mark.engine
RETURN_SECONDS = 60.0


def test_the_first_up_starts_the_proxy_and_its_sidecar(bare: Apart, app: Project):
    """One of each; the proxy listens on the loopback alone, and no path of the host reaches either."""
    assert bare.imm(app, "proxy", "status").result["state"] == "absent"
    first = bare.up(app)
    live = first.result
    assert (live["outcome"], live["release"]) == ("live", 1)
    assert "  getting this host's proxy ready\n" in first.stderr
    assert bare.get("/version") == "1"
    assert _names(bare) == {"imm-proxy", "imm-sidecar", f"{app.name}-web-1-green-1"}
    proxy, sidecar = bare.inspect("imm-proxy"), bare.inspect("imm-sidecar")
    published = [each for each in proxy["NetworkSettings"]["Ports"].values() if each]
    assert published == [[{"HostIp": "127.0.0.1", "HostPort": str(PORT)}]]
    assert sidecar["HostConfig"]["NetworkMode"] == f"container:{proxy['Id']}"
    assert {each["Type"] for each in proxy["Mounts"] + sidecar["Mounts"]} == {"volume"}


def test_a_port_that_is_taken_is_told_and_nothing_is_left_over(bare: Apart, app: Project):
    """Exit code 1, which port, how to choose another; and after that it works."""
    with bare.second.listening(PORT), bare.nothing_left_over():
        error = bare.up(app, expect=1).error
        assert error["code"] == "port_taken"
        assert f"127.0.0.1:{PORT}" in error["message"]
        assert "--http-port" in error["hint"]
    assert bare.up(app).result["outcome"] == "live"


def test_an_app_for_which_the_pool_has_no_subnet_left_is_told_and_nothing_is_left_over(
    bare: Apart, app: Project
):
    """The smallest pool has room for the proxy's network and one app's. The other one goes on."""
    bare.imm(app, "proxy", "up", "--pool", "10.251.0.0/23")
    bare.up(app)
    other = bare.project()
    with bare.nothing_left_over():
        error = bare.up(other, expect=1).error
    assert error["code"] == "no_subnet" and "imm proxy up --pool" in error["hint"]
    assert bare.get("/version", app) == "1"
    bare.imm(app, "proxy", "up", "--pool", "10.252.0.0/16")
    assert bare.up(other).result["outcome"] == "live"
    assert bare.get("/version", app) == bare.get("/version", other) == "1"


def test_without_an_image_for_the_sidecar_nothing_is_begun(bare: Apart, app: Project):
    """Where no registry answers either, the hint says where such an image comes from."""
    python = bare.base
    found = bare.engine.inspect_image(python)["Id"]
    bare.engine.tag(found, "kept-for-later")
    bare.engine.remove_image(python)
    try:
        with bare.nothing_left_over():
            error = bare.imm(app, "proxy", "up", expect=1).error
    finally:
        bare.engine.tag(found, *python.rsplit(":", 1))
        bare.engine.remove_image("kept-for-later")
    assert error["code"] == "no_image" and "make setup" in error["hint"]
    assert bare.imm(app, "proxy", "up").result["state"] == "running"


@pytest.mark.parametrize("name", ["imm-proxy-next", "imm-sidecar", *(["imm-proxy"] if SOAK else [])])
def test_what_is_named_like_ours_and_inherited_our_label_is_refused_and_untouched(
    bare: Apart, app: Project, name: str
):
    """Such as somebody's copy of the sidecar that was there before. Nobody's `proxy down` takes it."""
    image = labelled(bare, "sidecar" if name == "imm-sidecar" else "proxy")
    bare.engine.start(bare.engine.create_container(image, ["sleep", "600"], name=name)["Id"])
    with bare.nothing_left_over():
        error = bare.up(app, expect=1).error
        assert bare.imm(app, "proxy", "status").result["state"] == "absent"
        assert bare.imm(app, "proxy", "down", "--force").result["removed"] == []
    assert error["code"] == "name_taken" and name in error["message"]


def test_what_inherited_our_label_makes_no_host_of_ours(bare: Apart, app: Project):
    """Such as a release's image that somebody took along: where imm has never been, nothing is to be looked up."""
    image = labelled(bare, "release")
    bare.engine.start(bare.engine.create_container(image, ["sleep", "600"])["Id"])
    with bare.nothing_left_over():
        assert bare.imm(app, "prune").result["removed"] == []
        assert bare.imm(app, "secret", "remove", "TOKEN", expect=1).error["code"] == "not_found"
        assert bare.status(app)["live"] is None


def labelled(bare: Apart, role: str) -> str:
    """An image of somebody's that has a label of imm's."""
    dockerfile = f"FROM {bare.base}\nLABEL imm.role={role}\n"
    list(bare.engine.build(fileobj=io.BytesIO(dockerfile.encode()), tag=f"somebodys-{role}", rm=True))
    return f"somebodys-{role}"


def test_an_address_that_the_host_has_not_is_told_as_that(bare: Apart, app: Project):
    """No other port would help; what the hint says does."""
    with bare.nothing_left_over():
        error = bare.imm(app, "proxy", "up", "--bind", "203.0.113.7", expect=1).error
    assert "cannot listen on 203.0.113.7:8080" in error["message"] and "--http-port" not in error["hint"]
    [command] = re.findall(r"imm (proxy up --bind [0-9.]+)", error["hint"])
    bare.imm(app, *command.split())
    assert bare.up(app).result["outcome"] == "live"


@pytest.mark.parametrize(
    "kind", ["imm-sidecar", "imm-0-proxy", "imm-state", *(["imm-proxy"] if SOAK else [])]
)
def test_what_somebody_else_named_like_ours_is_refused_and_untouched(bare: Apart, app: Project, kind: str):
    """Exit code 1, whose name it is, and the engine as it was before; what the hint says makes room."""
    engine = bare.engine
    if kind == "imm-0-proxy":
        engine.create_network(kind)
    elif kind == "imm-state":
        engine.create_volume(kind)
    else:
        engine.start(engine.create_container(bare.base, ["sleep", "600"], name=kind)["Id"])
    with bare.nothing_left_over():
        error = bare.up(app, expect=1).error
    assert error["code"] == "name_taken" and kind in error["message"]
    [command] = re.findall(r"(docker (?:rename|volume rm|network rm) [^,]+),", error["hint"])
    on_it = {**os.environ, "DOCKER_HOST": bare.second.unix}
    subprocess.run(shlex.split(command), env=on_it, check=True, capture_output=True, timeout=60)
    assert bare.up(app).result["outcome"] == "live"


def test_apps_that_are_live_keep_their_proxy_when_its_sidecar_is_gone(bare: Apart, app: Project):
    """Nobody can be asked what is live: what runs is taken for it."""
    bare.up(app)
    bare.engine.remove_container("imm-sidecar", force=True)
    # Somebody's, of an image that somebody labelled: it is no app's.
    image = labelled(bare, "instance")
    bare.engine.start(bare.engine.create_container(image, ["sleep", "600"])["Id"])
    assert bare.imm(app, "proxy", "status").result["apps"] == [app.name]
    with bare.nothing_left_over():
        assert bare.imm(app, "proxy", "down", expect=2).error["code"] == "apps_live"
    assert bare.get("/version") == "1"
    assert bare.imm(app, "proxy", "down", "--force").result["removed"] == ["imm-proxy", "imm-0-proxy"]


def test_a_strangers_container_of_the_makers_name_is_refused_and_untouched(bare: Apart, app: Project):
    """Also one that never started, as a command of imm's that was killed may leave it."""
    theirs = bare.engine.create_container(bare.base, ["sleep", "600"], name="imm-making")["Id"]
    with bare.nothing_left_over():
        error = bare.up(app, expect=1).error
    assert error["code"] == "name_taken" and "imm-making" in error["message"] and error["hint"]
    bare.engine.remove_container(theirs)
    assert bare.up(app).result["outcome"] == "live"


def test_the_proxy_moves_to_another_port_with_its_apps(bare: Apart, app: Project):
    """`proxy up --http-port`: what is live answers there, and no longer here."""
    bare.up(app)
    moved = bare.imm(app, "proxy", "up", "--http-port", "8081").result
    assert (moved["state"], moved["port"]) == ("running", 8081)
    bare.proxy = ("127.0.0.1", 8081)
    assert bare.get("/version") == "1"
    with pytest.raises(ConnectionRefusedError):
        bare.second.connection(PORT).connect()
    told = bare.imm(app, "proxy", "status").result
    assert told == {
        "kind": "nginx",
        "state": "running",
        "bind": "127.0.0.1",
        "port": 8081,
        "pool": DEFAULT_POOL,
        "apps": [app.name],
    }
    again = bare.up(app).result
    assert again["outcome"] == "unchanged" and again["url"] == f"http://{app.domain}:8081"


def test_proxy_down_leaves_the_network_when_a_stranger_is_in_it(bare: Apart, app: Project):
    """The proxy is gone all the same, and comes back into it."""
    bare.imm(app, "proxy", "up")
    theirs = bare.engine.create_container(bare.base, ["sleep", "600"], stop_signal="SIGKILL")["Id"]
    bare.engine.connect_container_to_network(theirs, "imm-0-proxy")
    bare.engine.start(theirs)
    said = bare.imm(app, "proxy", "down")
    assert said.result["removed"] == ["imm-sidecar", "imm-proxy"]
    assert "the network imm-0-proxy stays" in said.stderr
    assert bare.inspect(theirs)["State"]["Running"]
    assert bare.up(app).result["outcome"] == "live"


def test_two_who_take_the_proxy_down_at_once_are_both_right(bare: Apart, app: Project):
    """What the one removes is no fault to the other."""
    bare.imm(app, "proxy", "up")
    with ThreadPoolExecutor() as threads:
        both = [threads.submit(bare.imm, app, "proxy", "down", "--force") for _ in range(4)]
        removed = [name for each in both for name in each.result().result["removed"]]
    assert set(removed) == {"imm-sidecar", "imm-proxy", "imm-0-proxy"}
    assert _names(bare) == set()


def test_proxy_down_is_refused_while_an_app_is_live(bare: Apart, app: Project):
    """It names the app; once that is down, so goes the proxy, and only its volumes stay."""
    bare.up(app)
    with bare.nothing_left_over():
        refused = bare.imm(app, "proxy", "down", expect=2).error
        assert refused["code"] == "apps_live" and app.name in refused["message"]
    bare.imm(app, "down")
    bare.imm(app, "proxy", "down")
    assert _names(bare) == set()
    assert [each["Name"] for each in bare.engine.networks(filters={"type": "custom"})] == []
    assert bare.imm(app, "proxy", "status").result["state"] == "absent"
    # History is kept, and nobody is there to be asked for it: that isn't 'nothing happened'.
    assert bare.imm(app, "history", expect=1).error["code"] == "proxy_absent"
    # That the app isn't deployed the engine knows.
    told = bare.imm(app, "status").result
    assert (told["live"], told["services"], told["proxy"]) == (None, {}, None)
    back = bare.up(app).result
    assert (back["outcome"], back["release"]) == ("live", 1)
    assert [each["event"] for each in bare.history(app) if each["event"] != "sealed"] == [
        "went_live",
        "down",
        "went_live",
    ]


def test_what_has_nothing_to_do_on_a_host_makes_nothing_there(bare: Apart, app: Project):
    """Whatever it says, it has touched nothing: no proxy, no volume, no network, no port."""
    networks = {each["Name"] for each in bare.engine.networks()}
    app.version("1", secrets=["TOKEN"])
    assert bare.imm(app, "up", expect=2).error["code"] == "secret_missing"
    app.version("1", secrets=[])
    assert bare.revert(app, expect=1).error["code"] == "nothing_to_revert_to"
    assert bare.revert(app, "3", expect=1).error["code"] == "unknown_release"
    assert bare.imm(app, "prune").result["removed"] == []
    assert bare.imm(app, "down").result["outcome"] == "unchanged"
    bare.imm(app, "secret", "remove", "TOKEN", expect=1)
    assert _names(bare) == set()
    assert bare.engine.volumes()["Volumes"] in (None, [])
    assert {each["Name"] for each in bare.engine.networks()} == networks


def test_an_app_gets_a_subnet_that_leads_nowhere_else(bare: Apart, app: Project):
    """The host's own routes are skipped: a VPN's addresses stay reachable."""
    bare.imm(app, "proxy", "up")
    mine = _subnet(bare, "imm-0-proxy")
    network = ipaddress.IPv4Network(mine)
    following = ipaddress.IPv4Network((int(network.network_address) + 256, 24))
    bare.second.route("add", str(following))
    try:
        bare.up(app)
        given = ipaddress.IPv4Network(_subnet(bare, f"imm-app-{app.name}"))
        assert not given.overlaps(following) and not given.overlaps(network)
        assert bare.get("/version") == "1"
    finally:
        bare.second.route("del", str(following))


# From here on the host may have its proxy already, and other apps.


def test_a_proxy_that_the_engine_does_not_start_for_another_reason_is_told_so(ready: Apart, app: Project):
    """Somebody took its address in an app's network: that is no matter of ports. Put right, it runs again."""
    ready.up(app)
    ready.engine.stop("imm-proxy")
    within = f"imm-app-{app.name}"
    address = ready.inspect("imm-proxy")["NetworkSettings"]["Networks"][within]["IPAMConfig"]["IPv4Address"]
    stranger = ready.engine.create_container(ready.base, ["sleep", "600"])["Id"]
    ready.engine.connect_container_to_network(stranger, within, ipv4_address=address)
    ready.engine.start(stranger)
    error = ready.imm(app, "proxy", "up", expect=1).error
    assert error["code"] == "proxy_failed"
    assert "ddress already in use" in error["details"][0]
    assert error["hint"].startswith("put right what it says")
    ready.engine.remove_container(stranger, force=True)
    ready.imm(app, "proxy", "up")
    assert ready.get("/version") == "1"


def test_a_firewall_that_lost_dockers_rules_is_no_matter_of_ports(ready: Apart, app: Project):
    """Its refusal names the port that the container listens on, too. And nobody reaches what is live."""
    ready.up(app)
    ready.engine.stop("imm-proxy")
    ready.second.firewall("-t", "nat", "-E", "DOCKER", "AWAY")
    try:
        error = ready.imm(app, "proxy", "up", expect=1).error
    finally:
        ready.second.firewall("-t", "nat", "-E", "AWAY", "DOCKER")
    assert error["code"] == "proxy_failed" and "8080" in error["details"][0]
    assert "may not run" in error["still"]
    ready.imm(app, "proxy", "up")
    assert ready.get("/version") == "1"


def test_a_proxy_that_follows_no_more_is_started_afresh_as_the_hint_says(ready: Apart, app: Project):
    """Here nobody can ask it what it follows. Apps are live behind it, and live again when it is back."""
    ready.up(app)
    run = "/imm/proxy/data/run"
    assert ready.execute("imm-proxy", "mv", f"{run}/control.sock", f"{run}/away")[0] == 0
    error = ready.up(app.version("2", domains=[f"new.{app.domain}"]), expect=1).error
    assert error["code"] == "proxy_failed"
    commands = re.findall(r"imm (proxy (?:up|down)(?: --force)?)", error["hint"])
    assert commands == ["proxy down --force", "proxy up"]
    for each in commands:
        ready.imm(app, *each.split())
    assert ready.get("/version") == "1"
    assert ready.up(app).result["outcome"] == "live"
    assert ready.get("/version", domain=f"new.{app.domain}") == "2"


def test_a_proxy_that_cannot_move_stays_where_it_is(ready: Apart, app: Project):
    """The other port is taken: exit code 1, and what is live answers as before."""
    ready.up(app)
    with ready.second.listening(8081), ready.nothing_left_over():
        refused = ready.imm(app, "proxy", "up", "--http-port", "8081", expect=1)
        assert refused.error["code"] == "port_taken"
    assert ready.get("/version") == "1"
    assert ready.up(app).result["outcome"] == "unchanged"
    # What it was refused isn't what it was asked: not even where the volume alone is left to tell.
    for name in ("imm-sidecar", "imm-proxy"):
        ready.engine.remove_container(name, force=True)
    assert ready.up(app).result["outcome"] == "unchanged"
    assert ready.imm(app, "proxy", "status").result["port"] == PORT
    assert ready.get("/version") == "1"


def test_a_proxy_that_can_neither_move_nor_go_back_is_not_told_as_still_live(ready: Apart, app: Project):
    """Its own port was taken, too, the moment that it left: what isn't true isn't said."""
    ready.up(app)
    with ExitStack() as taken, ThreadPoolExecutor(1) as beside:
        taken.enter_context(ready.second.listening(8081))
        told: Any = ready.engine.events(since=f"{time.time():.9f}", decode=True)

        def take() -> bool:
            try:
                taken.enter_context(ready.second.listening(PORT))
            except OSError:
                return False
            return True

        def take_as_it_leaves() -> bool | None:
            next(each for each in told if each["Action"] == "die" and "imm-proxy" in str(each))
            return until(take, RETURN_SECONDS, pause=0.001)

        left = beside.submit(take_as_it_leaves)
        refused = ready.imm(app, "proxy", "up", "--http-port", "8081", expect=1).error
        assert left.result()
        told.close()
        assert refused["code"] == "port_taken" and "may not run" in refused["still"]
    assert ready.up(app).result["outcome"] == "unchanged"
    assert ready.get("/version") == "1"


def test_of_two_proxies_that_an_engine_started_one_goes_on_and_follows(ready: Apart, app: Project):
    """A switch to another port was killed, and then the host restarted: both run, on one volume."""
    ready.up(app)
    both = connect()
    before = both.containers({label.ROLE: "proxy"})[0]
    asked = replace(asked_of(before), http_port=8081)
    with Undo(str) as undo:
        after = create_proxy(both, choose("nginx"), before.image, asked, before, undo)
        undo.keep()
    both.start(after)
    sockets = "/imm/proxy/data/run/control.sock"
    until(lambda: ready.execute("imm-proxy-next", "test", "-S", sockets)[0] == 0, RETURN_SECONDS, pause=0.05)
    ready.imm(app, "proxy", "up")
    assert ready.up(app.version("2", domains=[f"new.{app.domain}"])).result["outcome"] == "live"
    assert ready.get("/version", domain=f"new.{app.domain}") == "2"
    assert _names(ready) == {"imm-proxy", "imm-sidecar", f"{app.name}-web-2-blue-1"}


def test_a_proxy_whose_network_was_pruned_while_it_was_stopped_is_made_anew(ready: Apart, app: Project):
    """A container means its networks by their ids: one of the same name isn't the one that it would join."""
    ready.up(app)
    for name in ("imm-sidecar", "imm-proxy"):
        ready.engine.stop(name, timeout=1)
    assert "imm-0-proxy" in ready.engine.prune_networks()["NetworksDeleted"]
    assert ready.up(app).result["outcome"] == "unchanged"
    assert ready.get("/version") == "1"
    assert _names(ready) == {"imm-proxy", "imm-sidecar", f"{app.name}-web-1-green-1"}


def test_proxy_down_that_is_interrupted_is_not_left_half_done(ready: Apart, app: Project):
    """What it began it ends, and says what is true then; `up` brings back what was live."""
    ready.up(app)
    moment = ("destroy", "imm-sidecar")
    ended = struck_at(ready, app, "proxy", "down", "--force", moment=moment, which=signal.SIGTERM)
    assert ended.error["code"] == "interrupted"
    assert "nobody reaches" in ended.error["still"] and ended.error["hint"]
    assert _names(ready) == {f"{app.name}-web-1-green-1"}
    assert ready.up(app).result["outcome"] == "unchanged"
    assert ready.get("/version") == "1"


@pytest.mark.parametrize("end", ["lose_power", *(["stop"] if SOAK else [])])
def test_what_is_live_comes_back_with_the_engine(ready: Apart, app: Project, end: str):
    """Without a command of imm's; and `up` then finds nothing to do."""
    app.version("1", replicas=2).service("worker", behave="worker", stop_grace_period="2s")
    ready.up(app)
    before = ready.running()
    getattr(ready.second, end)()
    ready.second.start()
    _answers_again(ready, "1")
    assert until(lambda: ready.running() == before, RETURN_SECONDS, pause=0.1), ready.running()
    unchanged = ready.up(app).result
    assert (unchanged["outcome"], unchanged["release"]) == ("unchanged", 1)
    assert ready.running() == before
    assert ready.up(app.version("2")).result["outcome"] == "live"
    assert ready.get("/version") == "2"


def test_a_proxy_that_was_restarted_leaves_its_sidecar_behind_and_the_next_command_brings_it_back(
    ready: Apart, app: Project
):
    """The sidecar is then in a network namespace that is gone; what was live is live all the while."""
    ready.up(app)
    ready.engine.restart("imm-proxy", timeout=1)
    _answers_again(ready, "1")
    status = ready.status(app)
    assert status["live"]["release"] == 1
    assert status["services"]["web"][0]["health"] == "unknown"
    assert ready.up(app.version("2")).result["outcome"] == "live"
    assert ready.status(app)["services"]["web"][0]["health"] == "healthy"
    assert ready.get("/version") == "2"


def test_a_sidecar_that_the_engine_did_not_bring_back_is_started_by_whoever_asks(ready: Apart, app: Project):
    """After a restart the engine may try it before the proxy runs, and then leaves it."""
    ready.up(app)
    ready.engine.stop("imm-sidecar", timeout=1)
    status = ready.status(app)
    assert status["live"]["release"] == 1
    assert status["services"]["web"][0]["health"] == "healthy"


@soak
def test_a_proxy_that_crashes_comes_back_by_itself(ready: Apart, app: Project):
    """Also after imm made it read a new configuration, as it does for every new app."""
    ready.up(app)
    os.kill(ready.inspect("imm-proxy")["State"]["Pid"], signal.SIGKILL)
    _answers_again(ready, "1")


@pytest.mark.parametrize("gone", [("imm-proxy", "imm-sidecar"), *([("imm-proxy",)] if SOAK else [])])
def test_up_makes_what_somebody_removed_and_traffic_flows_again(
    ready: Apart, app: Project, gone: tuple[str, ...]
):
    """What was live is live again, in a release that is still the same."""
    ready.up(app)
    for name in gone:
        ready.engine.remove_container(name, force=True)
    unchanged = ready.up(app).result
    assert (unchanged["outcome"], unchanged["release"]) == ("unchanged", 1)
    assert ready.get("/version") == "1"


def _names(host: Apart) -> set[str]:
    """The containers that are there, but for other apps' instances."""
    mine = {None, *(each.name for each in host.projects)}
    found = host.engine.containers(all=True)
    return {each["Names"][0].lstrip("/") for each in found if each["Labels"].get("imm.app") in mine}


def _subnet(host: Apart, network: str) -> str:
    told: dict[str, Any] = host.engine.inspect_network(network)
    return str(told["IPAM"]["Config"][0]["Subnet"])


def _answers_again(host: Apart, version: str) -> None:
    """Wait until the app answers, as a client outside would."""
    last: object = None

    def answers() -> bool:
        nonlocal last
        try:
            answer = host.ask("/version")
        except OSError as failed:
            last = failed
            return False
        last = answer
        return (answer.status, answer.text) == (200, version)

    began = time.monotonic()
    assert until(answers, RETURN_SECONDS, pause=0.05), f"after {time.monotonic() - began:.0f} s: {last}"
