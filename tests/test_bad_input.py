"""Every imm.toml under bad_input/ is refused with the message that its first line tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from immutable_local.config import read
from immutable_local.errors import ConfigError

CORPUS = sorted((Path(__file__).parent / "bad_input").glob("*.toml"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An app's folder with a Dockerfile, and links that lead out of it and nowhere."""
    (tmp_path / "outside").write_text("A=b\n")
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "link-outside").symlink_to(tmp_path / "outside")
    (folder / "link-loop").symlink_to("link-loop")
    return folder


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.stem)
def test_bad_input_must_be_refused_by_its_key_and_line(case: Path, folder: Path) -> None:
    """Exit code 2; the message names key and line, and a hint says what to do about it, of each that is wrong."""
    expected = case.read_text().partition("\n")[0].removeprefix("# ")
    (folder / "imm.toml").write_bytes(case.read_bytes())
    before = sorted(folder.iterdir())

    with pytest.raises(ConfigError) as refused:
        read(folder / "imm.toml")

    error = refused.value
    assert expected in error.message
    assert error.exit_code == 2
    assert error.code == ("not_supported" if "not supported yet" in error.message else "config")
    assert error.hint
    assert all("); " in detail and not detail.endswith("; ") for detail in error.details)
    assert error.message.isprintable()
    assert error.hint.isprintable()
    assert len(error.message) < 1000
    assert sorted(folder.iterdir()) == before


def test_the_corpus_must_be_there() -> None:
    assert len(CORPUS) >= 50
