"""A session that begins before the Docker SDK is loaded: where it may, and that nothing hangs on it."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from immutable_local import early
from immutable_local.engine import connect
from immutable_local.host import begin
from immutable_local.wait import until
from tests.host import Host, Project

NAMES = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG")


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment that names no engine, and the folder of docker's configuration."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("named", "path"),
    [
        ("", early.SOCKET),
        ("unix:///run/user/1000/docker.sock", "/run/user/1000/docker.sock"),
        ("unix://relative.sock", None),
        ("tcp://127.0.0.1:2375", None),
        ("ssh://somebody@somewhere", None),
        ("rubbish", None),
    ],
)
def test_only_a_socket_of_this_machine_is_asked_early(
    configured: Path, monkeypatch: pytest.MonkeyPatch, named: str, path: str | None
):
    """What DOCKER_HOST names, else the default socket."""
    monkeypatch.setenv("DOCKER_HOST", named)
    assert early.local_socket() == path


@pytest.mark.parametrize(
    "configuration", ['{"currentContext": "far"}', '{"HttpHeaders": {"X-Way": "1"}}', "{", "[3, []]", "3"]
)
def test_what_docker_s_configuration_says_of_the_engine_is_left_to_the_sdk(
    configured: Path, configuration: str
):
    """Another context, headers for each request, or what can't be understood."""
    (configured / "config.json").write_text(configuration)
    assert early.local_socket() is None


def test_credentials_in_docker_s_configuration_change_nothing(configured: Path):
    """They are for registries."""
    (configured / "config.json").write_text(json.dumps({"auths": {}, "credsStore": "desktop"}))
    assert early.local_socket() == early.SOCKET


def test_the_default_context_is_this_machine_s_engine(configured: Path, monkeypatch: pytest.MonkeyPatch):
    """As imm itself notes it, for whoever asks again."""
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert early.local_socket() == early.SOCKET


def test_a_context_in_the_environment_is_left_to_the_sdk(configured: Path, monkeypatch: pytest.MonkeyPatch):
    """DOCKER_CONTEXT says where the engine is, unless DOCKER_HOST does."""
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    assert early.local_socket() is None
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/docker.sock")
    assert early.local_socket() == "/run/docker.sock"


STRANGER = {"Id": "y", "Names": ["/some"], "Labels": {"imm.role": "sidecar"}, "State": "running"}
SIDECAR = {**STRANGER, "Id": "x", "Names": ["/imm-sidecar"], "Mounts": [{"Name": "imm-state"}]}


def listing(*containers: object) -> bytes:
    """How an engine lists these."""
    told = json.dumps(containers).encode()
    return b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: %d\r\n\r\n%s" % (len(told), told)


LISTED = listing(STRANGER, SIDECAR)
MADE = b'HTTP/1.1 201 Created\r\nApi-Version: 1.41\r\nContent-Length: 11\r\n\r\n{"Id": "y"}'


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\x00\x01rubbish\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nrubbish",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 3\r\n\r\n[3]",
        b"HTTP/1.1 500 Broken\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\n{}",
        b'HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 70\r\n\r\n[{"Id": "x", "Lab',
    ],
)
def test_something_else_behind_the_socket_is_left_to_the_sdk(
    configured: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
):
    """Whatever answers there, and however it ends: it is the SDK that says so."""
    with answering(configured / "some.sock", monkeypatch, said):
        assert early.reach() is None


@pytest.mark.parametrize(
    "said",
    [
        [b"HTTP/1.1 409 Conflict\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\n{}"],
        [],
        [MADE, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
        [MADE, b"HTTP/1.1 101 UPG"],
        [MADE],
    ],
    ids=["a-sidecar-that-just-ended", "cut", "no-upgrade", "cut-in-the-upgrade", "cut-before-the-upgrade"],
)
def test_a_sidecar_that_can_not_be_entered_is_left_to_the_sdk(
    configured: Path, monkeypatch: pytest.MonkeyPatch, said: list[bytes]
):
    """It was there when it was listed, and isn't any more."""
    with answering(configured / "some.sock", monkeypatch, LISTED, *said):
        assert early.reach() is None


def test_what_is_not_the_sidecar_is_not_entered(configured: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever its labels say, which it may have from its image."""
    with answering(configured / "some.sock", monkeypatch, listing(STRANGER)):
        reached = early.reach()
    assert reached is not None and reached.session is None
    assert [each.id for each in reached.listed] == ["y"]


def test_an_engine_that_says_nothing_is_left_to_the_sdk(configured: Path, monkeypatch: pytest.MonkeyPatch):
    """The SDK waits longer, and says for what."""
    monkeypatch.setattr(early, "ANSWER_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(configured / "some.sock"))
        listening.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{configured / 'some.sock'}")
        assert early.reach() is None


def test_a_session_that_ended_since_is_begun_anew(configured: Path, monkeypatch: pytest.MonkeyPatch):
    """Upgraded, and then gone with its sidecar: whoever takes it over can tell."""
    upgraded = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\n\r\n"
    with answering(configured / "some.sock", monkeypatch, LISTED, MADE, upgraded):
        reached = early.reach()
        assert reached is not None and reached.session is not None
        session = reached.session
        assert until(lambda: session.ended, 10.0, pause=0.01)
    assert not reached.is_of("unix:///another.sock")
    assert reached.is_of(f"unix://{configured / 'some.sock'}")


@contextmanager
def answering(path: Path, monkeypatch: pytest.MonkeyPatch, *said: bytes) -> Iterator[None]:
    """Something behind a socket that DOCKER_HOST names: it says these things, one for each that it hears."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def answer() -> None:
            client, _ = listening.accept()
            with client, client.makefile("rb") as heard:
                for each in said:
                    hear(heard)
                    client.sendall(each)
                # What the client still says is heard: closing over it would be another way to end.
                client.shutdown(socket.SHUT_WR)
                heard.read()

        threading.Thread(target=answer, daemon=True).start()
        yield


def hear(heard: IO[bytes]) -> None:
    """One whole request."""
    length = 0
    while (line := heard.readline()).strip():
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    heard.read(length)


def test_nothing_behind_the_socket_is_left_to_the_sdk(configured: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{configured / 'absent.sock'}")
    assert early.reach() is None


@pytest.mark.engine
def test_what_is_begun_early_is_what_the_sdk_would_have_begun(host: Host, app: Project):
    """The same API, the same containers, and a session that answers."""
    if early.local_socket() is None:
        pytest.skip("this engine isn't behind a socket of this machine")
    host.up(app)
    reached = early.reach()
    assert reached is not None
    early_begun, begun = begin(connect(reached.api), reached), begin(connect())
    assert early_begun.engine.client.api_version == begun.engine.client.api_version
    assert {each.id: each for each in early_begun.listed} == {each.id: each for each in begun.listed}
    assert early_begun.host is not None and begun.host is not None
    assert early_begun.host.asked == begun.host.asked
    for each in (early_begun.host, begun.host):
        assert each.session.ask("hello")["interfaces"]
        each.close()


@pytest.mark.engine
def test_docker_s_configuration_is_the_sdk_s_to_find(
    host: Host, app: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """It looks into the home folder when DOCKER_CONFIG's has none: what was begun on another engine is left."""
    host.up(app)
    (tmp_path / "home" / ".docker").mkdir(parents=True)
    (tmp_path / "home" / ".docker" / "config.json").write_text('{"currentContext": "far"}')
    about = tmp_path / "home" / ".docker" / "contexts" / "meta" / hashlib.sha256(b"far").hexdigest()
    about.mkdir(parents=True)
    (about / "meta.json").write_text(
        json.dumps({"Name": "far", "Metadata": {}, "Endpoints": {"docker": {"Host": "unix:///nowhere.sock"}}})
    )
    # These tests' own way to the engine is in the environment.
    unnamed = dict.fromkeys(("DOCKER_HOST", "DOCKER_CONTEXT"), "")
    way = {"HOME": str(tmp_path / "home"), "DOCKER_CONFIG": str(tmp_path), **unnamed}
    refused = host.imm(app, "status", expect=4, **way)
    assert "unix:///nowhere.sock" in refused.stderr


@pytest.mark.engine
def test_a_sidecar_that_stands_still_is_not_entered(host: Host, app: Project):
    """It doesn't run, as the engine lists it: nothing is begun early, and nothing is raised."""
    if early.local_socket() is None:
        pytest.skip("this engine isn't behind a socket of this machine")
    host.up(app)
    host.engine.pause("imm-sidecar")
    try:
        reached = early.reach()
        assert reached is None or reached.session is None
    finally:
        host.engine.unpause("imm-sidecar")
    assert host.status(app)["live"]["release"] == 1
