"""What there is is documented, and what is documented is there."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from immutable_local import cli, config, errors, events

ROOT = Path(__file__).parent.parent
SCHEMA = json.loads((ROOT / "immutable_local" / "schema.json").read_text())
COMMANDS = (ROOT / "docs" / "commands.md").read_text()
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(group: Any, path: str = "imm") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def keys(schema: dict[str, Any], table: str = "") -> dict[str, set[str]]:
    """The keys of each table of imm.toml, by the name that a heading of configuration.md gives the table."""
    found = {table: set(schema.get("properties", {}))}
    for name, told in schema.get("properties", {}).items():
        entries = told.get("additionalProperties")
        inside = (told, name) if "properties" in told else (entries, f"{name}.NAME")
        if isinstance(inside[0], dict) and "properties" in inside[0]:
            found |= keys(*inside)
    return found


def documented_keys() -> dict[str, set[str]]:
    """Those that configuration.md explains, by the heading above them."""
    found: dict[str, set[str]] = {}
    table = ""
    for line in CONFIGURATION.splitlines():
        if line.startswith("## "):
            heading = re.search(r"`\[?([\w.]+)\]?`", line)
            table = heading[1] if heading else ""
        elif row := re.match(r"\| `(\w+)` \|", line):
            found.setdefault(table, set()).add(row[1])
    return found


def test_every_command_and_option_is_documented() -> None:
    """A command, or an option of it, that commands.md doesn't name is a defect."""
    missing = []
    for path, command in commands(typer.main.get_command(cli.cli)):
        line = next((each for each in COMMANDS.splitlines() if each.startswith(f"| `{path}")), None)
        if line is None:
            missing.append(path)
            continue
        options = {opt for each in command.params for opt in each.opts if opt.startswith("--")}
        missing += [f"{path} {opt}" for opt in options - {"--help"} if opt not in line]
    assert not missing


def test_every_documented_command_exists() -> None:
    """commands.md names no command that is gone."""
    real = {path for path, _ in commands(typer.main.get_command(cli.cli))}
    told = re.findall(r"^\| `(imm(?: [a-z]+)+)", COMMANDS, re.MULTILINE)
    assert {path for path in told if path not in real} == set()


def test_steps_are_documented_in_their_order() -> None:
    """Programs read their names."""
    told = re.search(r"Step names, in\s+order: `([^`]+)`", COMMANDS)
    assert told is not None
    assert tuple(told[1].replace(",", " ").split()) == get_args(events.Step)


def test_every_key_is_documented_in_its_own_table_and_no_other() -> None:
    """A key of imm.toml that configuration.md doesn't explain is a defect; so is one that is gone."""
    assert documented_keys() == keys(SCHEMA)


@pytest.mark.parametrize(("path", "command"), list(commands(typer.main.get_command(cli.cli))))
def test_help_is_of_one_piece(path: str, command: Any) -> None:
    """Values are named in capitals, defaults are told in words, and whatever can be typed is explained."""
    told = command.get_help(typer.Context(command, info_name=path))
    assert re.findall(r"<[a-z ]+>|\[default: .*|Default: .*", told) == []
    assert [each.name for each in command.params if not (each.help or getattr(each, "hidden", False))] == []


@pytest.mark.parametrize("words", [[], ["proxy"], ["secret"]], ids=" ".join)
def test_a_list_of_commands_cuts_no_sentence(words: list[str]) -> None:
    """On a terminal of 80 columns; only the line of usage, the first, has points at its end."""
    group = typer.main.get_command(cli.cli)
    for word in words:
        group = group.commands[word]
    context = typer.Context(group, info_name="imm", terminal_width=80)
    assert [line for line in group.get_help(context).splitlines() if line.endswith("...")][1:] == []


def test_what_a_refused_release_command_leads_to_is_there(tmp_path: Path) -> None:
    """Who migrates needs a way: the hint names the page, and what is asked there."""
    asked = 'name = "shop"\n[services.web]\nport = 8000\n[release]\ncommand = ["migrate"]\n'
    (tmp_path / "imm.toml").write_text(asked)
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    with pytest.raises(errors.ConfigError) as refused:
        config.read(tmp_path / "imm.toml")
    page, _, question = refused.value.hint.rpartition(": ")[2].partition(", ")
    assert f"**{question}.**" in (ROOT / page).read_text()


def test_every_exit_code_is_documented() -> None:
    """Each class of error ends in a code that commands.md explains."""
    codes = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and hasattr(kind, "exit_code")
    }
    assert [code for code in codes if f"| {code} |" not in COMMANDS] == []


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them: GitHub's way."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    """To a file or a folder, and where they name a heading, to one that it has."""
    nowhere = []
    for link in re.findall(r"\]\(([^):]+)\)", page.read_text()):
        file, _, heading = link.partition("#")
        target = page.parent / file if file else page
        if not target.exists() or (heading and heading not in anchors(target)):
            nowhere.append(link)
    assert nowhere == []


def test_every_test_that_reliability_names_exists() -> None:
    """A promise that names no test, or one that is gone, isn't held by anything."""
    text = (ROOT / "docs" / "reliability.md").read_text()
    named = re.findall(r"`(tests/[a-z_/]+\.py)::([\w:]+)`", text)
    assert named
    assert [f"{file}::{name}" for file, name in named if name not in obligations_of(ROOT / file)] == []
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| what |")]
    assert [row for row in rows if "`tests/" not in row] == []


def test_what_runs_with_make_soak_alone_is_run_by_it() -> None:
    """A file whose cases wait for IMM_SOAK=1, and that `make soak` leaves out, has cases that nobody runs."""
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    soaked = [ROOT / each for each in re.findall(r"^SOAKED := (.+)$", makefile, re.MULTILINE)[0].split()]
    assert [each for each in soaked if not each.exists()] == []
    # By the tests' common word for it, or by a look of the file's own.
    waits = re.compile(
        r'^from tests\.conftest import .*\b(soak|SOAK)\b|environ\.get\("IMM_SOAK"', re.MULTILINE
    )
    waiting = [each for each in (ROOT / "tests").rglob("test_*.py") if waits.search(each.read_text())]
    assert len(waiting) > 10
    assert [each for each in waiting if not {each, each.parent} & set(soaked)] == []


def obligations_of(file: Path) -> set[str]:
    """The tests of a file, those of classes as pytest names them."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found |= {prefix + each.name for each in inside if isinstance(each, ast.FunctionDef)}
    return {each for each in found if each.split("::")[-1].startswith("test_")}
