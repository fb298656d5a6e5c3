"""imm.toml → App: every key is checked before anything is touched.

`keys` says what each key may be, `contradictions` what can't go together. Here the file is read, the app put
together, and what is wrong told: the key's path, its line, what was meant.
"""

from __future__ import annotations

import math
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from immutable_local.app import App, Build, Mount, Service, Volume
from immutable_local.config import env_file, keys, values
from immutable_local.config.contradictions import between_keys, between_services
from immutable_local.config.findings import Finding, Findings, KeyPath, Wrong, bare_or_shown, told_path
from immutable_local.config.kinds import advised, meant
from immutable_local.config.lines import key_lines, nearest
from immutable_local.config.tables import ENTRIES
from immutable_local.errors import ConfigError, UsageError, shown

MOST_BYTES = 1_000_000
MOST_DETAILS = 20
CONTEXT_OUTSIDE = "put imm.toml into that folder: imm -f FOLDER/imm.toml names it from elsewhere"


def read(path: Path, to_build: bool = True) -> App:
    """The app that the imm.toml at `path` describes; files it names are looked for from its folder on.

    Not `to_build`: who only looks, or goes back, isn't kept from it by a Dockerfile or an env_file that is
    amiss, and gets an app without what they say.

    Raises `ConfigError`, and nothing else, whatever the file holds.
    """
    name = _name_of(path)
    text = _text(
        path,
        what=name,
        if_absent="run imm init to write one, or name it: imm -f FILE",
        if_no_file="name the file itself: imm -f FOLDER/imm.toml",
    )
    told = _parsed(text, name)
    try:
        return _app(told, path.parent, to_build)
    except Wrong as wrong:
        raise _config_error(wrong, text, name) from None


@contextmanager
def placed(path: Path) -> Iterator[None]:
    """Tells the line in the imm.toml at `path` of what only the host knew to be wrong."""
    try:
        yield
    except ConfigError as refused:
        if refused.key:
            with suppress(OSError, ValueError):
                lines = key_lines(path.read_text(encoding="utf-8"))
                refused.message += f" ({_place(refused.key, lines, _name_of(path))})"
        raise


def check_secret_name(name: str) -> None:
    """Raises `UsageError` for what can't be a secret's name."""
    try:
        values.SECRET_NAME.read(name)
    except Wrong as wrong:
        raise UsageError(
            f"the name of a secret {wrong.findings[0].what}", hint="imm secret list shows those in use"
        ) from None


def _name_of(path: Path) -> str:
    """The file of an app as errors name it."""
    return bare_or_shown(path.name or str(path), path.name.isprintable())


def _text(path: Path, *, what: str, if_absent: str, if_no_file: str) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise ConfigError(f"{what} is {kind}", hint=if_no_file)
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        folder = shown(str(path.parent.absolute()))
        raise ConfigError(f"there is no {what} in {folder}", hint=if_absent) from None
    except (OSError, ValueError) as refused:
        reason = getattr(refused, "strerror", None) or str(refused)
        hint = "check its permissions" if isinstance(refused, PermissionError) else "correct its name"
        raise ConfigError(f"{what} can't be read: {reason}", hint=hint) from refused
    if len(content) > MOST_BYTES:
        hint = "is this the right file?"
        raise ConfigError(f"{what} is larger than {MOST_BYTES // 1_000_000} MB", hint=hint)
    try:
        return content.decode()
    except UnicodeDecodeError as undecodable:
        line = content.count(b"\n", 0, undecodable.start) + 1
        raise ConfigError(f"{what} is not UTF-8 ({what}, line {line})", hint="save it as UTF-8") from None


def _parsed(text: str, name: str) -> dict[str, Any]:
    if text.startswith("\ufeff"):
        raise ConfigError(f"{name} starts with a byte order mark", hint="save it as UTF-8 without BOM")
    hint = "https://toml.io shows how TOML is written; strings are in quotes"
    try:
        return tomllib.loads(text)
    except ValueError as invalid:  # also numbers that are too long for Python to read
        raise ConfigError(f"{name} is not valid TOML: {invalid}", hint=hint) from None
    except RecursionError:
        raise ConfigError(f"{name} is nested too deeply", hint=hint) from None


def _app(told: Mapping[str, Any], folder: Path, to_build: bool) -> App:
    given = keys.APP.read(told)
    findings = Findings()
    services = []
    for name, each in given["services"].items():
        with findings.at("services", name):
            files = each.get("env_file", ()) if to_build else ()
            services.append(_service(name, each, files, app=given["name"], folder=folder))
    volumes: tuple[Volume, ...] = ()
    with findings.at("services"):
        volumes = _volumes(given.get("volumes", {}), given["services"])
    build = Build()
    if to_build and any(service.image is None for service in services):
        with findings.at("build"):
            build = _build(given.get("build", {}), folder)
    findings.settle()
    app = App(given["name"], tuple(services), build, volumes, **given.get("release", {}))
    between_services(app, given)
    return app


def _service(name: str, given: Mapping[str, Any], files: Sequence[str], *, app: str, folder: Path) -> Service:
    between_keys(given)
    findings = Findings()
    environment: dict[str, str] = {}
    for position, file in enumerate(files):
        with findings.at("env_file", position):
            environment |= _environment_in(file, folder)
    findings.settle()
    environment |= given.get("environment", {})
    settings = {key: value for key, value in given.items() if key not in ("env_file", "environment")}
    settings.setdefault("read_only", "image" not in given)
    if "port" in given:
        settings.setdefault("domains", (f"{app}.localhost",))
    return Service(name, environment=MappingProxyType(environment), **settings)


def _environment_in(file: str, folder: Path) -> dict[str, str]:
    path = _inside(folder, file)
    try:
        text = _text(
            path,
            what=shown(file),
            if_absent="write the file, or correct its name",
            if_no_file="name a file of KEY=value lines",
        )
        return advised(ENTRIES, env_file.entries(text), "leave out what the service doesn't read")
    except ConfigError as refused:
        raise Wrong(Finding(refused.message, refused.hint)) from None
    except Wrong as wrong:
        # An entry of the file has no line in imm.toml: its name goes into the text.
        raise Wrong(*(_inlined(finding, shown(file)) for finding in wrong.findings)) from None


def _inlined(finding: Finding, file: str) -> Finding:
    parts = [file, told_path(finding.path), finding.what]
    return Finding(": ".join(part for part in parts if part), finding.hint)


def _volumes(declared: Mapping[str, Any], services: Mapping[str, Any]) -> tuple[Volume, ...]:
    """The declared volumes; where none is declared, those that services mount, with the defaults."""
    volumes = {name: Volume(name, **settings) for name, settings in declared.items()}
    findings = Findings()
    for name, given in services.items():
        mounts: tuple[Mount, ...] = given.get("volumes", ())
        for position, mount in enumerate(mounts):
            with findings.at(name, "volumes", position):
                # A slip of the pen would go live with nothing in it.
                if declared and mount.volume not in declared:
                    suggestion = meant(mount.volume, declared)
                    hint = (
                        f"{'or ' if suggestion else ''}declare it: [{told_path(('volumes', mount.volume))}]"
                    )
                    raise Wrong(Finding(f"unknown volume {mount.volume}{suggestion}", hint))
                volumes.setdefault(mount.volume, Volume(mount.volume))
    findings.settle()
    return tuple(volumes.values())


def _build(given: Mapping[str, Any], folder: Path) -> Build:
    """The build; `context` is told from imm.toml on, and `dockerfile` from the context on, as in Compose."""
    findings = Findings()
    settings = dict(given)
    with findings.at("context"):
        context = _inside(folder, given.get("context", "."), CONTEXT_OUTSIDE)
        if not stat.S_ISDIR(_mode(context, given.get("context", "."))):
            raise Wrong(Finding(f"there is no folder {shown(given['context'])}", "correct the path"))
        settings["context"] = context.relative_to(os.path.realpath(folder)).as_posix()
    findings.settle()
    with findings.at("dockerfile"):
        settings["dockerfile"] = os.path.normpath(given.get("dockerfile", "Dockerfile"))
        dockerfile = os.path.normpath(os.path.join(settings["context"], settings["dockerfile"]))
        if not stat.S_ISREG(_mode(_inside(folder, dockerfile), dockerfile)):
            what = f"there is no file {shown(dockerfile)}"
            hint = "write a Dockerfile, name yours with build.dockerfile, or give each service an image"
            raise Wrong(Finding(what + meant(settings["dockerfile"], _names_in(context)), hint))
    findings.settle()
    if "args" in settings:
        settings["args"] = MappingProxyType(settings["args"])
    return Build(**settings)


def _mode(path: Path, told: str) -> int:
    """The kind of what is there; 0 for nothing. Raises `Wrong` where this user may not even look."""
    try:
        return path.stat().st_mode
    except PermissionError as refused:
        hint = "check the permissions of the folders that lead to it"
        raise Wrong(Finding(f"{shown(told)} can't be looked at: {refused.strerror}", hint)) from None
    except OSError:
        return 0


def _inside(folder: Path, told: str, hint: str = "move or copy it into the folder") -> Path:
    """The path that `told` leads to from `folder` on, links followed; it must not lead out of the folder."""
    real = Path(os.path.realpath(folder / told))
    if not real.is_relative_to(os.path.realpath(folder)):
        raise Wrong(Finding(f"{shown(told)} lies outside of the folder of imm.toml", hint))
    return real


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _config_error(wrong: Wrong, text: str, name: str) -> ConfigError:
    lines = key_lines(text)
    findings = sorted(wrong.findings, key=lambda finding: nearest(lines, finding.path) or math.inf)
    first, *others = findings
    details = [f"{_told(each, lines, name)}; {each.hint}" for each in others[:MOST_DETAILS]]
    # Behind the details of others it would say nothing of what it is about.
    hint = f"{told_path(first.path)}: {first.hint}" if others else first.hint
    return ConfigError(_told(first, lines, name), code=first.code, hint=hint, details=details)


def _told(finding: Finding, lines: Mapping[KeyPath, int], name: str) -> str:
    return f"{told_path(finding.path) or name}: {finding.what} ({_place(finding.path, lines, name)})"


def _place(path: KeyPath, lines: Mapping[KeyPath, int], name: str) -> str:
    line = nearest(lines, path)
    return name if line is None else f"{name}, line {line}"
