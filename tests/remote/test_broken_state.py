"""Each file of imm's state broken on a host of its own: the hint, followed to the letter, helps."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest

from immutable_local.wait import until
from tests.conftest import SOAK
from tests.host import Host, Project
from tests.remote.conftest import Apart

pytestmark = pytest.mark.engine
SPOIL = """\
import glob, pathlib, sys
for path in [each for pattern in sys.argv[1:] for each in glob.glob(pattern)]:
    pathlib.Path(path).write_text("broken")
    print(path)
"""


def spoil(host: Host, *patterns: str) -> None:
    assert host.printed("imm-sidecar", "python3", "-c", SPOIL, *patterns)


def refused(host: Host, app: Project, *words: str) -> dict[str, Any]:
    error = host.imm(app, *words, expect=1).error
    assert error["code"] == "broken_state"
    return error


def follow(host: Host, error: dict[str, Any]) -> None:
    """Type the command that the hint names."""
    [command] = re.findall(r"docker exec imm-sidecar ([^,;]+)", error["hint"])
    assert host.execute("imm-sidecar", *shlex.split(command)) == (0, "")


def test_what_is_broken_once_is_no_matter(ready: Apart, app: Project):
    """Routes, what is live, and who was at work: every command goes on, and what was live stays live."""
    other = ready.project()
    ready.up(app)
    ready.up(other)
    home = f"/imm/proxy/data/apps/{app.name}"
    spoil(ready, f"{home}/structure.json", f"{home}/live/release.json")
    assert ready.up(other.version("2", domains=[f"new.{app.domain}"])).result["outcome"] == "live"
    assert (ready.get("/version", app), ready.running(app)) == ("1", [f"{app.name}-web-1-green-1"])
    assert ready.status(app)["live"]["release"] == 1
    assert ready.up(app.version("2", domains=[f"newer.{app.domain}"])).result["previous"] == 1
    assert ready.get("/version", domain=f"newer.{app.domain}") == "2"


def test_a_broken_record_moved_as_the_hint_says_is_missing_and_nothing_else(ready: Apart, app: Project):
    """Also the one that announced a release: it can still be reverted to."""
    ready.up(app)
    ready.up(app.version("2"))
    for number in (1, 4):
        spoil(ready, f"/imm/state/data/ledger/{app.name}/{number:08d}-*")
        for words in (["history"], ["status"], ["up"], ["revert"], ["down"]):
            error = refused(ready, app, *words)
        follow(ready, error)
        assert ready.up(app).result["outcome"] == "unchanged"
        assert ready.get("/version", app) == "2"
    told = [(each["event"], each["release"]) for each in ready.history(app)]
    assert told == [("went_live", 1), ("sealed", 2), ("went_live", 2)]
    assert ready.revert(app).result["release"] == 1


def test_a_broken_secret_is_mended_by_a_new_value(ready: Apart, app: Project):
    ready.imm(app, "secret", "set", "TOKEN", told="one")
    ready.up(app.version("1", secrets=["TOKEN"]))
    spoil(ready, f"/imm/state/data/secrets/{app.name}/TOKEN")
    error = refused(ready, app, "up")
    assert error["hint"].startswith("imm secret set TOKEN")
    ready.imm(app, "secret", "set", "TOKEN", told="two")
    assert [each["name"] for each in ready.imm(app, "secret", "list").result] == ["TOKEN"]
    assert ready.up(app).result["outcome"] == "live"
    assert ready.get("/read?/run/secrets/TOKEN", app).endswith(" two")


def test_a_broken_origin_moved_away_is_noted_anew(ready: Apart, app: Project):
    ready.up(app)
    spoil(ready, f"/imm/state/data/origins/{app.name}.json")
    follow(ready, refused(ready, app, "up"))
    assert ready.up(app.version("2")).result["previous"] == 1
    assert ready.execute("imm-sidecar", "test", "-s", f"/imm/state/data/origins/{app.name}.json")[0] == 0


def test_routes_that_nobody_can_read_keep_no_proxy_from_coming_back(ready: Apart, app: Project):
    """It answers with those that it last had, and its sidecar is there to be told what the hint says."""
    ready.up(app)
    spoil(ready, f"/imm/proxy/data/apps/{app.name}/structure.json*")
    for name in ("imm-sidecar", "imm-proxy"):
        ready.engine.remove_container(name, force=True)
    error = refused(ready, app, "up")
    assert ready.get("/version") == "1"
    follow(ready, error)
    assert ready.up(app).result["outcome"] == "live"
    assert ready.get("/version") == "1"


@pytest.mark.parametrize("how", ["was restarted", *(["runs on", "was taken down"] if SOAK else [])])
def test_a_broken_configuration_of_the_proxys_is_made_again(ready: Apart, app: Project, how: str):
    """From what is known of the apps: whether the proxy has met it already or not."""
    ready.up(app)
    spoil(ready, "/imm/proxy/data/nginx.conf")
    if how == "was restarted":
        ready.engine.restart("imm-proxy", timeout=1)
        assert until(lambda: ready.inspect("imm-proxy")["RestartCount"], 30.0, pause=0.05)
    if how == "was taken down":
        ready.imm(app, "proxy", "down", "--force")
        ready.imm(app, "proxy", "up")
        assert ready.get("/version") == "1"
    assert ready.up(app.version("2", domains=[f"new.{app.domain}"])).result["outcome"] == "live"
    assert ready.get("/version", domain=f"new.{app.domain}") == "2"


def test_a_proxy_is_taken_down_by_force_whatever_is_broken(bare: Apart, app: Project):
    """Who could tell which apps are live isn't asked."""
    bare.up(app)
    spoil(bare, f"/imm/proxy/data/apps/{app.name}/live/release.json*")
    refused(bare, app, "proxy", "down")
    assert "imm-proxy" in bare.imm(app, "proxy", "down", "--force").result["removed"]


def test_how_the_proxy_is_to_run_can_be_said_anew(bare: Apart, app: Project):
    """It isn't guessed: nobody would look for the apps where it would listen."""
    bare.up(app)
    spoil(bare, "/imm/proxy/data/host.json")
    bare.imm(app, "proxy", "down", "--force")
    with bare.nothing_left_over():
        error = refused(bare, app, "up")
    [command] = re.findall(r"imm (proxy up --.*)$", error["hint"])
    bare.imm(app, *shlex.split(command))
    assert bare.up(app).result["outcome"] == "unchanged"
    assert bare.get("/version") == "1"
