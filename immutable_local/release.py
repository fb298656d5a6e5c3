"""A release: an image and the settings that run it, sealed together, content-addressed, numbered per app.

Its identity is the SHA-256 of the settings with what each image is made of: its layers and its configuration
without imm's labels. Not the image id, which varies with the builder, its cache and the image store.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from immutable_local import labels as label
from immutable_local.app import App, Service, chosen, from_json, to_json

# What of an image's configuration decides how it runs; builders add fields of their own beside these.
RUNS_BY = (
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "OnBuild",
    "Shell",
    "StopSignal",
    "StopTimeout",
    "User",
    "Volumes",
    "WorkingDir",
)

# What the ledger says of a release that was live, or was found after the history of it was lost.
WAS_LIVE = ("went_live", "reverted", "found")


def digest(value: Any) -> str:
    """SHA-256 of a value as canonical JSON, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Pin:
    """An image as a release runs it: `id` on this engine, `content` wherever it is.

    `volumes` are the paths that its VOLUME declares. They are part of the content, and not sealed beside it:
    a pin that was unsealed tells none.
    """

    reference: str
    id: str
    content: str
    digest: str | None = None
    volumes: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Release:
    """Code and settings. `number` is 0 until the release is sealed; `image` is the sealed image's id."""

    app: App
    pins: Mapping[str, Pin]
    number: int = 0
    image: str = ""

    @property
    def identity(self) -> str:
        return digest(
            {"settings": settings(self.app), "images": {name: pin.content for name, pin in self.pins.items()}}
        )

    def image_of(self, service: Service) -> str:
        """The image that instances of a service are made from."""
        return self.image if service.image is None else self.pins[service.name].id

    def content_of(self, service: Service) -> str:
        return self.pin_of(service).content

    def pin_of(self, service: Service) -> Pin:
        return self.pins["" if service.image is None else service.name]

    def sealed(self) -> str:
        """Everything but the number, as canonical JSON: what the image's label holds.

        Escaped in it is what a Dockerfile takes for a comment, and what it can't have at the end of a line:
        the label is written on several.
        """
        told = {
            "app": to_json(self.app),
            "pins": {
                name: {"reference": pin.reference, "id": pin.id, "content": pin.content, "digest": pin.digest}
                for name, pin in self.pins.items()
            },
        }
        text = json.dumps(told, sort_keys=True, separators=(",", ":"))
        return text.replace(r"\\", r"\u005c").replace("#", r"\u0023")


def unseal(labels: Mapping[str, str], image: str) -> Release:
    """The release that a sealed image's labels hold."""
    told = json.loads(labels[label.SEALED])
    return Release(
        app=from_json(told["app"]),
        pins={name: Pin(**pin) for name, pin in told["pins"].items()},
        number=int(labels[label.RELEASE]),
        image=image,
    )


def content_of(layers: Sequence[str], config: Mapping[str, Any]) -> str:
    """What an image is, whoever built it: its layers, and how it wants to be run."""
    labels = {k: v for k, v in (config.get("Labels") or {}).items() if not k.startswith(label.PREFIX)}
    return digest(
        {"layers": list(layers), "labels": labels, "config": {k: config[k] for k in RUNS_BY if config.get(k)}}
    )


def declared_volumes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The paths that an image's VOLUME declares."""
    return tuple(sorted({posixpath.normpath(path) for path in config.get("Volumes") or ()}))


def unmounted(release: Release, service: Service) -> list[str]:
    """Where the image declares a volume and nothing is mounted: what is written there goes with the instance.

    A volume further up doesn't help, as the engine mounts an unnamed one over it; a tmpfs there says that it
    is meant to be lost.
    """
    mounted = {posixpath.normpath(mount.path) for mount in service.volumes}
    lost = [PurePosixPath(path) for path in service.in_memory]
    return [
        path
        for path in release.pin_of(service).volumes
        if path not in mounted and not any(PurePosixPath(path).is_relative_to(each) for each in lost)
    ]


def settings(app: App) -> dict[str, Any]:
    """What decides how the app runs: not how it is built or watched, nor how many are kept."""
    # Without defaults: a later version of imm has more keys, and the same imm.toml is the same release.
    return {key: value for key, value in chosen(app).items() if key not in ("build", "keep", "watch")}


def spec_of(release: Release, service: Service, secrets: Mapping[str, str]) -> str:
    """What an instance is made from; another one means a new instance. `secrets` are versions, no values."""
    writers = {mount.volume: release.app.volume(mount.volume).writers for mount in service.volumes}
    return digest(
        {
            "content": release.content_of(service),
            "service": chosen(service),
            "writers": writers,
            "secrets": {name: secrets.get(name, "") for name in service.secrets},
        }
    )


def way_back(records: Sequence[Mapping[str, Any]]) -> list[int]:
    """The releases that were live, oldest first, the live one last: what `revert` walks back along.

    A release that goes live is put on top; going back to one takes off what lies above it. So reverting again
    leads further back, and never forward.
    """
    path: list[int] = []
    for record in records:
        if record["event"] not in WAS_LIVE:
            continue
        number = record["release"]
        if record["event"] == "reverted" and number in path:
            del path[path.index(number) + 1 :]
            continue
        if number in path:
            path.remove(number)
        path.append(number)
    return path


def announced(records: Sequence[Mapping[str, Any]]) -> set[int]:
    """The releases that any record tells of: each was announced before the first that did."""
    return {record["release"] for record in records if record["release"] is not None}


def numbers(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The number of each identity that was ever sealed."""
    return {
        record["identity"]: record["release"] for record in records if record["event"] in ("sealed", "found")
    }
