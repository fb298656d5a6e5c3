"""What a sweep finds missing, as values; and what it takes away that an older imm left, on a host."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from immutable_local import labels as label
from immutable_local.sweep import in_the_way, missing_record
from tests.host import Host, Project
from tests.values import container, observed, record, release

EARLIER, SINCE, LATER = (f"2026-01-01T00:0{minute}:00.000Z" for minute in (0, 1, 2))


def missing(**told: Any) -> str | None:
    """What is missing where release 1 is live since SINCE, and this was recorded of it."""
    found = observed(release())
    assert found.live is not None
    live = replace(found.live, since=SINCE)
    return missing_record(replace(found, live=live, records=[record("went_live", 1, **told)]))


@pytest.mark.parametrize("at", [EARLIER, LATER])
def test_a_flip_that_was_recorded_is_known_whatever_the_hosts_clock_said_then(at: str):
    """It may have been put back between the flip and the record."""
    assert missing(at=at, since=SINCE) is None


@pytest.mark.parametrize("at", [EARLIER, LATER])
def test_a_flip_to_the_release_that_was_live_already_is_missed_until_it_is_recorded(at: str):
    """With another secret, say. What was recorded is the earlier one."""
    assert missing(at=at, since=EARLIER) == "went_live"


def test_what_an_older_imm_recorded_goes_by_its_time():
    assert missing(at=LATER) is None
    assert missing(at=EARLIER) == "went_live"


def test_what_has_no_seal_is_in_the_way_where_it_has_a_volume():
    """Nobody knows how many may write it. A sealed one says so, as in tests/test_hold.py."""
    marks = {"imm.app": "shop", "imm.service": "db"}
    stray = replace(container("shop-db-1-blue-1"), labels=marks)
    writing = replace(stray, name="shop-db-1-blue-2", volumes=frozenset({"imm-shop-data"}))
    engine: Any = SimpleNamespace(find=lambda name: None)
    found = replace(observed(release()), containers=[stray, writing])
    assert in_the_way(engine, found) == ["shop-db-1-blue-2"]


def test_an_instance_that_imm_0_1_0_made_of_someone_elses_image_goes_as_others_do(host: Host, app: Project):
    """It has no seal: another release takes its place, and the next command has nothing left to do."""
    deaf = ["sleep", "600"]
    host.up(app.service("db", image=host.base, command=deaf, stop_grace_period="1s"))
    name = f"{app.name}-db-1-green-1"
    labels = host.inspect(name)["Config"]["Labels"]
    host.engine.remove_container(name, force=True)
    host.engine.create_container(
        host.base,
        deaf,
        name=name,
        labels={key: told for key, told in labels.items() if key != label.SEALED},
        stop_timeout=1,
        host_config=host.engine.create_host_config(network_mode=f"imm-app-{app.name}"),
    )
    host.engine.start(name)
    outcome = host.up(app.service("db", environment={"N": "1"}))
    assert outcome.result["outcome"] == "live"
    assert f"{name} did not end within 1 s of SIGTERM" in outcome.stderr
    assert host.running(app) == [f"{app.name}-db-2-blue-1", f"{app.name}-web-1-green-1"]
    assert host.up(app).result["outcome"] == "unchanged"
