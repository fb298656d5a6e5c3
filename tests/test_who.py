"""Which project a command is about."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from immutable_local.who import origin


def repository(folder: Path) -> None:
    """A repository with one commit, two folders in it whose names aren't UTF-8, and one whose name is."""
    for name in (b"caf\xe9", b"caf\xe8", "café".encode()):
        (folder / os.fsdecode(name)).mkdir()
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.com"]
    for words in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True)


def test_a_folder_whose_name_is_not_utf_8_is_a_project_like_any_other(tmp_path: Path):
    """Its name is bytes: told legibly, and known from one that differs in such a byte alone."""
    repository(tmp_path)
    found = [origin(each) for each in sorted(tmp_path.iterdir()) if each.name != ".git"]
    assert [len(each.marks) for each in found] == [2, 2, 2]
    assert len(frozenset().union(*(each.marks for each in found))) == 6
    for each in found:
        assert each.where.encode().decode().rpartition("/")[2].startswith("caf")
