"""Killed behind Traefik, and while one kind of proxy takes over from the other.

`proxy up` tells no steps: the moments are the engine's own events. All of them: IMM_SOAK=1.
"""

from __future__ import annotations

import http.client
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from signal import Signals
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.remote.faults")

from immutable_local.wait import until  # noqa: E402
from tests.conftest import SOAK, soak  # noqa: E402
from tests.host import HEALTHCHECK, Project  # noqa: E402
from tests.kills import (  # noqa: E402
    RENAMES,
    SIGNALS,
    Clients,
    Kill,
    Subject,
    at_each_step,
    at_the_begin,
    check,
    command,
    guards,
    struck,
    while_pruning,
)
from tests.remote.conftest import Apart, apart, base_image  # noqa: E402
from tests.remote.faults import (  # noqa: E402
    frozen_at,
    host_is_right,
    proxies,
    standing,
    struck_at,
    tasks,
)
from tests.remote.second_engine import SecondEngine  # noqa: E402

pytestmark = pytest.mark.engine
SEED = int(os.environ.get("IMM_SEED", "4"))
SAMPLE = 2
KINDS = ("nginx", "traefik")
SWITCHED = [
    ("create", "imm-making"),
    ("start", "imm-making"),
    ("create", "imm-proxy-next"),
    ("die", "imm-proxy"),
    ("start", "imm-proxy-next"),
    ("destroy", "imm-sidecar"),
    ("create", "imm-sidecar"),
    ("start", "imm-sidecar"),
    ("destroy", "imm-proxy"),
    ("rename", "imm-proxy"),
]
# From here on nobody listens, or the sidecar is missing.
GUARDED = [("kill", "imm-proxy"), *SWITCHED[3:]]
RETURN_SECONDS = 10.0
# What may come after a switch that was killed, and leaves the app live.
NEXT = ("up", "prune", "proxy up")


def kills() -> list[Kill]:
    """SIGKILL at the begin of each step, and a sample of the rest; with IMM_SOAK=1 all of it."""
    choice = random.Random(SEED)
    begin = at_the_begin("up", "many", Signals.SIGKILL, choice)
    every = at_each_step(choice) + while_pruning(choice, 12)
    rest = [kill for kill in dict.fromkeys(every) if kill not in begin]
    room = [kill for kill in rest if kill.step in ("hold", "stop_old") and kill.signal == Signals.SIGKILL]
    return begin + (rest if SOAK else choice.sample(room, 1) + choice.sample(rest, SAMPLE))


@pytest.fixture(scope="module")
def traefik(second: SecondEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    second.load([base_image("traefik")])
    with apart(second, tmp_path_factory.mktemp("traefik")) as host:
        host.imm(host.project(), "proxy", "up", "--kind", "traefik")
        yield host


@pytest.fixture(scope="module")
def subjects(traefik: Apart) -> dict[str, Subject]:
    return {writers: Subject(traefik, writers) for writers in ("many", "one")}


@pytest.mark.parametrize("kill", kills(), ids=str)
def test_killed_behind_traefik_and_right_again_at_the_next_command(subjects: dict[str, Subject], kill: Kill):
    subjects[kill.writers].endure(kill)


@soak
@pytest.mark.parametrize("moment", RENAMES)
def test_killed_just_before_or_just_after_the_live_links_rename_behind_traefik_that_one_decides(
    subjects: dict[str, Subject], moment: str
):
    """Its own file, which follows, decides nothing."""
    subjects["many"].endure_at_the_rename(moment)


def test_a_flip_that_was_cut_before_traefik_could_follow_is_whole_before_the_old_release_goes(
    subjects: dict[str, Subject],
):
    """The live link and Traefik's file are written one after the other: no request is lost between the two."""
    subject = subjects["many"]
    host, app = subject.host, subject.app
    was = subject.next_version()
    live = subject.deploy()
    routes = Path(f"/proc/{host.inspect('imm-sidecar')['State']['Pid']}/root/imm/proxy/data")
    of_app = routes / "traefik" / f"app-{app.name}.yml"
    before = of_app.read_text()
    with ThreadPoolExecutor(1) as beside:
        slow = beside.submit(host.ask, "/slow?5", app)
        version = subject.next_version()
        struck(host, app, "up", at="drain")
        (routes / "as-it-was").write_text(before)
        (routes / "as-it-was").rename(of_app)
        assert until(lambda: host.get("/version", app) == was, 10.0, pause=0.05)
        with Clients(host, app) as clients:
            host.imm(app, "prune")
        assert not clients.lost()
        assert slow.result().status == 200
    check(host, app, live + 1, version)
    subject.deploy()


@pytest.fixture(scope="module", params=["many", "one"] if SOAK else ["many"])
def switching(
    request: pytest.FixtureRequest, second: SecondEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Apart, Project]]:
    second.load([base_image("traefik")])
    with apart(second, tmp_path_factory.mktemp("switching")) as host:
        app = host.project().set(volumes={"data": {"writers": request.param}})
        host.up(app.version("1", volumes=["data:/data"]))
        yield host, app


@pytest.mark.parametrize(
    ("which", "then"),
    [(which, then) for which in SIGNALS for then in NEXT] if SOAK else [(Signals.SIGKILL, "up")],
    ids=lambda each: each.name if isinstance(each, Signals) else each,
)
@pytest.mark.parametrize("moment", SWITCHED if SOAK else [SWITCHED[n] for n in (3, 6)], ids="-".join)
def test_a_switch_of_proxies_that_was_killed_is_finished_or_undone_by_the_next_command(
    switching: tuple[Apart, Project], moment: tuple[str, str], which: Signals, then: str
):
    """Whatever command comes next, and however soon: one proxy, one sidecar, and what was live is live behind it."""
    host, app = switching
    other = other_kind(host, app)
    ended = struck_at(host, app, "proxy", "up", "--kind", other, moment=moment, which=which, unguarded=False)
    assert ended.code in (-which, 1, 0), ended
    host.imm(app, *then.split())
    host_is_right(host, app)
    assert host.up(app).result["outcome"] == "unchanged"
    host_is_right(host, app)
    host.imm(app, "proxy", "up", "--kind", other)
    assert host.imm(app, "proxy", "status").result["kind"] == other
    host_is_right(host, app)


@pytest.mark.parametrize(
    ("kind", "moment"),
    [(kind, moment) for kind in KINDS for moment in GUARDED]
    if SOAK
    else [("nginx", GUARDED[1]), ("traefik", GUARDED[0])],
    ids=lambda each: each if isinstance(each, str) else "-".join(each),
)
def test_what_is_live_answers_after_a_killed_switch_of_proxies_without_another_command(
    switching: tuple[Apart, Project], kind: str, moment: tuple[str, str]
):
    """Its guard finishes or undoes it."""
    host, app = switching
    host.imm(app, "proxy", "up", "--kind", kind)
    ended = struck_at(host, app, "proxy", "up", "--kind", other_kind(host, app), moment=moment)
    assert ended.code == -Signals.SIGKILL
    assert host.get("/version", app) == "1"
    assert proxies(host) == ["imm-proxy", "imm-sidecar"]
    assert (tasks(host), guards(host, app)) == ([], [])
    assert host.imm(app, "up").result["outcome"] == "unchanged"
    host_is_right(host, app)


@pytest.mark.parametrize(
    ("moment", "which"),
    [(moment, which) for moment in GUARDED for which in (Signals.SIGINT, Signals.SIGTERM)]
    if SOAK
    else [(GUARDED[5], Signals.SIGINT), (GUARDED[6], Signals.SIGTERM)],
    ids=lambda each: each.name if isinstance(each, Signals) else "-".join(each),
)
def test_what_is_live_answers_after_an_interrupted_switch_of_proxies_without_another_command(
    switching: tuple[Apart, Project], moment: tuple[str, str], which: Signals
):
    """The old proxy goes only when the new one has taken over whole: until then it is the way back."""
    host, app = switching
    ended = struck_at(host, app, "proxy", "up", "--kind", other_kind(host, app), moment=moment, which=which)
    assert ended.code in (0, 1), ended
    if ended.code:
        assert (ended.error["code"], ended.error["still"]) == ("interrupted", "what was live is still live")
    answers_again(host, app)
    assert proxies(host) == ["imm-proxy", "imm-sidecar"]
    assert (tasks(host), guards(host, app)) == ([], [])
    assert host.status(app)["live"]["release"] == 1
    assert host.up(app).result["outcome"] == "unchanged"
    host_is_right(host, app)


@pytest.mark.parametrize(
    ("moment", "woken_by"),
    [(moment, how) for moment in SWITCHED[2:] for how in (Signals.SIGCONT, Signals.SIGINT)]
    if SOAK
    else [(SWITCHED[3], Signals.SIGCONT), (SWITCHED[7], Signals.SIGINT)],
    ids=lambda each: each.name if isinstance(each, Signals) else "-".join(each),
)
def test_a_switch_of_proxies_that_was_frozen_is_another_commands_and_wakes_up_to_no_harm(
    switching: tuple[Apart, Project], moment: tuple[str, str], woken_by: Signals
):
    """Woken up, by Ctrl-C too, it takes nothing back of what another command finished, or undid, since."""
    host, app = switching
    other = other_kind(host, app)
    with frozen_at(host, app, "proxy", "up", "--kind", other, moment=moment) as frozen:
        assert host.up(app).result["outcome"] == "unchanged"
        before = standing(host)
        with Clients(host, app) as clients:
            frozen.send(woken_by)
            frozen.send(Signals.SIGCONT)
            woken = frozen.ended()
    assert not clients.lost()
    assert standing(host) == before and set(before) == {"imm-proxy", "imm-sidecar"}
    assert (tasks(host), guards(host, app)) == ([], [])
    assert woken.code in (0, 1), woken
    if woken.code:
        assert woken.error["code"] in ("session_lost", "engine_refused", "interrupted"), woken.error
    assert host.up(app).result["outcome"] == "unchanged"
    host_is_right(host, app)


def test_a_switch_that_lost_its_name_to_nobody_goes_on_from_there(switching: tuple[Apart, Project]):
    """Frozen for too long, while no other command came: what was left half done isn't left at that."""
    host, app = switching
    other = other_kind(host, app)
    with frozen_at(host, app, "proxy", "up", "--kind", other, moment=("die", "imm-proxy")) as frozen:
        host.engine.remove_container("imm-making", force=True)
        frozen.send(Signals.SIGCONT)
        assert frozen.ended().result["kind"] == other
    assert (proxies(host), tasks(host)) == (["imm-proxy", "imm-sidecar"], [])
    assert host.up(app).result["outcome"] == "unchanged"
    host_is_right(host, app)


def test_a_switch_that_is_interrupted_while_the_old_proxy_leaves_goes_back_to_it(
    switching: tuple[Apart, Project],
):
    """What it was answering is answered; then it is started again, as the engine does stop it once asked to."""
    host, app = switching
    host.imm(app, "proxy", "up", "--kind", "nginx")
    with ThreadPoolExecutor(1) as beside:
        # nginx goes on until it is answered, and takes nothing new.
        slow = beside.submit(host.ask, "/slow?3", app)
        moment = ("kill", "imm-proxy")
        ended = struck_at(host, app, "proxy", "up", "--kind", "traefik", moment=moment, which=Signals.SIGINT)
        assert slow.result().status == 200
    assert ended.error["code"] == "interrupted"
    answers_again(host, app)
    assert host.imm(app, "proxy", "status").result["kind"] == "nginx"
    host_is_right(host, app)


def test_a_strangers_container_of_the_sidecars_name_is_refused_before_the_proxy_leaves(
    switching: tuple[Apart, Project],
):
    """Nothing is stopped for a switch that can't come to its end."""
    host, app = switching
    other = other_kind(host, app)
    host.engine.remove_container("imm-sidecar", force=True)
    theirs = host.engine.create_container(host.base, ["sleep", "600"], name="imm-sidecar")["Id"]
    before = host.inspect("imm-proxy")["State"]["StartedAt"]
    try:
        refused = host.imm(app, "proxy", "up", "--kind", other, expect=1).error
        assert refused["code"] == "name_taken" and "imm-sidecar" in refused["message"]
        assert host.get("/version", app) == "1"
        assert host.inspect("imm-proxy")["State"]["StartedAt"] == before
    finally:
        host.engine.remove_container(theirs, force=True)
    assert host.up(app).result["outcome"] == "unchanged"
    host_is_right(host, app)


def test_a_killed_start_of_another_kind_of_proxy_leaves_it_with_the_routes_of_now(
    switching: tuple[Apart, Project],
):
    """Its files on the volume are of the time when it last ran: they count only once they are written anew."""
    host, app = switching
    host.imm(app, "proxy", "up", "--kind", "traefik")
    host.imm(app, "proxy", "up", "--kind", "nginx")
    host.up(app.version("2"))
    try:
        for name in ("imm-sidecar", "imm-proxy"):
            host.engine.stop(name, timeout=1)
        struck_at(host, app, "proxy", "up", "--kind", "traefik", moment=("start", "imm-sidecar"))
        assert host.imm(app, "proxy", "status").result["kind"] == "traefik"
        answers_again(host, app, "2")
    finally:
        host.up(app.version("1"))
    assert host.get("/version", app) == "1"


def test_a_proxy_that_takes_over_begins_with_what_went_live_just_before(switching: tuple[Apart, Project]):
    """After its configuration was written, here, and before nobody listened: what was live then is gone."""
    host, app = switching
    host.imm(app, "proxy", "up", "--kind", "nginx")
    told: Any = host.engine.events(since=f"{time.time():.9f}", decode=True)
    app.version("2", behave="wait", healthcheck={**HEALTHCHECK, "start_period": "90s"})
    try:
        with (
            host.begun(app, "up", step="check_health") as going_live,
            command(host, app, "proxy", "up", "--kind", "traefik") as taking_over,
        ):
            made = {("create", "imm-proxy-next")}
            next(each for each in told if (each["Action"], each["Actor"]["Attributes"].get("name")) in made)
            taking_over.send(Signals.SIGSTOP)
            host.let_go(app)
            going_live.ends()
            taking_over.send(Signals.SIGCONT)
            answers = []
            while taking_over.process.poll() is None:
                with suppress(OSError, http.client.HTTPException):
                    answers.append(host.ask("/version", app))
            assert taking_over.ended().code == 0
        # Traefik listens a moment before it has read anything.
        unread = (404, "404 page not found\n")
        assert {(each.status, each.text) for each in answers} - {unread} == {(200, "2")}
    finally:
        told.close()
        host.up(app.version("1", behave="", healthcheck=HEALTHCHECK))
    host_is_right(host, app)


def test_a_proxy_that_the_engine_is_still_stopping_is_not_taken_for_one_that_goes_on(
    switching: tuple[Apart, Project],
):
    """Killed with its guard: the next command waits for what this one asked of the engine."""
    host, app = switching
    host.imm(app, "proxy", "up", "--kind", "nginx")
    with ThreadPoolExecutor(1) as beside:
        # nginx goes on until it is answered, and takes nothing new.
        slow = beside.submit(host.ask, "/slow?4", app)
        struck_at(host, app, "proxy", "up", "--kind", "traefik", moment=("kill", "imm-proxy"), alone=False)
        assert host.inspect("imm-proxy")["State"]["Running"]
        assert host.up(app).result["outcome"] == "unchanged"
        assert slow.result().status == 200
    host_is_right(host, app)


def answers_again(host: Apart, app: Project, version: str = "1") -> None:
    """Within seconds, and without a command."""
    last: object = None

    def answers() -> bool:
        nonlocal last
        try:
            last = answer = host.ask("/version", app)
        except OSError as failed:
            last = failed
            return False
        return (answer.status, answer.text) == (200, version)

    assert until(answers, RETURN_SECONDS, pause=0.05), last


def other_kind(host: Apart, app: Project) -> str:
    kind = host.imm(app, "proxy", "status").result["kind"]
    return next(each for each in KINDS if each != kind)
