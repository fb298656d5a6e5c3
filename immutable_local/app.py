"""What one imm.toml asks for, as frozen values. They import nothing but values and the errors.

`config` makes them from a file, `release.py` seals them; `to_json` and `from_json` are exact inverses, so
that a sealed release says as much as the file it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from types import MappingProxyType
from typing import Any, Literal

Writers = Literal["one", "many"]


def _frozen(entries: Mapping[str, str] | None = None) -> Mapping[str, str]:
    return MappingProxyType(dict(entries or {}))


@dataclass(frozen=True)
class Build:
    """How the app's own image is built: `context` from imm.toml's folder, `dockerfile` from the context."""

    context: str = "."
    dockerfile: str = "Dockerfile"
    target: str | None = None
    args: Mapping[str, str] = field(default_factory=_frozen)


@dataclass(frozen=True)
class HealthCheck:
    """When an instance is healthy. Times are in seconds.

    With `path`: an HTTP answer with a status within `status` (inclusive), no redirect followed. With
    `command`: exit code 0 inside the container. With neither: `path` is None and `command` is None, and the
    image's own HEALTHCHECK decides, else any answer under 500 on `/`.
    """

    path: str | None = None
    command: tuple[str, ...] | None = None
    interval: float = 0.5
    timeout: float = 5.0
    start_period: float = 60.0
    status: tuple[int, int] | None = None


@dataclass(frozen=True)
class Mount:
    """A named volume at a path inside the container."""

    volume: str
    path: str


@dataclass(frozen=True)
class Service:
    """One kind of process. `port` None: it takes no traffic."""

    name: str
    port: int | None = None
    domains: tuple[str, ...] = ()
    path: str = "/"
    strip_path: bool = False
    image: str | None = None
    command: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=_frozen)
    secrets: tuple[str, ...] = ()
    volumes: tuple[Mount, ...] = ()
    tmpfs: tuple[str, ...] = ()
    replicas: int = 1
    healthcheck: HealthCheck = field(default_factory=HealthCheck)
    drain: float = 30.0
    hold: float = 30.0
    hold_requests: int = 1000
    max_body: int = 1 << 30
    response_timeout: float = 300.0
    stop_grace_period: float = 10.0
    user: str | None = None
    read_only: bool = True
    cap_add: tuple[str, ...] = ()
    memory: int | None = None
    cpus: float | None = None

    @property
    def takes_traffic(self) -> bool:
        return self.port is not None

    @property
    def in_memory(self) -> tuple[str, ...]:
        """The paths that are a tmpfs: where the root can't be written, /tmp is one unasked."""
        return ("/tmp", *self.tmpfs) if self.read_only else self.tmpfs

    @property
    def heeds_image_healthcheck(self) -> bool:
        """Whether the image's HEALTHCHECK is about this service.

        Not where imm.toml has its own, nor for a worker with a command of its own: the image's asks what the
        image's own command serves.
        """
        own = self.healthcheck.command is not None or self.healthcheck.path is not None
        return not own and (self.takes_traffic or self.command is None)


@dataclass(frozen=True)
class Volume:
    """A named volume. `writers` "one": the old instance stops before the new one starts."""

    name: str
    writers: Writers = "one"


@dataclass(frozen=True)
class App:
    """What one imm.toml describes."""

    name: str
    services: tuple[Service, ...]
    build: Build = field(default_factory=Build)
    volumes: tuple[Volume, ...] = ()
    keep: int = 5
    watch: float = 0.0

    def service(self, name: str) -> Service:
        return next(service for service in self.services if service.name == name)

    def volume(self, name: str) -> Volume:
        return next(volume for volume in self.volumes if volume.name == name)

    @property
    def builds(self) -> bool:
        """Whether any service runs the app's own image."""
        return any(service.image is None for service in self.services)

    def one_writer(self, service: Service) -> bool:
        """Whether the service must stop before its successor starts."""
        return any(self.volume(mount.volume).writers == "one" for mount in service.volumes)


def to_json(app: App) -> dict[str, Any]:
    """The app as plain JSON values; times in seconds, memory in bytes."""
    return _plain(app, {})


def chosen(value: App | Service) -> dict[str, Any]:
    """The same without what has its default: what somebody chose."""
    return _plain(value, _DEFAULTS)


def from_json(told: Mapping[str, Any]) -> App:
    """The inverse of `to_json`; keys it doesn't know are left out, missing ones take their default."""
    return App(
        name=told["name"],
        build=Build(**_known(Build, told["build"])),
        services=tuple(_service(each) for each in told["services"]),
        volumes=tuple(Volume(**_known(Volume, each)) for each in told["volumes"]),
        keep=told["keep"],
        watch=told.get("watch", 0.0),
    )


# Values that have nothing but defaults; what must be given is empty here, and never equal to what was given.
_BARE: tuple[Any, ...] = (App("", ()), Build(), HealthCheck(), Service(""), Volume(""))
_DEFAULTS: dict[type, Any] = {type(each): each for each in _BARE}


def _plain(value: Any, without: Mapping[type, Any]) -> dict[str, Any]:
    # asdict copies mappings with copy.deepcopy, which refuses a MappingProxyType.
    bare = without.get(type(value))
    return {
        each.name: _plain_value(getattr(value, each.name), without)
        for each in fields(value)
        if bare is None or getattr(value, each.name) != getattr(bare, each.name)
    }


def _plain_value(value: Any, without: Mapping[type, Any]) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return [_plain_value(each, without) for each in value]
    return _plain(value, without) if is_dataclass(value) else value


def _known(kind: Any, told: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _frozen_value(told[key]) for key in kind.__dataclass_fields__ if key in told}


def _frozen_value(value: Any) -> Any:
    if isinstance(value, dict):
        return _frozen(value)
    if isinstance(value, list):
        return tuple(_frozen_value(each) for each in value)
    return value


def _service(told: Mapping[str, Any]) -> Service:
    known = _known(Service, {k: v for k, v in told.items() if k not in ("healthcheck", "volumes")})
    known["healthcheck"] = HealthCheck(**_known(HealthCheck, told.get("healthcheck", {})))
    known["volumes"] = tuple(Mount(**each) for each in told.get("volumes", []))
    return Service(**known)
