"""What goes wrong before a release is live: code, message, reason and hint; and nothing is left over.

One app is live in its first version for the whole file. Each test asks for something bad in its place.
"""

from __future__ import annotations

import copy
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import docker
import pytest

from immutable_local import health
from immutable_local.wait import until
from tests.host import HEALTHCHECK, Host, Outcome, Project

# Long enough to boot on a busy machine, and to be asked then: what is told is what was seen.
SHORT = {**HEALTHCHECK, "timeout": "300ms", "start_period": "5s"}


@pytest.fixture(scope="module")
def live(shared: Host) -> Project:
    app = shared.project()
    shared.up(app)
    return app


@pytest.fixture
def app(live: Project) -> Iterator[Project]:
    """The live app's folder, given back as it was."""
    with given_back(live):
        yield live


@contextmanager
def given_back(live: Project) -> Iterator[None]:
    settings, dockerfile = copy.deepcopy(live.settings), (live.folder / "Dockerfile").read_text()
    try:
        yield
    finally:
        live.settings = settings
        live.dockerfile(dockerfile).version("1")


def refused(host: Host, app: Project, *, expect: int = 1, **environment: str) -> Outcome:
    """`up` fails; version 1 is still live, in the same container, and nothing else is there."""
    with host.nothing_left_over():
        outcome = host.up(app, expect=expect, **environment)
    assert outcome.result["outcome"] == "failed"
    assert host.get("/version", app) == "1"
    assert host.running(app) == [f"{app.name}-web-1-green-1"]
    return outcome


def unhealthy(host: Host, app: Project) -> dict:
    """Why the release did not become healthy, as it was told."""
    return told_unhealthy(refused(host, app))


def told_unhealthy(outcome: Outcome) -> dict:
    error = outcome.error
    assert error["code"] == "unhealthy"
    assert error["still"] == "release 1 is still live"
    assert error["hint"]
    assert outcome.states("start", "check_health") == ["done", "failed"]
    return error


def test_a_release_that_crashes_at_start_tells_its_exit_code_and_last_words(shared: Host, app: Project):
    """At once: nobody waits for the deadline of something that is dead."""
    app.version("2", behave="crash", healthcheck={**HEALTHCHECK, "start_period": "60s"})
    error = unhealthy(shared, app)
    assert "its container ended with exit code 1" in error["details"]
    assert "  no database: DATABASE_URL is not set" in error["details"]


def test_a_command_that_isnt_there_is_named(shared: Host, app: Project):
    app.version("2", command=["gunicorn", "shop:app"])
    error = refused(shared, app).error
    assert error["code"] == "not_started"
    assert "gunicorn" in str(error)
    assert "services.web.command" in error["hint"] or "correct the command" in error["hint"]


def test_an_image_without_a_command_is_told_before_it_is_sealed(shared: Host, app: Project):
    """Its key and line: imm.toml could have one."""
    app.dockerfile("FROM scratch\nCOPY VERSION /\n")
    before = shared.releases(app)
    error = refused(shared, app.version("2"), expect=2).error
    assert error["message"].startswith(
        "services.web.command: is missing, and its image has none (imm.toml, line "
    )
    assert error["still"] == "nothing was touched"
    assert shared.releases(app) == before


def test_more_processors_than_the_engine_has_are_refused_before_anything_is_built(shared: Host, app: Project):
    outcome = refused(shared, app.version("2", cpus=1000.0), expect=2)
    assert outcome.error["message"].startswith("services.web.cpus: must be ")
    assert "(imm.toml, line " in outcome.error["message"]
    assert not any(each.get("step") == "build" for each in outcome.told)


@pytest.mark.parametrize("user", ["0:0", "1000:1000"])
def test_a_volume_at_a_file_of_the_image_is_told_with_its_key(shared: Host, app: Project, user: str):
    """Also where it would be given to the service's user first."""
    error = shared.up(app.version("2", user=user, volumes=["data:/app/server.py"]), expect=1).error
    assert error["code"] == "not_started"
    assert "a volume is mounted on a folder, never on a file of the image" in error["details"]
    assert "services.web.volumes" in error["hint"]


def test_secrets_where_the_image_has_a_file_in_their_place_are_told(shared: Host, app: Project):
    app.dockerfile((app.folder / "Dockerfile").read_text().replace("USER", "RUN touch /run/secrets\nUSER"))
    shared.imm(app, "secret", "set", "KEY", told="x")
    error = refused(shared, app.version("2", secrets=["KEY"])).error
    assert error["code"] == "not_started"
    assert any(each.startswith("/run/secrets is a folder in the image") for each in error["details"])


def test_a_command_written_as_one_word_is_told(shared: Host, app: Project):
    error = refused(shared, app.version("2", command=["python3 server.py"])).error
    assert error["code"] == "not_started"
    assert 'the program\'s name is "python3 server.py": each word stands by itself' in error["details"]


def test_a_command_that_ends_is_told_to_stay(shared: Host, app: Project):
    app.version("2", command=["true"])
    error = unhealthy(shared, app)
    assert "its container ended with exit code 0" in error["details"]
    assert "stay in the foreground" in error["hint"]


@pytest.fixture(scope="module")
def wrong_port(shared: Host, live: Project) -> Outcome:
    """Of a release that listens on another port than imm.toml says."""
    with given_back(live):
        return refused(shared, live.version("2", environment={"PORT": "9000"}, healthcheck=SHORT))


def test_a_wrong_port_is_told_with_the_port_that_listens(wrong_port: Outcome):
    error = told_unhealthy(wrong_port)
    assert "the container listens on 9000; imm.toml says port = 8000" in error["details"]
    assert error["hint"] == "correct services.web.port in imm.toml to 9000, then run imm up"


def test_a_server_that_listens_on_loopback_alone_is_told_so(shared: Host, app: Project):
    app.version("2", behave="loopback", healthcheck=SHORT)
    error = unhealthy(shared, app)
    assert any("127.0.0.1" in each for each in error["details"])
    assert "0.0.0.0" in error["hint"]


def test_a_redirect_is_not_healthy_and_its_target_is_told(shared: Host, app: Project):
    app.version("2", behave="redirect", healthcheck=SHORT)
    error = unhealthy(shared, app)
    assert any(each.startswith("GET /up answered 301 to /login") for each in error["details"])
    assert "without a redirect" in error["hint"]


def test_a_health_check_that_hangs_ends_at_the_deadline(shared: Host, app: Project):
    app.version("2", behave="hang", healthcheck=SHORT)
    outcome = refused(shared, app)
    assert (
        outcome.error["message"]
        == f"release {outcome.result['release']} of {app.name} did not become healthy within 5 s"
    )
    assert any(each.startswith("GET /up was not answered within 0.3 s") for each in outcome.error["details"])
    assert "healthcheck.timeout" in outcome.error["hint"]
    assert outcome.result["seconds"] < 60


def test_a_bad_status_is_told_with_the_statuses_that_would_be_good(shared: Host, app: Project):
    app.version("2", behave="sick", healthcheck=SHORT)
    error = unhealthy(shared, app)
    assert any(
        each.startswith("GET /up answered 500") and "healthy is 200 to 299" in each
        for each in error["details"]
    )


def test_a_health_command_that_hangs_is_tried_again_and_never_fills_the_container(shared: Host, app: Project):
    """The engine can't end what it began inside a container: a few stay, and it is told that they were late."""
    check = {"command": ["sleep", "1234"], "interval": "50ms", "timeout": "300ms", "start_period": "4s"}
    hung = []
    with shared.begun(app.version("2", healthcheck=check), "up", step="check_health") as up:
        while not up.has_ended:
            for name in shared.running(app):
                # It may end meanwhile.
                with suppress(docker.errors.APIError):
                    processes = shared.engine.top(name)["Processes"] or []
                    hung.append(sum("sleep 1234" in " ".join(each) for each in processes))
        error = up.ends(1).error
    assert max(hung) == health.LATE_AT_MOST
    assert error["code"] == "unhealthy"
    assert any("sleep 1234 had not ended within 0.3 s" in each for each in error["details"])
    assert "healthcheck.timeout" in error["hint"]


def test_a_health_command_that_fails_is_told_with_what_it_printed(shared: Host, app: Project):
    command = ["sh", "-c", "echo no such table; exit 4"]
    app.version("2", healthcheck={"command": command, "interval": "100ms", "start_period": "2s"})
    error = unhealthy(shared, app)
    assert any("ended with exit code 4" in each for each in error["details"])
    assert any("it printed: " in each and "no such table" in each for each in error["details"])


def test_an_images_own_health_check_is_asked_where_imm_toml_names_none(shared: Host, app: Project):
    check = "HEALTHCHECK CMD echo the image says no; exit 3\n"
    app.dockerfile((app.folder / "Dockerfile").read_text() + check)
    app.version("2", healthcheck={"start_period": "2s", "interval": "100ms"})
    error = unhealthy(shared, app)
    assert any("ended with exit code 3" in each for each in error["details"])
    assert any("it printed: the image says no" in each for each in error["details"])


def test_a_worker_that_does_not_stay_up_keeps_the_whole_release_from_going_live(shared: Host, app: Project):
    app.version("2").service("worker", behave="crash")
    assert "its container ended with exit code 1" in unhealthy(shared, app)["details"]


def test_a_write_that_the_read_only_root_refused_is_named(shared: Host, app: Project):
    app.version("2", behave="write")
    error = unhealthy(shared, app)
    assert "its root file system is read-only, and it tried to write /app/cache" in error["details"]
    # The application itself is in /app.
    assert "tmpfs =" not in error["hint"]
    assert "services.web.read_only = false" in error["hint"]


def test_a_tmpfs_is_offered_for_a_folder_that_is_empty_in_the_image(shared: Host, app: Project):
    app.dockerfile((app.folder / "Dockerfile").read_text().replace("USER", "RUN mkdir /app/cache\nUSER"))
    app.version("2", command=["sh", "-c", "echo /app/cache/x: Read-only file system; exit 1"])
    assert 'services.web.tmpfs = ["/app/cache"]' in unhealthy(shared, app)["hint"]


def test_an_instance_killed_for_want_of_memory_is_told_its_limit(shared: Host, app: Project):
    app.version("2", behave="eat", memory="48m")
    error = unhealthy(shared, app)
    assert "its container was killed for want of memory (limit: 48 MiB)" in error["details"]
    assert "services.web.memory" in error["hint"]


def test_a_second_replica_that_fails_keeps_the_whole_release_from_going_live(shared: Host, app: Project):
    """All are healthy before the flip: the hostname tells the replicas apart."""
    fails = "case $HOSTNAME in *-2) exit 9;; esac; exec python3 server.py"
    app.version("2", replicas=2, command=["sh", "-c", fails])
    assert "its container ended with exit code 9" in unhealthy(shared, app)["details"]


def test_a_dockerfile_that_fails_shows_the_builders_last_lines(shared: Host, app: Project):
    app.dockerfile((app.folder / "Dockerfile").read_text() + "COPY not-there.txt /app/\n")
    outcome = refused(shared, app)
    assert outcome.error["code"] == "build_failed"
    assert any("not-there.txt" in each for each in outcome.error["details"])
    assert "Dockerfile" in outcome.error["hint"]
    assert outcome.states("build") == ["failed"]


def test_a_dockerfile_that_fails_is_told_alike_by_the_engines_own_builder(
    shared: Host, app: Project, tmp_path: Path
):
    """Where there is no docker command line; and the steps that went well leave no image."""
    (tmp_path / "git").symlink_to(shutil.which("git") or "")
    app.version(secrets.token_hex(8))
    app.dockerfile((app.folder / "Dockerfile").read_text() + "COPY not-there.txt /app/\n")
    outcome = refused(shared, app, PATH=str(tmp_path))
    assert outcome.error["code"] == "build_failed"
    assert any("not-there.txt" in each for each in outcome.error["details"])


def test_a_stage_that_the_dockerfile_has_not_is_a_mistake_in_imm_toml(shared: Host, app: Project):
    app.set(build={"target": "prod"}).dockerfile(
        (app.folder / "Dockerfile").read_text().replace("\n", " AS production\n", 1)
    )
    error = refused(shared, app, expect=2).error
    assert error["message"].startswith("build.target: there is no stage prod in Dockerfile (imm.toml, line ")
    assert "production" in error["hint"]


def test_a_missing_dockerfile_is_a_mistake_in_imm_toml(shared: Host, app: Project):
    (app.folder / "Dockerfile").unlink()
    error = refused(shared, app, expect=2).error
    assert "Dockerfile" in error["message"]
    assert "Dockerfile" in error["hint"]


def test_a_secret_without_a_value_is_refused_before_anything_is_built(shared: Host, app: Project):
    app.version("2", secrets=["TOKEN"])
    outcome = refused(shared, app, expect=2)
    assert outcome.error["code"] == "secret_missing"
    assert outcome.error["hint"] == "imm secret set TOKEN"
    assert shared.imm(app, "plan", expect=2).error["message"] == outcome.error["message"]
    assert not any(each.get("step") == "build" for each in outcome.told)


def test_a_failure_is_told_to_people_as_to_programs(shared: Host, app: Project):
    """What failed, what is still true, the facts, and what to do next; on standard error."""
    app.version("2", environment={"PORT": "9000"}, healthcheck=SHORT)
    said = shared.up(app, expect=1, text=True)
    assert said.stdout == ""
    lines = said.stderr.splitlines()
    head = next(line for line in lines if line.startswith("error: "))
    assert head.endswith("did not become healthy within 5 s; release 1 is still live")
    assert "  the container listens on 9000; imm.toml says port = 8000" in lines
    assert lines[-1] == "  next: correct services.web.port in imm.toml to 9000, then run imm up"


def test_a_failure_stands_in_the_history_with_its_reason(shared: Host, live: Project, wrong_port: Outcome):
    number = wrong_port.result["release"]
    told = [each for each in shared.history(live) if each["release"] == number]
    assert {(each["event"], each.get("code")) for each in told} == {("sealed", None), ("failed", "unhealthy")}
    assert "did not become healthy" in told[-1]["error"]
    assert told[-1]["facts"][-1] == "the container listens on 9000; imm.toml says port = 8000"


def test_the_history_keeps_nothing_that_an_application_printed(shared: Host, app: Project):
    """Values of the environment are on the screen of who deploys, and in kept logs that come to an end."""
    token = secrets.token_hex(8)
    print_it = ["sh", "-c", "echo the token is $TOKEN | tee /proc/1/fd/1; exit 4"]
    check = {"command": print_it, "interval": "100ms", "start_period": "2s"}
    app.version("2", environment={"TOKEN": token}, healthcheck=check)
    details = unhealthy(shared, app)["details"]
    assert [f"it printed: the token is {token}", f"  the token is {token}"] == [
        each for each in dict.fromkeys(details) if token in each
    ]
    records = shared.history(app)
    assert "ended with exit code 4" in records[-1]["facts"][-1]
    assert token not in str(records)


def test_a_log_of_a_release_that_failed_can_still_be_read(shared: Host, app: Project):
    app.version("2", behave="crash")
    number = refused(shared, app).result["release"]
    told = shared.imm(app, "logs", "--release", str(number)).told
    assert {each["line"] for each in told} == {"version 2 starts", "no database: DATABASE_URL is not set"}


def test_a_first_release_that_fails_leaves_nothing_at_all(host: Host):
    """No network, no image, no container, no route: as if it had never been asked for."""
    app = host.project().version("1", behave="crash")
    with host.nothing_left_over():
        error = host.up(app, expect=1).error
    assert error["still"] == f"nothing of {app.name} was live before"
    assert host.ask("/", app).status == 404
    assert host.status(app)["live"] is None


def test_an_unreachable_engine_is_exit_code_4(host: Host, app: Project):
    host.projects.clear()
    error = host.up(app, expect=4, DOCKER_HOST="unix:///nonexistent/docker.sock").error
    assert error["code"] == "engine_unreachable"
    assert "/nonexistent/docker.sock" in error["message"]
    assert "DOCKER_HOST" in error["hint"]


def test_an_engine_that_refuses_this_user_is_exit_code_4(shared: Host, app: Project, tmp_path: Path):
    """The kernel refuses a socket without any permission; root asks without the right to pass it by."""
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0)
        drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
        error = shared.up(app, expect=4, prefix=drop, DOCKER_HOST=f"unix://{path}").error
    assert error["code"] == "engine_refuses_user"
    assert "permission denied" in error["message"]
    assert "docker group" in error["hint"]


def test_an_image_that_is_pruned_before_its_instance_is_made_is_told(shared: Host, app: Project):
    """Sealed a moment ago, and used by no container yet: the command again makes it again."""
    check = {"command": ["test", "-e", "/tmp/go"], "interval": "100ms"}
    idle = ["python3", "-c", "import signal; signal.pause()"]
    app.version("2").service("db", image=shared.base, command=idle, healthcheck=check, stop_grace_period="0s")
    with shared.begun(app, "up", step="start") as up:
        assert until(lambda: len(shared.running(app)) == 2, 30.0, pause=0.05)
        shared.engine.remove_image(f"imm.local/app/{app.name}:{max(shared.releases(app))}")
        shared.let_go(app)
        error = up.ends(1).error
    assert error["code"] == "no_image"
    assert error["hint"].startswith("run the command again")
    assert error["still"] == "release 1 is still live"
    assert shared.running(app) == [f"{app.name}-web-1-green-1"]


def test_an_instances_name_that_another_apps_has_is_told_with_that_app(host: Host):
    """`web-api` of one and `api` of the other: nobody is told to rename what may be live."""
    one = host.project()
    two = host.project(f"{one.name}-web")
    one.settings["services"] = {"web-api": one.settings["services"]["web"]}
    two.settings["services"] = {"api": two.settings["services"]["web"]}
    host.up(one.write())
    with host.nothing_left_over():
        error = host.up(two.write(), expect=1).error
    assert error["code"] == "name_taken"
    assert f"the service web-api of the app {one.name}" in error["message"]
    assert "another name" in error["hint"] and "docker" not in error["hint"]


class TestAnotherProjectOfTheSameName:
    """Two projects with one name don't replace one another, unless told so."""

    @pytest.fixture
    def other(self, host: Host) -> Project:
        mine = host.project()
        host.up(mine)
        return host.project(mine.name, folder="elsewhere").version("other")

    def test_it_is_refused_and_nothing_is_touched(self, host: Host, other: Project):
        with host.nothing_left_over():
            error, planned = host.up(other, expect=2).error, host.imm(other, "plan", expect=2).error
        assert (error["code"], planned["message"]) == ("other_project", error["message"])
        assert str(host.projects[0].folder) in error["message"]
        assert "--take-over" in error["hint"]
        assert host.get("/version") == "1"

    def test_it_replaces_the_first_when_told_so_and_is_known_from_then_on(self, host: Host, other: Project):
        host.up(other, "--take-over")
        assert host.get("/version") == "other"
        assert host.up(other.version("other 2")).result["outcome"] == "live"
        assert host.up(host.projects[0], expect=2).error["code"] == "other_project"


def test_a_domain_of_another_app_is_refused_before_anything_is_built(shared: Host, live: Project, host: Host):
    thief = host.project().version("1", domains=[live.domain])
    with host.nothing_left_over():
        outcome, planned = host.up(thief, expect=2), host.imm(thief, "plan", expect=2)
    assert outcome.error["code"] == "domain_taken"
    assert outcome.error["message"].startswith(f"services.web.domains: {live.domain}/ ")
    assert outcome.error["message"].endswith(" (imm.toml, line 2)")
    assert planned.error["message"] == outcome.error["message"]
    assert live.name in outcome.error["message"]
    assert not any(each.get("step") == "build" for each in outcome.told)
    assert shared.get("/version", live) == "1"


def test_python_starts_imm_as_the_tests_do():
    """The virtual environment's own interpreter: what `imm` starts with."""
    assert Path(sys.prefix, "bin", "imm").exists()
