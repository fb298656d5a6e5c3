"""Named volumes: what they begin with, who may write, and one writer or many."""

from __future__ import annotations

import http.client
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from immutable_local.wait import until
from tests.host import HEALTHCHECK, Host, Project
from tests.kills import look
from tests.load import Load

# A second instance on the same volume would end at once: so none of these tests passes when two overlap.
ALONE = """\
import fcntl
lock = open("/data/lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
import server
"""
CAREFUL = """\
import pathlib, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(pathlib.Path("/data/ended").write_text("well") < 0))
signal.pause()
"""
# Run in the sidecar: a signal to the process where the requests of an app's `web` wait.
SIGNAL_PARKING = """\
import contextlib, os, pathlib, sys
for each in pathlib.Path("/proc").glob("[0-9]*"):
    with contextlib.suppress(OSError):
        if f"/park/{sys.argv[1]}.web".encode() in (each / "cmdline").read_bytes():
            os.kill(int(each.name), int(sys.argv[2]))
"""
# Run in the sidecar: stops the session that has an app's lock in the middle of pointing its live link anew.
STOP_WHILE_POINTING = """\
import os, pathlib, signal, sys, time
home, lock = pathlib.Path("/imm/proxy/data/apps", sys.argv[1]), f"/imm/state/data/locks/app-{sys.argv[1]}"
before, until = set(os.listdir(home)), time.monotonic() + 60
def has_it(process):
    try:
        return any(os.readlink(each) == lock for each in (process / "fd").iterdir())
    except OSError:
        return False
def still(waiting):
    return waiting and time.monotonic() < until
while still(not (found := [each for each in pathlib.Path("/proc").glob("[0-9]*") if has_it(each)])):
    time.sleep(0.02)
while still(not any(each.startswith("gen-") for each in set(os.listdir(home)) - before)):
    pass
os.kill(int(found[0].name), signal.SIGSTOP)
print(found[0].name)
"""
SIGNAL = "import os, sys; os.kill(int(sys.argv[1]), int(sys.argv[2]))"
# Longer than an interrupted client waits for what it asked for last.
LATE_SECONDS = 2.0


@pytest.fixture
def app(host: Host) -> Project:
    app = host.project()
    (app.folder / "seed").mkdir()
    (app.folder / "seed" / "seed.txt").write_text("from the image")
    dockerfile = (app.folder / "Dockerfile").read_text()
    return app.dockerfile(dockerfile + "COPY --chown=1000:1000 seed /data\n").version(
        "1", volumes=["data:/data"]
    )


def test_a_new_volume_takes_the_images_files_and_ownership(host: Host, app: Project):
    """A user who isn't root can write from the start; the volume is the app's, by label."""
    host.up(app.set(volumes={"data": {"writers": "many"}}))
    assert host.get("/read?/data/seed.txt").startswith("1000:1000 ")
    assert host.get("/read?/data/seed.txt").endswith("from the image")
    assert host.get("/write?/data/new=x") == "written"
    volume = host.engine.inspect_volume(f"imm-{app.name}-data")
    assert volume["Labels"] == {"imm.role": "volume", "imm.app": app.name}


@pytest.mark.parametrize("line", ["", "VOLUME /var/lib/new"])
def test_a_volume_where_the_image_has_nothing_belongs_to_the_services_user(
    host: Host, app: Project, line: str
):
    """Also when the image announces it."""
    app.dockerfile((app.folder / "Dockerfile").read_text().replace("USER", f"{line}\nUSER", 1))
    host.up(app.version("1", volumes=["data:/data", "new:/var/lib/new"], user="1234:1235"))
    assert host.get("/write?/var/lib/new/file=x") == "written"
    assert host.get("/read?/var/lib/new/file").startswith("1234:1235 ")


def test_a_volume_whose_maker_was_killed_before_it_was_given_is_given_by_the_next(host: Host, app: Project):
    """It is there, and root's, and no container has ever had it. Of two services it is the first one's."""
    app.set(volumes={name: {"writers": "many"} for name in ("data", "new")})
    app.version("1", volumes=["data:/data", "new:/var/lib/new"], user="1234:1235")
    app.service("worker", behave="worker", user="4321", volumes=["new:/new"], stop_grace_period="0s")
    host.engine.create_volume(f"imm-{app.name}-new", labels={"imm.role": "volume", "imm.app": app.name})
    host.up(app)
    assert host.get("/write?/var/lib/new/file=x") == "written"


def test_a_volume_with_anything_in_it_keeps_its_owner(host: Host, app: Project):
    """Also when no container has it any more, and another user comes: databases look at who owns theirs."""
    app.version("1", volumes=["data:/data", "new:/var/lib/new"], user="1234:1235")
    host.up(app)
    host.get("/write?/var/lib/new/file=x")
    host.imm(app, "down")
    host.up(app.version("1", user="4321"))
    assert host.ask("/write?/var/lib/new/other=x").status == 403
    assert host.get("/read?/var/lib/new/file").startswith("1234:1235 ")


def test_what_an_image_keeps_in_a_volume_that_nobody_named_is_told_to_go_with_the_instance(
    host: Host, app: Project
):
    """Of the app's own image and of one that it names; and it is so."""
    dockerfile = (app.folder / "Dockerfile").read_text()
    app.dockerfile(dockerfile + 'COPY --chown=1000:1000 seed /kept\nVOLUME ["/data", "/kept", "/tmp"]\n')
    told = "{}: its image keeps data in {}, where no volume is mounted: it is gone with the instance;"
    told += ' add volumes = ["NAME:{}"]'
    assert host.up(app).result["remarks"] == [told.format("web", "/kept", "/kept")]
    assert host.get("/write?/kept/new=x") == "written"
    app.service("db", image=f"imm.local/app/{app.name}:1", volumes=["db:/kept"], tmpfs=["/tmp"])
    remarks = host.up(app.version("2", volumes=["data:/data", "kept:/kept"])).result["remarks"]
    assert told.format("db", "/data", "/data") in remarks
    assert sum("keeps data" in each for each in remarks) == 1
    assert host.ask("/read?/kept/new").text == "No such file or directory"


def test_down_keeps_data_and_history_and_up_brings_them_back(host: Host, app: Project):
    host.up(app)
    host.get("/write?/data/kept=precious")
    result = host.imm(app, "down").result
    assert (result["outcome"], result["previous"]) == ("down", 1)
    assert f"kept: volumes imm-{app.name}-data, and the history" in result["remarks"]
    assert host.instances(app) == []
    assert host.ask("/").status == 404
    assert [each["event"] for each in host.history(app)][-1] == "down"
    assert host.imm(app, "down").result["outcome"] == "unchanged"
    assert host.up(app).result["release"] == 1
    assert host.get("/read?/data/kept").endswith("precious")


def test_with_many_writers_old_and_new_run_side_by_side(host: Host, app: Project):
    """Nothing is held or stopped first, no request is lost, and both see the same data."""
    app.set(volumes={"data": {"writers": "many"}})
    host.up(app)
    host.get("/write?/data/log=1")
    with Load(host, app) as load:
        outcome = host.up(app.version("2"))
        host.get("/write?/data/log=2")
    assert outcome.states("hold", "stop_old") == ["skipped", "skipped"]
    assert load.lost == []
    assert host.get("/read?/data/log").endswith(" 12")


def test_a_worker_of_a_release_that_fails_has_its_time_to_end_what_it_is_at(host: Host, app: Project):
    """It has been at work since it started, whatever became of the others."""
    app.set(volumes={"data": {"writers": "many"}})
    host.up(app)
    app.service("worker", command=["python3", "-c", CAREFUL], volumes=["data:/data"])
    app.version("2", behave="sick", healthcheck={**HEALTHCHECK, "start_period": "1s"})
    host.up(app, expect=1)
    assert host.get("/read?/data/ended").endswith(" well")


class TestOneWriter:
    """The old instance stops before the new one starts: each takes a lock that only one can have."""

    @pytest.fixture
    def app(self, host: Host, app: Project) -> Project:
        host.up(app.version("1", command=["python3", "-c", ALONE], stop_grace_period="3s"))
        host.get("/write?/data/log=1")
        return app

    def test_the_old_instance_stops_first_the_data_goes_on_and_requests_wait(self, host: Host, app: Project):
        """Nobody is answered while there is nobody to answer, and nobody is turned away."""
        plan = host.imm(app.version("2"), "plan").result
        assert plan["stop_first"] == ["web"]
        with Load(host, app) as load:
            outcome = host.up(app)
        assert load.lost == []
        assert load.answers == ["1", "2"]
        assert outcome.states("hold", "stop_old", "start", "flip") == ["done"] * 4
        assert any("one writer" in each for each in outcome.result["remarks"])
        assert host.get("/version") == "2"
        assert host.get("/read?/data/log").endswith(" 1")

    def test_an_old_instance_that_the_engine_is_just_about_to_restart_stays_stopped(
        self, host: Host, app: Project
    ):
        """It crashes again and again, which is why it is replaced: the engine must not start it beside the new
        one."""
        crashing = "import os\nif os.path.exists('/data/crash'): os._exit(3)\n"
        host.up(app.version("2", command=["python3", "-c", crashing + ALONE]))
        [old] = host.running(app)
        host.get("/write?/data/crash=1")
        with suppress(http.client.HTTPException, OSError):
            host.ask("/end")

        def waits_for_its_restart() -> bool:
            told = host.inspect(old)
            # The pause doubles with each: this one is longer than what comes until the next look.
            return bool(told["State"]["Restarting"] and told["RestartCount"] >= 5)

        assert until(waits_for_its_restart, 30, pause=0.02)
        app.version("3", command=["python3", "-c", ALONE], behave="wait")
        with host.begun(app, "up", step="check_health") as running:
            assert host.inspect(old)["State"]["Status"] == "exited"
            assert host.inspect(old)["HostConfig"]["RestartPolicy"]["Name"] == "no"
            host.let_go(app)
            assert running.ends().result["outcome"] == "live"
        assert host.get("/version") == "3"

    def test_what_waits_for_a_service_goes_on_to_it_by_its_new_name(self, host: Host, app: Project):
        """imm.toml calls it otherwise, and then as before; its domain and its data are the same."""
        app.set(volumes={"data": {"writers": "one"}}).version("2", domains=[app.domain])
        app.settings["services"]["site"] = app.settings["services"].pop("web")
        with Load(host, app) as load:
            outcomes = [host.up(app.write()), host.revert(app)]
        assert [each.states("hold", "stop_old") for each in outcomes] == [["done", "done"]] * 2
        assert load.lost == []
        assert load.answers == ["1", "2", "1"]

    def test_what_is_refused_is_refused_before_the_old_one_stops(self, host: Host, app: Project):
        """Here another volume that the new release mounts, which is somebody else's."""
        [started] = [host.inspect(each)["State"]["StartedAt"] for each in host.running(app)]
        name = f"imm-{app.name}-more"
        host.engine.create_volume(name)
        try:
            outcome = host.up(app.version("2", volumes=["data:/data", "more:/more"]), expect=1)
        finally:
            host.engine.remove_volume(name)
        assert outcome.error["code"] == "name_taken"
        assert "stop_old" not in {each.get("step") for each in outcome.told}
        assert [host.inspect(each)["State"]["StartedAt"] for each in host.running(app)] == [started]

    def test_when_the_new_one_fails_the_old_one_is_started_again(self, host: Host, app: Project):
        """The same container, not a new one, and it answers as before."""
        before = [each["Id"] for each in host.instances(app)]
        app.version("2", command=["python3", "-c", "raise SystemExit(7)"])
        with Load(host, app) as load:
            outcome = host.up(app, expect=1)
        assert load.lost == []
        assert load.answers == ["1"]
        assert outcome.error["still"] == "release 1 is still live"
        assert [each["Id"] for each in host.instances(app)] == before
        assert host.get("/version") == "1"
        assert host.get("/read?/data/log").endswith(" 1")

    def test_interrupted_while_the_old_ones_come_back_all_of_them_do(self, host: Host, app: Project):
        """Whoever presses Ctrl-C then leaves nothing that another command must start, or let go."""
        app.service("db", behave="worker", port=None, volumes=["more:/data"], stop_grace_period="0s")
        host.up(app.version("1", environment={"BOOT": "3"}))
        old = host.running(app)
        app.service("db", environment={"BEHAVE": "worker", "N": "1"})
        app.version("2", command=["python3", "-c", "raise SystemExit(7)"])
        with host.begun(app, "up", step="check_health") as running:
            assert until(lambda: set(old) & set(host.running(app)), 30, pause=0.01)
            running.interrupt()
            assert running.ends(1).error["code"] == "interrupted"
        assert host.get("/version") == "1"
        assert host.running(app) == old
        policies = [host.inspect(each)["HostConfig"]["RestartPolicy"]["Name"] for each in old]
        assert policies == ["always", "always"]
        assert look(host, app)["live"]["held"] == []

    def test_a_hold_that_comes_late_to_an_interrupted_command_is_taken_back(self, host: Host, app: Project):
        """The sidecar is at it, and slow: the command, on its way back already, sees nothing held."""
        with ThreadPoolExecutor(1) as beside:
            stopped = beside.submit(
                host.printed, "imm-sidecar", "python3", "-c", STOP_WHILE_POINTING, app.name
            )
            with host.begun(app.version("2"), "up", step="hold") as running:
                session = stopped.result().strip()
                running.interrupt()
                time.sleep(LATE_SECONDS)
                host.execute("imm-sidecar", "python3", "-c", SIGNAL, session, str(int(signal.SIGCONT)))
                assert running.ends(1).error["code"] == "interrupted"
        assert look(host, app)["live"]["held"] == []
        assert host.get("/version") == "1"

    def test_interrupted_while_what_waited_is_let_go_the_new_release_stays(self, host: Host, app: Project):
        """It has begun some of that already, which can't go back. Where that waits is slow to listen here."""

        def told_to_let_go() -> bool:
            # A second socket of that name: somebody has connected to it.
            return host.printed("imm-sidecar", "cat", "/proc/net/unix").count(f"{app.name}.web.ctl") > 1

        with host.begun(app.version("2", behave="wait"), "up", step="check_health") as running:
            signal_parking(host, app, signal.SIGSTOP)
            try:
                host.let_go(app)
                assert until(told_to_let_go, 20, pause=0.01)
                running.interrupt()
                outcome = running.ends(1)
            finally:
                signal_parking(host, app, signal.SIGCONT)
        assert outcome.error["code"] == "interrupted"
        assert outcome.error["message"] == "interrupted after the flip: release 2 is live"
        assert host.get("/version") == "2"

    def test_a_request_that_has_waited_for_its_bound_is_told_to_try_again(self, host: Host, app: Project):
        """503 with Retry-After, from the proxy; then the new instance boots, and all is well."""
        host.up(app.version("2", hold="500ms"))
        app.version("3", behave="wait", healthcheck={**HEALTHCHECK, "start_period": "60s"})
        with host.begun(app, "up", step="check_health") as running:
            turned_away = host.ask("/version")
            host.let_go(app)
            assert running.ends().result["outcome"] == "live"
        assert turned_away.status == 503
        assert int(turned_away.headers["retry-after"]) > 0
        assert turned_away.text.startswith("503: ")
        assert host.get("/version") == "3"

    def test_a_stream_that_does_not_end_is_cut_in_time_for_the_requests_that_wait(
        self, host: Host, app: Project
    ):
        """It would get the whole `drain`, and what waits would be told 503 before the old instance stops."""
        host.up(app.version("1", hold="9s", drain="12s"))
        stream = host.connection()
        stream.request("GET", "/stream?60", headers={"Host": app.domain})
        answer = stream.getresponse()
        assert answer.readline() == b"1\n"
        with Load(host, app) as load:
            outcome = host.up(app.version("2"))
        assert load.lost == []
        assert load.answers == ["1", "2"]
        [told] = [line for line in outcome.stderr.splitlines() if line.startswith("warning: web: ")]
        assert "still busy after" in told and "what is left is cut before `drain` is over" in told
        assert b"end" not in answer.read()
        stream.close()

    def test_what_waited_for_a_release_that_failed_is_answered_before_the_next_one(
        self, host: Host, app: Project
    ):
        """It went back to the old instance, and that one ends it before it stops for the next release."""
        short = {**HEALTHCHECK, "start_period": "2s"}
        with ThreadPoolExecutor(1) as beside:
            app.version("2", behave="sick", healthcheck=short)
            with host.begun(app, "up", step="check_health") as running:
                answer = beside.submit(host.ask, "/slow?6")
                running.ends(1)
            assert not answer.done()
            host.up(app.version("3", behave=""))
            assert answer.done()
            assert (answer.result().status, answer.result().text) == (200, "1")
        assert host.get("/version") == "3"

    def test_revert_stops_first_too(self, host: Host, app: Project):
        host.up(app.version("2"))
        assert host.revert(app).states("stop_old") == ["done"]
        assert host.get("/version") == "1"


@pytest.mark.parametrize("owner", ["", "another"])
def test_a_volume_of_that_name_that_is_not_the_apps_is_refused_and_left_alone(
    host: Host, app: Project, owner: str
):
    """Somebody's, or another app's: nobody is told to remove that one."""
    name = f"imm-{app.name}-data"
    host.engine.create_volume(name, labels={"imm.role": "volume", "imm.app": owner} if owner else {})
    try:
        with host.nothing_left_over():
            error = host.up(app, expect=1).error
        assert error["code"] == "name_taken"
        assert name in error["message"] and owner in error["message"]
        assert ("remove" in error["hint"]) == (not owner)
    finally:
        host.engine.remove_volume(name)


def test_a_service_that_no_request_can_wait_for_is_told_to_have_been_away(host: Host, app: Project):
    """It has no port: who asks it by its name meets nobody while it is replaced, and while it comes back."""
    db = {"behave": "worker", "port": None, "volumes": ["data:/data"]}
    host.up(app.version("1", volumes=None).service("db", **db))
    told = host.up(app.version("2")).result["remarks"]
    assert any(each.startswith("db has a volume for one writer") and "no answer" in each for each in told)
    assert not any("requests waited" in each for each in told)
    short = {**HEALTHCHECK, "start_period": "1s"}
    failed = host.up(app.version("3", behave="sick", healthcheck=short), expect=1)
    assert "db: the old instance had stopped, and runs again; nobody" in failed.stderr
    assert f"{app.name}-db-2-blue-1" in host.running(app)


def test_one_writer_is_alone_also_when_somebody_removed_the_releases_image(host: Host, app: Project):
    """No instance of a service with an image of its own keeps the release's image: its settings stay known."""
    app.settings["services"] = {}
    alone = ["python3", "-c", ALONE.replace("import server", "import signal; signal.pause()")]
    db = {"image": host.base, "command": alone, "volumes": ["data:/data"], "stop_grace_period": "0s"}
    host.up(app.service("db", **db))
    host.engine.remove_image(f"imm.local/app/{app.name}:1")
    assert host.up(app).result["outcome"] == "unchanged"
    assert host.releases(app) == [1]
    host.engine.remove_image(f"imm.local/app/{app.name}:1")
    outcome = host.up(app.service("db", environment={"N": "1"}))
    assert outcome.states("stop_old", "flip") == ["done", "done"]
    assert outcome.result["release"] == 2


def test_one_writer_is_alone_also_when_the_image_and_another_service_are_gone(host: Host, app: Project):
    """What `docker system prune -a` leaves when web was stopped by hand: nobody but db tells what is live."""
    alone = ["python3", "-c", ALONE.replace("import server", "import signal; signal.pause()")]
    db = {"image": host.base, "command": alone, "volumes": ["data:/data"], "stop_grace_period": "0s"}
    host.up(app.version("1", volumes=None).service("db", **db))
    host.engine.remove_container(f"{app.name}-web-1-green-1", force=True)
    host.engine.remove_image(f"imm.local/app/{app.name}:1")
    outcome = host.up(app.service("db", environment={"N": "1"}))
    assert outcome.states("stop_old", "flip") == ["done", "done"]
    assert host.get("/version") == "1"


def test_a_live_release_whose_image_lost_its_name_gets_it_back(host: Host, app: Project):
    """docker rmi -f takes the name; the image stays, as its instances need it."""
    host.up(app)
    host.engine.remove_image(f"imm.local/app/{app.name}:1", force=True)
    assert host.up(app).result["outcome"] == "unchanged"
    assert host.images(app) == [f"imm.local/app/{app.name}:1"]
    assert host.up(app.version("2")).states("stop_old") == ["done"]
    assert host.revert(app).result["release"] == 1


def signal_parking(host: Host, app: Project, which: signal.Signals) -> None:
    assert host.execute("imm-sidecar", "python3", "-c", SIGNAL_PARKING, app.name, str(int(which)))[0] == 0
