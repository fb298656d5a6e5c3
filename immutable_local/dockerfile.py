"""What a Dockerfile says about the image's final stage, read as the builder reads it, without building."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile

# Values made of values double with each line; none of what is looked for here is that long.
MOST_RESOLVED = 1_000_000
_HEREDOC = re.compile(r"<<-?(['\"]?)([A-Za-z_]\w*)\1")
_VARIABLE = re.compile(r"\$(?:(?P<bare>\w+)|\{(?P<braced>\w+)(?::?-(?P<default>[^}]*))?\})")


@dataclass(frozen=True)
class Instruction:
    """One instruction, its continued lines joined: `word` is EXPOSE, `rest` what follows."""

    word: str
    rest: str


@dataclass(frozen=True)
class _Stage:
    """One stage, and the stage that it is based on, where that is one of the same Dockerfile."""

    base: _Stage | None
    told: list[Instruction]


def instructions(text: str) -> list[Instruction]:
    """All instructions in their order; comments, parser directives and here-documents left out."""
    escape = "`" if re.match(r"\s*#\s*escape\s*=\s*`", text) else "\\"
    lines = [line.rstrip() for line in text.removeprefix("\ufeff").splitlines()]
    found = []
    joined, at = "", 0
    while at < len(lines):
        line, at = lines[at], at + 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line.endswith(escape) and at < len(lines):
            joined += line.removesuffix(escape) + " "
            continue
        word, *others = (joined + line).split(maxsplit=1)
        rest = others[0] if others else ""
        joined = ""
        found.append(Instruction(word.upper(), rest))
        if found[-1].word in ("RUN", "COPY", "ADD"):
            for _, end in _HEREDOC.findall(rest):
                # `<<` is also a shift in shell arithmetic: without an end it opens nothing.
                at = next((n + 1 for n in range(at, len(lines)) if lines[n].strip() == end), at)
    return found


def final_stage(text: str) -> list[Instruction]:
    """The instructions of the last stage and of those it is based on, oldest first, variables resolved."""
    stages: list[_Stage] = []
    named: dict[str, _Stage] = {}
    variables: dict[str, str] = {}
    room = MOST_RESOLVED
    for each in instructions(text):
        told = Instruction(each.word, _resolved(each.rest, variables, room))
        room -= max(0, len(told.rest) - len(each.rest))
        if told.word in ("ENV", "ARG"):
            variables |= {
                name: value for name, value in _settings(told.rest) if value or name not in variables
            }
        if told.word == "FROM":
            base, name = _base_and_name(told.rest)
            stages.append(_Stage(named.get(base.lower()), [told]))
            named[name.lower() or str(len(stages) - 1)] = stages[-1]
        elif stages:
            stages[-1].told.append(told)
    lineage: list[_Stage] = []
    stage = stages[-1] if stages else None
    while stage is not None:
        lineage.append(stage)
        stage = stage.base
    return [told for stage in reversed(lineage) for told in stage.told]


def stage_names(text: str) -> list[str]:
    """The names of all stages that have one."""
    found = (_base_and_name(each.rest)[1] for each in instructions(text) if each.word == "FROM")
    return [name for name in found if name]


def images_read(text: str, arguments: Mapping[str, str]) -> set[str] | None:
    """The images that a build with these arguments starts from, copies from or mounts.

    None when they can't be known beforehand, or when it reads from an address.
    """
    known: dict[str, str] = {}
    stages: set[str] = set()
    found: set[str] = set()
    begun = False
    for each in instructions(text):
        if each.word == "ARG" and not begun:
            known |= {name: arguments.get(name, value) for name, value in _settings(each.rest)}
        elif each.word == "FROM":
            begun = True
            image, name = _base_and_name(_resolved(each.rest, known, MOST_RESOLVED))
            found |= {image} if image.lower() not in stages else set()
            stages.add(name.lower())
        elif each.word == "ADD" and re.search(r"\b(https?|git)(://|@)", each.rest):
            return None
        elif each.word in ("COPY", "RUN"):
            # COPY --from=IMAGE, RUN --mount=type=bind,from=IMAGE,...
            options = takewhile(lambda word: word.startswith("--"), each.rest.split())
            named = {image for option in options for image in re.findall(r"(?:^--|[=,])from=([^,]+)", option)}
            found |= {image for image in named if image.lower() not in stages and not image.isdigit()}
    if any("$" in image or not image for image in found):
        return None
    return found - {"scratch"}


def words(rest: str) -> list[str]:
    """The words of an instruction, in its JSON form or in its plain one."""
    if rest.startswith("["):
        try:
            told = json.loads(rest)
        except (ValueError, RecursionError):
            return rest.split()
        return [str(word) for word in told]
    return rest.split()


def base(stage: list[Instruction]) -> str:
    """The image that a stage is based on at last; "" if there is none."""
    return next((_base_and_name(each.rest)[0] for each in stage if each.word == "FROM"), "")


def settings(stage: list[Instruction], word: str) -> dict[str, str]:
    """What all instructions ENV, or ARG, of a stage set."""
    return {name: value for each in stage if each.word == word for name, value in _settings(each.rest)}


def _base_and_name(rest: str) -> tuple[str, str]:
    told = [word for word in rest.split() if not word.startswith("--")] or [""]
    named = len(told) > 2 and told[1].upper() == "AS"
    return told[0], told[2] if named else ""


def _settings(rest: str) -> Iterator[tuple[str, str]]:
    # `ENV NAME value` is the old form, with one name and the rest of the line.
    name, _, value = rest.partition(" ")
    if value and "=" not in name:
        yield name, value.strip()
        return
    for name, value in re.findall(r"""([^\s=]+)(?:=("[^"]*"|'[^']*'|\S*))?""", rest):
        yield name, value.strip("\"'")


def _resolved(rest: str, variables: dict[str, str], room: int) -> str:
    """`rest` with its variables' values, but for those that would make it longer by more than `room`."""

    def value(seen: re.Match[str]) -> str:
        nonlocal room
        told = variables.get(seen["bare"] or seen["braced"]) or seen["default"] or seen[0]
        if len(told) - len(seen[0]) > room:
            return seen[0]
        room -= max(0, len(told) - len(seen[0]))
        return told

    return _VARIABLE.sub(value, rest)
