"""Killed on a host that has never seen imm, at moments that the engine itself tells. All of them: IMM_SOAK=1."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from signal import Signals
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.remote.faults")

from immutable_local import making  # noqa: E402
from immutable_local.engine import connect  # noqa: E402
from immutable_local.errors import Locked  # noqa: E402
from immutable_local.host import begin  # noqa: E402
from immutable_local.sidecar.program import HEARTBEAT_SECONDS  # noqa: E402
from immutable_local.sidecar.session import BEAT_SECONDS  # noqa: E402
from immutable_local.wait import until  # noqa: E402
from tests.kills import command  # noqa: E402
from tests.remote.conftest import Apart, base_image  # noqa: E402
from tests.remote.faults import (  # noqa: E402
    frozen_at,
    host_is_right,
    proxies,
    standing,
    struck_at,
    tasks,
)

pytestmark = pytest.mark.engine
SOAK = os.environ.get("IMM_SOAK") == "1"
MADE = [
    ("create", "imm-making"),
    ("create", "imm-state"),
    ("create", "imm-0-proxy"),
    ("create", "imm-proxy-next"),
    ("start", "imm-proxy-next"),
    ("create", "imm-sidecar"),
    ("start", "imm-sidecar"),
    ("rename", "imm-proxy"),
]
# Who makes a host, and what may interrupt it.
FIRST = ["up", "proxy up", "proxy up --kind traefik"]
INTERRUPT = [Signals.SIGINT, Signals.SIGTERM]
# Whoever isn't kept out is through by then.
THROUGH_SECONDS = 3.0
# What a first `up` takes on a busy machine when it waits for nobody.
WITHOUT_SECONDS = 10.0


@pytest.mark.parametrize(
    "which", [Signals.SIGKILL, *(INTERRUPT if SOAK else [])], ids=lambda which: which.name
)
@pytest.mark.parametrize("words", FIRST if SOAK else FIRST[:1])
@pytest.mark.parametrize("moment", MADE if SOAK else [MADE[n] for n in (3, 5)], ids="-".join)
def test_a_first_command_killed_while_it_makes_the_host_ready_is_finished_by_the_next(
    bare: Apart, moment: tuple[str, str], words: str, which: Signals
):
    """An interrupted one takes back what it made, or had made it already."""
    bare.second.load([base_image("traefik")] if "traefik" in words else [])
    app = bare.project()
    ended = struck_at(bare, app, *words.split(), moment=moment, which=which)
    assert ended.code in ((-which,) if which == Signals.SIGKILL else (0, 1)), ended
    assert bare.up(app).result["outcome"] in ("live", "unchanged")
    assert bare.status(app)["live"]["release"] == 1
    host_is_right(bare, app)


@pytest.mark.parametrize("moment", MADE if SOAK else [MADE[3]], ids="-".join)
def test_who_is_frozen_while_it_makes_the_host_ready_is_not_waited_for_and_wakes_up_to_no_harm(
    bare: Apart, moment: tuple[str, str]
):
    """Nobody has to take its name away by hand: another command makes the host, and what that made stays."""
    app = bare.project()
    with frozen_at(bare, bare.project(), "proxy", "up", moment=moment) as frozen:
        began = time.monotonic()
        assert bare.up(app).result["outcome"] == "live"
        assert time.monotonic() - began < HEARTBEAT_SECONDS + WITHOUT_SECONDS
        before = standing(bare)
        frozen.send(Signals.SIGCONT)
        woken = frozen.ended()
    assert woken.code in (0, 1), woken
    if woken.code:
        assert woken.error["code"] in ("session_lost", "engine_refused"), woken.error
    assert standing(bare) == before
    host_is_right(bare, app)


def test_who_waits_in_vain_for_another_one_to_make_the_host_is_told_so(
    bare: Apart, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(making, "MAKING_SECONDS", 0.5)
    engine = connect()
    with (
        engine.name_held(making.MAKING, bare.base, HEARTBEAT_SECONDS, BEAT_SECONDS),
        pytest.raises(Locked, match="has been making this host's proxy") as refused,
    ):
        making.ensure(begin(engine), str)
    assert (refused.value.code, refused.value.exit_code) == ("locked", 3)
    assert "within 10 s" in refused.value.hint and refused.value.stands == "nothing was touched"
    assert proxies(bare) == tasks(bare) == []


@pytest.mark.parametrize("action", ["create", "start"])
def test_a_container_of_a_moment_goes_also_when_its_client_was_killed(bare: Apart, action: str):
    """By itself once it has started; one that never did goes with the next command that makes something."""
    app = bare.project()
    struck_at(bare, app, "doctor", moment=(action, "task"))
    bare.up(app)
    host_is_right(bare, app)


def test_a_first_command_that_is_interrupted_takes_nothing_from_others(bare: Apart):
    """Nobody works with a host before it is ready for good: what one command undoes is no other's."""
    maker, other = bare.project(), bare.project()
    (other.folder / "token").write_text("secret")
    told: Any = bare.engine.events(since=f"{time.time():.9f}", decode=True)
    with command(bare, maker, "proxy", "up") as making:
        next(each for each in told if (each["Action"], named(each)) == ("start", "imm-sidecar"))
        making.send(Signals.SIGSTOP)
        with command(bare, other, "secret", "set", "TOKEN", "--from", "token") as setting:
            until(lambda: setting.process.poll() is not None, THROUGH_SECONDS, pause=0.05)
            making.send(Signals.SIGINT)
            making.send(Signals.SIGCONT)
            assert making.ended().error["code"] == "interrupted"
            assert setting.ended().code == 0
    told.close()
    [known] = bare.imm(other, "secret", "list").result
    assert known["name"] == "TOKEN" and known["since"]
    assert proxies(bare) == ["imm-proxy", "imm-sidecar"]


def named(event: Mapping[str, Any]) -> str | None:
    return dict(event["Actor"]["Attributes"]).get("name")
