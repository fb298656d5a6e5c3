"""The first release, the next one, and nothing to do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import get_args

from immutable_local.app import Service
from immutable_local.engine import connect
from immutable_local.events import Step
from immutable_local.instance import Instance
from immutable_local.start import keep_running
from tests.host import Host, Project


def test_a_first_release_answers_at_the_address_that_up_tells(host: Host, app: Project):
    """A Dockerfile and four lines of imm.toml are enough."""
    app.settings["services"]["web"] = {"port": 8000}
    app.write()
    live = host.up(app).result
    assert (live["outcome"], live["release"], live["previous"]) == ("live", 1, None)
    assert live["url"] == f"http://{app.domain}:{host.proxy[1]}"
    assert host.get("/version") == "1"
    assert host.running() == [f"{app.name}-web-1-green-1"]


def test_the_next_release_takes_the_place_of_the_one_before(host: Host, app: Project):
    """The old instance and its image's tag: the first is gone, the second stays to be reverted to."""
    host.up(app)
    live = host.up(app.version("2")).result
    assert (live["outcome"], live["release"], live["previous"]) == ("live", 2, 1)
    assert host.get("/version") == "2"
    assert [each["Names"] for each in host.instances(app)] == [[f"/{app.name}-web-2-blue-1"]]
    assert host.releases(app) == [1, 2]


def test_a_fresh_build_takes_what_comes_out(host: Host, app: Project):
    """Nothing of an earlier build is used: its layers are others, and so is the release."""
    host.up(app)
    assert host.up(app).result["outcome"] == "unchanged"
    fresh = host.up(app, "--fresh").result
    assert (fresh["outcome"], fresh["release"]) == ("live", 2)


def test_a_grace_period_below_a_second_is_no_kill_at_once(host: Host, app: Project):
    """The engine counts whole seconds: of 500ms it would make none."""
    takes_a_moment = "trap 'sleep 0.3; exit 0' TERM; python3 server.py & wait"
    host.up(app.version("1", command=["sh", "-c", takes_a_moment], stop_grace_period="500ms"))
    [name] = host.running(app)
    assert host.inspect(name)["Config"]["StopTimeout"] == 1
    assert "SIGTERM" not in host.up(app.version("2")).stderr


def test_a_health_command_that_hung_once_makes_no_failure(host: Host, app: Project):
    """The next one is run beside it, and says that all is well."""
    command = ["sh", "-c", "mkdir /tmp/once 2>/dev/null && sleep 1234; exit 0"]
    check = {"command": command, "interval": "50ms", "timeout": "500ms", "start_period": "10s"}
    assert host.up(app.version("1", healthcheck=check)).result["outcome"] == "live"


def test_quiet_says_nothing_but_the_result(host: Host, app: Project):
    said = host.up(app, "--quiet", text=True)
    assert said.stdout.startswith(f"release 1 of {app.name} is live at http://{app.domain}")
    assert said.stderr == ""


def test_json_tells_every_step_in_the_contracts_order_and_the_result_last(host: Host, app: Project):
    """One object a line; names and order are stable; a release has its number once it is sealed."""
    told = host.up(app).told
    steps = [each for each in told if each["event"] == "step"]
    assert told == [*steps, told[-1]] and told[-1]["event"] == "result"
    ended = [each["step"] for each in steps if each["state"] != "begun"]
    assert ended == list(get_args(Step))
    skipped = {each["step"] for each in steps if each["state"] == "skipped"}
    assert skipped == {"test", "hold", "stop_old", "snapshot", "release_command", "watch"}
    begun = [each["step"] for each in steps if each["state"] == "begun"]
    sealed = [each["release"] for each in steps if each["step"] == "seal"]
    assert sealed == [None, 1]
    assert begun == [step for step in get_args(Step) if step not in skipped]
    assert all(each["seconds"] >= 0 for each in steps if each["state"] == "done")
    assert {each["app"] for each in steps} == {app.name}
    numbered = {each["step"]: each["release"] for each in steps if each["state"] != "begun"}
    assert [numbered[step] for step in ("lock", "build", "start", "prune")] == [None, None, 1, 1]
    assert told[-1].keys() >= {"outcome", "release", "previous", "seconds", "url"}


def test_an_instance_that_ended_just_before_it_goes_live_is_started_again(host: Host, app: Project):
    """It was healthy a moment ago; whoever isn't asked through the proxy would stay dead, and live."""
    host.up(app.service("worker", behave="worker", stop_grace_period="0s"))
    name = f"{app.name}-worker-1-green-1"
    engine = connect()
    # As one is that isn't live yet.
    engine.keep_stopped(name)
    engine.stop(name, 0)
    started = [Instance(name, name, Service("worker"), "green", None)]
    keep_running(SimpleNamespace(engine=engine), started)
    assert name in host.running(app)
    assert host.inspect(name)["HostConfig"]["RestartPolicy"]["Name"] != "no"


def test_an_instance_that_was_killed_before_is_not_told_to_heed_a_signal(host: Host, app: Project):
    """By the kernel for its memory, or by hand: SIGTERM never came."""
    host.up(app)
    [old] = host.running(app)
    connect().keep_stopped(old)
    host.engine.kill(old)
    assert "SIGTERM" not in host.up(app.version("2")).stderr
