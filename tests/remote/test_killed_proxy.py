"""Killed behind Traefik, and while one kind of proxy takes over from the other.

`proxy up` tells no steps: the moments are the engine's own events. All of them: IMM_SOAK=1.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from signal import Signals

import pytest

pytest.register_assert_rewrite("tests.remote.faults")

from tests.host import Project  # noqa: E402
from tests.kills import Kill, Subject, at_each_step, at_the_begin, guards  # noqa: E402
from tests.remote.conftest import Apart, apart, base_image  # noqa: E402
from tests.remote.faults import host_is_right, proxies, struck_at, tasks  # noqa: E402
from tests.remote.second_engine import SecondEngine  # noqa: E402

pytestmark = pytest.mark.engine
SOAK = os.environ.get("IMM_SOAK") == "1"
SEED = int(os.environ.get("IMM_SEED", "4"))
SAMPLE = 2
KINDS = ("nginx", "traefik")
SWITCHED = [
    ("create", "imm-making"),
    ("start", "imm-making"),
    ("create", "imm-proxy-next"),
    ("die", "imm-proxy"),
    ("start", "imm-proxy-next"),
    ("destroy", "imm-proxy"),
    ("rename", "imm-proxy"),
    ("destroy", "imm-sidecar"),
    ("create", "imm-sidecar"),
    ("start", "imm-sidecar"),
]


# From here on nobody listens, or the sidecar is missing.
GUARDED = [("kill", "imm-proxy"), *SWITCHED[3:]]


def kills() -> list[Kill]:
    """SIGKILL at the begin of each step, and a sample of the rest; with IMM_SOAK=1 all of it."""
    choice = random.Random(SEED)
    begin = at_the_begin("up", "many", Signals.SIGKILL, choice)
    rest = [kill for kill in at_each_step(choice) if kill not in begin]
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


@pytest.fixture(scope="module")
def switching(
    second: SecondEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Apart, Project]]:
    second.load([base_image("traefik")])
    with apart(second, tmp_path_factory.mktemp("switching")) as host:
        app = host.project()
        host.up(app)
        yield host, app


@pytest.mark.parametrize(
    "which", [Signals.SIGKILL, Signals.SIGINT] if SOAK else [Signals.SIGKILL], ids=lambda which: which.name
)
@pytest.mark.parametrize("moment", SWITCHED if SOAK else [SWITCHED[n] for n in (3, 5, 8)], ids="-".join)
def test_a_switch_of_proxies_that_was_killed_is_finished_or_undone_by_the_next_command(
    switching: tuple[Apart, Project], moment: tuple[str, str], which: Signals
):
    """Whatever command comes next, and however soon: one proxy, one sidecar, and what was live is live behind it."""
    host, app = switching
    other = other_kind(host, app)
    ended = struck_at(host, app, "proxy", "up", "--kind", other, moment=moment, which=which, unguarded=False)
    assert ended.code in (-which, 1, 0), ended
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


def other_kind(host: Apart, app: Project) -> str:
    kind = host.imm(app, "proxy", "status").result["kind"]
    return next(each for each in KINDS if each != kind)
