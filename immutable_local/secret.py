"""Secrets: set, listed and removed on the engine's host, handed to an instance as files of its user alone.

Values travel through the session and an archive, never through an argument list, an environment or a label.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

from immutable_local import labels as label
from immutable_local.app import App
from immutable_local.engine import Engine, volume_mount
from immutable_local.errors import ConfigError, UsageError
from immutable_local.sidecar.session import Session
from immutable_local.volume import user_ids

FOLDER = "/run/secrets"
LIMIT_BYTES = 512 * 1024
# What the engine calls a volume that nobody named.
UNNAMED = re.compile("[0-9a-f]{64}")


def check_value(name: str, value: bytes) -> str:
    """A secret's value as text. Raises UsageError for one that is empty, too large or not UTF-8."""
    if not value:
        raise UsageError(
            f"the value of {name} is empty",
            hint="give it on standard input, with --from FILE, or at the prompt",
        )
    if len(value) > LIMIT_BYTES:
        raise UsageError(
            f"the value of {name} is larger than {LIMIT_BYTES // 1024} KiB",
            hint="a file of that size belongs in a volume",
        )
    try:
        return value.decode()
    except UnicodeDecodeError as strange:
        raise UsageError(
            f"the value of {name} is not UTF-8 text", hint="encode binary values, as base64 for one"
        ) from strange


def put(session: Session, app: str, name: str, value: str) -> bool:
    """Keep a secret; returns whether its value changed."""
    return bool(session.ask("secret_set", app=app, name=name, value=value))


def listed(session: Session, app: str) -> dict[str, Any]:
    """Names with the time they were last set."""
    return {name: each["since"] for name, each in session.ask("secret_list", app=app).items()}


def remove(session: Session, app: str, name: str) -> bool:
    """Forget a secret; returns whether there was one."""
    return bool(session.ask("secret_remove", app=app, name=name))


def check_all_set(app: App, known: Mapping[str, str]) -> None:
    """Raises ConfigError when services name secrets that have no value yet."""
    missing = {
        service.name: lacking
        for service in app.services
        if (lacking := [name for name in service.secrets if name not in known])
    }
    if missing:
        told = [
            f"services.{service}.secrets: {', '.join(names)} {verb} no value yet"
            for service, names in missing.items()
            for verb in ["has" if len(names) == 1 else "have"]
        ]
        every = dict.fromkeys(name for names in missing.values() for name in names)
        raise ConfigError(
            told[0],
            key=("services", next(iter(missing)), "secrets"),
            code="secret_missing",
            details=told[1:],
            hint="; ".join(f"imm secret set {name}" for name in every),
        )


def mount(app: str) -> Any:
    """Where an instance finds its secrets: a volume of its own, which goes with it."""
    return volume_mount(None, FOLDER, labels={label.ROLE: "secrets", label.APP: app})


def hand_over(engine: Engine, container: str, values: Mapping[str, str], user: str) -> None:
    """Write secrets into a container that was created and never started, readable by its user alone."""
    uid, gid = user_ids(engine, container, user)
    files = []
    for name, value in sorted(values.items()):
        entry = tarfile.TarInfo(name)
        entry.mode, entry.uid, entry.gid = 0o400, uid, gid
        files.append((entry, value.encode()))
    engine.put(container, FOLDER, files)


def sweep(engine: Engine, app: str) -> None:
    """Remove the values of instances that somebody removed without their unnamed volumes (docker rm -f)."""
    for each in engine.volumes({label.ROLE: "secrets", label.APP: app}, unused=True):
        if UNNAMED.fullmatch(each["Name"]):
            engine.remove_volume(each["Name"])


def values(session: Session, app: str, names: Sequence[str]) -> dict[str, str]:
    return dict(session.ask("secret_values", app=app, names=list(names))) if names else {}
