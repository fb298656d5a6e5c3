"""What can't go together, though each key alone is right. Each raises `Wrong` with all that it finds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from immutable_local.app import App
from immutable_local.config.findings import Finding, Findings, Wrong, told_path

# An app has the addresses of half a /24 for its two slots.
MOST_INSTANCES = 60
# Linux gives a process 2 MiB for its environment and arguments; and it is sealed into a label.
MOST_ENVIRONMENT_BYTES = 256 * 1024

_OF_REQUESTS = (
    "domains",
    "path",
    "strip_path",
    "drain",
    "hold",
    "hold_requests",
    "max_body",
    "response_timeout",
)


def between_keys(given: Mapping[str, Any]) -> None:
    """Within one service, as the file gives it."""
    findings = Findings()
    for key in _OF_REQUESTS:
        with findings.at(key):
            if key in given and "port" not in given:
                hint = "add its port, or remove the key"
                raise Wrong(Finding("a service without a port takes no traffic", hint))
    with findings.at("healthcheck", "path"):
        if "healthcheck" in given and given["healthcheck"].path is not None and "port" not in given:
            hint = 'add the port, or check with healthcheck = { command = ["..."] }'
            raise Wrong(Finding("a service without a port can't be asked for a path", hint))
    taken: set[str] = set()
    paths = [("volumes", mount.path) for mount in given.get("volumes", ())]
    for key, path in [*paths, *(("tmpfs", path) for path in given.get("tmpfs", ()))]:
        with findings.at(key):
            if path in taken:
                raise Wrong(Finding(f"{path} is mounted twice", "give each mount a path of its own"))
            taken.add(path)
    findings.settle()


def between_services(app: App, given: Mapping[str, Any]) -> None:
    """Between the services, and between services and volumes; `given` is what stands in the file."""
    findings = Findings()
    _routes(app, given["services"], findings)
    _writers(app, findings)
    _watched(app, findings)
    for service in app.services:
        with findings.at("services", service.name, "environment"):
            size = sum(len(f"{key}={value}".encode()) for key, value in service.environment.items())
            if size > MOST_ENVIRONMENT_BYTES:
                what = f"must have {MOST_ENVIRONMENT_BYTES // 1024} KiB at most in all, env_file included"
                raise Wrong(Finding(what, "what is larger belongs in the image, a volume or a secret"))
    with findings.at("services"):
        instances = sum(service.replicas for service in app.services)
        if instances > MOST_INSTANCES:
            what = f"{instances} instances in all, of {MOST_INSTANCES} that an app may have"
            raise Wrong(Finding(what, "lower the replicas"))
    findings.settle()


def _routes(app: App, given: Mapping[str, Any], findings: Findings) -> None:
    taken: dict[tuple[str, str], str] = {}
    for service in app.services:
        for domain in service.domains:
            has_path = "path" in given[service.name]
            with findings.at("services", service.name, "path" if has_path else "domains"):
                other = taken.setdefault((domain, service.path), service.name)
                if other != service.name:
                    path = "another path" if has_path else f'a path = "/{service.name}"'
                    hint = f"give one of them {path}, or domains of its own"
                    raise Wrong(Finding(f"{domain}{service.path} already leads to the service {other}", hint))


def _writers(app: App, findings: Findings) -> None:
    mounted_by: dict[str, list[str]] = defaultdict(list)
    for service in app.services:
        for volume in dict.fromkeys(mount.volume for mount in service.volumes):
            if app.volume(volume).writers == "many":
                continue
            mounted_by[volume].append(service.name)
            hint = f'write [{told_path(("volumes", volume))}] writers = "many" if they may all write at once'
            with findings.at("services", service.name, "volumes"):
                if len(mounted_by[volume]) > 1:
                    other = mounted_by[volume][0]
                    raise Wrong(Finding(f"{volume} allows one writer, and the service {other} has it", hint))
            with findings.at("services", service.name, "replicas"):
                if service.replicas > 1:
                    raise Wrong(Finding(f"{volume} allows one writer, not {service.replicas}", hint))


def _watched(app: App, findings: Findings) -> None:
    """What is watched stays up beside its successor, and one writer may not: some service must be free to."""
    with findings.at("release", "watch"):
        if app.watch and all(app.one_writer(each) for each in app.services):
            hint = 'remove watch, or write writers = "many" if old and new may run at the same time'
            what = "each service has a volume for one writer, and can't stay up beside a new one"
            raise Wrong(Finding(what, hint))
