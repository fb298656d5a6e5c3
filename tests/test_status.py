"""What is live, what happened, and what was said: status, history and logs."""

from __future__ import annotations

import getpass
import re
import signal
import socket
import subprocess
import threading

import pytest

from tests.host import Host, Project

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture(scope="module")
def app(shared: Host) -> Project:
    """Release 1, a failure, release 3 from a commit, back to 1, and 3 again."""
    app = shared.project()
    shared.up(app)
    shared.up(app.version("2", behave="crash"), expect=1)
    git = ["git", "-C", app.folder, "-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    shared.up(app.version("3", environment={}))
    shared.revert(app)
    shared.revert(app, "3")
    return app


def test_status_tells_what_is_live_as_the_contract_has_it(shared: Host, app: Project):
    told = shared.status(app)
    live = told["live"]
    assert (told["app"], live["release"]) == (app.name, 3)
    assert re.fullmatch(r"[0-9a-f]{7,}", live["git"])
    assert re.fullmatch(TIME, live["since"])
    assert live["image"] == shared.engine.inspect_image(f"imm.local/app/{app.name}:3")["Id"]
    [instance] = told["services"]["web"]
    assert [f"/{instance['instance']}"] == shared.instances(app)[0]["Names"]
    assert (instance["state"], instance["health"]) == ("running", "healthy")
    assert re.fullmatch(TIME, instance["started"])
    assert told["urls"] == [f"http://{app.domain}:{shared.proxy[1]}"]
    assert told["revertable"] == [1]
    assert told["proxy"]["state"] == "running"


def test_status_tells_people_the_same(shared: Host, app: Project):
    said = shared.imm(app, "status", text=True).stdout
    head = said.splitlines()[0]
    assert re.fullmatch(rf"release 3 of {app.name} has been live for \d+ (s|min), commit [0-9a-f]+", head)
    assert re.search(rf"^web +{app.name}-web-3-(blue|green)-1 +running +healthy ", said, re.MULTILINE)
    assert f"address: http://{app.domain}:{shared.proxy[1]}\ncan be reverted to: 1\n" in said


def test_status_of_an_app_that_was_never_deployed_has_no_live(shared: Host):
    told = shared.status(shared.project())
    assert (told["live"], told["services"], told["urls"], told["revertable"]) == (None, {}, [], [])


def test_status_tells_an_instance_that_is_not_healthy_any_more(host: Host):
    app = host.project()
    host.up(app)
    name = host.running(app)[0]
    host.engine.pause(name)
    paused = host.status(app)["services"]["web"][0]
    host.engine.unpause(name)
    assert (paused["state"], paused["health"]) == ("paused", "unhealthy")
    host.engine.stop(name, timeout=1)
    assert host.status(app)["services"]["web"][0]["state"] == "exited"


def test_status_tells_which_of_many_instances_is_not_healthy(host: Host):
    """The eleventh stands before the second where names are sorted as text."""
    app = host.project().version("1", replicas=11)
    host.up(app)
    sick = next(name for name in host.running(app) if name.endswith("-11"))
    asked = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/sicken').read()"
    assert host.execute(sick, "python3", "-c", asked)[0] == 0
    told = host.status(app)["services"]["web"]
    assert [each["instance"].rpartition("-")[2] for each in told] == [str(each) for each in range(1, 12)]
    assert [each["instance"] for each in told if each["health"] != "healthy"] == [sick]


def test_the_proxy_tells_its_apps_and_stays_while_they_are_live(shared: Host, app: Project):
    """Whoever takes it down by mistake is told whom that would hit."""
    told = shared.imm(app, "proxy", "status").result
    assert (told["state"], told["bind"], told["port"]) == ("running", *shared.proxy)
    assert told["pool"] in shared.imm(app, "proxy", "status", text=True).stdout
    assert any(app.name in str(each) for each in told["apps"])
    with shared.nothing_left_over():
        error = shared.imm(app, "proxy", "down", expect=2).error
    assert error["code"] == "apps_live"
    assert app.name in error["message"]


def test_doctor_finds_everything_there(shared: Host, app: Project):
    found = {each["what"]: each for each in shared.imm(app, "doctor").result}
    assert found.keys() >= {"engine", "proxy", "disk"}
    assert all(each["ok"] for each in found.values())


def test_history_has_every_event_with_who_and_why(shared: Host, app: Project):
    """Oldest first, numbered without a gap."""
    records = shared.history(app)
    assert [each["number"] for each in records] == list(range(1, len(records) + 1))
    events = [(each["event"], each["release"]) for each in records if each["event"] != "sealed"]
    assert events == [("went_live", 1), ("failed", 2), ("went_live", 3), ("reverted", 1), ("reverted", 3)]
    assert {each["by"] for each in records} == {f"{getpass.getuser()}@{socket.gethostname()}"}
    assert all(re.fullmatch(TIME, each["at"]) for each in records)
    assert [bool(each["error"]) for each in records if each["event"] != "sealed"] == [
        False,
        True,
        False,
        False,
        False,
    ]
    went_live = next(each for each in records if (each["event"], each["release"]) == ("went_live", 3))
    assert (went_live["seconds"] > 0, went_live["dirty"]) == (True, True)


def test_history_tells_people_one_line_for_each_event(shared: Host, app: Project):
    lines = shared.imm(app, "history", text=True).stdout.splitlines()
    assert lines[0].split()[:3] == ["RELEASE", "EVENT", "AT"]
    assert [line.split()[:2] for line in lines[1:]] == [
        ["1", "went_live"],
        ["2", "failed"],
        ["3", "went_live"],
        ["1", "reverted"],
        ["3", "reverted"],
    ]
    assert lines[1].endswith("  web: first release")
    assert lines[2].endswith("  unhealthy: its container ended with exit code 1")


def test_logs_are_those_of_what_is_live(shared: Host, app: Project):
    assert [each["line"] for each in shared.imm(app, "logs").told] == ["version 3 starts"]
    said = shared.imm(app, "logs", "web", text=True).stdout
    assert re.fullmatch(rf"{app.name}-web-3-\w+-1 \| version 3 starts\n", said)


def test_logs_of_releases_that_are_gone_are_kept(shared: Host, app: Project):
    """Of one that was live, and of one that never was."""
    first = shared.imm(app, "logs", "--release", "1").told
    assert {each["line"] for each in first} == {"version 1 starts"}
    failed = shared.imm(app, "logs", "--release", "2").told
    assert {each["line"] for each in failed} == {"version 2 starts", "no database: DATABASE_URL is not set"}


def test_logs_that_are_not_there_are_an_error_with_what_there_is(shared: Host, app: Project):
    assert "imm history" in shared.imm(app, "logs", "--release", "77", expect=1).error["hint"]
    assert shared.imm(app, "logs", "wbe", expect=1).error["hint"] == "its services: web"


def test_logs_are_followed_as_they_are_written(shared: Host, app: Project):
    command = [*shared.command(app, "logs", text=True), "-f"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=app.folder
    ) as following:
        try:
            assert following.stdout is not None
            assert following.stdout.readline().endswith("| version 3 starts\n")
            shared.get("/say?something%20happened", app)
            assert following.stdout.readline().endswith("| something happened\n")
            # Ctrl-C is how a person ends it.
            following.send_signal(signal.SIGINT)
            assert following.wait(timeout=30) == 0
            assert following.stderr is not None and following.stderr.read() == ""
        finally:
            following.kill()


def test_who_follows_the_logs_goes_on_with_what_is_started_next(host: Host):
    """The next release, an instance that is started again, one that fails, what comes after `imm down`."""
    app = host.project()
    host.up(app)
    with subprocess.Popen(
        [*host.command(app, "logs", text=True), "-f"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=app.folder,
    ) as following:
        # A line that never comes fails the test, and doesn't hang it.
        late = threading.Timer(100, following.kill)
        late.start()
        try:
            assert following.stdout is not None and following.stderr is not None

            def comes(line: str) -> None:
                assert following.stdout.readline().rstrip().partition(" | ")[2] == line

            comes("version 1 starts")
            host.up(app.version("2"))
            comes("version 2 starts")
            host.get("/say?second", app)
            comes("second")
            host.engine.restart(host.running(app)[0], timeout=1)
            comes("version 2 starts")
            host.up(app.version("3", behave="crash"), expect=1)
            comes("version 3 starts")
            comes("no database: DATABASE_URL is not set")
            host.imm(app, "down")
            assert following.stderr.readline() == f"  nothing of {app.name} runs\n"
            host.up(app.version("4", environment={}))
            comes("version 4 starts")
            host.get("/say?fourth", app)
            comes("fourth")
            following.send_signal(signal.SIGINT)
            assert following.wait(timeout=30) == 0
            assert following.stdout.read() == ""
        finally:
            late.cancel()
            following.kill()


def test_the_logs_of_what_is_off_this_host_are_those_of_its_last_release(shared: Host):
    """Of all its instances."""
    app = shared.project()
    shared.up(app.version("1"))
    shared.up(app.version("2", replicas=2))
    shared.imm(app, "down")
    told = shared.imm(app, "logs").told
    assert [each["line"] for each in told] == ["version 2 starts"] * 2
    assert len({each["instance"] for each in told}) == 2
