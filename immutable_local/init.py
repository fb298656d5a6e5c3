"""`imm init`: an imm.toml for a folder, from what its Dockerfile says."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path

from immutable_local import dockerfile
from immutable_local.config.findings import Wrong, bare_or_shown
from immutable_local.config.tables import MOST_TABLES
from immutable_local.config.values import MOUNT, name_from
from immutable_local.dockerfile import Instruction
from immutable_local.errors import UsageError, shown

MOST_BYTES = 1_000_000
COMPOSE = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
ONE_WRITER = 'the old instance stops before the new one starts; "many": both may run at once'

# Where programs listen when nobody tells them another port, by the words of their command or their image.
USUAL_PORTS = {
    "flask": 5000,
    "streamlit": 8501,
    "node": 3000,
    "npm": 3000,
    "yarn": 3000,
    "pnpm": 3000,
    "rails": 3000,
    "nginx": 80,
    "httpd": 80,
    "caddy": 80,
}
_PORT_OPTIONS = (
    r"--(?:[a-z]+-)?port[= ](\d{1,5})\b",
    r"(?:^| )-p[= ]?(\d{1,5})\b",
    r"(?:^| )(?:-b|-l|--bind|--listen|--address)[= ](?:\S*:)?(\d{1,5})\b",
    r"http\.server (\d{1,5})\b",
    # An address to listen on, as its own word: another host's port is that one's.
    r"(?:^| )(?:0\.0\.0\.0|127\.0\.0\.1|localhost|\[::1?\]|\*)?:(\d{2,5})(?= |$)",
)
# What editors and people leave beside a file.
_LEFT_OVER = (".bak", ".old", ".orig", ".rej", ".save", ".swo", ".swp", ".tmp", "~")


def propose(folder: Path, file: str = "imm.toml") -> str:
    """The text of an imm.toml for the folder; it loads as it is.

    Raises `UsageError` when `file` is there already, or when no Dockerfile says what to run.
    """
    if os.path.isdir(folder / file):
        what = f"{shown(str(folder / file))} is a folder"
        raise UsageError(what, hint="name the file itself: imm -f FOLDER/imm.toml init")
    if os.path.lexists(folder / file):
        what = f"{bare_or_shown(file, file.isprintable())} is there already"
        raise UsageError(what, code="exists", hint="edit it, or move it away")
    names = _names_in(folder)
    chosen, others = _choose_dockerfile(names)
    stage = dockerfile.final_stage(_text(folder / chosen))
    port, why = _port(stage)
    volumes = list(islice(_volumes(stage), MOST_TABLES))

    web: list[tuple[str, str]] = [(f"port = {port}", why)]
    if volumes:
        mounts = ", ".join(_quoted(f"{name}:{path}") for name, path in volumes)
        web.append((f"volumes = [{mounts}]", f"VOLUME in {chosen}"))
    if _last(stage, "HEALTHCHECK").upper() not in ("", "NONE"):
        web.append(('# healthcheck = { path = "/up" }', f"default: the HEALTHCHECK in {chosen}"))
    else:
        web.append(('# healthcheck = { path = "/up" }', "default: any answer under 500 on /"))
    web.append(("# read_only = false", "if it must write outside of its volumes and /tmp"))

    parts = [[f"name = {_quoted(name_from(folder.resolve().name, 40) or 'app')}"]]
    if chosen != "Dockerfile":
        also = f"also here: {', '.join(others)}" if others else ""
        parts.append(["[build]", *_commented([(f"dockerfile = {_quoted(chosen)}", also)])])
    parts.append(["[services.web]", *_commented(web)])
    for name, _ in volumes:
        parts.append([f"[volumes.{name}]", *_commented([('writers = "one"', ONE_WRITER)])])
    compose = next((name for name in COMPOSE if name in names), None)
    if compose:
        parts.append(
            [
                f"# {compose} was not read. A service of it that has an image, such as a database:",
                "# [services.db]",
                '# image = "postgres:16"',
            ]
        )
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(each.name for each in os.scandir(folder) if each.is_file() and each.name.isprintable())
    except OSError as refused:
        raise UsageError(
            f"{folder} can't be read: {refused.strerror}", hint="go to the app's folder"
        ) from refused


def _choose_dockerfile(names: Sequence[str]) -> tuple[str, list[str]]:
    """The Dockerfile to build from, and the others that are there."""
    found = [
        name
        for name in names
        if re.fullmatch(r"(.+\.)?(Docker|Container)file(\.[^.]+)?", name, re.IGNORECASE)
        and not name.endswith((".dockerignore", *_LEFT_OVER))
    ]
    if not found:
        raise _no_dockerfile(names)
    plain = [name for name in ("Dockerfile", "Containerfile") if name in found]
    for_production = [name for name in found if "prod" in name.lower()]
    for choice in (plain[:1], for_production, found):
        if len(choice) == 1:
            return choice[0], [name for name in found if name != choice[0]]
    raise UsageError(
        f"there are several Dockerfiles: {', '.join(found)}",
        code="no_dockerfile",
        hint='write imm.toml with [build] dockerfile = "..." for the one that is meant',
    )


def _no_dockerfile(names: Sequence[str]) -> UsageError:
    compose = next((name for name in COMPOSE if name in names), None)
    if compose is None:
        hint = "write a Dockerfile, or go to the folder that has it; then run imm init again"
        return UsageError("there is no Dockerfile here", code="no_dockerfile", hint=hint)
    return UsageError(
        f"there is no Dockerfile here, and {compose} can't be read by imm",
        code="no_dockerfile",
        hint="run imm init in the folder of the service's Dockerfile, or write imm.toml: for each service of "
        f"{compose} a table [services.NAME] with the same keys, port instead of ports",
    )


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES).decode(errors="replace")
    except OSError as refused:
        what = f"{path.name} can't be read: {refused.strerror}"
        raise UsageError(what, code="no_dockerfile", hint="check its permissions") from refused


def _port(stage: list[Instruction]) -> tuple[int, str]:
    """The port that the image listens on, and where that was found."""
    exposed = [word for each in stage if each.word == "EXPOSE" for word in each.rest.split()]
    tcp = [int(found[1]) for word in exposed if (found := re.match(r"([0-9]{1,5})(-[0-9]+)?(/tcp)?$", word))]
    candidates = [(port, "EXPOSE in the Dockerfile") for port in tcp]
    command = " ".join(
        word for name in ("ENTRYPOINT", "CMD") for word in dockerfile.words(_last(stage, name))
    )
    for option in _PORT_OPTIONS:
        ports = re.findall(option, command, re.ASCII)
        candidates += [(int(port), "from the image's command") for port in ports]
    in_environment = dockerfile.settings(stage, "ENV").get("PORT", "")
    if re.fullmatch(r"[0-9]{1,5}", in_environment):
        candidates.append((int(in_environment), "ENV PORT in the Dockerfile"))
    image = re.split(r"[:@]", dockerfile.base(stage).rpartition("/")[2])[0]
    program = {os.path.basename(word) for word in [*command.split()[:3], image]}
    usual = [port for name, port in USUAL_PORTS.items() if name in program]
    candidates += [(port, "a guess: change it if the app listens elsewhere") for port in [*usual, 8000]]
    return next((port, why) for port, why in candidates if 1 <= port <= 65535)


def _volumes(stage: list[Instruction]) -> Iterator[tuple[str, str]]:
    """A name and a path for each VOLUME that can be a named volume."""
    taken: set[str] = set()
    mounted: set[str] = set()
    paths = dict.fromkeys(
        path for each in stage if each.word == "VOLUME" for path in dockerfile.words(each.rest)
    )
    for path in filter(str.isprintable, paths):
        base = name_from(Path(path).name, 40, "data") or "data"
        name = next(name for n in count(1) if (name := base if n == 1 else f"{base}-{n}") not in taken)
        try:
            mount = MOUNT.read(f"{name}:{path}")
        except Wrong:
            continue
        if mount.path in mounted:  # /data and /data/ are one
            continue
        taken.add(name)
        mounted.add(mount.path)
        yield mount.volume, mount.path


def _quoted(text: str) -> str:
    # TOML reads JSON's strings, but for characters told as a pair of surrogates.
    return json.dumps(text, ensure_ascii=False)


def _last(stage: list[Instruction], word: str) -> str:
    return next((each.rest for each in reversed(stage) if each.word == word), "")


def _commented(lines: Sequence[tuple[str, str]]) -> list[str]:
    width = min(40, max(len(line) for line, _ in lines))
    return [f"{line:<{width}}  # {comment}" if comment else line for line, comment in lines]
