"""A .dockerignore leaves out what the builder leaves out: no more, no less."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from immutable_local.dockerignore import context_paths
from immutable_local.errors import BuildFailed
from immutable_local.image import buildkit_program
from tests.host import Host

FILES = (
    "ENV/x", "env/x.py", "NOTES.md", "a.py", "ab", "lib/c", "lib/deep/c", "lib/deep/d.py", "notes.MD", "src/a.py",
    "src/b.txt", "src/deep/a.py", "sub/lib/c", "src[1]", "with blank", "!bang", "#hash",
)  # fmt: skip
# A .dockerignore, and what of these files it leaves.
CASES = {
    "env/": {"env/x.py"},
    "*.md": {"NOTES.md"},
    "/lib": {"lib/c", "lib/deep/c", "lib/deep/d.py"},
    "./lib/../lib": {"lib/c", "lib/deep/c", "lib/deep/d.py"},
    "**/lib": {"lib/c", "lib/deep/c", "lib/deep/d.py", "sub/lib/c"},
    "lib/**": {"lib/c", "lib/deep/c", "lib/deep/d.py"},
    "lib/*": {"lib/c", "lib/deep/c", "lib/deep/d.py"},
    "lib/*.py": set(),
    "lib/**/*.py": {"lib/deep/d.py"},
    "*i*/*e*/*d*.*y": {"lib/deep/d.py"},
    "*t*s*": {"notes.MD"},
    "s*c/*ee*/*": {"src/deep/a.py"},
    "**/*.py": {"a.py", "env/x.py", "lib/deep/d.py", "src/a.py", "src/deep/a.py"},
    "?.py": {"a.py"},
    "[^s]b": {"ab"},
    "[a-b]*": {"a.py", "ab"},
    "src\\[1\\]": {"src[1]"},
    "\\!bang": {"!bang"},
    "  #hash": {"#hash"},
    "#hash": set(),
    "with blank ": {"with blank"},
    "a.py\n!a.py": set(),
    "!a.py\na.py": {"a.py"},
    "src\n!src/deep": {"src/a.py", "src/b.txt"},
    "src/*\n!src/b.txt": {"src/a.py", "src/deep/a.py"},
    ".\n..\n": set(),
}
# As BuildKit does since 2022. Docker 20.10's didn't look into a folder that another line leaves out.
SINCE = {
    "**.py": {"a.py", "env/x.py", "lib/deep/d.py", "src/a.py", "src/deep/a.py"},
    "*\n!**/*.py": {each for each in FILES if not each.endswith(".py")},
    "*\n!src/*/a.py": {each for each in FILES if each != "src/deep/a.py"},
}


def folder(root: Path, ignore: str) -> Path:
    for each in FILES:
        (root / each).parent.mkdir(parents=True, exist_ok=True)
        (root / each).touch()
    (root / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (root / ".dockerignore").write_text(ignore)
    return root


@pytest.mark.parametrize("ignore", [*CASES, *SINCE])
def test_a_pattern_leaves_out_what_it_matches_and_what_is_beneath(tmp_path: Path, ignore: str):
    known = context_paths(folder(tmp_path, ignore), "Dockerfile")
    assert {each for each in FILES if each not in known} == {**CASES, **SINCE}[ignore]
    # Who gets a file gets the folders that lead to it.
    assert {str(parent) for each in known for parent in Path(each).parents} <= {*known, "."}


@pytest.mark.parametrize("ignore", ["*\n", "Dockerfile\n.dockerignore\n", "**\n"])
def test_the_dockerfile_and_the_dockerignore_are_always_there(tmp_path: Path, ignore: str):
    """Wherever they are: the builder needs the one, and obeys the other."""
    folder(tmp_path, ignore)
    (tmp_path / "lib" / "Dockerfile").touch()
    (tmp_path / "lib" / "Dockerfile.dockerignore").write_text(ignore)
    assert {"Dockerfile", ".dockerignore"} <= context_paths(tmp_path, "Dockerfile")
    assert {"lib/Dockerfile", "lib/Dockerfile.dockerignore"} <= context_paths(tmp_path, "lib/Dockerfile")


@pytest.mark.parametrize("pattern", ["[", "a[", "a\\", "[z-a]"])
def test_what_is_no_pattern_is_told_with_its_line(tmp_path: Path, pattern: str):
    with pytest.raises(BuildFailed, match=r"\.dockerignore, line 3, "):
        context_paths(folder(tmp_path, f"# first\n\n{pattern}\n"), "Dockerfile")


def test_many_stars_take_no_longer_than_one(tmp_path: Path):
    """The builder's matcher is linear; one that tries all ways would not end."""
    (tmp_path / ("a" * 120)).touch()
    known = context_paths(folder(tmp_path, "*a" * 25 + "*b\n" + "**/*a*a*a*a*a*a*a*a*b\n"), "Dockerfile")
    assert "a" * 120 in known


def test_many_double_stars_in_a_row_take_no_longer_than_one(tmp_path: Path):
    deep = tmp_path.joinpath(*["a"] * 60)
    deep.mkdir(parents=True)
    known = context_paths(folder(tmp_path, "**/" * 12 + "b\n"), "Dockerfile")
    assert deep.relative_to(tmp_path).as_posix() in known


def test_the_builder_gets_the_same_files(host: Host, tmp_path: Path):
    """What a real build copies, pattern by pattern."""
    program = buildkit_program()
    assert program is not None, "nothing here builds with BuildKit"
    wrong = {}
    for number, (ignore, left_out) in enumerate(CASES.items()):
        root = tmp_path / str(number)
        root.mkdir()
        done = subprocess.run(
            [program, "build", "--output", "-", str(folder(root, ignore))],
            env={**os.environ, "DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as packed:
            got = set(packed.getnames())
        if set(FILES) - got != left_out:
            wrong[ignore] = set(FILES) - got
    assert wrong == {}
