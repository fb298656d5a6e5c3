"""What the SDK raises is translated, and says nothing that it shouldn't."""

from __future__ import annotations

import http.server
import io
import json
import os
import secrets
import socket
import subprocess
import sys
import tarfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from immutable_local.engine import UNTIL_SILENT, Engine, connect
from immutable_local.errors import CredentialsError, EngineError, EngineRefused
from immutable_local.wait import until
from tests.conftest import Machine
from tests.host import Host

KEPT = ({"credsStore": "not-here"}, {"credHelpers": {"registry.example.com": "not-here"}})
ABSENT = "docker-credential-not-here"
TOKEN = secrets.token_hex(8)


class Silent(http.server.BaseHTTPRequestHandler):
    """What stands before an engine, and refuses builds without a word of its own."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Api-Version", "1.41")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(502, "Bad Gateway")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *told: object) -> None:
        pass


@contextmanager
def before_an_engine() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"tcp://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Engine]:
    """An engine's address behind which something refuses builds; docker's config names no helper yet."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with before_an_engine() as address:
        monkeypatch.setenv("DOCKER_HOST", address)
        monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
        yield connect()


def helper(folder: Path, kept: object) -> None:
    (folder / "config.json").write_text(json.dumps(kept))


@pytest.mark.filterwarnings("ignore:docker-credential")
@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: next(iter(kept)))
def test_a_credential_helper_that_is_absent_is_told_with_what_to_do(
    reached: Engine, tmp_path: Path, kept: object
):
    """Docker can be reached: to start it would not help. What needs no credentials never asks for them."""
    helper(tmp_path, kept)
    asked = connect()
    for act in (
        lambda: list(asked.build(io.BytesIO(), tag="t:1")),
        lambda: asked.pull("registry.example.com/x:1"),
    ):
        with pytest.raises(CredentialsError) as failed:
            act()
        assert (failed.value.code, failed.value.exit_code) == ("credentials", 1)
        assert ABSENT in failed.value.message and "config.json" in failed.value.hint
    with pytest.raises(EngineRefused):
        list(asked.build_of_what_is_there(io.BytesIO(), "t:1"))


def test_a_builds_arguments_are_in_no_error_and_in_no_traceback(reached: Engine):
    """The API takes them in the address, which the SDK puts into what it raises."""
    with pytest.raises(EngineRefused) as refused:
        list(reached.build(io.BytesIO(b"tar"), buildargs={"TOKEN": TOKEN}))
    assert refused.value.message == "Docker refused to build an image: 502 Bad Gateway"
    assert TOKEN not in "".join(traceback.format_exception(refused.value))


def test_a_build_that_nobody_hears_tells_no_arguments_either(reached: Engine):
    reached.client.base_url = nobody()
    with pytest.raises(EngineError) as lost:
        list(reached.build(io.BytesIO(b"tar"), buildargs={"TOKEN": TOKEN}))
    assert TOKEN not in "".join(traceback.format_exception(lost.value))


def nobody() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        return f"http://127.0.0.1:{door.getsockname()[1]}"


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: next(iter(kept)))
def test_a_release_is_sealed_without_the_credentials_that_docker_keeps(
    host: Host, tmp_path: Path, kept: object
):
    """It is made of what the engine has; an image that isn't there says what it would need."""
    helper(tmp_path, kept)
    app = host.project()
    app.settings["services"] = {}
    app.service("job", image=host.base, command=["sleep", "1000"], stop_grace_period="1s")
    assert host.up(app, DOCKER_CONFIG=str(tmp_path)).result["outcome"] == "live"
    app.service("job", image="registry.example.com/nobody/nothing:1")
    failed = host.up(app, expect=1, DOCKER_CONFIG=str(tmp_path))
    assert failed.error["code"] == "credentials"
    assert ABSENT in failed.error["message"]
    assert "Warning" not in failed.stderr


def test_an_app_in_a_folder_whose_name_is_not_utf_8_goes_live(host: Host):
    """Neither need what is copied into its image have such a name."""
    app = host.project(folder=os.fsdecode(b"caf\xe9"))
    (app.folder / os.fsdecode(b"na\xefve.txt")).write_text("x")
    app.dockerfile((app.folder / "Dockerfile").read_text() + "COPY . /app/\n")
    assert host.up(app).result["outcome"] == "live"
    assert host.up(app).result["outcome"] == "unchanged"


@pytest.mark.parametrize("target", ["passwd", "/etc/passwd"])
def test_a_link_inside_an_image_is_read_as_what_it_leads_to(host: Host, target: str):
    """Some images keep /etc/passwd elsewhere."""
    asked = connect()
    link, loose = tarfile.TarInfo("link"), tarfile.TarInfo("loose")
    link.type = loose.type = tarfile.SYMTYPE
    link.linkname, loose.linkname = target, "nothing"
    with asked.task(host.base, "t-links") as task:
        asked.put(task, "/etc", [(link, b""), (loose, b"")])
        assert asked.read(task, "/etc/link") == asked.read(task, "/etc/passwd") != b""
        assert asked.read(task, "/etc/loose") is None
        assert asked.read(task, "/etc") is None


def test_what_never_started_and_inherited_the_label_of_a_moment_s_container_stays(
    host: Host, monkeypatch: pytest.MonkeyPatch
):
    """Of what imm makes for a moment only what imm made goes."""
    engine, name = connect(), f"t-{secrets.token_hex(3)}"
    dockerfile = f"FROM {host.base}\nLABEL imm.role=task\n".encode()
    list(host.engine.build(fileobj=io.BytesIO(dockerfile), tag=name, rm=True))
    theirs = engine.create(name, name, command=["true"])
    own = engine.create(f"{name}-own", host.base, command=["true"], labels={"imm.role": "task"})
    try:
        monkeypatch.setattr("immutable_local.engine.ABANDONED_SECONDS", 0)
        for each in (name, f"{name}-own"):
            engine.remove_never_started(each)
        assert (engine.find(theirs) is None, engine.find(own) is None) == (False, True)
    finally:
        engine.remove(theirs)
        engine.remove(own)
        engine.remove_image(name)


def test_who_holds_a_name_for_somebody_ends_with_him_or_when_he_is_silent():
    """At once when nobody is there to say anything any more."""

    def lasts(silence: float, beats: int, then: str) -> float:
        words = [sys.executable, "-ISB", "-c", UNTIL_SILENT.format(seconds=silence)]
        began = time.monotonic()
        with subprocess.Popen(words, stdin=subprocess.PIPE) as holding:
            assert holding.stdin is not None
            for _ in range(beats):
                time.sleep(silence / 4)
                holding.stdin.write(b".")
                holding.stdin.flush()
            if then == "gone":
                holding.stdin.close()
            assert holding.wait(timeout=30) == 0
        return time.monotonic() - began

    assert lasts(1.0, 0, "silent") >= 1.0
    assert lasts(1.0, 8, "silent") >= 3.0
    assert lasts(30.0, 0, "gone") < 15.0


def test_a_name_is_held_while_its_holder_says_something_and_is_free_when_it_does_not(machine: Machine):
    """Only one can hold it; who lost it is told so when he asks."""
    engine, name = connect(), f"t-{secrets.token_hex(3)}-held"
    with engine.name_held(name, machine.base, silence=2.0, beat=0.2) as held:
        assert not until(lambda: not held(), 4.0, pause=0.2)
        with pytest.raises(EngineRefused) as refused, engine.name_held(name, machine.base, 2.0, 0.2):
            pass
        assert refused.value.status == 409
    assert engine.find(name) is None
    with engine.name_held(name, machine.base, silence=0.5, beat=60.0) as held:
        assert until(lambda: engine.find(name) is None, 20.0, pause=0.1)
        assert not held()
        with engine.name_held(name, machine.base, silence=2.0, beat=0.2) as by_another:
            assert by_another() and not held()
