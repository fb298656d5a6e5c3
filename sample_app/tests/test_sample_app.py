"""What the sample app promises to whoever deploys it."""

import hashlib
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from sample_app.app import VERSION, app
from sample_app.notes import Notes


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("DATA", str(tmp_path))
    with TestClient(app) as client:
        yield client


def test_it_is_up_while_its_database_answers(client: TestClient, tmp_path: Path) -> None:
    assert client.get("/up").status_code == 200
    with sqlite3.connect(tmp_path / "notes.sqlite3") as other:
        other.execute("DROP TABLE notes")
    answer = client.get("/up")
    assert answer.status_code == 503
    assert "no such table" in answer.text


def test_it_says_its_version(client: TestClient) -> None:
    assert client.get("/version").json()["version"] == VERSION
    assert f"Version <b>{VERSION}</b>" in client.get("/").text


def test_a_note_is_kept_and_found_again(client: TestClient, tmp_path: Path) -> None:
    assert client.post("/notes", json={"text": "buy milk"}).status_code == 201
    assert client.post("/notes", data={"text": "a < b"}, follow_redirects=False).status_code == 303
    assert client.get("/notes").json()["count"] == 2
    assert client.get("/notes?containing=milk").json()["count"] == 1
    assert "a &lt; b" in client.get("/").text
    assert Notes.beneath(tmp_path).count() == 2


@pytest.mark.parametrize("body", [b"", b"[]", b'{"text": 1}', b'{"text": ""}', b"\xff"])
def test_what_is_no_note_is_refused(client: TestClient, body: bytes) -> None:
    assert client.post("/notes", content=body).status_code == 400
    assert client.get("/notes").json()["count"] == 0


def test_a_slow_answer_takes_as_long_as_asked_within_reason(client: TestClient) -> None:
    assert client.get("/slow?seconds=0.01").json()["seconds"] == 0.01
    assert client.get("/slow?seconds=1e9").status_code == 400
    assert client.get("/slow?seconds=soon").status_code == 400


def test_all_events_are_sent(client: TestClient) -> None:
    answer = client.get("/events?count=3&interval=0.01")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert re.findall(r"^id: (\d+)$", answer.text, re.MULTILINE) == ["1", "2", "3"]


def test_a_websocket_gets_back_what_it_sent(client: TestClient) -> None:
    with client.websocket_connect("/ws") as socket:
        socket.send_text("hello")
        assert socket.receive_text() == "hello"


def test_an_upload_arrives_whole(client: TestClient) -> None:
    body = b"0123456789" * 100_000
    answer = client.post("/upload", content=(body[at : at + 65_536] for at in range(0, len(body), 65_536)))
    assert answer.json()["bytes"] == len(body)
    assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()


def test_processes_that_start_and_write_at_once_lose_nothing(tmp_path: Path) -> None:
    writer = f"""
from pathlib import Path
from sample_app.notes import Notes
notes = Notes.beneath(Path({str(tmp_path)!r}))
for n in range(25):
    notes.add("x", version="1")
"""
    root = Path(__file__).parents[2]
    writers = [subprocess.Popen([sys.executable, "-c", writer], cwd=root) for _ in range(6)]
    assert [process.wait(timeout=60) for process in writers] == [0] * 6
    assert Notes.beneath(tmp_path).count() == 150
