"""Hardened unless told otherwise: looked at in what runs."""

from __future__ import annotations

from typing import Any

import pytest

from immutable_local.host import Asked
from tests.host import Host, Project


@pytest.fixture(scope="module")
def app(shared: Host) -> Project:
    app = shared.project()
    shared.up(app)
    return app


@pytest.fixture(scope="module")
def inspected(shared: Host, app: Project) -> dict[str, Any]:
    return shared.inspect(f"{app.name}-web-1-green-1")


def test_an_instance_has_no_capability_and_gains_none(shared: Host, app: Project, inspected: dict[str, Any]):
    """Asked of the kernel as well as of the engine."""
    settings = inspected["HostConfig"]
    assert (settings["CapDrop"], settings["CapAdd"], settings["Privileged"]) == (["ALL"], None, False)
    assert "no-new-privileges" in settings["SecurityOpt"]
    status = shared.get("/read?/proc/self/status", app).split("\n")
    kernel = dict(line.split(":\t") for line in status if line.startswith(("Cap", "NoNewPrivs")))
    assert {kernel[key] for key in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert kernel["NoNewPrivs"] == "1"


def test_its_root_cannot_be_written_and_tmp_can(shared: Host, app: Project, inspected: dict[str, Any]):
    settings = inspected["HostConfig"]
    assert settings["ReadonlyRootfs"] is True
    assert settings["Tmpfs"].keys() == {"/tmp"}
    assert shared.ask("/write?/var/tmp/x=1", app).text == "Read-only file system"
    assert shared.get("/write?/tmp/x=1", app) == "written"


def test_its_processes_are_limited_and_its_log_is_bounded(inspected: dict[str, Any]):
    settings = inspected["HostConfig"]
    assert 0 < settings["PidsLimit"] <= 4096
    assert settings["LogConfig"]["Config"].keys() >= {"max-size", "max-file"}


def test_it_publishes_no_port_and_has_a_network_of_its_own(
    shared: Host, app: Project, inspected: dict[str, Any]
):
    """Nothing of the host is mounted, and the engine's socket least of all."""
    assert inspected["HostConfig"]["PortBindings"] in (None, {})
    assert not any(inspected["NetworkSettings"]["Ports"].values())
    assert inspected["NetworkSettings"]["Networks"].keys() == {f"imm-app-{app.name}"}
    assert inspected["Mounts"] == []
    assert inspected["HostConfig"]["NetworkMode"] == f"imm-app-{app.name}"


def test_it_comes_back_after_a_restart_of_the_host(inspected: dict[str, Any]):
    assert inspected["HostConfig"]["RestartPolicy"]["Name"] == "always"


def test_apps_cannot_reach_each_other(shared: Host, app: Project):
    """Only the proxy is in both networks, and it forwards nothing between them but requests."""
    second = shared.project()
    shared.up(second)
    theirs = shared.inspect(f"{second.name}-web-1-green-1")["NetworkSettings"]["Networks"]
    address = theirs[f"imm-app-{second.name}"]["IPAddress"]
    connect = f"import socket; socket.create_connection(('{address}', 8000), timeout=2)"
    assert shared.execute(f"{second.name}-web-1-green-1", "python3", "-c", connect) == (0, "")
    code, printed = shared.execute(f"{app.name}-web-1-green-1", "python3", "-c", connect)
    assert code != 0 and ("timed out" in printed or "unreachable" in printed)


def test_the_proxy_listens_on_loopback_alone_and_neither_it_nor_the_sidecar_has_the_engines_socket(
    shared: Host,
):
    for name in ("imm-proxy", "imm-sidecar"):
        told = shared.inspect(name)
        settings = told["HostConfig"]
        assert (settings["CapDrop"], settings["ReadonlyRootfs"], settings["Privileged"]) == (
            ["ALL"],
            True,
            False,
        )
        assert "no-new-privileges" in settings["SecurityOpt"]
        assert told["Config"]["User"].split(":")[0] not in ("", "0", "root")
        assert {each["Type"] for each in told["Mounts"]} == {"volume"}
        for bindings in (settings["PortBindings"] or {}).values():
            assert {each["HostIp"] for each in bindings} == {shared.proxy[0]}
    assert Asked().bind == "127.0.0.1"


def test_what_the_file_asks_for_is_what_runs(shared: Host):
    """Limits, capabilities, user, writable root, tmpfs: each key reaches the engine."""
    app = shared.project().version(
        "1",
        memory="128m",
        cpus=0.5,
        cap_add=["NET_BIND_SERVICE"],
        user="1234:1235",
        tmpfs=["/var/tmp"],
        stop_grace_period="3s",
    )
    app.service("open", behave="worker", read_only=False, stop_grace_period="0s")
    shared.up(app)
    settings = shared.inspect(f"{app.name}-web-1-green-1")["HostConfig"]
    assert (settings["Memory"], settings["NanoCpus"]) == (128 * 1024 * 1024, 500_000_000)
    assert [each.removeprefix("CAP_") for each in settings["CapAdd"]] == ["NET_BIND_SERVICE"]
    assert settings["Tmpfs"].keys() == {"/tmp", "/var/tmp"}
    assert shared.get("/write?/var/tmp/x=1", app) == "written"
    assert shared.get("/read?/var/tmp/x", app).startswith("1234:1235 ")
    assert shared.inspect(f"{app.name}-web-1-green-1")["Config"]["StopTimeout"] == 3
    opened = shared.inspect(f"{app.name}-open-1-green-1")["HostConfig"]
    assert (opened["ReadonlyRootfs"], opened.get("Tmpfs")) in [(False, None), (False, {})]


def test_an_image_of_someone_elses_keeps_the_engines_usual_capabilities(shared: Host, machine):
    """And a root that can be written; no-new-privileges stays, and the image is pinned in the release."""
    app = shared.project().version("1")
    app.service(
        "db",
        image=machine.base,
        command=["python3", "-c", "import signal; signal.pause()"],
        stop_grace_period="0s",
    )
    shared.up(app)
    told = shared.inspect(f"{app.name}-db-1-green-1")
    settings = told["HostConfig"]
    assert (settings["CapDrop"], settings["ReadonlyRootfs"]) == (None, False)
    assert "no-new-privileges" in settings["SecurityOpt"]
    assert told["Image"] == shared.engine.inspect_image(machine.base)["Id"]
