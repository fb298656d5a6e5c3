"""A file of imm's state that a disk fault or a hand broke: mended where it can be, else told with a way out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from immutable_local.errors import ImmError
from immutable_local.sidecar.hands import apps, ledger, live, locks, secrets
from immutable_local.sidecar.hands.ground import Refusal, read_twice, write_twice
from immutable_local.sidecar.session import _refused

APP = "shop"
STRUCTURE = {"app": APP, "arrived": 1}
RELEASE = {"release": 7}
SPOIL: list[Callable[[Path], Any]] = [
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(b"\0" * 300),
    lambda path: path.write_text(path.read_text()[:-1]),
    lambda path: path.unlink(),
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the routes of APP are, and what is live of it; whoever writes them here holds the locks."""
    for module in (apps, ledger, secrets):
        monkeypatch.setattr(module, "STATE", tmp_path / "state")
    for module in (apps, ledger, live):
        monkeypatch.setattr(module, "PROXY", tmp_path / "proxy")
    for name in (f"app-{APP}", "host"):
        monkeypatch.setitem(locks.held, name, -1)
    live.structure_write(APP, STRUCTURE)
    live.point(APP, ["alive", "open"], RELEASE)
    return tmp_path / "proxy" / "apps" / APP


@pytest.mark.parametrize("spoil", SPOIL)
def test_routes_that_were_broken_are_still_known(home: Path, spoil: Callable[[Path], Any]):
    """To the app's own commands, and to those of every other one."""
    spoil(home / "structure.json")
    assert apps.app_state(APP)["structure"] == STRUCTURE
    assert apps.structures() == {APP: STRUCTURE}


def test_what_is_just_written_for_the_first_time_is_read_whole_or_not_yet(tmp_path: Path):
    """Every other app's command reads the routes of one that is new: half of them would be told as broken."""
    told = json.dumps(dict.fromkeys(map(str, range(500)), "x" * 20)).encode()
    seen: list[Any] = []

    def read(path: Path) -> None:
        while not seen or seen[-1] is None:
            seen.append(read_twice(path))

    with ThreadPoolExecutor(2) as beside:
        for number in range(400):
            path = tmp_path / f"app-{number}" / "structure.json"
            seen.clear()
            reading = [beside.submit(read, path) for _ in range(2)]
            write_twice(path, told)
            for each in reading:
                each.result()
            assert read_twice(path) == json.loads(told)


@pytest.mark.parametrize("spoil", SPOIL)
def test_what_is_live_is_still_known_when_its_record_was_broken(home: Path, spoil: Callable[[Path], Any]):
    """Taken for nothing, its instances would be removed while requests go to them."""
    spoil(home / "live" / "release.json")
    assert apps.app_state(APP)["live"] == RELEASE
    assert apps.live_releases() == {APP: RELEASE}


@pytest.mark.parametrize("spoil", SPOIL)
@pytest.mark.parametrize("name", ["structure.json", "live/release.json"])
def test_what_is_broken_twice_is_refused_and_never_taken_for_what_is_gone(
    home: Path, name: str, spoil: Callable[[Path], Any]
):
    """Without an app's routes a reload would take it off; nobody may act as if nothing of it were live."""
    for each in (home / name, home / f"{name}.copy"):
        spoil(each)
    with pytest.raises(Refusal) as refused:
        apps.app_state(APP)
    assert refused.value.told["kind"] == "broken_file"


def test_nothing_is_live_when_the_link_is_gone(home: Path):
    live.unpoint(APP)
    assert apps.app_state(APP)["live"] is None
    shutil.rmtree(home)
    assert apps.live_releases() == {}


def test_a_broken_note_of_who_is_at_work_is_a_note_all_the_same(home: Path):
    """The next command sweeps; it doesn't stop at it."""
    apps.doing_write(APP, {"command": "up", "by": "jo", "step": "flip"})
    (home.parents[2] / "state" / "doing" / f"{APP}.json").write_text("{")
    assert apps.app_state(APP)["doing"]["by"] == "somebody"


def test_a_record_that_was_given_another_name_is_no_record(home: Path):
    ledger.ledger_append(APP, {"event": "went_live", "release": 1})
    [path] = (home.parents[2] / "state" / "ledger" / APP).iterdir()
    path.write_text("broken")
    path.rename(f"{path}.broken")
    assert apps.app_state(APP)["ledger"] == []


def test_a_new_value_mends_a_broken_secret(home: Path):
    secrets.secret_set(APP, "TOKEN", "one")
    secrets.secret_path(APP, "TOKEN").write_text("broken")
    with pytest.raises(Refusal) as refused:
        apps.app_state(APP)
    assert told_of(refused.value.told["path"].split("/state/")[1]).hint.startswith("imm secret set TOKEN")
    assert secrets.secret_set(APP, "TOKEN", "one")
    assert secrets.secret_values(APP, ["TOKEN"]) == {"TOKEN": "one"}


@pytest.mark.parametrize(
    ("path", "volume", "hint"),
    [
        (
            "/imm/state/data/ledger/shop/00000001-0123456789abcdef.json",
            "imm-state",
            "docker exec imm-sidecar mv /imm/state/data/ledger/shop/00000001-0123456789abcdef.json"
            " /imm/state/data/broken-ledger-shop-00000001-0123456789abcdef.json, then run the command again",
        ),
        (
            "/imm/state/data/origins/shop.json",
            "imm-state",
            "docker exec imm-sidecar mv /imm/state/data/origins/shop.json"
            " /imm/state/data/broken-origins-shop.json, then run the command again",
        ),
        ("/imm/proxy/data/apps/shop/structure.json", "imm-proxy", "imm-sidecar rm -r /imm/proxy/data/apps/shop,"),
        ("/imm/proxy/data/apps/shop/gen-3/release.json", "imm-proxy", "nobody reaches shop"),
    ],
    ids=["record", "origin", "routes", "live"],
)  # fmt: skip
def test_a_broken_file_is_told_with_its_volume_and_a_command_to_type(path: str, volume: str, hint: str):
    error = _refused({"kind": "broken_file", "path": path, "reason": "half"})
    assert error.code == "broken_state"
    assert f"{path} in the volume {volume} is broken: half" == error.message
    assert hint in error.hint and "..." not in error.hint


def told_of(path: str) -> ImmError:
    return _refused({"kind": "broken_file", "path": f"/imm/state/data/{path}", "reason": "half"})
