"""Anywhere the engine is: the same over its unix socket (IMM_SOAK=1) and over ssh, with a loopback that isn't
ours. What another way to the engine decides nothing about: IMM_SOAK=1."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest

from immutable_local.tunnel import CONNECT_SECONDS
from immutable_local.wait import until
from tests.conftest import soak
from tests.host import HEALTHCHECK, Project
from tests.remote.conftest import Apart

pytestmark = pytest.mark.engine
over_ssh = pytest.mark.parametrize("remote", ["ssh"], indirect=True)
SECRET = "correct-horse-battery-staple"
GONE_SECONDS = 20.0


@pytest.fixture
def app(remote: Apart) -> Project:
    return remote.project()


def test_up_up_again_a_new_version_and_back(remote: Apart, app: Project):
    """What was up is found unchanged; a new version takes its place; a revert brings the old one back."""
    first = remote.up(app).result
    assert (first["outcome"], first["release"]) == ("live", 1)
    assert remote.get("/version", app) == "1"
    again = remote.up(app).result
    assert (again["outcome"], again["release"]) == ("unchanged", 1)
    second = remote.up(app.version("2", environment={"COLOUR": "red"})).result
    assert (second["outcome"], second["release"], second["previous"]) == ("live", 2, 1)
    assert (remote.get("/version", app), remote.get("/env?COLOUR", app)) == ("2", "red")
    back = remote.revert(app).result
    assert (back["outcome"], back["release"], back["previous"]) == ("live", 1, 2)
    assert (remote.get("/version", app), remote.get("/env?COLOUR", app)) == ("1", "")
    assert [each["Names"] for each in remote.instances(app)] == [[f"/{app.name}-web-1-green-1"]]
    events = [(each["event"], each["release"]) for each in remote.history(app) if each["event"] != "sealed"]
    assert events == [("went_live", 1), ("went_live", 2), ("reverted", 1)]


@soak
def test_status_tells_what_is_live_and_that_it_is_healthy(remote: Apart, app: Project):
    """Health is asked where the engine is: nobody here can reach an instance."""
    assert remote.status(app)["live"] is None
    remote.up(app.version("1", replicas=2))
    status = remote.status(app)
    assert status["live"]["release"] == 1
    assert [each["health"] for each in status["services"]["web"]] == ["healthy", "healthy"]
    assert status["urls"] == [f"http://{app.domain}:{remote.proxy[1]}"]
    assert status["proxy"] == {"kind": "nginx", "state": "running"}


def test_logs_of_what_is_live_of_what_is_gone_and_as_they_are_written(remote: Apart, app: Project):
    remote.up(app)
    remote.up(app.version("2"))
    assert [each["line"] for each in remote.imm(app, "logs").told] == ["version 2 starts"]
    gone = remote.imm(app, "logs", "--release", "1").told
    assert [each["line"] for each in gone] == ["version 1 starts"]
    with subprocess.Popen(
        remote.command(app, "logs", "--follow"),
        stdout=subprocess.PIPE,
        text=True,
        cwd=app.folder,
        env={**os.environ, **remote.environment},
    ) as following:
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["line"] == "version 2 starts"
        remote.execute(remote.running(app)[0], "sh", "-c", "echo more >/proc/1/fd/1")
        assert json.loads(following.stdout.readline())["line"] == "more"
        following.terminate()


@soak
def test_a_secret_reaches_the_service_and_a_changed_one_replaces_it(remote: Apart, app: Project):
    app.version("1", secrets=["TOKEN"])
    remote.imm(app, "secret", "set", "TOKEN", told=SECRET)
    remote.up(app)
    assert remote.get("/read?/run/secrets/TOKEN", app) == f"1000:1000 400 {SECRET}"
    remote.imm(app, "secret", "set", "TOKEN", told="another")
    plan = remote.imm(app, "plan").result
    assert ["TOKEN" in each["cause"] for each in plan["changes"]] == [True]
    remote.up(app)
    assert remote.get("/read?/run/secrets/TOKEN", app) == "1000:1000 400 another"


def test_a_release_that_never_gets_healthy_leaves_the_old_one_serving(remote: Apart, app: Project):
    """And the reason is found out from here: what was answered, what listens inside."""
    remote.up(app)
    short = {**HEALTHCHECK, "start_period": "5s"}
    with remote.nothing_left_over():
        wrong_port = remote.up(app.version("2", port=9000, healthcheck=short), expect=1)
        assert wrong_port.error["code"] == "unhealthy"
        assert "8000" in " ".join([*wrong_port.error["details"], wrong_port.error["hint"]])
    assert remote.get("/version", app) == "1"


@soak
def test_what_is_written_to_a_volume_for_one_writer_is_kept(remote: Apart, app: Project):
    app.set(volumes={"data": {"writers": "one"}}).version("1", volumes=["data:/data"])
    app.dockerfile((app.folder / "Dockerfile").read_text().replace("USER", "VOLUME /data\nUSER"))
    remote.up(app.version("1", user="0:0"))
    assert remote.get("/write?/data/kept=one", app) == "written"
    remote.up(app.version("2"))
    assert remote.get("/read?/data/kept", app).endswith(" one")
    assert remote.get("/version", app) == "2"


@soak
def test_down_takes_the_app_off_and_keeps_its_history(remote: Apart, app: Project):
    remote.up(app)
    assert remote.imm(app, "down").result["outcome"] == "down"
    assert remote.instances(app) == []
    assert remote.ask("/version", app).status == 404
    assert remote.history(app)[-1]["event"] == "down"


def test_a_killed_client_leaves_neither_its_lock_nor_its_connection(remote: Apart, app: Project):
    """Whatever its client left is found and put right by the next command."""
    remote.up(app)
    app.version("2", environment={"BOOT": "30"}, healthcheck={**HEALTHCHECK, "start_period": "60s"})
    with remote.begun(app, "up", step="check_health") as running:
        running.process.kill()
        running.process.wait()
    assert until(lambda: remote.second.ssh_sessions() == 0, GONE_SECONDS, pause=0.05), "ssh goes on"
    again = remote.up(app.version("3", environment={}), "--wait", "20s").result
    assert (again["outcome"], again["previous"]) == ("live", 1)
    assert remote.get("/version", app) == "3"
    assert len(remote.running(app)) == 1


@over_ssh
def test_a_command_connects_once(remote: Apart, app: Project):
    """Each further connection would cost a third of a second, and more from afar."""
    before = remote.second.logins()
    remote.up(app)
    assert remote.second.logins() == before + 1
    assert remote.second.ssh_sessions() == 0


@over_ssh
@pytest.mark.parametrize("wrong", ["port", "user", "socket"])
def test_an_engine_that_ssh_does_not_reach_is_told_so(remote: Apart, app: Project, wrong: str):
    """Exit code 4, with what ssh said, and soon."""
    url = remote.environment["DOCKER_HOST"]
    url = {
        "port": url.replace(":2222", ":2223"),
        "user": url.replace("root@", "nobody@"),
        "socket": f"{url}.not",
    }[wrong]
    began = time.monotonic()
    refused = remote.imm(app, "status", expect=4, DOCKER_HOST=url)
    assert time.monotonic() - began < CONNECT_SECONDS
    error = refused.error
    assert error["code"] == "engine_unreachable" and error["hint"]
    said = {"port": "refused", "user": "denied", "socket": "no engine answers"}[wrong]
    assert said in " ".join([error["message"], *error.get("details", [])]).lower(), error
