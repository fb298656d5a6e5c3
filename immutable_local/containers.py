"""The two containers of imm's own, the proxy's and its sidecar's: how each is created and started."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from immutable_local import labels as label
from immutable_local import network
from immutable_local.engine import KEPT_RUNNING, Engine, bounded_log, endpoint, volume_mount
from immutable_local.errors import EngineRefused, ProxyError, name_taken
from immutable_local.host import Asked
from immutable_local.listed import NEXT, PROXY_VOLUME, SIDECAR, STATE_VOLUME, Container
from immutable_local.proxy import Proxy
from immutable_local.undo import Undo

PROXY_UID = 101
SIDECAR_UID = 10100
PROCESSES = 512
# All that the sidecar runs by itself; each session's program comes through exec.
PAGE = Path(__file__).parent / "sidecar" / "page.py"


def create_proxy(
    engine: Engine, proxy: Proxy, image: str, wanted: Asked, current: Container | None, undo: Undo
) -> str:
    """One that never started, in every app's network, with all that it needs to start."""
    remove_ours(engine, NEXT)
    container = engine.create(
        NEXT,
        image,
        labels={label.ROLE: "proxy", label.CONFIGURATION: configuration(wanted)},
        ports=[proxy.container_port],
        port_bindings={proxy.container_port: (wanted.bind, wanted.http_port)},
        mounts=[volume_mount(PROXY_VOLUME, "/imm/proxy")],
        networks={network.PROXY_NETWORK: endpoint()},
        network_mode=network.PROXY_NETWORK,
        # It is a member of every app's network, and inherits the host's setting, which is 1 wherever Docker
        # runs. IPv6's isn't inherited, and can't be set where the kernel has no IPv6.
        sysctls={"net.ipv4.ip_forward": "0"},
        **_hardened(),
        **proxy.container(),
    )
    undo.by(engine.remove, container)
    folders = [
        _folder("data", SIDECAR_UID),
        _folder("data/apps", SIDECAR_UID),
        _folder("data/park", SIDECAR_UID),
        _folder("data/run", PROXY_UID),
        _folder("data/tmp", PROXY_UID),
    ]
    engine.put(container, "/imm/proxy", folders)
    seed(engine, proxy, container)
    for each in engine.networks():
        if each.labels.get(label.ROLE) == "network" and label.APP in each.labels and each.subnet:
            taken = current.addresses.get(each.name) if current is not None else None
            engine.join(each.name, container, network.proxy_address(each.subnet, taken))
    return container


def seed(engine: Engine, proxy: Proxy, container: str) -> bool:
    """Let a proxy find what it needs to start. Its routes are loaded once it runs.

    Returns whether something of it was missing, or broken.
    """

    def read(path: str) -> str | None:
        found = engine.read(container, f"/imm/proxy/data/{path}")
        return None if found is None else found.decode(errors="replace")

    missing = {path: content for path, content in proxy.seeds(read).items() if read(path) != content}
    for path, content in missing.items():
        folder = [_folder(f"data/{path.rpartition('/')[0]}", SIDECAR_UID)] if "/" in path else []
        engine.put(container, "/imm/proxy", [*folder, _file(f"data/{path}", content.encode())])
    return bool(missing)


def start_proxy(start: Callable[[str], Any], container: str, wanted: Asked) -> None:
    try:
        start(container)
    except EngineRefused as refused:
        if refused.code == "disk_full":
            raise
        # Whatever refuses a port names it with its address. The firewall's rules have it, too, but apart.
        where = f"{wanted.bind}:{wanted.http_port}"
        if not re.search(rf"\b{re.escape(where)}\b", refused.explanation):
            raise _not_started("proxy", refused) from refused
        hint = "free that port, or choose another: imm proxy up --http-port 8081"
        if "cannot assign requested address" in refused.explanation:
            hint = "choose an address that this host has: imm proxy up --bind 127.0.0.1, for one"
        raise ProxyError(
            f"the proxy cannot listen on {where} of the engine's host",
            code="port_taken",
            details=[refused.explanation],
            hint=hint,
        ) from refused


def start_sidecar(engine: Engine, image: str, asked: Asked, proxy: str) -> None:
    """A new one beside this proxy."""
    container = engine.create(
        SIDECAR,
        image,
        labels={label.ROLE: "sidecar", label.CONFIGURATION: configuration(asked)},
        entrypoint=[],
        command=["python3", "-ISB", "-c", PAGE.read_text()],
        user=f"{SIDECAR_UID}:{PROXY_UID}",
        environment={},
        mounts=[volume_mount(STATE_VOLUME, "/imm/state"), volume_mount(PROXY_VOLUME, "/imm/proxy")],
        network_mode=f"container:{proxy}",
        tmpfs={"/tmp": "rw,noexec,nosuid,nodev,size=8m"},
        **_hardened(),
    )
    engine.put(container, "/imm/state", [_folder("data", SIDECAR_UID, 0o700)])
    try:
        engine.start(container)
    except EngineRefused as refused:
        if refused.code == "disk_full":
            raise
        raise _not_started("proxy's sidecar", refused) from refused


def _not_started(what: str, refused: EngineRefused) -> ProxyError:
    return ProxyError(
        f"the engine did not start the {what}",
        details=[refused.explanation],
        hint="put right what it says, then run the command again; else imm proxy down --force and"
        " imm proxy up make both anew: nobody reaches the apps meanwhile",
    )


def _hardened() -> dict[str, Any]:
    return {
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "read_only": True,
        "pids_limit": PROCESSES,
        "restart_policy": KEPT_RUNNING,
        "log_config": bounded_log(),
    }


def refuse_strangers(engine: Engine, *names: str) -> None:
    """Raises ImmError when somebody else's container has one of these names."""
    for name in names:
        _ours(engine, name)


def remove_ours(engine: Engine, name: str) -> None:
    container = _ours(engine, name)
    if container is not None:
        engine.remove(container)


def _ours(engine: Engine, name: str) -> str | None:
    """The id of imm's container of that name. Raises ImmError when it is somebody else's."""
    found = engine.find(name)
    if found is None:
        return None
    if engine.role_of(found) is None:
        raise name_taken("container", name)
    return str(found["Id"])


def configuration(asked: Asked) -> str:
    return json.dumps(asdict(asked), sort_keys=True)


def _folder(name: str, uid: int, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, uid, PROXY_UID
    return entry, b""


def _file(name: str, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.uid, entry.gid = 0o644, SIDECAR_UID, PROXY_UID
    return entry, content
