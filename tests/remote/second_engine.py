"""An engine of the tests' own, in a network namespace of its own: nothing of imm's is there yet.

Like an engine on another machine it has its own loopback, routes and addresses; what listens there on
127.0.0.1 isn't on this machine's. It is reached over its unix socket, or over ssh alone.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import docker

from immutable_local.network import choose_subnet, host_routes
from immutable_local.wait import until

T = TypeVar("T")

PREFIX = "imm-test-"
NAMESPACES = Path("/var/run/netns")
LINK_POOL = "10.254.0.0/16"
SSH_PORT = 2222
START_SECONDS = 60.0
# An engine stops its containers, ten seconds each at most, all at once.
STOP_SECONDS = 30.0
# Longer than any request of these tests is held.
ANSWER_SECONDS = 60.0
CLONE_NEWNET = 0x40000000
ESTABLISHED = "01"
PROGRAMS = ("dockerd", "ip", "nsenter", "setpriv", "iptables", "docker")
SSH_PROGRAMS = ("sshd", "ssh", "ssh-keygen")
SSHD = """\
ListenAddress {address}
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
LogLevel VERBOSE
"""
SSH = """\
Host *
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {folder}/known_hosts
  StrictHostKeyChecking yes
"""


def why_not(programs: Sequence[str] = PROGRAMS) -> str | None:
    """Why there can't be a second engine on this machine, or None."""
    if not sys.platform.startswith("linux"):
        return "a second engine needs Linux's network namespaces"
    if os.geteuid() != 0:
        return "a second engine needs root: network namespaces and dockerd"
    missing = [each for each in programs if _which(each) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


class SecondEngine:
    """dockerd, and an sshd beside it, in one network namespace; everything else of it is in one folder."""

    def __init__(self) -> None:
        self.name = f"{PREFIX}{os.getpid()}"
        self.folder = Path(tempfile.gettempdir()) / self.name
        self.socket = self.folder / "docker.sock"
        self.address = ""
        self._dockerd: subprocess.Popen[bytes] | None = None
        self._sshd: subprocess.Popen[bytes] | None = None

    # Begin and end

    @classmethod
    @contextmanager
    def running(cls, images: Sequence[str]) -> Iterator[SecondEngine]:
        """Started, with these images of the first engine's; nothing of it is left afterwards."""
        _remove_abandoned()
        engine = cls()
        try:
            engine._make_namespace()
            engine.start()
            engine.load(images)
            yield engine
        finally:
            engine.close()

    def start(self) -> None:
        """Start dockerd, and return when it answers."""
        told = {
            "data-root": f"{self.folder}/data",
            "exec-root": f"{self.folder}/exec",
            "pidfile": f"{self.folder}/dockerd.pid",
            "hosts": [self.unix],
            # Where a containerd of the system's runs, dockerd uses that one: the containers are kept apart.
            "containerd-namespace": self.name,
            "containerd-plugins-namespace": f"{self.name}-plugins",
        }
        (self.folder / "dockerd.json").write_text(json.dumps(told))
        self._dockerd = self._inside("dockerd", "dockerd", "--config-file", f"{self.folder}/dockerd.json")
        if not until(self._answers, START_SECONDS, pause=0.05):
            raise AssertionError(f"dockerd does not answer: {_last_lines(self.folder / 'dockerd.log')}")

    def stop(self) -> None:
        """As when the machine is shut down: containers are stopped, and the engine knows which were up."""
        assert self._dockerd is not None
        self._dockerd.terminate()
        self._dockerd.wait(STOP_SECONDS)

    def crash(self) -> None:
        """The daemon alone is killed: its containers go on, and nobody looks after them."""
        assert self._dockerd is not None
        self._dockerd.kill()
        self._dockerd.wait(STOP_SECONDS)
        # Its containerd ended with it. Where nobody reaps it, the next daemon would wait for that process.
        (self.folder / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def restart(self) -> None:
        """Stopped in order, and started again."""
        self.stop()
        self.start()

    @contextmanager
    def small_disk(self, megabytes: int, images: Sequence[str]) -> Iterator[Path]:
        """Meanwhile all of the engine's data is on a disk of that size, with these images and nothing else."""
        data = self.folder / "data"
        self.stop()
        _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "imm-test", str(data))
        try:
            self.start()
            self.load(images)
            yield data
        finally:
            self.stop()
            _unmount(data)
            _run("umount", "--lazy", str(data))
            self.start()

    def lose_power(self) -> None:
        """Everything of the engine ends at once, without a word."""
        assert self._dockerd is not None
        _kill_all(self.name, self.folder)
        self._dockerd.wait(STOP_SECONDS)
        # A boot would have begun with an empty /run.
        _unmount(self.folder / "exec")
        shutil.rmtree(self.folder / "exec", ignore_errors=True)
        (self.folder / "dockerd.pid").unlink(missing_ok=True)

    def close(self) -> None:
        for each in (self._sshd, self._dockerd):
            if each is not None and each.poll() is None:
                each.terminate()
                with suppress(subprocess.TimeoutExpired):
                    each.wait(STOP_SECONDS)
        _remove(self.name, self.folder)

    def wipe(self) -> None:
        """No containers, networks, volumes and images but the base images, as on the first day."""
        client = self.client
        assert until(lambda: _without_containers(client), STOP_SECONDS, pause=0.1), client.containers(
            all=True
        )
        for each in client.networks(filters={"type": "custom"}):
            client.remove_network(each["Id"])
        for each in client.volumes()["Volumes"] or []:
            client.remove_volume(each["Name"], force=True)
        for each in client.images(filters={"label": "imm.app"}):
            client.remove_image(each["Id"], force=True)
        client.close()

    # Ways to reach it

    @property
    def unix(self) -> str:
        return f"unix://{self.socket}"

    @property
    def ssh(self) -> str:
        return f"ssh://root@{self.address}:{SSH_PORT}{self.socket}"

    @property
    def client(self) -> Any:
        return docker.APIClient(base_url=self.unix, version="auto", timeout=60)

    def serve_ssh(self) -> dict[str, str]:
        """Start sshd with keys of its own; returns the environment in which ssh knows them."""
        for name in ("host_key", "user_key"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{self.folder}/{name}")
        public = (self.folder / "host_key.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[{self.address}]:{SSH_PORT} {public}")
        (self.folder / "sshd_config").write_text(
            SSHD.format(address=self.address, port=SSH_PORT, folder=self.folder)
        )
        (self.folder / "ssh_config").write_text(SSH.format(folder=self.folder))
        # sshd insists on this folder; at boot it is made by whoever starts it.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        sshd = _which("sshd") or "sshd"
        self._sshd = self._inside("sshd", sshd, "-D", "-e", "-f", f"{self.folder}/sshd_config")
        if not until(self._ssh_answers, START_SECONDS, pause=0.05):
            raise AssertionError(f"sshd does not answer: {_last_lines(self.folder / 'sshd.log')}")
        # ssh reads the configuration of the user whom the password file names, whatever HOME says.
        wrapper = self.folder / "bin" / "ssh"
        wrapper.parent.mkdir()
        wrapper.write_text(f'#!/bin/sh\nexec {_which("ssh")} -F {self.folder}/ssh_config "$@"\n')
        wrapper.chmod(0o755)
        return {"PATH": f"{wrapper.parent}:{os.environ['PATH']}"}

    def logins(self) -> int:
        """How often somebody has logged in over ssh so far."""
        return (self.folder / "sshd.log").read_text().count("Accepted publickey")

    def ssh_sessions(self) -> int:
        """How many ssh connections are open now."""
        told = self.enter(Path("/proc/thread-self/net/tcp").read_text)
        rows = [line.split() for line in told.splitlines()[1:]]
        return sum(1 for row in rows if row[1].endswith(f":{SSH_PORT:04X}") and row[3] == ESTABLISHED)

    def enter(self, act: Callable[[], T]) -> T:
        """Do it in a thread that is in the engine's network; a socket stays in the network it was made in."""

        def entered() -> T:
            with (NAMESPACES / self.name).open() as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            return act()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(entered).result()

    def connection(self, port: int) -> http.client.HTTPConnection:
        """To what listens on the loopback of the engine's machine."""
        return _Connection(self, port)

    @contextmanager
    def listening(self, port: int) -> Iterator[None]:
        """Somebody else's server on the loopback of the engine's machine."""
        with self.enter(lambda: socket.create_server(("127.0.0.1", port))):
            yield

    def route(self, verb: str, subnet: str) -> None:
        """Add or delete a route of the engine's machine."""
        gateway = str(self._peer)
        _run("ip", "-n", self.name, "route", verb, subnet, "via", gateway)

    def firewall(self, *words: str) -> None:
        """Change the rules of the engine's machine."""
        _run("nsenter", f"--net={NAMESPACES / self.name}", "iptables", *words)

    def _make_namespace(self) -> None:
        self.folder.mkdir(mode=0o700)
        link = choose_subnet(LINK_POOL, host_routes(Path("/proc/net/route").read_text()))
        self._peer, self.address = link.network_address + 1, str(link.network_address + 2)
        outside, inside = f"immt{os.getpid()}", "link0"
        _run("ip", "netns", "add", self.name)
        _run("ip", "-n", self.name, "link", "set", "lo", "up")
        _run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", self.name)
        _run("ip", "address", "add", f"{self._peer}/{link.prefixlen}", "dev", outside)
        _run("ip", "link", "set", outside, "up")
        _run("ip", "-n", self.name, "address", "add", f"{self.address}/{link.prefixlen}", "dev", inside)
        _run("ip", "-n", self.name, "link", "set", inside, "up")

    def _inside(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """A process in the namespace, ending with this one. `ip netns exec` would give it another /sys."""
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "nsenter", f"--net={NAMESPACES / self.name}", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def load(self, images: Sequence[str]) -> None:
        """Take images over from the first engine; those that are here already are left out."""
        here = {tag for each in self.client.images() for tag in each.get("RepoTags") or []}
        images = [each for each in images if each not in here]
        if not images:
            return
        # Whichever engine the tests look at just now.
        first = {key: value for key, value in os.environ.items() if key != "DOCKER_HOST"}
        with subprocess.Popen(["docker", "save", *images], env=first, stdout=subprocess.PIPE) as saving:
            subprocess.run(
                ["docker", "--host", self.unix, "load", "--quiet"],
                stdin=saving.stdout,
                stdout=subprocess.DEVNULL,
                timeout=120,
                check=True,
            )

    def _answers(self) -> bool:
        assert self._dockerd is not None and self._dockerd.poll() is None, _last_lines(
            self.folder / "dockerd.log"
        )
        try:
            return bool(self.client.ping())
        except docker.errors.DockerException:
            return False

    def _ssh_answers(self) -> bool:
        try:
            socket.create_connection((self.address, SSH_PORT), timeout=1).close()
        except OSError:
            return False
        return True


class _Connection(http.client.HTTPConnection):
    def __init__(self, engine: SecondEngine, port: int) -> None:
        super().__init__("127.0.0.1", port, timeout=ANSWER_SECONDS)
        self.engine = engine

    def connect(self) -> None:
        self.sock = self.engine.enter(lambda: socket.create_connection((self.host, self.port), self.timeout))


def _without_containers(client: Any) -> bool:
    """Remove what is there. One of a moment goes by itself meanwhile: it is gone already, or just going."""

    def remove(container: str) -> None:
        try:
            client.remove_container(container, force=True, v=True)
        except docker.errors.APIError as refused:
            if refused.status_code not in (404, 409):
                raise

    with ThreadPoolExecutor(8) as beside:
        list(beside.map(remove, [each["Id"] for each in client.containers(all=True)]))
    return not client.containers(all=True)


# What is left when nothing ended in order


def _remove_abandoned() -> None:
    """What a run left that was killed."""
    for each in NAMESPACES.glob(f"{PREFIX}*") if NAMESPACES.is_dir() else []:
        if not Path(f"/proc/{each.name.removeprefix(PREFIX)}").exists():
            _remove(each.name, Path(tempfile.gettempdir()) / each.name)


def _remove(name: str, folder: Path) -> None:
    _kill_all(name, folder)
    _unmount(folder)
    if (NAMESPACES / name).exists():
        _run("ip", "netns", "delete", name)
    subprocess.run(
        ["ip", "link", "delete", f"immt{name.removeprefix(PREFIX)}"], stderr=subprocess.DEVNULL, check=False
    )
    shutil.rmtree(folder, ignore_errors=True)
    assert not folder.exists(), f"{folder} could not be removed"


def _kill_all(name: str, folder: Path) -> None:
    """dockerd, containerd, sshd and what they started; until none is left, as they go on starting others."""

    def none_left() -> bool:
        found = _processes(name, folder)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not found

    assert until(none_left, STOP_SECONDS, pause=0.02), (
        f"processes of {name} don't end: {_processes(name, folder)}"
    )


def _processes(name: str, folder: Path) -> list[int]:
    """Those in the namespace, and those whose root is a container's of this engine."""
    listed = subprocess.run(
        ["ip", "netns", "pids", name], capture_output=True, text=True, check=False
    ).stdout.split()
    found = [int(each) for each in listed]
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            mounts = (each / "mountinfo").read_text().splitlines()
            if any(line.split()[4] == "/" and f"{folder}/" in line for line in mounts):
                found.append(int(each.name))
    return found


def _unmount(folder: Path) -> None:
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for each in reversed(mounts):
        if each.startswith(f"{folder}/"):
            _run("umount", "--lazy", each)


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
