"""The logs of instances that are gone, kept by several at once; and whose logs are meant."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from immutable_local.app import Service
from immutable_local.instance import keep_log
from immutable_local.logs import _lines, chosen
from immutable_local.sidecar.hands import locks, logs
from tests.values import container, observed, release

APP = "shop"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(logs, "STATE", tmp_path)
    monkeypatch.setitem(locks.held, f"app-{APP}", -1)
    return tmp_path


def keep(name: str) -> list[str]:
    logs.log_keep(APP, name, base64.b64encode(name.encode()).decode())
    return logs.log_list(APP)


def test_instances_that_end_at_once_keep_their_logs_side_by_side(state: Path):
    """What one is just writing, or removes as too old, is no error for another, and isn't listed."""
    names = [f"{APP}-web-{number}-blue-1" for number in range(400)]
    with ThreadPoolExecutor(8) as beside:
        seen = list(beside.map(keep, names))
    assert {each for listed in seen for each in listed} <= set(names)
    assert len(logs.log_list(APP)) == logs.KEPT_LOGS
    assert len(list((state / "logs" / APP).iterdir())) == logs.KEPT_LOGS


def test_an_app_that_has_none_has_none(state: Path):
    assert logs.log_list(APP) == []
    assert logs.log_read(APP, f"{APP}-web-1-blue-1") is None


def test_nothing_but_a_line_feed_ends_a_line(state: Path):
    """A progress bar returns to the begin of its line, and JSON may hold what Unicode calls an end of one."""
    printed = ["10% of it\r20% of it", '{"m": "a\u2028b c"}', "", "after\x85 it"]
    assert _lines("".join(f"{each}\r\n" for each in printed).encode()) == printed
    assert _lines(b"") == []


class Printed:
    """An instance's log, as the engine tells it."""

    def __init__(self, log: bytes) -> None:
        self.log = log

    def logs(self, container: str, tail: int, timestamps: bool) -> bytes:
        return self.log

    def ask(self, word: str, app: str, name: str, content: str) -> None:
        logs.log_keep(app, name, content)


def test_of_a_long_log_whole_lines_are_kept(state: Path):
    """Each has its time, by which they are taken apart."""
    lines = [f"2026-01-01T00:00:00Z line {number} {'x' * 100}" for number in range(4000)]
    printed: Any = Printed("".join(f"{each}\n" for each in lines).encode())
    keep_log(printed, printed, APP, "id", f"{APP}-web-1-blue-1")
    kept = _lines(base64.b64decode(logs.log_read(APP, f"{APP}-web-1-blue-1")))
    assert 1000 < len(kept) < len(lines)
    assert kept == lines[-len(kept) :]


def test_of_a_line_that_is_longer_than_what_is_kept_its_end_is(state: Path):
    """A progress bar that only returns to the begin of its line may be all that an instance has said."""
    printed: Any = Printed(b"2026-01-01T00:00:00Z " + b"x" * 300_000 + b"the end\n")
    keep_log(printed, printed, APP, "id", f"{APP}-web-1-blue-1")
    [kept] = _lines(base64.b64decode(logs.log_read(APP, f"{APP}-web-1-blue-1")))
    time, _, rest = kept.partition(" ")
    assert time == "2026-01-01T00:00:00Z"
    assert rest.endswith("xthe end") and len(rest) > 200_000


def test_the_logs_of_what_is_live_are_those_of_kept_instances_too():
    """A service that didn't change goes on in the instance of an earlier release."""
    live = release(Service("web", port=8000), Service("worker"), number=2)
    names = {"web": "shop-web-2-blue-1", "worker": "shop-worker-1-green-1"}
    found = observed(live)
    assert found.live is not None
    services = {name: replace(each, instances=(names[name],)) for name, each in found.live.services.items()}
    containers = [
        replace(container(name), labels={"imm.service": service, "imm.release": name.split("-")[2]})
        for service, name in names.items()
    ]
    found = replace(found, live=replace(found.live, services=services), containers=containers)

    def of(service: str | None, number: int | None) -> list[str]:
        return [each.name for each in chosen(found, service, number, also_starting=False)]

    assert of(None, 2) == of(None, None) == sorted(names.values())
    assert of("worker", 2) == of("worker", 1) == [names["worker"]]
    assert of("web", 1) == []
