"""The engine: the only module that imports the Docker SDK, one method for each thing asked of it.

Docker Engine 20.10 and newer. The low-level client is used throughout: it costs one round trip for each
request, where the high-level one inspects what it lists. What Docker answers is translated here, once: into
EngineError when the engine cannot be reached or refuses this user, into CredentialsError when a registry's
credentials can't be read here, else into EngineRefused.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import re
import tarfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import docker
import requests
import urllib3
from docker.auth import load_config
from docker.credentials import StoreError
from docker.types import Mount as DockerMount

from immutable_local import labels as label
from immutable_local.dockerignore import context_paths
from immutable_local.errors import (
    FREE_SPACE,
    CredentialsError,
    EngineError,
    EngineRefused,
    ImmError,
    shown,
)
from immutable_local.listed import Container, container_of
from immutable_local.unbroken import future_of
from immutable_local.wait import until

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
REQUEST_SECONDS = 120
# Docker 20.10's.
OLDEST_API = "1.41"
# Starting a container that was created takes under a second, some more on a busy host.
ABANDONED_SECONDS = 10
# So much of a folder's archive is read to know whether anything is in it: more than its own headers.
BEGINNING_BYTES = 64 * 1024
# A removal that is under way takes so long at most, or doesn't go on.
REMOVED_SECONDS = 5.0
# Not 'unless-stopped': an engine that was killed stops, when it is started again, what still runs, and then
# takes it for stopped by hand.
KEPT_RUNNING = {"Name": "always"}
# However a connection to the engine ends early, and whichever library notices.
CUT = (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)
# From 1.52 on the engine tells what takes its disk in another shape; older ones are answered as ever.
LATEST_DISK_API = (1, 51)
# It can be asked for the builder's cache alone from here on; before, all sizes are worked out.
DISK_BY_TYPE_API = (1, 42)
# Their ids go into an address, which may have 1 MB: 25 letters each.
CACHE_AT_ONCE = 1000
# The role of a container of a moment.
TASK = "task"
# What it runs is one program, with a thread or two.
MOMENTS_PROCESSES = 64
# Ends when its standard input does, or brings nothing for so many seconds.
UNTIL_SILENT = "import os, select\nwhile select.select([0], [], [], {seconds})[0] and os.read(0, 512): pass"
# It warns of a credential helper that is absent, whether or not anything is asked of it.
warnings.filterwarnings("ignore", category=UserWarning, module=r"docker\.credentials\.")


@dataclass(frozen=True)
class Coming:
    """A container that started, or ended; `at` is the engine's time, in seconds since 1970."""

    container: str
    started: bool
    at: float


@dataclass(frozen=True)
class Image:
    """One image: its id, what it is made of and how it wants to be run."""

    id: str
    tags: tuple[str, ...]
    created: str
    layers: tuple[str, ...]
    config: Mapping[str, Any]
    digests: tuple[str, ...] = ()

    @property
    def labels(self) -> Mapping[str, str]:
        return self.config.get("Labels") or {}


@dataclass(frozen=True)
class CacheRecord:
    """One result that the builder keeps: what of, when it was made and last used, how many bytes."""

    id: str
    kind: str
    description: str
    in_use: bool
    shared: bool
    size: int
    made: datetime
    used: datetime | None


@dataclass(frozen=True)
class Network:
    """One network and its first subnet."""

    id: str
    name: str
    labels: Mapping[str, str]
    subnet: str | None


class StillRuns(Exception):
    """A command inside a container that was late; the engine has no way to end it."""

    def __init__(self, execution: str) -> None:
        super().__init__(execution)
        self.execution = execution


@contextmanager
def asking_docker_to(verb: str) -> Iterator[None]:
    """Translate what the SDK raises, once, at this edge."""
    try:
        yield
    except docker.errors.APIError as refused:
        status = refused.status_code or 0
        # Where the engine gives no reason, the SDK's words hold the address, and so a build's arguments.
        reason = getattr(refused.response, "reason", None) or "without a reason"
        explanation = str(refused.explanation or f"{status} {reason}")
        full = disk_is_full(explanation)
        raise EngineRefused(
            f"Docker refused to {verb}: {explanation}",
            code="disk_full" if full else None,
            status=status,
            explanation=explanation,
            **({"hint": FREE_SPACE} if full else {}),
        ) from refused
    except CUT as lost:
        raise _unreachable(lost) from lost
    except StoreError as absent:
        raise _without_credentials(verb, absent) from absent
    except docker.errors.DockerException as failed:
        if isinstance(failed.__cause__, StoreError):
            raise _without_credentials(verb, failed.__cause__) from failed
        raise _unreachable(failed) from failed


def disk_is_full(said: str) -> bool:
    """Whether the engine, or its builder, says that its disk is full: there is no status for that."""
    return os.strerror(errno.ENOSPC).lower() in said.lower()


def connect(api: str | None = None) -> Engine:
    """The engine that DOCKER_HOST or the current docker context names, reached.

    `api` is the version of the API that it speaks, where it was asked already. Raises EngineError when it
    can't be reached or refuses this user, CredentialsError when docker's config makes no sense.
    """
    host, tls = _named()
    _read_credentials()
    local = host
    if host.startswith("ssh://"):
        from immutable_local import tunnel

        local = "unix://" + tunnel.forward(host)
    try:
        client = docker.APIClient(
            base_url=local,
            version=api or _asked_for_its_api(local, tls),
            tls=tls,
            timeout=REQUEST_SECONDS,
            num_pools=16,
        )
    except (docker.errors.DockerException, ValueError, *CUT) as failed:
        # A port that can't be one is a ValueError.
        raise _unreachable(failed, host) from failed
    return Engine(client, named=host, local=local)


class Engine:
    """A reached engine. `named` is what the user calls it, `local` is how this machine reaches it."""

    def __init__(self, client: Any, named: str, local: str) -> None:
        self.client = client
        self.named = named
        self.local = local

    # The engine itself

    def version(self) -> dict[str, Any]:
        with asking_docker_to("tell its version"):
            return dict(self.client.version())

    def info(self) -> dict[str, Any]:
        with asking_docker_to("tell about itself"):
            return dict(self.client.info())

    # Containers

    def containers(self, labels: Mapping[str, str], running_only: bool = False) -> list[Container]:
        """Those that carry all of `labels`; an empty value asks for the key alone."""
        with asking_docker_to("list containers"):
            listed = self.client.containers(all=not running_only, filters={"label": _filter(labels)})
        return [container_of(each) for each in listed]

    def running(self, containers: Sequence[str]) -> set[str]:
        """Which of these containers run, by id."""
        with asking_docker_to("list containers"):
            listed = self.client.containers(filters={"id": list(containers)})
        return {each["Id"] for each in listed}

    def inspect(self, container: str) -> dict[str, Any]:
        with asking_docker_to(f"inspect {container}"):
            return dict(self.client.inspect_container(container))

    def find(self, name: str) -> dict[str, Any] | None:
        """The container of that name, whoever made it, or None."""
        try:
            return self.inspect(name)
        except EngineRefused as refused:
            if refused.status == 404:
                return None
            raise

    def role_of(self, inspected: Mapping[str, Any]) -> str | None:
        """What a container is to imm; None for somebody else's, also where its image has labels of imm's."""
        role = (inspected["Config"].get("Labels") or {}).get(label.ROLE)
        return None if role is None or self.gives_role(inspected["Image"], role) else str(role)

    def create(
        self, name: str, image: str, *, networks: Mapping[str, Any] | None = None, **settings: Any
    ) -> str:
        """Create a container; `settings` are `container_config`'s and `host_config`'s, in snake case.

        `networks` is the API's EndpointsConfig for the one network that it starts in. Returns the id.
        """
        host_keys = {
            "binds",
            "cap_add",
            "cap_drop",
            "log_config",
            "mem_limit",
            "mounts",
            "nano_cpus",
            "network_mode",
            "pids_limit",
            "port_bindings",
            "read_only",
            "restart_policy",
            "security_opt",
            "sysctls",
            "tmpfs",
        }
        with asking_docker_to(f"create {name}"):
            host_config = self.client.create_host_config(
                **{k: v for k, v in settings.items() if k in host_keys}
            )
            made = self.client.create_container(
                image,
                name=name or None,
                host_config=host_config,
                networking_config={"EndpointsConfig": dict(networks)} if networks else None,
                **{k: v for k, v in settings.items() if k not in host_keys},
            )
        return str(made["Id"])

    def start(self, container: str) -> None:
        with asking_docker_to(f"start {container}"):
            self.client.start(container)

    def stop(self, container: str, grace: float) -> None:
        """SIGTERM (or the image's own signal), SIGKILL after `grace` seconds. A stopped one stays stopped.

        The engine counts whole seconds: a part of one is rounded up.
        """
        with asking_docker_to(f"stop {container}"):
            self.client.stop(container, timeout=math.ceil(grace))

    def restart(self, container: str, grace: float = 2.0) -> None:
        """Stop and start; also one that the engine would start again, but is still waiting to."""
        with asking_docker_to(f"restart {container}"):
            self.client.restart(container, timeout=round(grace))

    def rename(self, container: str, name: str) -> None:
        with asking_docker_to(f"rename {container}"):
            self.client.rename(container, name)

    def keep_running(self, container: str) -> None:
        """From now on the engine starts it again after a crash, its own or the container's, and a restart."""
        with asking_docker_to(f"update {container}"):
            self.client.update_container(container, restart_policy=KEPT_RUNNING)

    def keep_stopped(self, container: str) -> None:
        """Once it has stopped the engine leaves it alone, whatever happens."""
        with asking_docker_to(f"update {container}"):
            self.client.update_container(container, restart_policy={"Name": "no"})

    def remove(self, container: str) -> None:
        """Remove a container, running or not, with its unnamed volumes. One that is gone is fine."""
        try:
            with asking_docker_to(f"remove {container}"):
                self.client.remove_container(container, force=True, v=True)
        except EngineRefused as refused:
            if refused.status not in (404, 409):
                raise
            if refused.status == 409:
                # Its removal is already under way.
                until(lambda: self.find(container) is None, REMOVED_SECONDS, pause=0.02)

    def put(self, container: str, folder: str, files: Sequence[tuple[tarfile.TarInfo, bytes]]) -> None:
        """Write files into a container's folder; in one that never started this reaches its volumes too."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for entry, content in files:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        with asking_docker_to(f"write into {container}"):
            self.client.put_archive(container, folder, packed.getvalue())

    def read(self, container: str, path: str) -> bytes | None:
        """One file's content, or None when there is no such file. A link is followed."""
        try:
            with asking_docker_to(f"read {path} of {container}"):
                stream, about = self.client.get_archive(container, path)
                if about["linkTarget"] not in ("", path):
                    # The archive holds the link alone. Its end is told as a path inside the container.
                    stream.close()
                    return self.read(container, about["linkTarget"])
                packed = io.BytesIO(b"".join(stream))
        except EngineRefused as refused:
            if refused.status == 404:
                return None
            raise
        with tarfile.open(fileobj=packed) as archive:
            member = archive.next()
            content = archive.extractfile(member) if member and member.isreg() else None
            return content.read() if content else None

    def logs(self, container: str, tail: int | str = "all", timestamps: bool = False) -> bytes:
        """What a container printed. One that is gone, or just being removed, has no log any more."""
        try:
            with asking_docker_to(f"read the log of {container}"):
                return bytes(self.client.logs(container, tail=tail, timestamps=timestamps))
        except EngineRefused as refused:
            if refused.status in (404, 409):
                return b""
            raise

    def follow(self, container: str, tail: int | str, since: float | None = None) -> Iterator[bytes]:
        """The log as it is written, from the moment `since` on, until the container ends."""
        with asking_docker_to(f"follow the log of {container}"):
            yield from self.client.logs(container, stream=True, follow=True, tail=tail, since=since)

    def comings(self, labels: Mapping[str, str]) -> Iterator[Coming]:
        """Each container with these labels that starts or ends from now on. Raises EngineError at the end."""
        asked = {"type": "container", "event": ["start", "die"], "label": _filter(labels)}
        with asking_docker_to("tell what starts and ends"):
            heard = self.client.events(filters=asked, decode=True)
        return self._comings(heard)

    def _comings(self, heard: Iterator[dict[str, Any]]) -> Iterator[Coming]:
        with asking_docker_to("tell what starts and ends"):
            for each in heard:
                yield Coming(each["Actor"]["ID"], each["Action"] == "start", each["timeNano"] / 1e9)
        raise EngineError("the engine went away", hint="run the command again when it is back")

    def ended_at(self, container: str) -> float | None:
        """When a container stopped, in seconds since 1970; None when it never ran, or is gone."""
        found = self.find(container)
        moment = datetime.fromisoformat(found["State"]["FinishedAt"][:19] + "+00:00") if found else None
        return moment.timestamp() if moment is not None and moment.year > 1 else None

    def execute(
        self, container: str, command: Sequence[str], user: str = "", seconds: float | None = None
    ) -> tuple[int, bytes]:
        """Run a command inside a running container: its exit code and what it printed.

        Raises StillRuns when it hasn't ended after `seconds`.
        """
        with asking_docker_to(f"run {command[0]} in {container}"):
            made = self.client.exec_create(container, list(command), user=user)
            printed = future_of(self.client.exec_start, made["Id"])
            if not futures.wait([printed], seconds).done:
                raise StillRuns(made["Id"])
            return int(self.client.exec_inspect(made["Id"])["ExitCode"] or 0), bytes(printed.result() or b"")

    def still_runs(self, execution: str) -> bool:
        """Whether a command that was late still runs; with its container it is gone."""
        try:
            with asking_docker_to("inspect a command"):
                return bool(self.client.exec_inspect(execution)["Running"])
        except EngineRefused as refused:
            if refused.status == 404:
                return False
            raise

    def attach(self, container: str, command: Sequence[str]) -> Any:
        """Run a command with standard input and output attached; returns the connection.

        What comes back is framed as the Docker API says: one byte for the stream, four for the length.
        """
        with asking_docker_to(f"run {command[0]} in {container}"):
            made = self.client.exec_create(container, list(command), stdin=True)
            return self.client.exec_start(made["Id"], socket=True)

    def empty_folder(self, container: str, path: str) -> tarfile.TarInfo | None:
        """Whose a folder inside a container is; None when anything is in it."""
        beginning = b""
        with asking_docker_to(f"look into {path} of {container}"):
            stream, _ = self.client.get_archive(container, path)
            for part in stream:
                beginning += part
                if len(beginning) >= BEGINNING_BYTES:
                    break
            stream.close()
        with tarfile.open(fileobj=io.BytesIO(beginning)) as archive:
            itself = archive.next()
        # The end of an archive is zeros.
        return itself if itself is not None and not any(beginning[itself.offset_data :]) else None

    @contextmanager
    def task(self, image: str, app: str, mounts: Sequence[Any] = ()) -> Iterator[str]:
        """A container that is made for an app, looked into and removed, and never runs."""
        labels = {label.ROLE: TASK, label.APP: app}
        container = self.create(
            "", image, labels=labels, mounts=list(mounts), command=["true"], network_mode="none"
        )
        try:
            yield container
        finally:
            self.remove(container)

    @contextmanager
    def name_held(self, name: str, image: str, silence: float, beat: float) -> Iterator[Callable[[], bool]]:
        """Hold a container's name, as only one can at a time; yields what asks whether it is still held.

        The container, of an image with a Python, reads its standard input, which this process feeds every
        `beat` seconds. It ends and is removed when this process ends, and when it says nothing for `silence`
        seconds, frozen or out of reach. Raises EngineRefused (409) while somebody else holds the name.
        """
        try:
            with asking_docker_to(f"create {name}"):
                made = self.client.create_container(
                    image,
                    ["python3", "-ISB", "-c", UNTIL_SILENT.format(seconds=silence)],
                    name=name,
                    entrypoint=[],
                    stdin_open=True,
                    labels={label.ROLE: TASK},
                    host_config=self._of_a_moment(network_mode="none"),
                )["Id"]
        except EngineRefused as refused:
            if refused.status == 409:
                self.remove_never_started(name)
            raise
        try:
            with asking_docker_to(f"start {name}"):
                attached = self.client.attach_socket(made, {"stdin": 1, "stream": 1})
                self.client.start(made)
            over = Event()
            future_of(_beat, getattr(attached, "_sock", attached), beat, over)
            try:
                yield lambda: made in self.running([made])
            finally:
                over.set()
                attached.close()
        finally:
            self.remove(made)

    def remove_never_started(self, container: str) -> None:
        """A client killed between creating and starting leaves a container that never ends by itself."""
        found = self.find(container)
        if found is None or found["State"]["Status"] != "created":
            return
        if self.role_of(found) != TASK:
            # Somebody else's.
            return
        # By the engine's clock: this machine's may differ.
        age = datetime.fromisoformat(self.info()["SystemTime"]) - datetime.fromisoformat(found["Created"])
        if age > timedelta(seconds=ABANDONED_SECONDS):
            self.remove(found["Id"])

    def processes(self, container: str, words: str) -> set[str]:
        """The numbers of a container's processes that carry these words in their title."""
        with asking_docker_to(f"list the processes of {container}"):
            told = self.client.top(container)
        number = told["Titles"].index("PID")
        return {row[number] for row in told["Processes"] or [] if words in row[-1]}

    def run_once(
        self,
        image: str,
        command: Sequence[str],
        network_mode: str = "none",
        mounts: Sequence[Any] = (),
        app: str | None = None,
    ) -> bytes:
        """Run one command in a container of its own, which is removed; returns what it printed.

        It ends and goes by itself when this client dies meanwhile. One that never started is known by `app`,
        whose lock the command holds, or by its age.
        """
        made = ""
        with asking_docker_to(f"run {command[0]}"):
            host_config = self._of_a_moment(network_mode=network_mode, mounts=list(mounts))
            try:
                made = self.client.create_container(
                    image,
                    command=list(command),
                    host_config=host_config,
                    labels={label.ROLE: TASK, **({label.APP: app} if app else {})},
                    entrypoint=[],
                )["Id"]
                # Before it starts: once it has ended, its log is gone with it.
                printed = self.client.attach(made, stdout=True, stderr=False, stream=True)
                self.client.start(made)
                return b"".join(printed)
            finally:
                if made:
                    self.remove(made)

    def _of_a_moment(self, **more: Any) -> Any:
        """How a container runs that goes by itself when its one program ends."""
        return self.client.create_host_config(
            auto_remove=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            read_only=True,
            pids_limit=MOMENTS_PROCESSES,
            **more,
        )

    # Images

    def image(self, reference: str) -> Image | None:
        try:
            with asking_docker_to(f"inspect image {reference}"):
                return _image(self.client.inspect_image(reference))
        except EngineRefused as refused:
            if refused.status == 404:
                return None
            raise

    def gives_role(self, image: str, role: str) -> bool:
        """Whether containers of this image have that role from it, whoever makes them."""
        found = self.image(image)
        return found is not None and found.labels.get(label.ROLE) == role

    def images(self, labels: Mapping[str, str]) -> list[tuple[str, Mapping[str, str], tuple[str, ...]]]:
        """Id, labels and tags of the images that carry all of `labels`."""
        with asking_docker_to("list images"):
            listed = self.client.images(filters={"label": _filter(labels)})
        return [
            (
                each["Id"],
                each.get("Labels") or {},
                tuple(t for t in each.get("RepoTags") or () if t != "<none>:<none>"),
            )
            for each in listed
        ]

    def image_ids(self) -> set[str]:
        """Every image, those of a build's steps included."""
        with asking_docker_to("list images"):
            return {each["Id"] for each in self.client.images(all=True)}

    def tag(self, image: str, repository: str, tag: str) -> None:
        with asking_docker_to(f"tag {image}"):
            self.client.tag(image, repository, tag, force=True)

    def remove_image(self, reference: str) -> bool:
        """Remove an image or a tag of it; False when something still needs it. One that is gone is fine."""
        try:
            with asking_docker_to(f"remove image {reference}"):
                self.client.remove_image(reference)
        except EngineRefused as refused:
            if refused.status == 404:
                return True
            if refused.status == 409:
                return False
            raise
        return True

    def pull(self, reference: str) -> Image:
        """Pull an image. Raises EngineRefused when its registry can't be asked or says no, CredentialsError
        when the credentials for it can't be read."""
        from docker.utils import parse_repository_tag

        repository, tag = parse_repository_tag(reference)
        with asking_docker_to(f"pull {reference}"):
            self.client.pull(repository, tag=tag or "latest")
        found = self.image(reference)
        if found is None:
            raise EngineRefused(f"Docker pulled {reference}, and doesn't have it")
        return found

    def build(self, context: Any, **options: Any) -> Iterator[dict[str, Any]]:
        """The API's own builder, fed with a tar; yields what it says, as it says it.

        It is sent the credentials of every registry. Raises CredentialsError where they can't be had.
        """
        try:
            with asking_docker_to("build an image"):
                yield from _said(
                    self.client.build(fileobj=context, custom_context=True, rm=True, forcerm=True, **options)
                )
        except ImmError as failed:
            # What the SDK says beneath it holds the address, and so the build's arguments.
            raise failed from None

    def build_of_what_is_there(self, context: Any, tag: str) -> Iterator[dict[str, Any]]:
        """As `build`, of an image that the engine has, or of none: no registry and no credentials are needed,
        and none are sent, which the SDK always does."""
        asked = {"t": tag, "rm": True, "forcerm": True}
        tar = {"Content-Type": "application/tar"}
        with asking_docker_to("build an image"):
            url = self.client._url("/build")
            answer = self.client._post(
                url, data=context, params=asked, headers=tar, stream=True, timeout=None
            )
            yield from _said(self.client._stream_helper(answer))

    @property
    def images_in_containerd(self) -> bool:
        """Whether images are kept in containerd's store, not in the engine's own."""
        return ["driver-type", "io.containerd.snapshotter.v1"] in (self.info().get("DriverStatus") or [])

    def build_cache(self) -> list[CacheRecord]:
        """What the builder keeps; nothing where it isn't BuildKit."""
        version = min(tuple(map(int, self.client.api_version.split("."))), LATEST_DISK_API)
        asked = {"type": "build-cache"} if version >= DISK_BY_TYPE_API else {}
        url = f"{self.client.base_url}/v{version[0]}.{version[1]}/system/df"
        with asking_docker_to("list the builder's cache"):
            told = self.client._result(self.client._get(url, params=asked), True)
        return [_cache_record(each) for each in told.get("BuildCache") or []]

    def remove_build_cache(self, records: Sequence[CacheRecord]) -> tuple[int, int]:
        """Remove these of the builder's records; returns how many went, and their bytes.

        One that is used meanwhile, by a build, an image or a record that stays, stays too: without `all` the
        builder itself sees to that. What was made of a record goes before it.
        """
        removed = size = 0
        for start in range(0, len(records), CACHE_AT_ONCE):
            some = "|".join(re.escape(each.id) for each in records[start : start + CACHE_AT_ONCE])
            # It takes one value for an id, which is a regular expression.
            asked = {"filters": json.dumps({"id": {f"/^({some})$/": True}})}
            with asking_docker_to("remove some of the builder's cache"):
                answer = self.client._post(self.client._url("/build/prune"), params=asked)
                told = self.client._result(answer, True)
            removed += len(told.get("CachesDeleted") or [])
            size += told.get("SpaceReclaimed") or 0
        return removed, size

    # Networks

    def networks(self) -> list[Network]:
        with asking_docker_to("list networks"):
            listed = self.client.networks()
        return [_network(each) for each in listed]

    def members(self, network: str) -> dict[str, str]:
        """The addresses of the containers in a network, by name, whoever made them."""
        with asking_docker_to(f"inspect network {network}"):
            inside = self.client.inspect_network(network)["Containers"] or {}
        return {each["Name"]: each["IPv4Address"].partition("/")[0] for each in inside.values()}

    def create_network(
        self, name: str, subnet: str, ip_range: str, gateway: str, labels: Mapping[str, str]
    ) -> None:
        from docker.types import IPAMConfig, IPAMPool

        pool = IPAMPool(subnet=subnet, iprange=ip_range, gateway=gateway)
        with asking_docker_to(f"create network {name}"):
            self.client.create_network(
                name,
                driver="bridge",
                ipam=IPAMConfig(pool_configs=[pool]),
                labels=dict(labels),
                check_duplicate=True,
            )

    def remove_network(self, name: str) -> None:
        try:
            with asking_docker_to(f"remove network {name}"):
                self.client.remove_network(name)
        except EngineRefused as refused:
            if refused.status != 404:
                raise

    def join(self, network: str, container: str, address: str | None = None) -> None:
        with asking_docker_to(f"connect {container} to {network}"):
            self.client.connect_container_to_network(container, network, ipv4_address=address)

    def leave(self, network: str, container: str) -> None:
        """Disconnect a container; one that isn't connected is fine."""
        try:
            with asking_docker_to(f"disconnect {container} from {network}"):
                self.client.disconnect_container_from_network(container, network, force=True)
        except EngineRefused as refused:
            if refused.status not in (403, 404):
                raise

    # Volumes

    def volumes(self, labels: Mapping[str, str], unused: bool = False) -> list[dict[str, Any]]:
        """Those that carry all of `labels`; `unused`: only those that no container has."""
        asked = {"label": _filter(labels), **({"dangling": True} if unused else {})}
        with asking_docker_to("list volumes"):
            return list(self.client.volumes(filters=asked)["Volumes"] or [])

    def volume(self, name: str) -> dict[str, Any] | None:
        try:
            with asking_docker_to(f"inspect volume {name}"):
                return dict(self.client.inspect_volume(name))
        except EngineRefused as refused:
            if refused.status == 404:
                return None
            raise

    def is_mounted(self, volume: str) -> bool:
        """Whether any container has this volume, running or not."""
        with asking_docker_to("list containers"):
            return bool(self.client.containers(all=True, filters={"volume": volume}))

    def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        with asking_docker_to(f"create volume {name}"):
            self.client.create_volume(name, labels=dict(labels))

    def remove_volume(self, name: str) -> None:
        try:
            with asking_docker_to(f"remove volume {name}"):
                self.client.remove_volume(name)
        except EngineRefused as refused:
            if refused.status != 404:
                raise


def volume_mount(
    name: str | None, path: str, read_only: bool = False, labels: Mapping[str, str] | None = None
) -> Any:
    """A volume at a path. Without a name the volume is the container's own, and goes with it."""
    return DockerMount(
        target=path, source=name, type="volume", read_only=read_only, labels=dict(labels or {})
    )


def _beat(connection: Any, seconds: float, over: Event) -> None:
    """Say something every so many seconds, until it is over, or nobody is there to hear it."""
    with suppress(OSError):
        while not over.wait(seconds):
            connection.sendall(b".")


def bounded_log() -> Any:
    """A container's own log: three files of 10 MB at most."""
    return {"type": "json-file", "config": {"max-size": "10m", "max-file": "3"}}


def endpoint(address: str | None = None, aliases: Sequence[str] = ()) -> dict[str, Any]:
    """How a container starts in a network: a fixed address, and the names it answers to."""
    asked: dict[str, Any] = {}
    if address:
        asked["IPAMConfig"] = {"IPv4Address": address}
    if aliases:
        asked["Aliases"] = list(aliases)
    return asked


def _named() -> tuple[str, Any]:
    """DOCKER_HOST, else DOCKER_CONTEXT, else the current context, else the default socket; with its TLS."""
    host = os.environ.get("DOCKER_HOST", "")
    if host:
        host, tls = _without_password(host), None
        if host.startswith("tcp://") and os.environ.get("DOCKER_TLS_VERIFY"):
            try:
                tls = docker.utils.kwargs_from_env().get("tls")
            except docker.errors.TLSParameterError as absent:
                raise EngineError(
                    f"{host} can't be asked over TLS: its certificates aren't here",
                    hint="put ca.pem, cert.pem and key.pem into the folder that DOCKER_CERT_PATH names"
                    " (~/.docker without it), or unset DOCKER_TLS_VERIFY for an engine that speaks no TLS",
                ) from absent
        return host, tls
    from docker.context import ContextAPI
    from docker.context.config import get_current_context_name

    name: object = os.environ.get("DOCKER_CONTEXT") or get_current_context_name() or "default"
    hint = "see docker context ls, or set DOCKER_HOST"
    if not isinstance(name, str):
        what = f"currentContext in docker's config.json is no context's name: {shown(name)}"
        raise EngineError(what, hint=hint)
    try:
        context = ContextAPI.get_context(name)
    except Exception as broken:
        raise EngineError(f"the docker context {shown(name)} cannot be read: {broken}", hint=hint) from broken
    if context is None:
        raise EngineError(f"there is no docker context named {shown(name)}", hint=hint)
    # Whoever asks again, a guard or the one that recovers, means this engine, whatever is chosen since.
    os.environ["DOCKER_CONTEXT"] = context.name
    if context.name == "default":
        return DEFAULT_SOCKET, None
    return _without_password(context.Host or DEFAULT_SOCKET), context.TLSConfig or None


def _without_password(address: str) -> str:
    """An engine's address as it may be told. No way of reaching an engine takes a password from it."""
    return re.sub(r"(://[^/:@]*):[^/]*@", r"\1@", address)


def _asked_for_its_api(local: str, tls: Any) -> str:
    # The SDK would ask for the versions of all that the engine consists of, which takes 5 ms longer; and
    # `get` would leave out what docker's configuration adds to each request (HttpHeaders).
    pinging = docker.APIClient(base_url=local, version=OLDEST_API, tls=tls, timeout=REQUEST_SECONDS)
    answer = pinging._get(f"{pinging.base_url}/_ping")  # type: ignore[attr-defined]
    answer.raise_for_status()
    return str(answer.headers.get("Api-Version", OLDEST_API))


def _unreachable(failed: Exception, host: str = "") -> EngineError:
    where = host or _without_password(os.environ.get("DOCKER_HOST", "")) or "the docker engine"
    where = where if where.isprintable() else shown(where)
    chain: list[BaseException] = []
    cause: BaseException | None = failed
    while cause is not None and cause not in chain:
        chain.append(cause)
        # requests and urllib3 keep the operating system's error as an argument, not as a cause.
        inner = next((arg for arg in cause.args if isinstance(arg, BaseException)), None)
        cause = inner or cause.__cause__ or cause.__context__
    if any(isinstance(each, PermissionError) for each in chain):
        return EngineError(
            f"{where} refuses this user (permission denied)",
            code="engine_refuses_user",
            hint="add the user to the docker group (sudo usermod -aG docker $USER, then log in again),"
            " or use sudo",
        )
    reason = next(
        (each.strerror for each in chain if isinstance(each, OSError) and each.strerror), str(chain[-1])
    )
    return EngineError(
        f"{where} cannot be reached: {reason}",
        hint="start Docker, or say where it is with DOCKER_HOST or docker context use",
    )


def _read_credentials() -> None:
    """The SDK reads them for each client, and would fail as if it were the engine's fault."""
    try:
        load_config()
    except (docker.errors.InvalidConfigFile, ValueError, AttributeError, TypeError) as broken:
        # It looks at no type itself, so Python's words are about its own code.
        told = not isinstance(broken, AttributeError | TypeError)
        reason = str(broken) if told else "it isn't an object with auths, credsStore and credHelpers in it"
        raise CredentialsError(
            f"docker's config.json can't be understood: {reason}",
            still="nothing was touched",
            hint="correct it, or move it away and log in again with docker login",
        ) from broken


def _without_credentials(verb: str, why: Exception) -> CredentialsError:
    return CredentialsError(
        f"the credentials that docker keeps could not be read to {verb}: {why}",
        hint="install the credential helper, or correct credsStore and credHelpers in docker's config.json",
    )


def _said(lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """What a builder says, line by line."""
    for line in lines:
        for each in line.decode(errors="replace").splitlines():
            with suppress(json.JSONDecodeError):
                said = json.loads(each)
                if isinstance(said, dict):
                    yield said


def _filter(labels: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" if value else key for key, value in labels.items()]


def _image(told: Mapping[str, Any]) -> Image:
    return Image(
        id=told["Id"],
        tags=tuple(told.get("RepoTags") or ()),
        created=told.get("Created") or "",
        layers=tuple((told.get("RootFS") or {}).get("Layers") or ()),
        config=told.get("Config") or {},
        digests=tuple(told.get("RepoDigests") or ()),
    )


def _cache_record(told: Mapping[str, Any]) -> CacheRecord:
    used = told.get("LastUsedAt")
    return CacheRecord(
        id=told["ID"],
        kind=told["Type"],
        description=told.get("Description") or "",
        in_use=told["InUse"],
        shared=told["Shared"],
        size=told["Size"],
        made=datetime.fromisoformat(told["CreatedAt"]),
        used=datetime.fromisoformat(used) if used else None,
    )


def _network(told: Mapping[str, Any]) -> Network:
    pools = (told.get("IPAM") or {}).get("Config") or []
    return Network(
        id=told["Id"],
        name=told["Name"],
        labels=told.get("Labels") or {},
        subnet=pools[0].get("Subnet") if pools else None,
    )


@contextmanager
def pack_context(root: Path, dockerfile: str) -> Iterator[tuple[Any, str]]:
    """A build's context as a tar, for the API's builder, with the Dockerfile's name inside it."""
    from docker.api.build import process_dockerfile
    from docker.utils.build import create_archive

    # A Dockerfile outside of the context travels beside it, under a name of its own.
    name, content = process_dockerfile(dockerfile, str(root))
    extra = [(name, content)] if content is not None else []
    files = sorted(context_paths(root, dockerfile))
    packed = create_archive(str(root), files=files, gzip=False, extra_files=extra)
    try:
        yield packed, str(name)
    finally:
        packed.close()
