"""Nothing to do: one app is live, and whoever asks for the same again, from wherever, changes nothing."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.host import Host, Outcome, Project


@dataclass(frozen=True)
class Live:
    """What was deployed from a repository of one commit, and what the builder keeps of it."""

    app: Project
    cached: set[str]


@pytest.fixture(scope="module")
def live(shared: Host) -> Live:
    app = shared.project().version(secrets.token_hex(8))
    git(app, "init", "-q")
    git(app, "add", ".")
    git(app, "commit", "-qm", "first")
    before = shared.cached()
    shared.up(app)
    return Live(app, shared.cached() - before)


def test_up_again_only_builds_and_compares(shared: Host, live: Live):
    """It is fast by what it leaves out; how often it asks is counted in test_requests.py."""
    told = unchanged(shared, live.app).told
    begun = [each["step"] for each in told if each.get("state") == "begun"]
    assert begun == ["lock", "sweep", "build"]


def test_up_again_tells_a_person_that_there_is_nothing_to_do(shared: Host, live: Live):
    said = shared.up(live.app, text=True)
    assert said.stdout.startswith(
        f"nothing to do: release 1 of {live.app.name} is live at http://{live.app.domain}"
    )


def test_a_clone_in_another_folder_is_the_same_release(shared: Host, live: Live, tmp_path: Path):
    """Neither the folder nor the files' times are part of a release."""
    subprocess.run(["git", "clone", "-q", live.app.folder, tmp_path / "clone"], check=True)
    unchanged(shared, live.app.at(tmp_path / "clone"))


def test_another_users_shell_asks_for_the_same_release(shared: Host, live: Live, tmp_path: Path):
    """Nothing of what is known of a release is kept at home."""
    unchanged(shared, live.app, HOME=str(tmp_path), USER="somebody", LOGNAME="somebody", LANG="de_DE.UTF-8")


def test_the_engines_own_builder_makes_the_same_release(shared: Host, live: Live, tmp_path: Path):
    """Where there is no docker command line. Its layers are others, their source is the same."""
    (tmp_path / "git").symlink_to(shutil.which("git") or "")
    unchanged(shared, live.app, PATH=str(tmp_path))


def test_a_pruned_build_cache_makes_no_new_release(shared: Host, live: Live):
    """What is built anew differs by its times; it is the same source. Only this app's records are pruned."""
    assert live.cached, "the builder kept nothing, so pruning proves nothing"
    for record in live.cached:
        shared.engine.prune_builds(filters={"id": record}, all=True)
    assert not shared.cached() & live.cached
    unchanged(shared, live.app)


def unchanged(host: Host, app: Project, **environment: str) -> Outcome:
    """Same container, same release, not an image more."""
    with host.nothing_left_over():
        outcome = host.up(app, **environment)
    result = outcome.result
    assert (result["outcome"], result["release"], result["previous"]) == ("unchanged", 1, 1)
    return outcome


def git(app: Project, *words: str) -> None:
    author = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    subprocess.run(["git", "-C", app.folder, *author, *words], check=True)
