"""The logs of instances that are gone, kept by several at once."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from immutable_local.sidecar.hands import locks, logs

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
