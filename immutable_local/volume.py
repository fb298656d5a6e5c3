"""Named volumes: made when they are missing, never removed."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence

from immutable_local import labels as label
from immutable_local.app import Service
from immutable_local.engine import Engine, volume_mount
from immutable_local.errors import EngineRefused, Fact, ImmError, name_taken
from immutable_local.release import Release


def name_of(app: str, volume: str) -> str:
    """A volume's name on the engine."""
    return f"imm-{app}-{volume}"


def ensure(engine: Engine, release: Release, services: Sequence[Service]) -> None:
    """Make the volumes of these services that aren't there.

    Docker fills a new one with the image's files and their ownership at that path. Where the image has
    nothing there, be it that it has a VOLUME, the folder would be root's: it is given to the service's user,
    of several services the first one's. One that is empty, and that no container has, is as good as new:
    whoever made it may have been killed before it was given. Raises ImmError for a volume that isn't this
    app's.
    """
    app = release.app
    first: dict[str, tuple[Service, str]] = {}
    for service in services:
        for mount in service.volumes:
            first.setdefault(mount.volume, (service, mount.path))
    for volume, (service, path) in first.items():
        name = name_of(app.name, volume)
        found = engine.volume(name)
        if found is None:
            engine.create_volume(name, {label.ROLE: "volume", label.APP: app.name})
        elif (owner := (found.get("Labels") or {}).get(label.APP)) != app.name:
            # Two apps can want one name, too: `web-data` of `shop`, and `data` of `shop-web`.
            raise name_taken("volume", name, f"the app {owner}" if owner else "", f"the volume {volume}")
        elif engine.is_mounted(name):
            continue
        _give_to_user(engine, app.name, service, release.image_of(service), name, path)


def user_ids(engine: Engine, container: str, user: str) -> tuple[int, int]:
    """The numbers behind a user as Docker understands it: 'name', 'name:group', '1000', '1000:1000' or ''."""
    name, _, group = user.partition(":")
    if name.isdecimal() and group.isdecimal():
        return int(name), int(group)
    passwd = _entries(engine, container, "/etc/passwd")
    name = name or "0"
    uid = int(name) if name.isdecimal() else int(passwd.get(name, ["", "", "0"])[2])
    if not group:
        return uid, next((int(each[3]) for each in passwd.values() if each[2] == str(uid)), 0)
    if group.isdecimal():
        return uid, int(group)
    return uid, int(_entries(engine, container, "/etc/group").get(group, ["", "", "0"])[2])


def _give_to_user(engine: Engine, app: str, service: Service, image: str, name: str, path: str) -> None:
    described = engine.image(image)
    user = (
        service.user
        if service.user is not None
        else str((described.config if described else {}).get("User") or "")
    )
    if user in ("", "0", "root", "0:0"):
        return
    try:
        _give(engine, image, app, name, path, user)
    except EngineRefused as refused:
        if refused.code == "disk_full" or refused.status == 404:
            raise
        raise ImmError(
            f"the volume {name} can't be mounted at {path}",
            code="not_started",
            details=[
                Fact(refused.explanation),
                "a volume is mounted on a folder, never on a file of the image",
            ],
            hint=f"correct services.{service.name}.volumes or the image, then run imm up",
        ) from refused


def _give(engine: Engine, image: str, app: str, name: str, path: str, user: str) -> None:
    folder, _, last = path.rstrip("/").rpartition("/")
    with engine.task(image, app, [volume_mount(name, path)]) as task:
        found = engine.empty_folder(task, path)
        if found is None or (found.uid, found.gid) != (0, 0):
            return
        uid, gid = user_ids(engine, task, user)
        # In vain where the image has an empty folder of root's: as an instance is created Docker gives the
        # volume, while it is empty, that one's owner again.
        entry = tarfile.TarInfo(last)
        entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, uid, gid
        engine.put(task, folder or "/", [(entry, b"")])


def _entries(engine: Engine, container: str, path: str) -> dict[str, list[str]]:
    content = (engine.read(container, path) or b"").decode(errors="replace")
    rows = [line.split(":") for line in content.splitlines()]
    numbers = slice(2, 4) if path == "/etc/passwd" else slice(2, 3)
    return {row[0]: row for row in rows if len(row) >= 4 and all(each.isdecimal() for each in row[numbers])}
