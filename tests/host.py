"""What the tests drive: the real command line, on the real engine, with requests to the real proxy.

Every app has a name and a domain of its own and is taken away again with all that belongs to it. The host's
proxy and other people's apps are never touched.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from immutable_local.engine import connect
from immutable_local.wait import until

ROOT = Path(__file__).resolve().parent.parent
SERVER = Path(__file__).with_name("app") / "server.py"
COMMAND_SECONDS = 120
# Longer than any request of these tests is held.
ANSWER_SECONDS = 60.0
# Containers of a moment, and what others on this engine are just doing, come and go meanwhile.
SETTLE_SECONDS = 15.0
LEAVING_AT_ONCE = 3
# Now and then the engine loses what a command printed that ended at once.
LOST_OUTPUT_TRIES = 3
DOCKERFILE = """\
FROM {base}
WORKDIR /app
COPY server.py VERSION /app/
USER 1000:1000
CMD ["python3", "server.py"]
"""
HEALTHCHECK = {"path": "/up", "interval": "50ms", "timeout": "1s", "start_period": "15s"}
FORGET = """\
import pathlib, shutil, sys
state = pathlib.Path("/imm/state/data")
for name in sys.argv[1:]:
    for kind in ("ledger", "secrets", "logs"):
        shutil.rmtree(state / kind / name, ignore_errors=True)
    files = (f"doing/{name}.json", f"origins/{name}.json", f"builds/{name}.jsonl", f"locks/app-{name}")
    for path in files:
        (state / path).unlink(missing_ok=True)
"""


@dataclass(frozen=True)
class Answer:
    """What a client of the proxy gets."""

    status: int
    headers: Mapping[str, str]
    text: str


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it said. `told` fails when a line of standard output isn't JSON."""

    code: int
    stdout: str
    stderr: str

    @property
    def told(self) -> list[Any]:
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def result(self) -> Any:
        """The last thing told."""
        return self.told[-1]

    @property
    def error(self) -> dict[str, Any]:
        return dict(self.result["error"])

    def states(self, *steps: str) -> list[str]:
        """How each of these steps ended."""
        ended = {each["step"]: each["state"] for each in self.told if each.get("event") == "step"}
        return [ended[step] for step in steps]


@dataclass(frozen=True)
class Running:
    """A command at work."""

    process: subprocess.Popen[str]
    output: Path

    def has_begun(self, step: str) -> bool:
        whole = [
            json.loads(line) for line in self.output.read_text().splitlines(keepends=True) if line[-1] == "\n"
        ]
        begun = any(each.get("step") == step and each["state"] == "begun" for each in whole)
        return begun or self.has_ended

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def interrupt(self, number: int = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def ends(self, *expect: int) -> Outcome:
        """Wait for its end, and look at its exit code: 0, or one of these."""
        stderr = self.process.communicate(timeout=COMMAND_SECONDS)[1]
        outcome = Outcome(self.process.returncode, self.output.read_text(), stderr)
        assert outcome.code in (expect or (0,)), f"ended with {outcome.code}:\n{outcome.stdout}{stderr}"
        return outcome


@dataclass
class Project:
    """A folder with an imm.toml, a Dockerfile and the tests' app."""

    name: str
    folder: Path
    settings: dict[str, Any]

    @classmethod
    def make(cls, name: str, folder: Path, base: str) -> Self:
        """Write a folder whose version 1 can be deployed."""
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(SERVER, folder / "server.py")
        (folder / "Dockerfile").write_text(DOCKERFILE.format(base=base))
        web = {"port": 8000, "healthcheck": HEALTHCHECK, "stop_grace_period": "2s", "drain": "10s"}
        return cls(name, folder, {"name": name, "services": {"web": web}}).version("1")

    @property
    def file(self) -> Path:
        return self.folder / "imm.toml"

    @property
    def domain(self) -> str:
        return f"{self.name}.localhost"

    def version(self, version: str, **web: Any) -> Self:
        """What /version answers; with more keys for services.web, as `service` takes them."""
        (self.folder / "VERSION").write_text(version)
        return self.service("web", **web)

    def service(self, service: str, behave: str | None = None, **keys: Any) -> Self:
        """Set keys of a service; None takes one away. `behave` is what the app does wrong."""
        told = self.settings["services"].setdefault(service, {})
        told.update(keys)
        if behave is not None:
            told["environment"] = {**told.get("environment", {}), "BEHAVE": behave}
        self.settings["services"][service] = {key: each for key, each in told.items() if each is not None}
        return self.write()

    def set(self, **tables: Any) -> Self:
        """Set keys at the top of imm.toml."""
        self.settings.update(tables)
        return self.write()

    def dockerfile(self, text: str) -> Self:
        (self.folder / "Dockerfile").write_text(text)
        return self

    def write(self) -> Self:
        self.file.write_text("".join(f"{key} = {_toml(each)}\n" for key, each in self.settings.items()))
        return self

    def at(self, folder: Path) -> Project:
        """The same app, as it stands in another folder already."""
        return Project(self.name, folder, self.settings)


class Host:
    """An engine with imm's proxy on it, and the apps that one test puts there."""

    def __init__(
        self, folder: Path, base: str, proxy: tuple[str, int], environment: Mapping[str, str] | None = None
    ):
        self.folder = folder
        self.base = base
        self.proxy = proxy
        self.environment = dict(environment or {})
        self.engine = connect().client
        self.projects: list[Project] = []

    # Commands

    def project(self, name: str | None = None, folder: str | None = None) -> Project:
        name = name or f"t-{secrets.token_hex(3)}"
        made = Project.make(name, self.folder / (folder or name), self.base)
        self.projects.append(made)
        return made

    def imm(
        self,
        project: Project,
        *words: str,
        expect: int = 0,
        told: str = "",
        text: bool = False,
        prefix: Sequence[str] = (),
        **environment: str,
    ) -> Outcome:
        """Run a command, look at its exit code. `told` goes to standard input; `text` leaves --json out."""
        done = subprocess.run(
            [*prefix, *self.command(project, *words, text=text)],
            input=told,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            cwd=project.folder,
            env={**os.environ, **self.environment, **environment},
            check=False,
        )
        outcome = Outcome(done.returncode, done.stdout, done.stderr)
        assert outcome.code == expect, (
            f"imm {' '.join(words)} ended with {outcome.code}:\n{outcome.stdout}{outcome.stderr}"
        )
        return outcome

    def up(self, project: Project, *words: str, expect: int = 0, **more: Any) -> Outcome:
        return self.imm(project, "up", *words, expect=expect, **more)

    def revert(self, project: Project, *words: str, expect: int = 0, **more: Any) -> Outcome:
        return self.imm(project, "revert", *words, expect=expect, **more)

    def status(self, project: Project) -> Any:
        return self.imm(project, "status").result

    def history(self, project: Project) -> list[dict[str, Any]]:
        return list(self.imm(project, "history").result)

    @contextmanager
    def begun(self, project: Project, *words: str, step: str, **environment: str) -> Iterator[Running]:
        """A command that has begun that step, and goes on beside the test."""
        with (self.folder / f"{secrets.token_hex(4)}.out").open("w+") as output:
            process = subprocess.Popen(
                self.command(project, *words),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                cwd=project.folder,
                env={**os.environ, **self.environment, **environment},
            )
            running = Running(process, Path(output.name))
            try:
                until(lambda: running.has_begun(step), COMMAND_SECONDS, pause=0.01)
                assert running.has_begun(step), running.ends()
                yield running
            finally:
                process.terminate()
                process.wait(COMMAND_SECONDS)
                assert process.stderr is not None
                process.stderr.close()

    def command(self, project: Project, *words: str, text: bool = False) -> list[str]:
        command = [sys.executable, "-m", "immutable_local", "--file", str(project.file), *words]
        return command if text else [*command, "--json"]

    def let_go(self, project: Project) -> None:
        """Let those instances boot that behave = "wait" holds up."""
        for name in self.running(project):
            assert self.execute(name, "touch", "/tmp/go")[0] == 0

    # Requests

    def ask(
        self,
        path: str,
        project: Project | None = None,
        *,
        domain: str | None = None,
        method: str = "GET",
        body: bytes | None = None,
    ) -> Answer:
        """One request to the proxy, for the domain of the project (the test's first)."""
        connection = self.connection()
        try:
            host = domain or (project or self.projects[0]).domain
            connection.request(method, path, body=body, headers={"Host": host})
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, headers, answer.read().decode())
        finally:
            connection.close()

    def get(self, path: str, project: Project | None = None, **more: Any) -> str:
        """The text of an answer that must be 200."""
        answer = self.ask(path, project, **more)
        assert answer.status == 200, answer
        return answer.text

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self.proxy, timeout=ANSWER_SECONDS)

    # What is there

    def instances(self, project: Project) -> list[dict[str, Any]]:
        """Every container of the app, running or not, by name."""
        found = self.engine.containers(all=True, filters={"label": f"imm.app={project.name}"})
        return sorted(found, key=lambda each: each["Names"][0])

    def running(self, project: Project | None = None) -> list[str]:
        """The names of the app's running containers."""
        every = self.instances(project or self.projects[0])
        return [each["Names"][0].lstrip("/") for each in every if each["State"] == "running"]

    def inspect(self, name: str) -> dict[str, Any]:
        return dict(self.engine.inspect_container(name))

    def execute(self, name: str, *words: str, user: str = "") -> tuple[int, str]:
        """Run a command inside a container: its exit code, and what it printed."""
        made = self.engine.exec_create(name, list(words), user=user)["Id"]
        printed = self.engine.exec_start(made).decode()
        return self.engine.exec_inspect(made)["ExitCode"], printed

    def printed(self, name: str, *words: str, user: str = "", expect: int = 0) -> str:
        """What a command printed inside a container, which only looks, and says something whatever it sees."""
        for _ in range(LOST_OUTPUT_TRIES):
            code, said = self.execute(name, *words, user=user)
            assert code == expect, f"{words[0]} ended with {code}: {said}"
            if said:
                return said
        raise AssertionError(f"{words[0]} printed nothing in {LOST_OUTPUT_TRIES} runs")

    def images(self, project: Project) -> list[str]:
        """Every image of the app, by tag; one that has none by its id."""
        found = self.engine.images(filters={"label": f"imm.app={project.name}"})
        return sorted(tag for each in found for tag in (_tags(each) or [each["Id"]]))

    def releases(self, project: Project) -> list[int]:
        """The releases whose images the engine holds."""
        prefix = f"imm.local/app/{project.name}:"
        return sorted(int(tag.removeprefix(prefix)) for tag in self.images(project) if tag.startswith(prefix))

    def cached(self) -> set[str]:
        """The records that the builder keeps, by id."""
        return {each["ID"] for each in self.engine.df()["BuildCache"] or []}

    def holdings(self) -> set[str]:
        """What docker ps -a, images, network ls and volume ls show, but for other apps' things."""
        found = []
        for each in self.engine.containers(all=True):
            found.append((f"container {each['Names'][0]} {each['Id'][:12]} {each['State']}", each))
        for each in self.engine.images():
            found.append((f"image {each['Id']} {_tags(each)}", each))
        for each in self.engine.networks():
            found.append((f"network {each['Name']} {each['Id'][:12]}", each))
        for each in self.engine.volumes()["Volumes"] or []:
            found.append((f"volume {each['Name']}", each))
        mine = {None, *(each.name for each in self.projects)}
        return {told for told, each in found if (each.get("Labels") or {}).get("imm.app") in mine}

    @contextmanager
    def nothing_left_over(self) -> Iterator[None]:
        """What the engine holds is the same after as before."""
        before = self.holdings()
        yield
        until(lambda: self.holdings() == before, SETTLE_SECONDS, pause=0.2)
        assert self.holdings() ^ before == set()

    # The end

    def close(self) -> None:
        """Take every app off, and all that belongs to it."""
        with ThreadPoolExecutor(LEAVING_AT_ONCE) as beside:
            list(beside.map(self._take_off, {each.name for each in self.projects}))
        code, printed = self.execute(
            "imm-sidecar", "python3", "-c", FORGET, *(each.name for each in self.projects)
        )
        assert code == 0, printed

    def _take_off(self, name: str) -> None:
        mine = {"label": f"imm.app={name}"}
        if not self.engine.containers(all=True, filters=mine) and not self.engine.networks(filters=mine):
            # It was refused, or is down already.
            self._remove(name)
            return
        folder = self.folder / f"{name}-leaves"
        folder.mkdir()
        project = Project(name, folder, {"name": name, "services": {"gone": {"image": "none"}}}).write()
        self.imm(project, "down", "--wait", "20s")
        self._remove(name)

    def _remove(self, name: str) -> None:
        mine = {"label": f"imm.app={name}"}
        left = self.engine.containers(all=True, filters=mine)
        for each in left:
            self.engine.remove_container(each["Id"], force=True, v=True)
        for each in self.engine.networks(filters=mine):
            self.engine.remove_network(each["Id"])
        for each in self.engine.volumes(filters=mine)["Volumes"] or []:
            self.engine.remove_volume(each["Name"])
        for each in self.engine.images(filters=mine):
            for reference in _tags(each) or [each["Id"]]:
                self.engine.remove_image(reference, force=True)
        assert not left, f"imm down left {[each['Names'] for each in left]}"


def _tags(image: Mapping[str, Any]) -> list[str]:
    return [tag for tag in image.get("RepoTags") or [] if tag != "<none>:<none>"]


def _toml(value: Any) -> str:
    """A value as TOML, tables inline: JSON's other values are written alike."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    # TOML knows no surrogates, and wants DEL escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
