"""One container of a service: started, discarded when it never got to serve, retired when it did."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from immutable_local import labels as label
from immutable_local import network, secret, volume
from immutable_local.app import Service
from immutable_local.engine import Engine, bounded_log, endpoint, volume_mount
from immutable_local.errors import EngineRefused, Fact, ImmError, name_taken, shown
from immutable_local.listed import Container
from immutable_local.release import Release
from immutable_local.routes import Slot
from immutable_local.sidecar.session import Session

PROCESSES = 1024
KEPT_LOG_LINES = 2000
KEPT_LOG_BYTES = 256 * 1024
TMP_OPTIONS = "rw,nosuid,nodev,mode=1777"
HOST_NAME_LIMIT = 63
INSTANCE = "instance"
KILLED = 128 + 9
# How the engine refuses a container whose image isn't there, and one whose name is taken.
MISSING = 404
# What else of a service an engine may refuse.
MAY_BE_REFUSED = ("volumes", "tmpfs", "cap_add", "cpus", "memory")
CONFLICT = 409


@dataclass(frozen=True)
class Instance:
    """A container of a service. `address` is where the proxy finds it; None when it takes no traffic."""

    name: str
    container: str
    service: Service
    slot: Slot
    address: str | None


def name_of(app: str, service: str, release: int, slot: Slot, replica: int) -> str:
    return f"{app}-{service}-{release}-{slot}-{replica}"


def replica_of(name: str) -> int:
    """Which of its service's instances it is, from 1 on, as `name_of` wrote it."""
    return int(name.rpartition("-")[2])


def is_one(engine: Engine, container: Container) -> bool:
    """Whether imm made it. Labels are inherited: what somebody made of an instance is theirs."""
    told = container.labels
    try:
        release, replica = int(told[label.RELEASE]), int(told[label.REPLICA])
        slot: Slot = "green" if told[label.SLOT] == "green" else "blue"
        spelled = name_of(told[label.APP], told[label.SERVICE], release, slot, replica)
    except (KeyError, ValueError):
        return False
    if container.name == spelled:
        return True
    # Somebody gave it another name; or its image was made of an instance, with all that stood on that one.
    return not engine.gives_role(container.image, INSTANCE)


def all_of(engine: Engine, app: str = "") -> list[Container]:
    """The instances of an app, or of every app, running or not."""
    return among(engine, engine.containers({label.ROLE: INSTANCE, label.APP: app}))


def among(engine: Engine, listed: Sequence[Container]) -> list[Container]:
    """The instances of these containers."""
    return [each for each in listed if each.labels.get(label.ROLE) == INSTANCE and is_one(engine, each)]


def start(
    engine: Engine,
    session: Session,
    release: Release,
    service: Service,
    slot: Slot,
    replica: int,
    address: str | None,
    spec: str,
    secrets: Mapping[str, str],
) -> Instance:
    """Create a hardened container and start it; the engine restarts it only once it has proved itself."""
    app = release.app.name
    name = name_of(app, service.name, release.number, slot, replica)
    image = release.image_of(service)
    mounts = [volume_mount(volume.name_of(app, each.volume), each.path) for each in service.volumes]
    network_name = network.app_network(app)
    container = _create(
        engine,
        name,
        image,
        app,
        service,
        hostname=name[:HOST_NAME_LIMIT].rstrip("-"),
        labels={
            label.ROLE: INSTANCE,
            label.APP: app,
            label.SERVICE: service.name,
            label.RELEASE: str(release.number),
            label.IDENTITY: release.identity,
            # An image of someone else's has no seal that the instance could inherit.
            label.SEALED: release.sealed(),
            label.SPEC: spec,
            label.SLOT: slot,
            label.REPLICA: str(replica),
        },
        command=list(service.command) if service.command is not None else None,
        environment=dict(service.environment),
        user=service.user or "",
        healthcheck=_healthcheck(service),
        stop_timeout=math.ceil(service.stop_grace_period),
        mounts=[*mounts, secret.mount(app)] if service.secrets else mounts,
        tmpfs=dict.fromkeys(service.in_memory, TMP_OPTIONS),
        networks={network_name: endpoint(address, aliases=[service.name])},
        network_mode=network_name,
        read_only=service.read_only,
        cap_drop=["ALL"] if service.image is None else None,
        cap_add=list(service.cap_add) or None,
        security_opt=["no-new-privileges"],
        pids_limit=PROCESSES,
        mem_limit=service.memory,
        nano_cpus=round(service.cpus * 1_000_000_000) if service.cpus else None,
        restart_policy={"Name": "no"},
        log_config=bounded_log(),
    )
    try:
        if service.secrets:
            user = service.user or str(engine.inspect(container)["Config"].get("User") or "")
            try:
                secret.hand_over(engine, container, secrets, user)
            except EngineRefused as refused:
                raise _not_started(name, service, refused) from refused
        # A client that was away and lost its lock starts nothing beside what its successor started.
        session.ask("still_locked", name=f"app-{app}")
        _start(engine, container, name, service, network_name, address)
    except BaseException:
        engine.remove(container)
        raise
    return Instance(name, container, service, slot, address)


def _create(engine: Engine, name: str, image: str, app: str, service: Service, **settings: Any) -> str:
    try:
        return engine.create(name, image, **settings)
    except EngineRefused as refused:
        if refused.status == MISSING and engine.image(image) is None:
            raise ImmError(
                f"the image of {name} was removed while it was being deployed",
                code="no_image",
                details=[refused.explanation],
                hint="run the command again; whoever prunes images meanwhile should wait for it",
            ) from refused
        if refused.status == CONFLICT:
            owner = _another_app(engine, name, app)
            raise name_taken("container", name, owner, f"the service {service.name}") from refused
        raise _not_started(name, service, refused) from refused


def _another_app(engine: Engine, name: str, app: str) -> str:
    """Whose instance has that name: `web-api` of `shop`, and `api` of `shop-web`, want one name, too."""
    found = engine.find(name)
    labels = (found["Config"].get("Labels") if found else None) or {}
    if found is None or engine.role_of(found) != INSTANCE or labels.get(label.APP) == app:
        return ""
    return f"the service {labels.get(label.SERVICE)} of the app {labels.get(label.APP)}"


def _start(
    engine: Engine, container: str, name: str, service: Service, in_network: str, address: str | None
) -> None:
    try:
        engine.start(container)
    except EngineRefused as refused:
        members = engine.members(in_network)
        holder = next((each for each in members if members[each] == address and each != name), None)
        if holder is not None:
            raise ImmError(
                f"{name} did not start: {address}, its address in {in_network}, is {holder}'s",
                code="address_taken",
                hint=f"docker network disconnect {in_network} {holder}, then run the command again:"
                " imm keeps the lower half of the subnet for itself",
            ) from refused
        raise _not_started(name, service, refused) from refused


def _not_started(name: str, service: Service, refused: EngineRefused) -> ImmError:
    """What the engine refused of an instance, with the keys that it may be about."""
    if refused.code == "disk_full":
        return refused
    facts: list[str] = [Fact(refused.explanation)]
    if service.command is not None and " " in service.command[0]:
        facts.append(f"the program's name is {shown(service.command[0])}: each word stands by itself")
    if service.volumes:
        facts.append("a volume is mounted on a folder, never on a file of the image")
    if service.secrets:
        facts.append(f"{secret.FOLDER} is a folder in the image, or absent, and no link leads there")
    keys = ["command", "user", *(key for key in MAY_BE_REFUSED if getattr(service, key))]
    return ImmError(
        f"{name} did not start",
        code="not_started",
        details=facts,
        hint=f"correct {', '.join(f'services.{service.name}.{key}' for key in keys)} or its image,"
        " then run imm up",
    )


def discard(engine: Engine, session: Session, app: str, container: str, name: str, grace: float) -> None:
    """SIGTERM, `grace` seconds, SIGKILL, for an instance that isn't to be live: a worker has begun its work
    already, and a database its data. It is removed; its log is kept, if it can be."""
    # A client that lost its lock removes nothing: its successor may have found this one live.
    session.ask("still_locked", name=f"app-{app}")
    try:
        engine.stop(container, grace)
        keep_log(engine, session, app, container, name)
    finally:
        engine.remove(container)


def retire(engine: Engine, session: Session, app: str, container: str, name: str, grace: float) -> bool:
    """SIGTERM, `grace` seconds, SIGKILL; keep its log, remove it. Returns whether it heeded SIGTERM."""
    heeded = True
    try:
        began = time.monotonic()
        engine.stop(container, grace)
        # One that had been killed before didn't have to be waited for.
        waited = time.monotonic() - began >= grace
        heeded = engine.inspect(container)["State"]["ExitCode"] != KILLED or not waited
    except EngineRefused as refused:
        if refused.status != 404:
            raise
    keep_log(engine, session, app, container, name)
    engine.remove(container)
    return heeded


def keep_log(engine: Engine, session: Session, app: str, container: str, name: str) -> None:
    """Keep the end of an instance's log on the host: 256 KiB at most."""
    log = engine.logs(container, tail=KEPT_LOG_LINES, timestamps=True)
    if len(log) > KEPT_LOG_BYTES:
        # Whole lines, each with its time before it; of one that is longer than all that is kept, its end.
        end = log[-KEPT_LOG_BYTES:]
        log = end.partition(b"\n")[2] or log[: log.find(b" ") + 1] + end
    if log:
        content = base64.b64encode(log).decode()
        session.ask("log_keep", app=app, name=name, content=content)


def _healthcheck(service: Service) -> dict[str, object] | None:
    """What the engine itself goes on asking, for docker ps; imm asks on its own while the release is new."""
    if service.healthcheck.command is not None:
        nanoseconds = 1_000_000_000
        return {
            "test": ["CMD", *service.healthcheck.command],
            "interval": 10 * nanoseconds,
            "timeout": round(service.healthcheck.timeout * nanoseconds),
            "start_period": round(service.healthcheck.start_period * nanoseconds),
            "retries": 3,
        }
    return None if service.heeds_image_healthcheck else {"test": ["NONE"]}
