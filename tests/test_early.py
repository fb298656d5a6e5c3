"""A session that begins before the Docker SDK is loaded: where it may, and that nothing hangs on it."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest

from immutable_local import early
from immutable_local.engine import connect
from immutable_local.host import begin
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


def test_a_context_in_the_environment_is_left_to_the_sdk(configured: Path, monkeypatch: pytest.MonkeyPatch):
    """DOCKER_CONTEXT says where the engine is, unless DOCKER_HOST does."""
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    assert early.local_socket() is None
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/docker.sock")
    assert early.local_socket() == "/run/docker.sock"


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
    path = configured / "some.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def answer() -> None:
            client, _ = listening.accept()
            with client:
                client.recv(65536)
                client.sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        assert early.reach() is None


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
def test_a_sidecar_that_stands_still_is_waited_for_as_before(host: Host, app: Project):
    """A container that can't be entered: nothing of it is begun early, and nothing is raised."""
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
