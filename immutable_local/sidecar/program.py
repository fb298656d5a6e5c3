"""imm's hands on the host: one session of the sidecar, standard library only.

The command line sends this file through `docker exec` and speaks JSON lines with it: `{"id", "do", ...}` is
answered by `{"id", "ok"}` or `{"id", "error"}`. So both ends are always of one version, and nothing has to be
installed or upgraded on the host.

The process is the lock: it holds flocks on open files, and is the only way to flip or to write the ledger.
When its client is gone, or says nothing for HEARTBEAT_SECONDS, it ends, and all three end with it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import re
import socket
import sys
import threading
import time

# What typing itself spells so, without the milliseconds that importing it costs each session.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import http.client
    import subprocess
    from collections.abc import Callable
    from typing import Any

STATE = pathlib.Path("/imm/state/data")
PROXY = pathlib.Path("/imm/proxy/data")
HEARTBEAT_SECONDS = 10.0
# Taking a lock and writing down who has it are two steps.
SIGNED_SECONDS = 1.0
# Reads a program from standard input: nothing of it stands in an argument list or on the host's disk.
START = (
    "import sys;"
    "program=sys.stdin.buffer.read(int(sys.stdin.buffer.readline()));"
    "exec(compile(program,'sidecar','exec'),{'__name__':'__main__'})"
)
# A refused connection costs the application nothing, so it is tried again at once.
REFUSED_PAUSE_SECONDS = 0.01
# How long an instance that was healthy just now may refuse, or not answer, once traffic goes to it.
REFUSING_SECONDS = 2.0
GATEWAY_ERRORS = (502, 504)
KEPT_LOGS = 60
COUNTED = "counted"
# Where the sidecar's own process counts what a proxy tells it, that keeps no counts itself.
COUNTER = ("127.0.0.1", 8096)
COUNTER_SECONDS = 1.0
METRIC = re.compile(
    r'(?P<name>\w+)\{code="(?P<code>\d+)".*,service="(?P<service>[^"@]+)@file"\} (?P<amount>\S+)'
)
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,120}")

held: dict[str, int] = {}
checks: dict[int, Check] = {}
last_heard = time.monotonic()
speaking = threading.Lock()
parked: list[subprocess.Popen[bytes]] = []
counting: set[pathlib.Path] = set()


class Refusal(Exception):
    """What the client is told instead of an answer."""

    def __init__(self, kind: str, **facts: Any) -> None:
        super().__init__(kind)
        self.told = {"kind": kind, **facts}


def named(name: str) -> str:
    """A name that is safe as one part of a path."""
    if not NAME.fullmatch(name):
        raise Refusal("bad_name", name=name)
    return name


def now() -> str:
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"


# Files: whole or not at all


def write_whole(path: pathlib.Path, content: bytes, mode: int = 0o644) -> None:
    """Write under a temporary name, sync, rename: a crash leaves the old content or the new, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".new-{os.getpid()}-{threading.get_ident()}-{path.name}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
        os.rename(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: pathlib.Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_folder(path: pathlib.Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def read_json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, NotADirectoryError) as broken:
        raise Refusal("broken_file", path=str(path), reason=str(broken)) from broken


def dump(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


# Locks


def lock(name: str, who: dict[str, Any], wait: float = 0.0) -> bool:
    """Take a lock, waiting `wait` seconds at most; refused with who holds it, from where, since when."""
    if name in held:
        return True
    path = STATE / "locks" / named(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            late = time.monotonic() - deadline
            holder = os.pread(fd, 65536, 0)
            # Whoever has just taken it writes down who it is, or has just let it go.
            if late >= 0 and (holder or late > SIGNED_SECONDS):
                os.close(fd)
                raise Refusal("locked", holder=json.loads(holder or b"{}")) from None
            time.sleep(0.02)
    os.ftruncate(fd, 0)
    os.pwrite(fd, dump({**who, "since": now()}), 0)
    held[name] = fd
    if name.startswith("app-"):
        tidy(name.removeprefix("app-"))
    return True


def tidy(app: str) -> None:
    """Remove what a session that ended in the middle of a write left: its temporary names."""
    of_app = re.compile(rf"\.new-\d+-\d+-{re.escape(app)}\.json")
    mine = [STATE / "ledger" / app, STATE / "secrets" / app, STATE / "logs" / app, PROXY / "apps" / app]
    for folder in (*mine, STATE / "doing", STATE / "origins"):
        for name in os.listdir(folder) if folder.is_dir() else []:
            if of_app.fullmatch(name) or (folder in mine and name.startswith((".new-", ".live-"))):
                (folder / name).unlink(missing_ok=True)


def unlock(name: str) -> None:
    fd = held.pop(name, None)
    if fd is not None:
        os.ftruncate(fd, 0)
        os.close(fd)


def need(name: str) -> None:
    """Whoever writes holds the lock: a client that lost it can do no harm."""
    if name not in held:
        raise Refusal("not_locked", name=name)


def still_locked(name: str) -> bool:
    """Whether a client that was away may still act on the engine: refused when it lost its lock."""
    need(name)
    return True


# What is known of an app


def app_state(app: str) -> dict[str, Any]:
    """Everything that a deployment has to know before it begins, in one answer."""
    named(app)
    live = PROXY / "apps" / app / "live"
    return {
        "live": read_json(live / "release.json"),
        "structure": read_json(PROXY / "apps" / app / "structure.json"),
        "doing": read_json(STATE / "doing" / f"{app}.json"),
        "origin": read_json(STATE / "origins" / f"{app}.json"),
        "secrets": secret_list(app),
        "ledger": ledger_read(app),
    }


def structures() -> dict[str, Any]:
    """Every app's routes, as they were last written."""
    found = {}
    folder = PROXY / "apps"
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        told = read_json(path / "structure.json")
        if told is not None:
            found[path.name] = told
    return found


def live_releases() -> dict[str, Any]:
    """Which release of each app is live."""
    folder = PROXY / "apps"
    return {
        path.name: read_json(path / "live" / "release.json")
        for path in (sorted(folder.iterdir()) if folder.is_dir() else [])
    }


def live_release(app: str) -> Any:
    """What is live of one app."""
    return read_json(PROXY / "apps" / named(app) / "live" / "release.json")


def doing_write(app: str, told: dict[str, Any]) -> None:
    need(f"app-{app}")
    write_whole(STATE / "doing" / f"{named(app)}.json", dump(told))


def doing_clear(app: str) -> None:
    need(f"app-{app}")
    (STATE / "doing" / f"{named(app)}.json").unlink(missing_ok=True)


def origin_write(app: str, told: dict[str, Any]) -> None:
    need(f"app-{app}")
    write_whole(STATE / "origins" / f"{named(app)}.json", dump(told))


# The ledger: one record a file, its content's hash in its name


def ledger_append(app: str, record: dict[str, Any]) -> int:
    need(f"app-{app}")
    folder = STATE / "ledger" / named(app)
    numbers = [int(name[:8]) for name in os.listdir(folder) if name[:8].isdigit()] if folder.is_dir() else []
    number = max(numbers, default=0) + 1
    content = dump({**record, "number": number, "at": now()})
    write_whole(folder / f"{number:08d}-{hashlib.sha256(content).hexdigest()[:16]}.json", content)
    return number


def ledger_read(app: str) -> list[dict[str, Any]]:
    folder = STATE / "ledger" / named(app)
    records = []
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        if not name[:8].isdigit():
            continue
        content = (folder / name).read_bytes()
        if hashlib.sha256(content).hexdigest()[:16] != name[9:25]:
            raise Refusal(
                "broken_file", path=str(folder / name), reason="its content is not what was written"
            )
        records.append(json.loads(content))
    return records


def apps() -> list[str]:
    """Every app that the ledger or the proxy knows."""
    known: set[str] = set()
    for folder in (STATE / "ledger", PROXY / "apps"):
        known |= set(os.listdir(folder)) if folder.is_dir() else set()
    return sorted(known)


# The live link


def point(
    app: str,
    flags: list[str],
    release: dict[str, Any],
    folder: str = "",
    files: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Make a release live: a new generation beside the old, then one rename. Returns number and moment.

    `files` of the proxy's `folder` that say the same in its own words follow at once.
    """
    need(f"app-{app}")
    home = PROXY / "apps" / named(app)
    home.mkdir(parents=True, exist_ok=True)
    numbers = [int(name[4:]) for name in os.listdir(home) if re.fullmatch(r"gen-\d+", name)]
    generation = max(numbers, default=0) + 1
    path = home / f"gen-{generation}"
    if (home / "live" / COUNTED).exists():
        flags = [*flags, COUNTED]
    try:
        path.mkdir()
        for flag in flags:
            (path / named(flag)).touch()
        write_whole(path / "release.json", dump(release))
    except OSError:
        remove_folder(path)
        raise
    link = home / f".live-{generation}"
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    sync_folder(home)
    os.rename(link, home / "live")
    flipped = now()
    for name, content in (files or {}).items():
        rename_in(folder, name, content)
    sync_folder(home)
    for number in numbers:
        remove_folder(home / f"gen-{number}")
    return {"generation": generation, "at": flipped}


def unpoint(app: str, folder: str = "", files: list[str] | None = None) -> None:
    """Nothing of this app is live any more, and the proxy's files that say so go."""
    need(f"app-{app}")
    home = PROXY / "apps" / named(app)
    (home / "live").unlink(missing_ok=True)
    for name in files or []:
        (PROXY / named(folder) / named(name)).unlink(missing_ok=True)
    if home.is_dir():
        sync_folder(home)


def count(app: str) -> None:
    """Let the proxy count this app's answers until this session ends; new generations have the flag, too."""
    need(f"app-{app}")
    flag = PROXY / "apps" / named(app) / "live" / COUNTED
    counting.add(flag)
    if flag.parent.is_dir():
        flag.touch()


def structure_write(app: str, told: dict[str, Any]) -> None:
    need(f"app-{app}")
    need("host")
    write_whole(PROXY / "apps" / named(app) / "structure.json", dump(told))


def app_remove(app: str) -> None:
    """Forget an app's routes and live link; its ledger, secrets and logs stay."""
    need(f"app-{app}")
    need("host")
    remove_folder(PROXY / "apps" / named(app))


def proxy_write(name: str, content: str) -> None:
    need("host")
    write_whole(PROXY / named(name), content.encode())


def proxy_rename(old: str, new: str) -> None:
    need("host")
    os.rename(PROXY / named(old), PROXY / named(new))
    sync_folder(PROXY)


def proxy_read(name: str) -> str | None:
    try:
        return (PROXY / named(name)).read_text()
    except FileNotFoundError:
        return None


def proxy_sync(folder: str, files: dict[str, str]) -> None:
    """Let a folder of the proxy's hold these files and no others."""
    need("host")
    home = PROXY / named(folder)
    home.mkdir(exist_ok=True)
    for name, content in files.items():
        try:
            same = (home / named(name)).read_text() == content
        except FileNotFoundError:
            same = False
        if not same:
            rename_in(folder, name, content)
    for name in set(os.listdir(home)) - set(files):
        (home / name).unlink()


def rename_in(folder: str, name: str, content: str) -> None:
    """A file written outside of its folder: whoever watches the folder sees it appear, once and whole."""
    write_whole(PROXY / f"next-{named(name)}", content.encode())
    os.rename(PROXY / f"next-{named(name)}", PROXY / named(folder) / named(name))
    sync_folder(PROXY / folder)


# Health


def interfaces() -> list[str]:
    """The networks that this sidecar sees: none when the proxy, whose networks they are, was restarted."""
    return [name for _, name in socket.if_nameindex() if name != "lo"]


def need_network() -> None:
    """Nothing is asked from a network that the proxy has left: no answer would say anything."""
    if not interfaces():
        raise Refusal("left_behind")


class Check(threading.Thread):
    """Asks one instance again and again until it is healthy; remembers what it last saw."""

    def __init__(self, target: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self.target = target
        self.healthy = False
        self.seen: dict[str, int] = {}
        self.last: dict[str, Any] | None = None
        self.changed = threading.Event()
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            answer = ask(self.target)
            if self.ended.is_set():
                break
            self.last = answer
            key = json.dumps(answer, sort_keys=True)
            self.seen[key] = self.seen.get(key, 0) + 1
            if answer.get("healthy"):
                self.healthy = True
                self.changed.set()
                break
            refused = answer.get("failed") in ("refused", "unreachable")
            self.ended.wait(
                min(REFUSED_PAUSE_SECONDS, self.target["interval"]) if refused else self.target["interval"]
            )

    def told(self) -> dict[str, Any]:
        seen = [{**json.loads(key), "times": times} for key, times in self.seen.items()]
        return {"healthy": self.healthy, "last": self.last, "seen": seen[-8:]}


def ask(target: dict[str, Any]) -> dict[str, Any]:
    """One health check: the status, or why there is none."""
    import http.client

    connection = http.client.HTTPConnection(target["address"], target["port"], timeout=target["timeout"])
    try:
        connection.request(
            "GET", target["path"], headers={"Host": target["host"], "User-Agent": "imm-health-check"}
        )
        response = connection.getresponse()
        low, high = target["status"]
        told: dict[str, Any] = {"status": response.status, "healthy": low <= response.status <= high}
        location = response.getheader("Location")
        if location:
            told["location"] = location[:500]
        return told
    except TimeoutError:
        return {"failed": "timeout"}
    except ConnectionRefusedError:
        return {"failed": "refused"}
    except (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected):
        return {"failed": "closed"}
    except (http.client.HTTPException, ValueError) as strange:
        return {"failed": "not_http", "detail": f"{type(strange).__name__}: {strange}"[:200]}
    except OSError as failed:
        if failed.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
            return {"failed": "unreachable"}
        return {"failed": "error", "detail": str(failed)}
    finally:
        connection.close()


def check_begin(targets: list[dict[str, Any]]) -> list[int]:
    """Begin to ask each target until it is healthy; returns the checks' numbers."""
    begun = []
    for target in targets:
        number = len(checks) + 1
        checks[number] = Check(target)
        checks[number].start()
        begun.append(number)
    return begun


def check_poll(numbers: list[int], wait: float) -> list[dict[str, Any]]:
    """What each check has seen; returns as soon as all are healthy, after `wait` seconds at the latest."""
    need_network()
    deadline = time.monotonic() + wait
    for number in numbers:
        checks[number].changed.wait(max(0.0, deadline - time.monotonic()))
    return [checks[number].told() for number in numbers]


def check_end(numbers: list[int]) -> list[dict[str, Any]]:
    for number in numbers:
        checks[number].ended.set()
    return [checks[number].told() for number in numbers]


def ask_all(targets: list[dict[str, Any]]) -> list[dict[str, Any] | None]:
    """Ask each target once, side by side."""
    answers: list[dict[str, Any] | None] = [None] * len(targets)

    def answer(index: int, target: dict[str, Any]) -> None:
        answers[index] = ask(target)

    threads = [threading.Thread(target=answer, args=each, daemon=True) for each in enumerate(targets)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def ask_if_joined(targets: list[dict[str, Any]]) -> list[dict[str, Any] | None] | None:
    """As `ask_all`, but None from a network that the proxy has left: there nobody can be reached."""
    return ask_all(targets) if interfaces() else None


# The proxy's private sockets


def connection_to(sock: str, timeout: float) -> http.client.HTTPConnection:
    """A connection to a private socket of the proxy's, or to a loopback address that only it shares."""
    import http.client

    if ":" in sock:
        need_network()
        return http.client.HTTPConnection(sock, timeout=timeout)
    connection = http.client.HTTPConnection("localhost", timeout=timeout)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(timeout)
    connection.sock.connect(str(PROXY / "run" / named(sock)))
    return connection


def through(sock: str, path: str, host: str = "localhost", timeout: float = 5.0) -> dict[str, Any]:
    """One request through a socket of the proxy's: status, headers and the begin of its body, or why not."""
    import http.client

    try:
        with contextlib.closing(connection_to(sock, timeout)) as connection:
            connection.request("GET", path, headers={"Host": host, "User-Agent": "imm-confirm"})
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            # A stream never ends: the headers are enough for those who ask for a path of an application's.
            body = response.read(4096).decode(errors="replace") if host == "localhost" else ""
            return {"status": response.status, "headers": headers, "body": body}
    except (OSError, http.client.HTTPException) as failed:
        return {"failed": type(failed).__name__, "detail": str(failed)}


def confirm(
    sock: str, requests: list[dict[str, Any]], seconds: float, unanswered: list[int]
) -> dict[str, Any]:
    """Ask through the proxy until one of its addresses answered each request; returns what is missing.

    The proxy says on this socket alone which upstream answered, so the proof is the address, not a status;
    but for `unanswered`: what the proxy says itself, and as that upstream's, when there was no answer. New
    instances that refuse are given up sooner than a proxy that doesn't follow: clients meet them meanwhile.
    """
    deadline = time.monotonic() + seconds
    missing = list(requests)
    last: dict[str, Any] = {}
    while missing:
        request = missing[0]
        last = through(sock, request["path"], request["host"], request["timeout"])
        answered = last.get("headers", {}).get("x-imm-upstream", "").split(", ")[-1]
        if answered in request["addresses"] and last["status"] not in unanswered:
            missing.pop(0)
            continue
        if last.get("status") in GATEWAY_ERRORS:
            deadline = min(deadline, time.monotonic() + REFUSING_SECONDS)
        if time.monotonic() >= deadline:
            return {"missing": missing, "last": last}
        time.sleep(0.005)
    return {"missing": [], "last": last}


def loaded(sock: str, generation: str, seconds: float) -> dict[str, Any]:
    """Wait until the proxy serves the configuration of that name: thrice in a row, as workers overlap."""
    deadline = time.monotonic() + seconds
    in_a_row = 0
    while in_a_row < 3:
        answer = through(sock, "/generation")
        in_a_row = in_a_row + 1 if answer.get("body", "").strip() == generation else 0
        if in_a_row == 0:
            if time.monotonic() >= deadline:
                return {"loaded": False, "last": answer}
            time.sleep(0.01)
    return {"loaded": True}


def passed(address: str, path: str, seconds: float) -> bool:
    """Wait until each of the proxy's workers has answered; whether they did.

    Connections spread over the workers by chance: with this many, one is left out once in 3,000 times.
    """
    deadline = time.monotonic() + seconds
    host, _, port = address.partition(":")
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    with contextlib.ExitStack() as open_ones:
        try:
            connections = []
            for _ in range(16 + 8 * (os.cpu_count() or 1)):
                connections.append(
                    open_ones.enter_context(socket.create_connection((host, int(port)), seconds))
                )
                connections[-1].sendall(request)
            for each in connections:
                each.settimeout(max(0.01, deadline - time.monotonic()))
                each.recv(4096)
        except OSError:
            return False
    return True


def idle(sock: str, keys: list[str], seconds: float) -> list[str]:
    """Wait until nothing is in flight for the keys, as the proxy counts; returns those still busy."""
    deadline = time.monotonic() + seconds
    busy = list(keys)
    while True:
        busy = [key for key in busy if through(sock, f"/idle/{key}").get("status") != 204]
        if not busy or time.monotonic() >= deadline:
            return busy
        time.sleep(0.02)


def answers(sock: str, path: str, seconds: float) -> bool:
    """Wait until the proxy answers 200 to this path."""
    deadline = time.monotonic() + seconds
    while through(sock, path).get("status") != 200:
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.005)
    return True


def unconnected(addresses: dict[str, list[str]], seconds: float) -> list[str]:
    """Wait until the proxy has no connection to these addresses; returns whose it still has."""
    deadline = time.monotonic() + seconds
    while True:
        connected = established()
        busy = [name for name, wanted in addresses.items() if connected & set(wanted)]
        if not busy or time.monotonic() >= deadline:
            return busy
        time.sleep(0.02)


def established() -> set[str]:
    """The addresses that connections of this network namespace, which is the proxy's, lead to."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table) as rows:
            next(rows)
            for row in rows:
                fields = row.split()
                # Being made, established, or closed by the other side alone.
                if fields[3] in ("01", "02", "08"):
                    found.add(socket.inet_ntoa(bytes.fromhex(fields[2][-13:-5])[::-1]))
    return found


# What each slot answered, while two releases serve


def counted(keys: list[str]) -> dict[str, list[int]]:
    """Requests and errors of each key, as the sidecar's own process counts them, if it can say."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(COUNTER_SECONDS)
        try:
            asking.sendto(b"?" + dump(keys), COUNTER)
            told: dict[str, list[int]] = json.loads(asking.recv(65536))
            return told
        except (OSError, ValueError):
            return {}


def metrics(sock: str, name: str, services: list[str]) -> dict[str, list[int]]:
    """Requests and errors of each service, from the proxy's metrics."""
    import http.client

    connection = connection_to(sock, 5.0)
    found: dict[str, list[int]] = {}
    try:
        connection.request("GET", "/metrics")
        for line in connection.getresponse().read().decode().splitlines():
            told = METRIC.fullmatch(line)
            if told is None or told["name"] != name or told["service"] not in services:
                continue
            counts = found.setdefault(told["service"], [0, 0])
            amount = int(float(told["amount"]))
            counts[0] += amount
            counts[1] += amount if told["code"].startswith("5") else 0
    except (OSError, http.client.HTTPException):
        return {}
    finally:
        connection.close()
    return found


# Secrets: files of this volume alone, never in a record


def secret_path(app: str, name: str) -> pathlib.Path:
    return STATE / "secrets" / named(app) / named(name)


def secret_set(app: str, name: str, value: str) -> bool:
    """Keep a secret; returns whether it changed. Its version says that it changed, nothing of what it is."""
    need(f"app-{app}")
    before = read_json(secret_path(app, name))
    if before is not None and before["value"] == value:
        return False
    version = hashlib.sha256(os.urandom(16)).hexdigest()[:12]
    secret_path(app, name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_whole(secret_path(app, name), dump({"value": value, "version": version, "since": now()}), 0o600)
    return True


def secret_list(app: str) -> dict[str, Any]:
    folder = STATE / "secrets" / named(app)
    found = {}
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        if not name.startswith(".new-"):
            told = read_json(folder / name)
            found[name] = {"version": told["version"], "since": told["since"]}
    return found


def secret_values(app: str, names: list[str]) -> dict[str, str]:
    """The values themselves, for the client that hands them to an instance."""
    need(f"app-{app}")
    told = {name: read_json(secret_path(app, name)) for name in names}
    return {name: each["value"] for name, each in told.items() if each is not None}


def secret_remove(app: str, name: str) -> bool:
    need(f"app-{app}")
    path = secret_path(app, name)
    existed = path.exists()
    path.unlink(missing_ok=True)
    return existed


# Logs of instances that are gone


def log_keep(app: str, name: str, content: str) -> None:
    """Keep the log of an instance (base64); the oldest go when there are more than KEPT_LOGS."""
    import base64

    need(f"app-{app}")
    folder = STATE / "logs" / named(app)
    write_whole(folder / f"{named(name)}.log", base64.b64decode(content))
    kept = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime_ns)
    for path in kept[:-KEPT_LOGS]:
        path.unlink(missing_ok=True)


def log_list(app: str) -> list[str]:
    folder = STATE / "logs" / named(app)
    kept = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime_ns) if folder.is_dir() else []
    return [path.stem for path in kept]


def log_read(app: str, name: str) -> str | None:
    import base64

    try:
        return base64.b64encode((STATE / "logs" / named(app) / f"{named(name)}.log").read_bytes()).decode()
    except FileNotFoundError:
        return None


# Parked requests


def park_path(app: str, service: str) -> str:
    return str(PROXY / "park" / f"{named(app)}.{named(service)}")


def park_port(app: str, service: str) -> int | None:
    """The loopback port where requests wait; None when they don't, or wait at a unix socket."""
    try:
        return int(pathlib.Path(park_path(app, service) + ".port").read_text())
    except FileNotFoundError:
        return None


def park(
    app: str,
    service: str,
    program: str,
    seconds: float,
    most: int,
    back: list[list[object]],
    tcp: bool = False,
) -> bool:
    """Begin to park a service's requests, in a process of its own that outlives this session.

    `back` is where the old instances are: when the session ends early, requests go on to them.
    """
    import subprocess

    need(f"app-{app}")
    asked = json.dumps(
        {"path": park_path(app, service), "seconds": seconds, "most": most, "tcp": tcp, "back": back}
    )
    # One that still passes on what waited in an earlier deployment takes in nothing more.
    park_tell(app, service, {"close": True})
    # Its standard input ends with this session: so it knows when nobody will release what it holds.
    parking = subprocess.Popen(
        [sys.executable, "-ISB", "-c", START, asked],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    parked.append(parking)
    assert parking.stdin is not None and parking.stdout is not None
    parking.stdin.write(b"%d\n%s" % (len(program.encode()), program.encode()))
    parking.stdin.flush()
    if parking.stdout.readline() != b"ready\n":
        raise Refusal("not_parked", app=app, service=service)
    return True


def park_stopping(app: str, service: str, seconds: float) -> None:
    """The old instances are about to stop, within `seconds`: nothing may go back to them meanwhile."""
    need(f"app-{app}")
    park_tell(app, service, {"stopping": seconds})


def park_release(app: str, service: str, to: list[list[object]]) -> dict[str, int] | None:
    """Let parked requests go on to these addresses; how many waited, or None when nothing was parked."""
    need(f"app-{app}")
    return park_tell(app, service, {"to": to})


def park_tell(app: str, service: str, told: dict[str, object]) -> dict[str, int] | None:
    try:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(2.0)
            control.connect(park_path(app, service) + ".ctl")
            control.sendall(dump(told) + b"\n")
            answered: dict[str, int] = json.loads(control.makefile().readline())
            return answered
    except (OSError, ValueError):
        # Nobody parks there any more: its process ended, or the sidecar was made anew.
        return None


# The session


def hello() -> dict[str, Any]:
    """What the client must know first: whether this sidecar still shares the proxy's network."""
    disk = os.statvfs(STATE)
    return {
        "interfaces": interfaces(),
        "free": disk.f_bavail * disk.f_frsize,
        "at": now(),
    }


def beat() -> bool:
    return True


ASKED: dict[str, Callable[..., Any]] = {
    each.__name__: each
    for each in (
        hello, beat, lock, unlock, still_locked, app_state, structures, live_releases, live_release, apps,
        doing_write, doing_clear, origin_write, ledger_append, ledger_read,
        point, unpoint, count, counted, metrics,
        structure_write, app_remove, proxy_write, proxy_rename, proxy_read,
        check_begin, check_poll, check_end, ask_all, ask_if_joined, confirm, loaded, passed, idle, through,
        secret_set, secret_list, secret_values, secret_remove, log_keep, log_list, log_read,
        park, park_port, park_stopping, park_release, answers, unconnected, proxy_sync,
    )
}  # fmt: skip


# Done in the order of their coming, before what comes later is begun: the client doesn't wait for them.
AT_ONCE = ("doing_write", "doing_clear")


def answer(request: dict[str, Any]) -> None:
    number = request.pop("id")
    try:
        told = {"id": number, "ok": ASKED[request.pop("do")](**request)}
    except Refusal as refusal:
        told = {"id": number, "error": refusal.told}
    except OSError as failed:
        kind = "disk_full" if failed.errno in (errno.ENOSPC, errno.EDQUOT) else "os"
        told = {
            "id": number,
            "error": {"kind": kind, "reason": str(failed), "path": str(failed.filename or "")},
        }
    except Exception as failed:
        told = {"id": number, "error": {"kind": "bug", "reason": f"{type(failed).__name__}: {failed}"}}
    with speaking:
        sys.stdout.buffer.write(json.dumps(told).encode() + b"\n")
        sys.stdout.buffer.flush()


def end(code: int) -> None:
    """End this session. No write is waited for: each is whole or not at all."""
    for flag in list(counting):
        # Nobody reads these counts any more, and they cost each request a little.
        with contextlib.suppress(OSError):
            flag.unlink()
    os._exit(code)


def end_when_silent() -> None:
    """A client that froze holds nothing: what it held is free again after HEARTBEAT_SECONDS."""
    while True:
        silent = time.monotonic() - last_heard
        if silent > HEARTBEAT_SECONDS:
            end(3)
        time.sleep(max(0.05, HEARTBEAT_SECONDS - silent))


def prepare() -> None:
    """What health checks and proofs need costs 30 ms: imported while the client is busy with the engine."""
    import http.client  # noqa: F401
    import shutil  # noqa: F401


def main() -> None:
    global last_heard  # noqa: PLW0603 (one process is one session)
    os.umask(0o022)
    with contextlib.suppress(OSError):
        (STATE / "locks").mkdir(parents=True, exist_ok=True)
    threading.Thread(target=end_when_silent, daemon=True).start()
    for number, line in enumerate(sys.stdin.buffer):
        last_heard = time.monotonic()
        request = json.loads(line)
        if request["do"] in AT_ONCE:
            answer(request)
        else:
            threading.Thread(target=answer, args=(request,), daemon=True).start()
        if number == 0:
            threading.Thread(target=prepare, daemon=True).start()
    end(0)


if __name__ == "__main__":
    main()
