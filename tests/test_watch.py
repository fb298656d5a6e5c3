"""After the flip: the new release is watched, and the old one is a flip away."""

from __future__ import annotations

import http.client
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from immutable_local import lock
from immutable_local.app import Service
from immutable_local.engine import connect
from immutable_local.host import attach
from immutable_local.proxy import Counts
from immutable_local.wait import until
from immutable_local.watch import beyond, would_do
from tests.host import HEALTHCHECK, Host, Outcome, Project
from tests.kills import look
from tests.values import observed, release

WATCH = "40s"
# The watch is told when it begins, and lets go of the lock then.
PATIENT = ("--wait", "20s")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (Counts(1000, 0), Counts(20, 10)),
        (Counts(1000, 10), Counts(200, 30)),
        (Counts(0, 0), Counts(5, 5)),
        (Counts(3, 0), Counts(14, 8)),
        (Counts(200, 40), Counts(200, 100)),
    ],
)
def test_errors_well_beyond_what_they_were_are_seen(old: Counts, new: Counts):
    assert beyond(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (Counts(1000, 0), Counts(1000, 0)),
        (Counts(0, 0), Counts(0, 0)),
        (Counts(1000, 0), Counts(8, 4)),
        (Counts(1000, 200), Counts(1000, 210)),
        (Counts(5, 1), Counts(100, 20)),
        (Counts(10, 3), Counts(20, 7)),
        (Counts(100_000, 0), Counts(100_000, 900)),
        (Counts(100, 100), Counts(100, 100)),
    ],
)
def test_chance_and_what_was_so_before_are_no_reason(old: Counts, new: Counts):
    assert not beyond(old, new)


def test_counters_that_begin_anew_are_read_from_there():
    assert Counts(10, 2).since(Counts(4, 1)) == Counts(6, 1)
    assert Counts(3, 1).since(Counts(4000, 10)) == Counts(3, 1)


def test_there_is_no_way_back_to_a_release_of_which_something_does_not_run():
    """Whoever isn't asked by HTTP, a worker or who has a health command, must run as well."""
    old = observed(release(Service("web", port=8000), Service("worker"))).live
    assert old is not None
    web, worker = sorted(old.instances)
    well, ill = {"healthy": True}, {"healthy": False}
    assert would_do(old, {web, worker, "another"}, [well])
    assert not would_do(old, {web}, [well])
    assert not would_do(old, {web, worker}, [ill])
    assert not would_do(old, {worker}, [])


@pytest.fixture(scope="module")
def app(shared: Host) -> Project:
    """An app that is watched, with a healthy release live at the begin of each test."""
    return shared.project().set(release={"watch": WATCH})


@pytest.fixture
def healthy(shared: Host, app: Project) -> Project:
    app.set(release={"watch": "0s"})
    shared.up(app.version("good", environment={}))
    return app.set(release={"watch": WATCH})


def went_back(host: Host, app: Project, outcome: Outcome, because: str) -> None:
    """The old release is live as if nothing had been, and everybody is told why."""
    error = outcome.error
    assert error["code"] == "flipped_back"
    assert because in error["message"]
    live = host.status(app)["live"]["release"]
    assert error["still"] == f"release {live} is live again"
    assert "imm" in error["hint"]
    assert host.get("/version", app) == "good"
    assert len(host.instances(app)) == 1
    *_, reverted, failed = host.history(app)
    assert (reverted["event"], reverted["release"]) == ("reverted", live)
    assert because in reverted["error"]
    assert (failed["event"], failed["release"], failed["step"]) == (
        "failed",
        outcome.result["release"],
        "watch",
    )


@pytest.mark.engine
class TestOnAHost:
    def test_a_release_whose_errors_rise_goes(self, shared: Host, healthy: Project):
        """As the proxy counts them, in the time of a flip, and no request is lost by going back."""
        with shared.begun(healthy.version("erring", behave="erring"), "up", step="watch") as running:
            until(lambda: shared.ask("/version", healthy).status == 200, 30.0, pause=0.02)
            outcome = running.ends(1)
        went_back(shared, healthy, outcome, "5xx")

    def test_a_release_that_ends_goes(self, shared: Host, healthy: Project):
        with shared.begun(healthy.version("mortal"), "up", step="watch") as running:
            with suppress(http.client.HTTPException, OSError):
                shared.ask("/end", healthy)
            outcome = running.ends(1)
        went_back(shared, healthy, outcome, "ended")

    def test_a_release_that_ended_before_anybody_watched_goes(self, shared: Host, healthy: Project):
        """Between the flip and the first look."""
        with shared.begun(healthy.version("hasty"), "up", step="record") as running:
            running.interrupt(signal.SIGSTOP)
            new = shared.get("/who", healthy)
            with suppress(http.client.HTTPException, OSError):
                shared.ask("/end", healthy)
            again = until(lambda: shared.inspect(new)["RestartCount"], 10.0, pause=0.05)
            running.interrupt(signal.SIGCONT)
            outcome = running.ends(1)
        assert again
        went_back(shared, healthy, outcome, "had to start it again")

    def test_a_release_that_turns_unhealthy_goes(self, shared: Host, healthy: Project):
        with shared.begun(healthy.version("frail"), "up", step="watch") as running:
            shared.get("/sicken", healthy)
            outcome = running.ends(1)
        went_back(shared, healthy, outcome, "turned unhealthy")

    def test_a_release_whose_health_command_does_not_end_any_more_goes(self, shared: Host):
        """It is given its time, and no more."""
        app = shared.project()
        asks = {"command": ["sh", "-c", "test ! -e /tmp/hangs || sleep 1000"], "timeout": "500ms"}
        shared.up(app.version("good", healthcheck=asks))
        app.set(release={"watch": WATCH})
        with shared.begun(app.version("hanging"), "up", step="watch") as running:
            assert shared.get("/write?/tmp/hangs=1", app) == "written"
            outcome = running.ends(1)
        went_back(shared, app, outcome, "turned unhealthy")
        assert "had not ended within 0.5 s" in "\n".join(outcome.error["details"])

    def test_an_old_release_whose_image_tells_its_health_is_gone_back_to(self, shared: Host):
        """What it answers at `/` isn't its health."""
        app = shared.project()
        app.dockerfile((app.folder / "Dockerfile").read_text() + 'HEALTHCHECK CMD ["true"]\n')
        shared.up(app.version("good", behave="closed", healthcheck=None))
        app.set(release={"watch": WATCH})
        with shared.begun(app.version("mortal"), "up", step="watch") as running:
            with suppress(http.client.HTTPException, OSError):
                shared.ask("/end", app)
            outcome = running.ends(1)
        went_back(shared, app, outcome, "ended")

    def test_a_watch_without_a_way_back_any_more_says_so(self, shared: Host, healthy: Project):
        """Somebody removed the old instance: what is live stays, and nobody watches it as was asked."""
        [old] = shared.running(healthy)
        with shared.begun(healthy.version("lonely"), "up", step="watch") as running:
            shared.engine.remove_container(old, force=True)
            outcome = running.ends()
        assert outcome.result["outcome"] == "live"
        assert f"the watch ended early: {old} ended" in outcome.stderr

    def test_an_instance_that_was_kept_is_watched_too(self, shared: Host):
        """It is part of the new release. Here of the old one as well, which is no better without it."""
        app = shared.project().service("worker", behave="worker", stop_grace_period="0s")
        shared.up(app)
        app.set(release={"watch": WATCH})
        with shared.begun(app.service("web", environment={"N": "1"}), "up", step="watch") as running:
            shared.engine.remove_container(f"{app.name}-worker-1-green-1", force=True)
            error = running.ends(1).error
        assert f"{app.name}-worker-1-green-1 ended; but release 1 isn't healthy either" in error["message"]
        assert error["still"] == "release 2 is live"

    def test_one_that_stands_its_watch_stays(self, shared: Host, healthy: Project):
        """For as long as it was told to, and the old one goes after that."""
        outcome = shared.up(healthy.version("sound").set(release={"watch": "3s"}))
        [watched] = [each for each in outcome.told if each.get("step") == "watch" and each["state"] == "done"]
        assert watched["seconds"] >= 3
        assert outcome.result["outcome"] == "live" and "remarks" not in outcome.result
        assert outcome.states("drain", "retire") == ["done", "done"]
        assert shared.get("/version", healthy) == "sound"
        assert len(shared.instances(healthy)) == 1
        assert shared.status(healthy)["traffic"] == []

    def test_an_instance_that_cannot_be_removed_does_not_hide_why_its_release_went(
        self, shared: Host, healthy: Project
    ):
        """The old release is live again: what could not go is told, and left to the next command."""
        with shared.begun(healthy.version("stuck"), "up", step="watch") as running:
            new = shared.inspect(shared.get("/who", healthy))["Id"]
            stuck = Path(shared.engine.info()["DockerRootDir"], "containers", new, "hostname")
            if subprocess.run(["chattr", "+i", str(stuck)], check=False, capture_output=True).returncode:
                pytest.skip("nothing here is unremovable")
            try:
                shared.get("/sicken", healthy)
                outcome = running.ends(1)
            finally:
                subprocess.run(["chattr", "-i", str(stuck)], check=True)
        assert "stays, until the next command tries again" in outcome.stderr
        shared.imm(healthy, "prune")
        assert outcome.error["code"] == "flipped_back"
        assert len(shared.instances(healthy)) == 1

    def test_the_next_up_ends_the_watch_first(self, shared: Host, healthy: Project):
        """The watch holds no lock; who is at work afterwards has the say. Till then the old release is up
        beside the new one, and status tells what both do."""
        with shared.begun(healthy.version("second"), "up", step="watch") as first:
            told = shared.status(healthy)["traffic"]
            assert len(shared.instances(healthy)) == 2
            healthy.set(release={"watch": "0s"}).version("third", behave="wait")
            with shared.begun(healthy, "up", *PATIENT, step="check_health") as third:
                # The third one isn't live before it may be.
                result = first.ends().result
                shared.let_go(healthy)
                assert third.ends().result["previous"] == result["release"]
        assert [each["release"] for each in told] == [result["release"], result["previous"]]
        assert result["outcome"] == "live"
        assert "ended the watch" in result["remarks"][0]
        assert shared.get("/version", healthy) == "third"
        assert len(shared.instances(healthy)) == 1

    def test_a_watch_that_follows_another_one_counts_too(self, shared: Host, healthy: Project):
        """The client that watched first ends while the second one counts."""
        with (
            shared.begun(healthy.version("second"), "up", step="watch") as first,
            shared.begun(healthy.version("third"), "up", *PATIENT, step="watch") as second,
        ):
            # As it found out before the third one was live, or after.
            first.ends(0, 1)
            told = [shared.get("/version", healthy) for _ in range(3)]
            counted = shared.status(healthy)["traffic"]
            shared.revert(healthy, *PATIENT)
            second.ends(1)
        assert told == ["third"] * 3
        assert len(counted) == 2

    def test_a_release_that_another_command_took_back_is_not_told_as_live(
        self, shared: Host, healthy: Project
    ):
        """Whoever deployed it learns what is live; history has who did it, once."""
        was = shared.status(healthy)["live"]["release"]
        with shared.begun(healthy.version("disliked"), "up", step="watch") as running:
            shared.revert(healthy, *PATIENT)
            outcome = running.ends(1)
        assert (outcome.result["outcome"], outcome.result["previous"]) == ("failed", was)
        assert outcome.error["code"] == "superseded"
        assert outcome.error["still"] == f"release {was} is live"
        assert [each["event"] for each in shared.history(healthy)][-2:] == ["went_live", "reverted"]
        assert shared.get("/version", healthy) == "good"

    def test_a_release_that_was_taken_off_while_it_was_watched_is_not_told_as_live(self, shared: Host):
        app = shared.project().version("good")
        shared.up(app)
        with shared.begun(app.version("short").set(release={"watch": WATCH}), "up", step="watch") as running:
            shared.imm(app, "down", *PATIENT)
            outcome = running.ends(1)
        assert (outcome.error["code"], outcome.error["still"]) == (
            "superseded",
            f"{app.name} is off this host",
        )

    def test_a_revert_during_the_watch_goes_back_at_once(self, shared: Host, healthy: Project):
        """To the very instances that the watch kept for it."""
        before = [each["Id"] for each in shared.instances(healthy)]
        with shared.begun(healthy.version("disliked"), "up", step="watch") as running:
            outcome = shared.revert(healthy, *PATIENT)
            running.ends(1)
        assert shared.get("/version", healthy) == "good"
        assert [each["Id"] for each in shared.instances(healthy)] == before
        assert "swept" not in outcome.stderr

    def test_a_revert_during_the_watch_that_gives_up_leaves_the_watch_all_it_had(
        self, shared: Host, healthy: Project
    ):
        """The instances to go back to, and the counting: errors of the new release still end it."""
        with shared.begun(healthy.version("erring", behave="erring"), "up", step="watch") as running:
            host = attach(connect())
            assert host is not None
            with (
                host.session as session,
                lock.host(session, "a test"),
                shared.begun(healthy, "revert", *PATIENT, step="start") as second,
            ):
                second.interrupt()
                second.ends(1)
            assert look(shared, healthy)["live"]["counted"]
            until(lambda: shared.ask("/version", healthy).status == 200, 30.0, pause=0.02)
            outcome = running.ends(1)
        went_back(shared, healthy, outcome, "5xx")

    def test_a_client_killed_while_it_watches_leaves_the_new_release(self, shared: Host, healthy: Project):
        """And the old one, until the next command of any kind."""
        with shared.begun(healthy.version("orphaned"), "up", step="watch") as running:
            running.interrupt(signal.SIGKILL)
            running.ends(-signal.SIGKILL)
        assert shared.get("/version", healthy) == "orphaned"
        assert look(shared, healthy)["live"]["counted"]
        shared.imm(healthy, "prune")
        assert len(shared.instances(healthy)) == 1
        assert shared.get("/version", healthy) == "orphaned"
        assert not look(shared, healthy)["live"]["counted"]

    @pytest.mark.parametrize("what", ["nothing to do", "no image"])
    def test_nothing_is_counted_after_a_watch_that_never_began(
        self, shared: Host, healthy: Project, what: str
    ):
        """Counting begins with the command, long before there are two to compare."""
        dockerfile = (healthy.folder / "Dockerfile").read_text()
        if what == "no image":
            healthy.dockerfile(dockerfile + "RUN exit 3\n")
        shared.up(healthy, expect=0 if what == "nothing to do" else 1)
        healthy.dockerfile(dockerfile)
        assert not look(shared, healthy)["live"]["counted"]

    def test_a_service_with_one_writer_is_watched_as_long_as_it_stays(self, shared: Host):
        """When web changes it is; when db does, its old instance has stopped, and the result says so."""
        app = shared.project().set(release={"watch": "1s"}).version("1")
        shared.up(app.service("db", behave="worker", port=None, volumes=["data:/data"]))
        outcome = shared.up(app.service("web", environment={"LOG_LEVEL": "debug"}))
        assert outcome.states("hold", "watch") == ["skipped", "done"]
        assert "remarks" not in outcome.result
        outcome = shared.up(app.service("db", environment={"BEHAVE": "worker", "LOG_LEVEL": "debug"}))
        assert outcome.states("hold", "watch") == ["done", "skipped"]
        assert "not watched" in outcome.result["remarks"][-1]
        assert shared.status(app)["traffic"] == []

    def test_what_cannot_go_back_is_not_watched(self, shared: Host):
        """A first release, and one that replaces what doesn't run as a whole: nothing is waited for."""
        app = shared.project().set(release={"watch": WATCH})
        first = shared.up(app.service("worker", behave="worker", stop_grace_period="0s"))
        shared.engine.remove_container(f"{app.name}-worker-1-green-1", force=True)
        second = shared.up(app.version("2"))
        assert first.states("watch") == second.states("watch") == ["skipped"]
        assert f"not watched: {app.name}-worker-1-green-1 did not run" in second.result["remarks"][-1]


@pytest.mark.engine
class TestGoingBackToWhatIsTooSlowToProveIt:
    """The old release is healthy when it is asked patiently; the proof of a flip gives it less time."""

    @pytest.fixture
    def app(self, host: Host) -> Project:
        app = host.project().version("good", healthcheck={**HEALTHCHECK, "timeout": "500ms"})
        host.up(app)
        assert host.get("/tire?1")
        return app.set(release={"watch": WATCH})

    @staticmethod
    def end(host: Host) -> None:
        with suppress(http.client.HTTPException, OSError):
            host.ask("/end")

    def test_the_new_one_is_live_again_when_the_way_back_is_not_proved(self, host: Host, app: Project):
        """Nobody knows who gets requests otherwise, and nothing tells of it."""
        with host.begun(app.version("mortal"), "up", step="watch") as running:
            self.end(host)
            outcome = running.ends(1)
        assert outcome.error["code"] == "proxy_failed"
        assert outcome.error["still"] == "release 2 is live"
        assert host.get("/version") == "mortal"
        assert host.status(app)["live"]["release"] == 2
        assert [each["event"] for each in host.history(app)][-2:] == ["went_live", "unfinished"]
        host.imm(app, "prune")
        assert host.running(app) == [f"{app.name}-web-2-blue-1"]

    def test_killed_before_it_is_proved_it_has_gone_back(self, host: Host, app: Project):
        """Not forward: the next revert must not lead to the release that did not stand its watch."""
        with host.begun(app.version("mortal"), "up", step="watch") as running:
            self.end(host)
            went = until(lambda: host.status(app)["live"]["release"] == 1, 30.0, pause=0.1)
            running.interrupt(signal.SIGKILL)
            running.ends(-signal.SIGKILL)
        assert went
        host.imm(app, "prune", *PATIENT)
        assert host.get("/version") == "good"
        assert [each["event"] for each in host.history(app)][-2:] == ["reverted", "interrupted"]
        assert host.revert(app, expect=1).error["code"] == "nothing_to_revert_to"
