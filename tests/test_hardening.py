"""Hardened unless told otherwise: looked at in what runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from immutable_local.engine import connect
from immutable_local.host import Asked
from immutable_local.sidecar.session import Session
from immutable_local.wait import until
from tests.host import ROOT, Host, Project

SECURITY = (ROOT / "docs" / "security.md").read_text()
WHO = ("own image", "someone else's", "proxy", "sidecar")
HIDDEN = "zebra-under-a-blue-moon"
SETTING = "quite-an-ordinary-value"
# Every port of an address, as a stranger would try them.
SCAN = """
import concurrent.futures, json, socket, sys
def open_at(port):
    with socket.socket() as door:
        door.settimeout(1)
        return door.connect_ex((sys.argv[1], port)) == 0
with concurrent.futures.ThreadPoolExecutor(64) as every:
    print(json.dumps([port for port, there in enumerate(every.map(open_at, range(65536))) if there]))
"""

# Datagrams that go to one neighbour and are addressed to somebody else: all that it takes is NET_RAW.
BY_WAY_OF = """
import socket, struct, sys
way, mine, theirs, number = sys.argv[1:]
def header(checksum):
    ends = [socket.inet_aton(each) for each in (mine, theirs)]
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, socket.IPPROTO_UDP, checksum, *ends)
total = sum(struct.unpack("!10H", header(0)))
packet = header(0xffff - (total % 0xffff)) + struct.pack("!HHHH", 9, 9, 8, 0)
with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as door:
    for _ in range(int(number)):
        door.sendto(packet, ("eth0", 0x0800, 0, 0, bytes.fromhex(way.replace(":", ""))))
print("sent")
"""


@pytest.fixture(scope="module")
def app(shared: Host) -> Project:
    app = shared.project()
    shared.up(app)
    return app


# In this order each of them is made by this imm, whatever made the one that was there before.
@pytest.fixture(scope="module", params=["traefik", "nginx"])
def proxy(request: pytest.FixtureRequest, shared: Host, app: Project) -> Iterator[str]:
    """Each kind of proxy."""
    shared.imm(app, "proxy", "up", "--kind", request.param)
    yield request.param
    shared.imm(app, "proxy", "up", "--kind", "nginx")


@pytest.fixture(scope="module")
def inspected(shared: Host, app: Project) -> dict[str, Any]:
    return shared.inspect(f"{app.name}-web-1-green-1")


def test_an_instance_has_no_capability_and_gains_none(shared: Host, app: Project, inspected: dict[str, Any]):
    """Asked of the kernel as well as of the engine."""
    settings = inspected["HostConfig"]
    assert (settings["CapDrop"], settings["CapAdd"], settings["Privileged"]) == (["ALL"], None, False)
    assert "no-new-privileges" in settings["SecurityOpt"]
    status = shared.get("/read?/proc/self/status", app).split("\n")
    kernel = dict(line.split(":\t") for line in status if line.startswith(("Cap", "NoNewPrivs")))
    assert {kernel[key] for key in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert kernel["NoNewPrivs"] == "1"


def test_its_root_cannot_be_written_and_tmp_can(shared: Host, app: Project, inspected: dict[str, Any]):
    settings = inspected["HostConfig"]
    assert settings["ReadonlyRootfs"] is True
    assert settings["Tmpfs"].keys() == {"/tmp"}
    assert shared.ask("/write?/var/tmp/x=1", app).text == "Read-only file system"
    assert shared.get("/write?/tmp/x=1", app) == "written"


def test_its_processes_are_limited_and_its_log_is_bounded(inspected: dict[str, Any]):
    settings = inspected["HostConfig"]
    assert 0 < settings["PidsLimit"] <= 4096
    assert settings["LogConfig"]["Config"].keys() >= {"max-size", "max-file"}


def test_it_publishes_no_port_and_has_a_network_of_its_own(
    shared: Host, app: Project, inspected: dict[str, Any]
):
    """Nothing of the host is mounted, and the engine's socket least of all."""
    assert inspected["HostConfig"]["PortBindings"] in (None, {})
    assert not any(inspected["NetworkSettings"]["Ports"].values())
    assert inspected["NetworkSettings"]["Networks"].keys() == {f"imm-app-{app.name}"}
    assert inspected["Mounts"] == []
    assert inspected["HostConfig"]["NetworkMode"] == f"imm-app-{app.name}"


def test_it_comes_back_after_a_restart_of_the_host(inspected: dict[str, Any]):
    assert inspected["HostConfig"]["RestartPolicy"]["Name"] == "always"


def test_apps_cannot_reach_each_other(shared: Host, app: Project):
    """Only the proxy is in both networks, and it forwards nothing between them but requests."""
    second = shared.project()
    shared.up(second)
    theirs = shared.inspect(f"{second.name}-web-1-green-1")["NetworkSettings"]["Networks"]
    address = theirs[f"imm-app-{second.name}"]["IPAddress"]
    connect = f"import socket; socket.create_connection(('{address}', 8000), timeout=2)"
    assert shared.execute(f"{second.name}-web-1-green-1", "python3", "-c", connect)[0] == 0
    said = shared.printed(f"{app.name}-web-1-green-1", "python3", "-c", connect, expect=1)
    assert "timed out" in said or "unreachable" in said


def test_the_proxy_listens_on_loopback_alone_and_neither_it_nor_the_sidecar_has_the_engines_socket(
    shared: Host,
):
    for name in ("imm-proxy", "imm-sidecar"):
        told = shared.inspect(name)
        settings = told["HostConfig"]
        assert (settings["CapDrop"], settings["ReadonlyRootfs"], settings["Privileged"]) == (
            ["ALL"],
            True,
            False,
        )
        assert "no-new-privileges" in settings["SecurityOpt"]
        assert told["Config"]["User"].split(":")[0] not in ("", "0", "root")
        assert {each["Type"] for each in told["Mounts"]} == {"volume"}
        for bindings in (settings["PortBindings"] or {}).values():
            assert {each["HostIp"] for each in bindings} == {shared.proxy[0]}
    assert Asked().bind == "127.0.0.1"


def test_what_the_file_asks_for_is_what_runs(shared: Host):
    """Limits, capabilities, user, writable root, tmpfs: each key reaches the engine."""
    app = shared.project().version(
        "1",
        memory="128m",
        cpus=0.5,
        cap_add=["NET_BIND_SERVICE"],
        user="1234:1235",
        tmpfs=["/var/tmp"],
        stop_grace_period="3s",
    )
    app.service("open", behave="worker", read_only=False, stop_grace_period="0s")
    shared.up(app)
    settings = shared.inspect(f"{app.name}-web-1-green-1")["HostConfig"]
    assert (settings["Memory"], settings["NanoCpus"]) == (128 * 1024 * 1024, 500_000_000)
    assert [each.removeprefix("CAP_") for each in settings["CapAdd"]] == ["NET_BIND_SERVICE"]
    assert settings["Tmpfs"].keys() == {"/tmp", "/var/tmp"}
    assert shared.get("/write?/var/tmp/x=1", app) == "written"
    assert shared.get("/read?/var/tmp/x", app).startswith("1234:1235 ")
    assert shared.inspect(f"{app.name}-web-1-green-1")["Config"]["StopTimeout"] == 3
    opened = shared.inspect(f"{app.name}-open-1-green-1")["HostConfig"]
    assert (opened["ReadonlyRootfs"], opened.get("Tmpfs")) in [(False, None), (False, {})]


def test_an_image_of_someone_elses_keeps_the_engines_usual_capabilities(shared: Host, machine):
    """And a root that can be written; no-new-privileges stays, and the image is pinned in the release."""
    app = shared.project().version("1")
    app.service(
        "db",
        image=machine.base,
        command=["python3", "-c", "import signal; signal.pause()"],
        stop_grace_period="0s",
    )
    shared.up(app)
    told = shared.inspect(f"{app.name}-db-1-green-1")
    settings = told["HostConfig"]
    assert (settings["CapDrop"], settings["ReadonlyRootfs"]) == (None, False)
    assert "no-new-privileges" in settings["SecurityOpt"]
    assert told["Image"] == shared.engine.inspect_image(machine.base)["Id"]


def test_a_container_of_a_moment_may_do_no_more_than_it_must(shared: Host, machine):
    """Neither the one that reads something nor the one whose name is held while a proxy is made."""
    look = "cat /proc/self/status; cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null; true"
    said = connect().run_once(machine.base, ["sh", "-c", look]).decode()
    told = dict(line.split(":\t") for line in said.splitlines() if line.startswith(("Cap", "NoNewPrivs")))
    assert {told[key] for key in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert told["NoNewPrivs"] == "1"
    assert 0 < int(said.splitlines()[-1]) <= 64
    with connect().name_held(f"{shared.projects[0].name}-making", machine.base, silence=10.0, beat=2.0):
        settings = settings_of(shared.inspect(f"{shared.projects[0].name}-making"))
    assert (settings["CapDrop"], settings["CapAdd"], settings["ReadonlyRootfs"]) == (["ALL"], None, True)
    assert "no-new-privileges" in settings["SecurityOpt"]
    assert (settings["NetworkMode"], settings["AutoRemove"]) == ("none", True)
    assert 0 < settings["PidsLimit"] <= 64


def settings_of(told: dict[str, Any]) -> dict[str, Any]:
    return dict(told["HostConfig"])


def published(told: dict[str, Any]) -> list[dict[str, str]]:
    return [each for every in (settings_of(told)["PortBindings"] or {}).values() for each in every]


def opted_out(told: dict[str, Any], *what: str) -> bool:
    return any(each.startswith(what) for each in settings_of(told)["SecurityOpt"] or [])


# Items of the benchmark that an inspected container tells; the others have tests of their own.
ITEMS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "5.2": lambda told: not opted_out(told, "apparmor=unconfined", "apparmor:unconfined"),
    "5.3": lambda told: not opted_out(told, "label=disable", "label:disable"),
    "5.4": lambda told: settings_of(told)["CapDrop"] == ["ALL"] and not settings_of(told)["CapAdd"],
    "5.5": lambda told: settings_of(told)["Privileged"] is False,
    "5.6": lambda told: not settings_of(told)["Binds"] and all(each["Type"] != "bind" for each in told["Mounts"]),
    "5.8": lambda told: all(int(each["HostPort"]) >= 1024 for each in published(told)),
    "5.9": lambda told: len(published(told)) == (told["Name"] == "/imm-proxy"),
    "5.10": lambda told: settings_of(told)["NetworkMode"] != "host",
    "5.11": lambda told: settings_of(told)["Memory"] > 0,
    "5.12": lambda told: bool(settings_of(told)["CpuShares"] or settings_of(told)["NanoCpus"]),
    "5.13": lambda told: settings_of(told)["ReadonlyRootfs"] is True,
    "5.14": lambda told: all(each["HostIp"] not in ("", "0.0.0.0", "::") for each in published(told)),
    "5.15": lambda told: settings_of(told)["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 5},
    "5.16": lambda told: settings_of(told)["PidMode"] != "host",
    "5.17": lambda told: settings_of(told)["IpcMode"] != "host",
    "5.18": lambda told: not settings_of(told)["Devices"] and not settings_of(told)["DeviceRequests"],
    "5.19": lambda told: not settings_of(told)["Ulimits"],
    "5.20": lambda told: all(each.get("Propagation", "") in ("", "rprivate") for each in told["Mounts"]),
    "5.21": lambda told: settings_of(told)["UTSMode"] != "host",
    "5.22": lambda told: not opted_out(told, "seccomp"),
    "5.25": lambda told: settings_of(told)["CgroupParent"] == "",
    "5.26": lambda told: "no-new-privileges" in settings_of(told)["SecurityOpt"],
    "5.27": lambda told: (told["Config"].get("Healthcheck") or {"Test": ["NONE"]})["Test"] != ["NONE"],
    "5.29": lambda told: (settings_of(told)["PidsLimit"] or 0) > 0,
    "5.30": lambda told: settings_of(told)["NetworkMode"] not in ("default", "bridge"),
    "5.31": lambda told: settings_of(told)["UsernsMode"] != "host",
    "5.32": lambda told: not any("docker.sock" in json.dumps(each) for each in told["Mounts"]),
}  # fmt: skip
THREE_FILES = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
# What the page's first table says, as an inspected container tells it.
ROWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "capabilities": lambda told: capabilities(settings_of(told)),
    "no-new-privileges": lambda told: "yes" if "no-new-privileges" in settings_of(told)["SecurityOpt"] else "no",
    "root file system": lambda told: "read-only" if settings_of(told)["ReadonlyRootfs"] else "writable",
    "/tmp": lambda told: in_memory((settings_of(told).get("Tmpfs") or {}).get("/tmp")),
    "processes": lambda told: f"{settings_of(told)['PidsLimit']} at most",
    "memory, processors": lambda told: "a limit" if limits(settings_of(told)) else "no limit",
    "log": lambda told: "three files of 10 MB" if settings_of(told)["LogConfig"] == THREE_FILES else "another",
    "published ports": lambda told: "the proxy's one" if published(told) else "none",
    "mounts": lambda told: whose(told["Mounts"], told["Config"]["Labels"].get("imm.app", "")),
    "engine's socket": lambda told: "yes" if "docker.sock" in json.dumps(told["Mounts"]) else "no",
}  # fmt: skip


def capabilities(settings: dict[str, Any]) -> str:
    if settings["CapAdd"] is not None:
        return "others"
    return "none" if settings["CapDrop"] == ["ALL"] else "Docker's default"


def in_memory(options: str | None) -> str:
    if options is None:
        return "the image's"
    return "a tmpfs, small, no programs" if "noexec" in options and "size=" in options else "a tmpfs"


def limits(settings: dict[str, Any]) -> list[int]:
    keys = ("Memory", "MemorySwap", "NanoCpus", "CpuQuota", "CpuShares")
    return [settings[key] for key in keys if settings[key]]


def whose(mounts: list[dict[str, Any]], app: str) -> str:
    names = [each["Name"] if each["Type"] == "volume" else each["Source"] for each in mounts]
    if names and set(names) <= {"imm-proxy", "imm-state"}:
        return "the volumes of imm's state"
    own = names and all(each.startswith(f"imm-{app}-") for each in names)
    return "named volumes of the app" if own else "others"


@pytest.fixture(scope="module")
def strangers(shared: Host, machine) -> Project:
    """An app with a service of its own image and one of someone else's, with a volume each."""
    app = shared.project().version("1", environment={"SETTING": SETTING}, volumes=["files:/data"])
    app.service("db", image=machine.base, command=["python3", "-c", "import signal; signal.pause()"])
    app.service("db", stop_grace_period="0s", volumes=["data:/data"])
    app.set(volumes={"files": {"writers": "many"}, "data": {}})
    shared.up(app)
    return app


def containers(strangers: Project) -> dict[str, str]:
    """One container of each kind, by the page's words."""
    names = (f"{strangers.name}-web-1-green-1", f"{strangers.name}-db-1-green-1", "imm-proxy", "imm-sidecar")
    return dict(zip(WHO, names, strict=True))


def test_the_page_says_how_each_container_runs_by_default(shared: Host, strangers: Project, proxy: str):
    """The cells are what an inspection shows: of either kind of proxy, and of the sidecar."""
    table = SECURITY.partition("## What runs by default")[2].partition("## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", table, re.MULTILINE)
    page = {row: [own, other, ours, ours] for row, own, other, ours in rows}
    told = [shared.inspect(name) for name in containers(strangers).values()]
    for row, seen in ROWS.items():
        cells = [each.removesuffix(" unless set") for each in page.pop(row)]
        if row == "published ports":
            cells[-1] = "none"  # the sidecar's
        assert [seen(each) for each in told] == cells, row
    users = [each["Config"]["User"] for each in told]
    for user, cell, each in zip(users[:2], page["user"][:2], told[:2], strict=True):
        assert user == shared.engine.inspect_image(each["Image"])["Config"]["User"]
        assert cell.startswith("the image's")
    for user, cell in zip(users[2:], page["user"][2:], strict=True):
        assert int(user.partition(":")[0]) > 0
        assert cell == "a number of their own, not root"
    assert page.keys() == {"user"}


def test_every_container_has_apparmors_profile_where_the_host_has_apparmor(
    shared: Host, strangers: Project, proxy: str
):
    has = any(each.startswith("name=apparmor") for each in shared.engine.info()["SecurityOptions"])
    for name in containers(strangers).values():
        assert shared.inspect(name)["AppArmorProfile"] == ("docker-default" if has else "")


def test_the_page_says_of_each_item_of_the_benchmark_what_live_containers_show(
    shared: Host, strangers: Project, proxy: str
):
    """Yes where it is met and no where it isn't, for each kind of container, and of proxy."""
    rows = re.findall(r"^\| (5\.\d+) \| [^|]+ \| (\w+) \| (\w+) \| (\w+) \| (\w+) \|", SECURITY, re.MULTILINE)
    page = {item: dict(zip(WHO, met, strict=True)) for item, *met in rows}
    assert list(page) == [f"5.{number}" for number in range(1, 33)]
    told = {kind: shared.inspect(name) for kind, name in containers(strangers).items()}
    live = {item: {kind: "yes" if met(told[kind]) else "no" for kind in WHO} for item, met in ITEMS.items()}
    assert {item: page[item] for item in live} == live


@pytest.mark.parametrize("proxy", ["nginx"], indirect=True)
def test_what_nginx_complains_about_is_logged_with_its_query(shared: Host, app: Project, proxy: str):
    """As the page warns; of a body that is too large, for one. What it has nothing to say about isn't."""
    with closing(shared.connection()) as connection:
        connection.putrequest("POST", "/?token=logged-with-its-query", skip_host=True)
        connection.putheader("Host", app.domain)
        connection.putheader("Content-Length", str(2 << 30))
        connection.endheaders()
        assert connection.getresponse().status == 413
    shared.get("/version?token=not-logged-at-all", app)

    def logged() -> str:
        return str(shared.engine.logs("imm-proxy").decode())

    until(lambda: "logged-with-its-query" in logged(), 10, pause=0.05)
    assert "?token=logged-with-its-query" in logged()
    assert "not-logged-at-all" not in logged()


def test_imm_needs_no_swarm(shared: Host):
    assert shared.engine.info()["Swarm"]["LocalNodeState"] == "inactive"


def test_nothing_but_what_was_asked_for_runs_in_a_container(shared: Host, strangers: Project, proxy: str):
    """No sshd, no agent of imm's; in the sidecar what answers for nobody's address, and sessions."""
    for kind, name in containers(strangers).items():
        commands = [row[-1] for row in shared.engine.top(name)["Processes"]]
        known = {
            "own image": "server.py",
            "someone else's": "signal.pause",
            "proxy": proxy,
            "sidecar": "python3",
        }
        assert all(known[kind] in each for each in commands), commands


def test_a_session_is_neither_privileged_nor_root(shared: Host, strangers: Project):
    with Session.begin(connect(), "imm-sidecar") as session:
        session.ask("hello")
        running = [shared.engine.exec_inspect(each) for each in shared.inspect("imm-sidecar")["ExecIDs"]]
    mine = [each for each in running if each["Running"]]
    assert mine
    for each in mine:
        assert each["ProcessConfig"]["privileged"] is False
        # Its container's own.
        assert each["ProcessConfig"].get("user", "").partition(":")[0] not in ("0", "root")
    assert shared.inspect("imm-sidecar")["Config"]["User"].split(":")[0].isdigit()


def test_what_is_sealed_shows_in_every_instances_labels(shared: Host, strangers: Project):
    """All services' environment, as the page says: whoever may list containers reads it."""
    listed = shared.engine.containers(filters={"label": f"imm.app={strangers.name}"})
    assert len(listed) == 2
    assert all(SETTING in each["Labels"]["imm.sealed"] for each in listed)


def test_an_image_of_someone_elses_is_pinned_by_what_it_is(shared: Host, strangers: Project):
    """Its tag may move on: the release doesn't, so it isn't the newest (5.28)."""
    running = shared.inspect(f"{strangers.name}-db-1-green-1")["Image"]
    labels = shared.engine.inspect_image(f"imm.local/app/{strangers.name}:1")["Config"]["Labels"]
    assert json.loads(labels["imm.sealed"])["pins"]["db"]["id"] == running


@pytest.fixture(scope="module")
def inside(app: Project, proxy: str) -> str:
    """An app's container, behind each kind of proxy."""
    return f"{app.name}-web-1-green-1"


@contextmanager
def forwarding(shared: Host, first: str, second: str) -> Iterator[str]:
    """A container of somebody's in two networks, which does what the proxy must not."""
    settings = shared.engine.create_host_config(network_mode=first, sysctls={"net.ipv4.ip_forward": "1"})
    made = shared.engine.create_container(
        shared.base, ["python3", "-c", "import signal; signal.pause()"], host_config=settings
    )["Id"]
    try:
        shared.engine.connect_container_to_network(made, second)
        shared.engine.start(made)
        yield made
    finally:
        shared.engine.remove_container(made, force=True)


class TestFromInside:
    """What whoever broke into an app's container could reach."""

    def open_ports(self, shared: Host, inside: str, address: str) -> list[int]:
        return list(json.loads(shared.printed(inside, "python3", "-c", SCAN, address)))

    def test_of_the_proxy_one_port_is_open(self, shared: Host, app: Project, inside: str):
        """Not its control socket, not its API, not the sidecar, which shares its network."""
        address = shared.inspect("imm-proxy")["NetworkSettings"]["Networks"][f"imm-app-{app.name}"][
            "IPAddress"
        ]
        assert self.open_ports(shared, inside, address) == [8080]

    def test_nothing_private_answers_at_the_open_port(self, shared: Host, app: Project, inside: str):
        """Whatever name and path is asked for, the answer isn't the one that the sidecar gets."""
        with Session.begin(connect(), "imm-sidecar") as session:
            ways = [("control.sock", "/generation"), ("127.0.0.1:8099", "/api/rawdata")]
            told = [session.ask("through", sock=sock, path=path) for sock, path in ways]
        private = {each["body"][:60] for each in told if each.get("status") == 200}
        assert len(private) == 1
        hosts = ["localhost", "127.0.0.1:8099", "127.0.0.1", "imm-sidecar", "traefik", app.domain]
        paths = ["/generation", "/idle/x", "/api/rawdata", "/api/overview", "/dashboard/", "/metrics"]
        for host in hosts:
            for path in (*paths, *(f"http://127.0.0.1:8099{each}" for each in paths)):
                answer = shared.ask(path, domain=host)
                assert not any(each in answer.text for each in private), (host, path, answer)
                assert "imm-mark" not in answer.text and "x-imm-upstream" not in answer.headers
                # Others may serve this machine's own names, nobody but this app its own.
                mine = host == app.domain and path.startswith("/")
                assert not mine or answer.status == 404, (host, path, answer)

    def test_neither_the_proxys_nor_the_sidecars_nor_another_apps_name_is_known(
        self, shared: Host, app: Project, strangers: Project, inside: str
    ):
        names = ["imm-proxy", "imm-sidecar", *containers(strangers).values(), "db"]
        look = "import socket, sys; print([n for n in sys.argv[1:] if not isinstance(resolve(n), OSError)])"
        resolve = (
            "def resolve(name):\n    import socket\n    try:\n        return socket.gethostbyname(name)\n"
            "    except OSError as failed:\n        return failed\n"
        )
        printed = shared.printed(inside, "python3", "-c", resolve + look, *names)
        known = {each for each in names if f"'{each}'" in printed}
        # The proxy is a member of the app's network, and may be known there by its name.
        assert known <= {"imm-proxy"}

    def test_nobody_is_reached_in_another_network(self, shared: Host, strangers: Project, inside: str):
        """Neither another app's instances, nor the proxy by its own network's address."""
        theirs = [
            each["IPAddress"]
            for name in containers(strangers).values()
            for each in shared.inspect(name)["NetworkSettings"]["Networks"].values()
            if each["IPAddress"]
        ]
        mine = shared.inspect(inside)["NetworkSettings"]["Networks"]
        (gateway,) = (each["Gateway"] for each in mine.values())
        prefix = gateway.rpartition(".")[0] + "."
        away = [each for each in theirs if not each.startswith(prefix)]
        assert len(away) >= 3
        reach = (
            "import concurrent.futures, socket, sys\n"
            "def reached(way):\n"
            "    with socket.socket() as door:\n"
            "        door.settimeout(2)\n"
            "        return way if door.connect_ex(way) == 0 else None\n"
            "ways = [(each, port) for each in sys.argv[1:] for port in (8000, 8080, 8097, 8098, 8099)]\n"
            "with concurrent.futures.ThreadPoolExecutor(64) as every:\n"
            "    print([way for way in every.map(reached, ways) if way])\n"
        )
        assert shared.printed(inside, "python3", "-c", reach, *away) == "[]\n"

    def test_the_proxy_carries_no_packet_into_another_apps_network(
        self, shared: Host, app: Project, strangers: Project, inside: str
    ):
        """Not even one made by hand, and sent to its door; a container that forwards would carry it."""
        sender, between = f"{strangers.name}-db-1-green-1", f"imm-app-{strangers.name}"
        mine = shared.inspect(sender)["NetworkSettings"]["Networks"][between]["IPAddress"]
        theirs = shared.inspect(inside)["NetworkSettings"]["Networks"][f"imm-app-{app.name}"]["IPAddress"]

        def send(by: str, number: int) -> None:
            door = shared.inspect(by)["NetworkSettings"]["Networks"][between]["MacAddress"]
            words = ("python3", "-c", BY_WAY_OF, door, mine, theirs, str(number))
            assert shared.printed(sender, *words, user="0") == "sent\n"

        def arrived() -> int:
            names, counts = re.findall(r"^Udp: (.*)$", shared.get("/read?/proc/net/snmp", app), re.MULTILINE)
            return int(dict(zip(names.split(), counts.split(), strict=True))["NoPorts"])

        before = arrived()
        with forwarding(shared, between, f"imm-app-{app.name}") as other:
            send("imm-proxy", 3)
            send(other, 1)
            until(lambda: arrived() > before, 10, pause=0.05)
        assert arrived() == before + 1
        # The sidecar shares the proxy's network.
        assert shared.printed("imm-sidecar", "cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"

    def test_neither_the_engine_nor_imms_state_is_there(self, shared: Host, inside: str):
        """No socket, no state, no secret of another's; and no engine on the host's address."""
        find = (
            "import os, stat\n"
            "found = []\n"
            "for folder, _, names in os.walk('/'):\n"
            "    if not folder.startswith(('/proc', '/sys')):\n"
            "        for name in names:\n"
            "            path = os.path.join(folder, name)\n"
            "            if stat.S_ISSOCK(os.lstat(path).st_mode) or '/imm/' in path or 'docker.sock' in name:\n"
            "                found.append(path)\n"
            "print(found)\n"
        )
        assert shared.printed(inside, "python3", "-c", find) == "[]\n"
        mine = shared.inspect(inside)["NetworkSettings"]["Networks"]
        (gateway,) = (each["Gateway"] for each in mine.values())
        engine = (
            "import socket, sys\n"
            "print([p for p in (2375, 2376, 2377, 8080, 8099) if socket.socket().connect_ex((sys.argv[1], p)) == 0])"
        )
        assert shared.printed(inside, "python3", "-c", engine, gateway) == "[]\n"


def test_no_secret_and_no_value_shows_while_imm_is_at_work(shared: Host, strangers: Project):
    """In no process's arguments or environment but the app's own, no log of imm's, no record, no inspection."""
    strangers.version("2", secrets=["ZEBRA"], environment={"SETTING": SETTING})
    shared.imm(strangers, "secret", "set", "ZEBRA", told=HIDDEN)
    began, seen, mine = time.time(), b"", b""
    with subprocess.Popen(
        shared.command(strangers, "up"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=strangers.folder,
    ) as running:
        while running.poll() is None:
            for process in Path("/proc").glob("[0-9]*"):
                # In this order: what becomes the app between the two is the app.
                environment, arguments = read(process / "environ"), read(process / "cmdline")
                seen += arguments + environment
                # One that has ended in between tells no arguments any more: whose it was isn't known.
                if arguments and b"server.py" not in arguments:
                    mine += arguments + environment
        assert running.stdout is not None
        said = running.stdout.read()
    assert running.returncode == 0, said
    assert b"immutable_local" in seen and b"sidecar" in seen
    assert HIDDEN.encode() not in seen + said
    assert SETTING.encode() not in mine + said
    name = f"{strangers.name}-web-2-blue-1"
    told = [shared.inspect(name), shared.inspect("imm-proxy"), shared.inspect("imm-sidecar")]
    for image in shared.images(strangers):
        told += [shared.engine.inspect_image(image), shared.engine.history(image)]
    assert HIDDEN not in json.dumps(told)
    state = "cat /imm/state/data/ledger/*/* /imm/proxy/data/*.conf /imm/proxy/data/apps/*/live/*"
    state += " /imm/proxy/data/apps/*/structure.json /imm/state/data/doing/* /imm/state/data/locks/*"
    kept = shared.printed("imm-sidecar", "sh", "-c", f"{state} 2>/dev/null; true")
    assert strangers.name in kept
    logs = "".join(
        shared.engine.logs(each, since=int(began)).decode() for each in ("imm-proxy", "imm-sidecar")
    )
    assert HIDDEN not in kept + logs
    assert SETTING not in kept + logs


def read(path: Path) -> bytes:
    try:
        return path.read_bytes() if os.access(path, os.R_OK) else b""
    except OSError:
        # The process has ended meanwhile.
        return b""
