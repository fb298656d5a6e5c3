"""Why an instance isn't healthy: what the check got, what listens, how it ended, what it last said."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from immutable_local import labels as label
from immutable_local.app import Service
from immutable_local.config.findings import Wrong
from immutable_local.config.values import TMPFS
from immutable_local.engine import Engine
from immutable_local.errors import EngineRefused, Fact, ImmError, shown
from immutable_local.instance import Instance
from immutable_local.making import PYTHON_IMAGES, image_for

SHOWN_LOG_LINES = 15
LISTENING = "0A"
# What strerror(EROFS) says on every Linux; a path often stands beside it.
READ_ONLY = re.compile("Read-only file system", re.IGNORECASE)
PATH = re.compile(r"(?<![\w/:.])/[\w.@%+-]+(?:/[\w.@%+-]+)*")
NOT_PERMITTED = ("Operation not permitted", "Permission denied")
NOT_RUN = {126: "not executable", 127: "command not found"}
SIGNALS = {137: "SIGKILL", 139: "SIGSEGV", 143: "SIGTERM", 134: "SIGABRT"}


@dataclass(frozen=True)
class Inside:
    """What was found inside a container. `room`: the folder of what the process couldn't write, where a tmpfs
    would hide nothing of the image."""

    log: Sequence[str]
    listening: Sequence[tuple[str, int]] = ()
    room: str = ""


def why(
    engine: Engine,
    instance: Instance,
    inspected: Mapping[str, Any],
    target: Mapping[str, Any] | None,
    command: Sequence[str] | None,
    seen: Sequence[Mapping[str, Any]],
) -> tuple[list[str], str]:
    """What is known, one a line, the most telling fact last, then what was printed; and what to change."""
    log = engine.logs(instance.container, tail=200).decode(errors="replace").splitlines()
    asked_over_http = inspected["State"]["Running"] and target is not None
    listening = listening_ports(engine, instance.container) if asked_over_http else []
    inside = Inside(log, listening, _room(engine, instance, log))
    return judged(instance, inspected, target, command, seen, inside)


def judged(
    instance: Instance,
    inspected: Mapping[str, Any],
    target: Mapping[str, Any] | None,
    command: Sequence[str] | None,
    seen: Sequence[Mapping[str, Any]],
    inside: Inside,
) -> tuple[list[str], str]:
    """`why`, of what is known."""
    service, state, log = instance.service, inspected["State"], inside.log
    details: list[str] = []
    printed: list[str] = []
    # What is known for sure goes before what the log suggests: the application may have survived that.
    sure = by_log = perhaps = ""
    if not state["Running"]:
        fact, sure, perhaps = _ended(instance, state)
        details.append(fact)
    elif target is not None:
        details += [_got(target, each) for each in seen] or [f"GET {target['path']} was not answered"]
        printed = [f"it said: {shown(each['detail'])}" for each in seen if each.get("failed") == "not_http"]
        fact, by_port = _listening(instance, inside.listening)
        details += [fact] if fact else []
        by_answer, perhaps = _advice(instance, seen)
        sure = by_port or by_answer
    elif command is not None:
        details += [_ran(command, each) for each in seen] or [f"{' '.join(command)} has not ended once"]
        printed = [_printed(each) for each in seen if each.get("printed")]
        perhaps = _command_advice(instance, seen)
    wanted = _written_in_vain(service, log)
    fact = ""
    if wanted:
        fact, by_log = _not_writable(service, wanted, inside.room)
    elif not inside.listening and _lacks_a_right(service, str(inspected["Config"].get("User") or ""), log):
        fact, by_log = _not_permitted(service)
    suggested = [fact] if fact else []
    details = [*suggested, *details] if sure else [*details, *suggested]
    details = [*map(Fact, details), *printed]
    if log:
        details.append("last lines of its log:")
        details += [f"  {line}" for line in log[-SHOWN_LOG_LINES:]]
    else:
        details.append("it has written nothing to its log")
    return details, sure or by_log or perhaps


def listening_ports(engine: Engine, container: str) -> list[tuple[str, int]]:
    """Addresses and ports that something listens on inside a running container; empty when it can't be known.

    Read by a container beside it, in its network: the image may have no shell and no cat.
    """
    try:
        image = image_for(engine, PYTHON_IMAGES)
        app = (engine.inspect(container)["Config"]["Labels"] or {}).get(label.APP)
        tables = ["/proc/net/tcp", "/proc/net/tcp6"]
        told = engine.run_once(
            image, ["cat", *tables], network_mode=f"container:{container}", app=app
        ).decode()
    except ImmError:
        return []
    return parse_listening(told)


def parse_listening(table: str) -> list[tuple[str, int]]:
    """The listening sockets of Linux's /proc/net/tcp and tcp6, Docker's own DNS left out."""
    found = set()
    for line in table.splitlines():
        fields = line.split()
        if len(fields) < 4 or fields[3] != LISTENING:
            continue
        raw, _, port = fields[1].partition(":")
        words = [bytes.fromhex(raw[i : i + 8])[::-1] for i in range(0, len(raw), 8)]
        address = str(ipaddress.ip_address(b"".join(words)))
        if address != "127.0.0.11":
            found.add((address, int(port, 16)))
    return sorted(found, key=lambda each: (each[1], each[0]))


def _ended(instance: Instance, state: Mapping[str, Any]) -> tuple[str, str, str]:
    """How it ended; what to change, where that is sure; and else."""
    service = instance.service
    if state.get("OOMKilled"):
        limit = f"{service.memory // 1024 // 1024} MiB" if service.memory else "what the host has"
        return (
            f"its container was killed for want of memory (limit: {limit})",
            f"raise services.{service.name}.memory in imm.toml, or let it use less, then run imm up",
            "",
        )
    code = state.get("ExitCode", 0)
    if state.get("Error"):
        fact = f"its container did not start: {state['Error']}"
        return fact, "correct the command or the image, then run imm up", ""
    fact = f"its container ended with exit code {code}"
    if code in SIGNALS:
        fact += f" ({SIGNALS[code]})"
    if code in NOT_RUN:
        correct = f"correct services.{service.name}.command or the image's CMD, then run imm up"
        return f"{fact} ({NOT_RUN[code]})", correct, ""
    if code == 0:
        where = f"services.{service.name}.command" if service.command else "the image's CMD"
        return fact, "", f"a service must stay in the foreground: correct {where}, then run imm up"
    return fact, "", "correct what its log says, then run imm up"


def _got(target: Mapping[str, Any], seen: Mapping[str, Any]) -> str:
    asked = f"GET {target['path']}"
    if "status" in seen:
        told = f"{asked} answered {seen['status']}"
        if 300 <= seen["status"] < 400:
            # What stands behind the path may be a token.
            where = re.split(r"[?#]", seen.get("location") or "")[0]
            to = f" to {where}" if where else ""
            return told + to + _noted(seen, "a redirect is not followed")
        low, high = target["status"]
        wanted = f"{low}" if low == high else f"{low} to {high}"
        return told + _noted(seen, *([] if seen["healthy"] else [f"healthy is {wanted}"]))
    reasons = {
        "refused": f"nothing accepted a connection to port {target['port']}",
        "timeout": f"{asked} was not answered within {target['timeout']:g} s",
        "closed": f"the connection was closed before {asked} was answered",
        "unreachable": "its address could not be reached",
        "not_http": f"what answered on port {target['port']} is not HTTP",
    }
    return reasons.get(seen["failed"], f"{asked} failed: {seen.get('detail')}") + _noted(seen)


def _noted(seen: Mapping[str, Any], *more: str) -> str:
    """How often it was seen, and what there is to say of it, in brackets."""
    notes = [f"{seen['times']} times", *more] if seen["times"] != 1 else more
    return f" ({'; '.join(notes)})" if notes else ""


def _advice(instance: Instance, seen: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """What to change, where that is sure; and else."""
    key = f"services.{instance.service.name}"
    statuses = [each["status"] for each in seen if "status" in each]
    if any(300 <= status < 400 for status in statuses):
        return f"set {key}.healthcheck.path to a path that answers without a redirect, then run imm up", ""
    if 404 in statuses:
        return f"set {key}.healthcheck.path to a path that the application has, then run imm up", ""
    if statuses:
        return "", f"correct what its log says, or {key}.healthcheck, then run imm up"
    if any(each.get("failed") == "timeout" for each in seen):
        return "", (
            f"if it only needs longer, raise {key}.healthcheck.timeout or start_period; else correct it;"
            " then run imm up"
        )
    return "", f"if it only starts slowly, raise {key}.healthcheck.start_period; then run imm up"


def _command_advice(instance: Instance, seen: Sequence[Mapping[str, Any]]) -> str:
    key = f"services.{instance.service.name}.healthcheck"
    if any(each["code"] is None for each in seen):
        return (
            f"if it only needs longer, raise {key}.timeout; else correct it or {key}.command; then run imm up"
        )
    return f"correct the application or {key}, then run imm up"


def _listening(instance: Instance, listening: Sequence[tuple[str, int]]) -> tuple[str, str]:
    """What listens, where it isn't what imm.toml says; and what to change."""
    service = instance.service
    key = f"services.{service.name}.port"
    mine = [address for address, port in listening if port == service.port]
    if any(not ipaddress.ip_address(address).is_loopback for address in mine):
        return "", ""
    if mine:
        return (
            f"port {service.port} listens on {mine[0]} alone, which nobody outside its container reaches",
            "let the application listen on 0.0.0.0, then run imm up",
        )
    outside = sorted({port for address, port in listening if not ipaddress.ip_address(address).is_loopback})
    inside = sorted({port for address, port in listening if ipaddress.ip_address(address).is_loopback})
    if outside:
        ports = ", ".join(str(port) for port in outside)
        return (
            f"the container listens on {ports}; imm.toml says port = {service.port}",
            f"correct {key} in imm.toml to {outside[0]}, then run imm up",
        )
    if inside:
        ports = ", ".join(str(port) for port in inside)
        return (
            f"the container listens on 127.0.0.1:{ports} alone; imm.toml says port = {service.port}",
            f"let the application listen on 0.0.0.0:{service.port}, then run imm up",
        )
    return "nothing listens inside the container", ""


def _ran(command: Sequence[str], seen: Mapping[str, Any]) -> str:
    if seen["code"] is None:
        return f"{' '.join(command)} had not ended within {seen['seconds']:g} s{_noted(seen)}"
    return f"{' '.join(command)} ended with exit code {seen['code']}{_noted(seen)}"


def _printed(seen: Mapping[str, Any]) -> str:
    return f"it printed: {seen['printed'].splitlines()[-1]}"


def _written_in_vain(service: Service, log: Sequence[str]) -> str:
    """The path whose write the read-only root refused, as the log tells it; "a path" where it doesn't say."""
    if not service.read_only:
        return ""
    line = next((line for line in reversed(log) if READ_ONLY.search(line)), None)
    if line is None:
        return ""
    before, after = READ_ONLY.split(line, maxsplit=1)
    quoted = re.findall(r"['\"](/[^'\"]+)['\"]", line)
    found = [*quoted[:1], *PATH.findall(after)[:1], *PATH.findall(before)[-1:]]
    return found[0] if found else "a path"


def _room(engine: Engine, instance: Instance, log: Sequence[str]) -> str:
    folder = _written_in_vain(instance.service, log).rpartition("/")[0]
    try:
        return TMPFS.read(folder) if folder and engine.empty_folder(instance.container, folder) else ""
    except (Wrong, EngineRefused):
        return ""


def _not_writable(service: Service, wanted: str, room: str) -> tuple[str, str]:
    key = f"services.{service.name}"
    fact = f"its root file system is read-only, and it tried to write {wanted}"
    if room:
        return fact, (
            f'set {key}.tmpfs = ["{room}"] for passing files, {key}.volumes for lasting ones,'
            f" or {key}.read_only = false; then run imm up"
        )
    # A tmpfs or a volume would stand in place of what the image has there.
    return fact, (
        f"let it write under /tmp, or into a folder of its own that {key}.tmpfs or {key}.volumes names,"
        f" or set {key}.read_only = false; then run imm up"
    )


def _lacks_a_right(service: Service, user: str, log: Sequence[str]) -> bool:
    """Whether a capability may be what it lacks: only root would have any."""
    is_root = user.partition(":")[0] in ("", "0", "root")
    may = is_root and service.image is None and not service.cap_add
    return may and any(words in line for line in log for words in NOT_PERMITTED)


def _not_permitted(service: Service) -> tuple[str, str]:
    return (
        "every capability is dropped by default, and something was not permitted",
        f'if it needs one, name it: services.{service.name}.cap_add = ["CHOWN", "SETUID", "SETGID"] for one;'
        " then run imm up",
    )
