"""One deployment of an app at a time, and one that is interrupted leaves nothing."""

from __future__ import annotations

import getpass
import re
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from immutable_local import lock
from immutable_local.engine import connect
from immutable_local.errors import HostLocked, SessionLost
from immutable_local.host import attach
from immutable_local.observed import observe
from immutable_local.prune import prune
from immutable_local.sidecar.program import HEARTBEAT_SECONDS
from immutable_local.sweep import let_go
from immutable_local.wait import until
from tests.conftest import SOAK
from tests.host import HEALTHCHECK, Host, Project
from tests.kills import command
from tests.test_errors import listens_to
from tests.wire import Wire

# Its instances boot when the test lets them go.
WAITS = {"behave": "wait", "healthcheck": {**HEALTHCHECK, "start_period": "90s"}}


def test_two_at_once_are_one_after_the_other_or_refused(host: Host, app: Project):
    """Who is refused is told who holds the lock, from where, since when; who waits gets its turn."""
    host.up(app)
    app.version("2", **WAITS)
    with host.begun(app, "up", step="check_health") as first:
        refused = host.up(app, expect=3)
        assert refused.error["code"] == "locked"
        assert f"up by {getpass.getuser()}@{socket.gethostname()}" in refused.error["message"]
        assert re.search(r"since \d{4}-\d\d-\d\dT", refused.error["message"])
        assert "--wait" in refused.error["hint"]
        assert host.revert(app, "1", expect=3).error["code"] == "locked"
        assert host.imm(app, "down", expect=3).error["code"] == "locked"
        with host.begun(app, "up", "--wait", "60s", step="lock") as second:
            host.let_go(app)
            assert first.ends().result["outcome"] == "live"
            waited = second.ends().result
    assert (waited["outcome"], waited["release"]) == ("unchanged", 2)


@pytest.mark.parametrize("way", ["cut", "silence"])
def test_a_holder_whose_connection_is_lost_loses_the_lock_and_changes_nothing(
    host: Host, app: Project, tmp_path: Path, way: str
):
    """At once when the connection ends; within the heartbeat when it falls silent, which nobody is told."""
    host.up(app)
    app.version("2", **WAITS)
    with (
        Wire(tmp_path, connect().local.removeprefix("unix://")) as wire,
        host.begun(app, "up", step="check_health", DOCKER_HOST=wire.url) as holder,
    ):
        getattr(wire, way)()
        app.version("3", environment=None, healthcheck=HEALTHCHECK)
        result = host.up(app, "--wait", f"{HEARTBEAT_SECONDS + 5:.0f}s").result
        assert (result["outcome"], result["previous"]) == ("live", 1)
        before = host.instances(app)
        wire.cut()
        error = holder.ends(1, 4).error
    assert error["code"] in ("session_lost", "engine_unreachable") and error["hint"]
    assert host.get("/version") == "3"
    assert [each["Id"] for each in host.instances(app)] == [each["Id"] for each in before]


def test_whatever_takes_the_lock_can_wait_for_it(host: Host, app: Project):
    """Not `up` alone: who prunes, or sets a secret, is refused or waits alike."""
    host.up(app)
    commands = (("prune",), ("secret", "set", "TOKEN", "--from", str(app.folder / "imm.toml")))
    with (
        host.begun(app.version("2", **WAITS), "up", step="check_health") as running,
        ThreadPoolExecutor() as beside,
    ):
        for words in commands:
            assert host.imm(app, *words, expect=3).error["code"] == "locked"
        waiting = [beside.submit(host.imm, app, *words, "--wait", "60s") for words in commands]
        host.status(app)
        assert not any(each.done() for each in waiting)
        host.let_go(app)
        running.ends()
        assert [each.result().code for each in waiting] == [0, 0]


def test_looking_takes_no_lock(host: Host, app: Project):
    host.up(app)
    with host.begun(app.version("2", **WAITS), "up", step="check_health"):
        assert host.status(app)["live"]["release"] == 1
        assert host.history(app)[-1]["event"] == "sealed"
        assert host.imm(app, "logs").told[0]["line"] == "version 1 starts"


def test_two_apps_are_deployed_at_the_same_time(host: Host):
    """The lock is the app's; what they share is taken in turns."""
    first, second = host.project().version("1", **WAITS), host.project()
    with host.begun(first, "up", step="check_health") as running:
        assert host.up(second).result["outcome"] == "live"
        assert not running.has_ended
        host.let_go(first)
        assert running.ends().result["outcome"] == "live"
    assert (host.get("/version", first), host.get("/version", second)) == ("1", "1")


@pytest.mark.usefixtures("hangups_are_heeded")
@pytest.mark.parametrize("number", [signal.SIGHUP, *([signal.SIGINT, signal.SIGTERM] if SOAK else [])])
def test_an_interruption_during_the_health_check_undoes_everything(
    host: Host, app: Project, number: signal.Signals
):
    """The old release is live, nothing of the new one is left, and history says that it was interrupted."""
    host.up(app)
    with (
        host.nothing_left_over(),
        host.begun(app.version("2", **WAITS), "up", step="check_health") as running,
    ):
        running.interrupt(number)
        ended = running.ends(1)
    assert ended.error["code"] == "interrupted"
    assert "next:" in ended.stderr
    assert host.get("/version") == "1"
    last = host.history(app)[-1]
    assert (last["event"], last["release"]) == ("failed", 2)
    assert "interrupted" in last["error"]
    assert host.up(app.version("3", environment={})).result["outcome"] == "live"


def test_an_interrupted_secret_set_says_that_it_may_be_set(host: Host, app: Project):
    """Nothing of it is undone. Here it waits for the lock yet."""
    waiting = ("secret", "set", "TOKEN", "--from", "VERSION", "--wait", "60s")
    with (
        host.begun(app.version("1", **WAITS), "up", step="check_health"),
        command(host, app, *waiting) as running,
    ):
        assert until(lambda: listens_to(running.process.pid, signal.SIGTERM), 60.0, pause=0.01)
        running.send(signal.SIGINT)
        ended = running.ended()
    assert (ended.code, ended.error["code"]) == (1, "interrupted")
    assert "secret set may be done, or not" in ended.error["message"]
    assert "imm secret list" in ended.error["hint"]


def test_an_interrupted_first_release_leaves_nothing(host: Host, app: Project):
    with (
        host.nothing_left_over(),
        host.begun(app.version("1", **WAITS), "up", step="check_health") as running,
    ):
        running.interrupt()
        running.ends(1)
    assert host.status(app)["live"] is None


def test_what_a_killed_command_left_is_swept_by_the_next(host: Host, app: Project):
    """kill -9: its lock is free at once, its container goes, and history says what happened."""
    host.up(app)
    before = host.holdings()
    with host.begun(app.version("2", **WAITS), "up", step="check_health") as running:
        running.interrupt(signal.SIGKILL)
        running.ends(-signal.SIGKILL)
    assert host.holdings() > before
    result = host.up(app.version("1", environment=None, healthcheck=HEALTHCHECK), "--wait", "15s").result
    assert (result["outcome"], result["release"]) == ("unchanged", 1)
    assert host.running() == [f"{app.name}-web-1-green-1"]
    assert "interrupted" in [each["event"] for each in host.history(app)]


def test_a_lock_is_free_as_soon_as_its_session_has_been_closed(host: Host, app: Project):
    """A command that follows at once isn't refused by one that has ended."""
    for _ in range(20):
        ready = attach(connect())
        assert ready is not None
        with ready.session as session:
            lock.take(session, app.name, "a test")


def test_who_waits_in_vain_for_the_hosts_lock_is_told_nothing_of_waiting_longer(
    host: Host, app: Project, monkeypatch: pytest.MonkeyPatch
):
    """It is asked for in the middle of a command, and for no longer than this: there is no option for it."""
    monkeypatch.setattr(lock, "HOST_WAIT_SECONDS", 0.3)
    first, second = attach(connect()), attach(connect())
    assert first is not None and second is not None
    with first.session, second.session, lock.host(first.session, "one"):
        with pytest.raises(HostLocked) as refused, lock.host(second.session, "another"):
            pass
        assert refused.value.message.startswith("one by ") and "waited" in refused.value.message
        assert (refused.value.code, refused.value.exit_code) == ("locked", 3)
        assert "--wait" not in refused.value.hint
        assert refused.value.stands == "what was live is still live"


def test_who_is_interrupted_while_waiting_for_the_hosts_lock_does_not_get_it(host: Host, app: Project):
    """Nobody would know of it, and everybody wait for it: the way back of who was interrupted, too."""
    first, second = attach(connect()), attach(connect())
    assert first is not None and second is not None
    with first.session, second.session:
        with lock.host(first.session, "one"):
            threading.Timer(0.5, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt), lock.host(second.session, "another"):
                pass
        assert first.session.ask("lock", name="host", who={}, wait=3.0)


def test_who_lost_the_lock_removes_no_release_and_starts_no_instance(host: Host, app: Project):
    """Frozen in a prune, or in a sweep: by now another release may be one that is kept, or live."""
    host.up(app)
    host.up(app.version("2"))
    [live] = host.running(app)
    host.engine.stop(live, timeout=0)
    before = host.holdings()
    ready = attach(connect())
    assert ready is not None
    with ready.session as session:
        found = observe(ready.engine, session, app.name)
        assert found.live is not None
        images = found.sealed, found.unsealed
        with pytest.raises(SessionLost, match="lock was lost"):
            prune(ready.engine, session, app.name, *images, found.records, live=2, keep=0)
        with pytest.raises(SessionLost, match="lock was lost"):
            let_go(ready, found, found.live)
    assert host.holdings() == before


def test_what_is_told_is_done_in_its_order_and_before_what_is_asked_later(host: Host, app: Project):
    """Nobody waits for it: so neither a later word nor a question may overtake it."""
    ready = attach(connect())
    assert ready is not None
    with ready.session as session:
        lock.take(session, app.name, "a test")
        for number in range(100):
            session.tell("doing_write", app=app.name, told={"step": number})
        assert session.ask("app_state", app=app.name)["doing"]["step"] == 99
        session.tell("doing_clear", app=app.name)
        assert session.ask("app_state", app=app.name)["doing"] is None


def test_what_was_told_in_vain_is_raised_by_what_is_told_next(host: Host, app: Project):
    """Whoever lost the lock hears of it, and nothing was written."""
    ready = attach(connect())
    assert ready is not None
    with ready.session as session:
        session.tell("doing_write", app=app.name, told={"step": "start"})
        with pytest.raises(SessionLost, match="lock was lost"):
            session.tell("doing_write", app=app.name, told={"step": "flip"})
        assert session.ask("app_state", app=app.name)["doing"] is None


def test_what_was_told_in_vain_does_not_keep_what_is_told_next_from_being_done(host: Host, app: Project):
    """The host's lock is given back, also when what came before it failed."""
    ready, other = attach(connect()), attach(connect())
    assert ready is not None and other is not None
    with ready.session as session, other.session as next_one:
        with pytest.raises(SessionLost, match="lock was lost"), lock.host(session, "a test"):
            session.tell("doing_write", app=app.name, told={"step": "start"})
        assert next_one.ask("lock", name="host", who={}, wait=5.0)
