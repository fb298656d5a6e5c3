"""Which project a command is about, and what git is asked about it: nothing of a repository runs here."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from immutable_local.who import commit, origin

AUTHOR = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.com")


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *AUTHOR, "-c", "protocol.file.allow=always", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of two commits, whose files git believes to be as it last saw them."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    for content in ("1", "2"):
        (folder / "page").write_text(content)
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", content)
    return folder


def test_a_folder_whose_name_is_not_utf_8_is_a_project_like_any_other(repository: Path):
    """Its name is bytes: told legibly, and known from one that differs in such a byte alone."""
    folders = [repository / os.fsdecode(name) for name in (b"caf\xe9", b"caf\xe8", "café".encode())]
    for folder in folders:
        folder.mkdir()
    found = [origin(folder) for folder in folders]
    assert [len(each.marks) for each in found] == [2, 2, 2]
    assert len(frozenset().union(*(each.marks for each in found))) == 6
    for each in found:
        assert each.where.encode().decode().rpartition("/")[2].startswith("caf")


def _set(folder: Path, *settings: str) -> None:
    for setting in settings:
        name, _, value = setting.partition(" ")
        git(folder, "config", "--add", name, value)


def _looked_at(folder: Path) -> None:
    """Git compares the file's content, as it has another time."""
    os.utime(folder / "page", (1, 1))


def _filtered(folder: Path, name: str, *settings: str) -> None:
    (folder / ".git/info/attributes").write_text(f"* filter={name}\n")
    _set(folder, *settings)
    _looked_at(folder)


def _lost(folder: Path, what: str) -> None:
    """An object that isn't there, and that is to be had elsewhere."""
    name = git(folder, "rev-parse", what)
    (folder / ".git/objects" / name[:2] / name[2:]).unlink()
    _set(folder, "core.repositoryFormatVersion 1", "extensions.partialClone o", "remote.o.promisor true")
    _looked_at(folder)


def _hook(folder: Path, program: str) -> None:
    (folder / ".git/hooks").mkdir(exist_ok=True)
    shutil.copy(program, folder / ".git/hooks/post-index-change")
    _looked_at(folder)


def _submodule(folder: Path, program: str) -> None:
    git(folder, "submodule", "add", "-q", str(folder), "inner")
    inner = Path(git(folder / "inner", "rev-parse", "--absolute-git-dir"))
    (inner / "info/attributes").write_text("* filter=x\n")
    _set(folder / "inner", f"core.fsmonitor {program}", f"filter.x.clean {program}")
    _looked_at(folder / "inner")


def _missing(what: str, *settings: str) -> Callable[[Path, str], None]:
    def made(folder: Path, program: str) -> None:
        _lost(folder, what)
        _set(folder, *(setting.format(program) for setting in settings))

    return made


TRAPS: dict[str, Callable[[Path, str], None]] = {
    "a monitor": lambda folder, program: _set(folder, f"core.fsmonitor {program}"),
    "a filter": lambda folder, program: _filtered(folder, "x", f"filter.x.clean {program}"),
    "a filter that is required": lambda folder, program: _filtered(
        folder, "x", f"filter.x.clean {program}", "filter.x.required true"
    ),
    "a filter that stays": lambda folder, program: _filtered(folder, "x", f"filter.x.process {program}"),
    "a filter whose name git's switch doesn't take": lambda folder, program: _filtered(
        folder, "a=b", f"filter.a=b.clean {program}"
    ),
    "a filter without a name": lambda folder, program: _filtered(folder, "", f"filter..clean {program}"),
    "a hook": _hook,
    "a submodule's": _submodule,
    "ssh for a commit": _missing("HEAD~1", "remote.o.url ssh://x/y", "core.sshCommand {}"),
    "ssh for a tree": _missing("HEAD^{tree}", "remote.o.url ssh://x/y", "core.sshCommand {}"),
    "a transport": _missing("HEAD~1", "remote.o.url ext::{}", "protocol.ext.allow always"),
    "the other end's program": _missing("HEAD~1", "remote.o.url /", "remote.o.uploadpack {}"),
    "a way to git://": _missing("HEAD~1", "remote.o.url git://x/y", "core.gitProxy {}"),
}


def _trap(tmp_path: Path) -> tuple[Path, str]:
    """A program, and the file that is there when it has run."""
    ran, program = tmp_path / "ran", tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho >> {ran}\n")
    program.chmod(0o755)
    return ran, str(program)


@pytest.mark.parametrize("trap", TRAPS)
def test_nothing_that_a_repository_configures_runs(trap: str, repository: Path, tmp_path: Path):
    """Its `.git` may be a stranger's, as in an archive; where it came from is known all the same."""
    ran, program = _trap(tmp_path)
    TRAPS[trap](repository, program)
    assert origin(repository).marks
    found = commit(repository)
    assert not ran.exists()
    assert found is not None
    assert found[0] == git(repository, "rev-parse", "--short", "HEAD")


@pytest.mark.parametrize("trap", ["a monitor", "ssh for a commit"])
def test_nothing_of_a_repository_among_the_files_of_a_clone_runs(trap: str, repository: Path, tmp_path: Path):
    """Files named `HEAD`, `config`, `objects` and `refs` are cloned like any others, and git takes them for one."""
    ran, program = _trap(tmp_path)
    TRAPS[trap](repository, program)
    git(repository, "config", "core.worktree", "worktree")
    theirs = tmp_path / "theirs"
    shutil.copytree(repository / ".git", theirs / "app")
    for name in ("refs/heads", "worktree"):
        (theirs / "app" / name).mkdir(exist_ok=True)
        (theirs / "app" / name / ".keep").touch()
    git(theirs, "init", "-q")
    git(theirs, "add", "-f", ".")
    git(theirs, "commit", "-q", "-m", "theirs")
    git(tmp_path, "clone", "-q", str(theirs), "mine")
    for folder in (tmp_path / "mine/app", tmp_path / "mine/app/worktree"):
        origin(folder)
        commit(folder)
    assert not ran.exists()


def _changed(folder: Path) -> None:
    (folder / "page").write_text("another")


def _staged(folder: Path) -> None:
    _changed(folder)
    git(folder, "add", ".")
    (folder / "page").write_text("2")


def _restored(folder: Path) -> None:
    """Other times, same content."""
    _changed(folder)
    (folder / "page").write_text("2")
    _looked_at(folder)


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (lambda folder: None, False),
        (_restored, False),
        (_changed, True),
        (_staged, True),
        (lambda folder: (folder / "new").touch(), True),
        (lambda folder: (folder / "page").unlink(), True),
    ],
    ids=["nothing", "restored", "changed", "staged", "new", "removed"],
)
@pytest.mark.parametrize("kind", ["plain", "worktree", "shallow", "filtered"])
def test_a_folder_differs_from_its_commit_by_what_is_changed_staged_or_new(
    kind: str, change: Callable[[Path], object], differs: bool, repository: Path, tmp_path: Path
):
    """In each kind of repository. A filter of the user's own (Git LFS) doesn't count where no file has it."""
    folder = repository
    if kind == "worktree":
        folder = tmp_path / "beside"
        git(repository, "worktree", "add", "-q", str(folder))
    elif kind == "shallow":
        folder = tmp_path / "beside"
        git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repository}", str(folder))
    elif kind == "filtered":
        _set(folder, "filter.lfs.clean false", "filter.lfs.process false", "filter.lfs.required true")
    change(folder)
    assert commit(folder) == (git(folder, "rev-parse", "--short", "HEAD"), differs)
    assert len(origin(folder).marks) == 2


def test_a_file_that_a_filter_changes_differs_only_once_it_was_written_again(repository: Path):
    """What a filter would make of it isn't known here, as none may run."""
    (repository / ".gitattributes").write_text("page filter=upper\n")
    _set(repository, "filter.upper.clean tr a-z A-Z", "filter.upper.required true")
    (repository / "page").write_text("words")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "filtered")
    _looked_at(repository)
    git(repository, "status")
    found = commit(repository)
    assert found is not None
    assert found[1] is False
    os.utime(repository / "page", (2, 2))
    found = commit(repository)
    assert found is not None
    assert found[1] is True


def test_a_submodule_differs_by_the_commit_that_is_checked_out(repository: Path, tmp_path: Path):
    """What is changed within it isn't looked at: it has a configuration of its own."""
    git(tmp_path, "clone", "-q", str(repository), "theirs")
    git(repository, "submodule", "add", "-q", str(tmp_path / "theirs"), "inner")
    git(repository, "commit", "-q", "-m", "inner")
    (repository / "inner/page").write_text("another")
    short = git(repository, "rev-parse", "--short", "HEAD")
    assert commit(repository) == (short, False)
    git(repository / "inner", "checkout", "-q", "-f", "HEAD~1")
    assert commit(repository) == (short, True)


def test_what_git_cannot_tell_is_not_told_as_unchanged(repository: Path):
    """An index that makes no sense."""
    (repository / ".git/index").write_text("nonsense")
    assert commit(repository) == (git(repository, "rev-parse", "--short", "HEAD"), None)


def test_looking_at_a_repository_writes_nothing_to_it(repository: Path):
    """`imm plan` changes nothing, and another git may be at work."""
    _looked_at(repository)
    before = (repository / ".git/index").read_bytes()
    assert commit(repository) is not None
    assert (repository / ".git/index").read_bytes() == before
