"""Where requests wait while one writer is replaced: its process, as it runs in the sidecar, without a proxy."""

from __future__ import annotations

import http.server
import json
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from immutable_local.sidecar import parking

PATIENCE_SECONDS = 20.0
pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="the sidecar runs on Linux")


class Instance(http.server.ThreadingHTTPServer):
    """Answers with its name, and counts what it was asked."""

    name = b""
    asked = 0
    request_queue_size = 256


class Answering(http.server.BaseHTTPRequestHandler):
    server: Instance

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.name)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def server(name: bytes = b"old") -> Iterator[Instance]:
    """A server on a port of the loopback."""
    server = Instance(("127.0.0.1", 0), Answering)
    server.name = name
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def instance(name: bytes = b"old") -> Iterator[int]:
    """The port of a server."""
    with server(name) as running:
        yield running.server_address[1]


class Parked:
    """A parking process, and the session that began it."""

    def __init__(
        self,
        folder: Path,
        back: list[tuple[str, int]],
        seconds: float = PATIENCE_SECONDS,
        tcp: bool = False,
        most: int = 10,
        files: str = "",
    ) -> None:
        self.path = folder / "app.web"
        asked = {"path": str(self.path), "seconds": seconds, "most": most, "tcp": tcp, "back": back}
        program = [sys.executable, "-ISB", parking.__file__, json.dumps(asked)]
        self.process = subprocess.Popen(
            ["sh", "-c", f'{files} exec "$@"', "sh", *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def session_ends(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def tell(self, **told: object) -> None:
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(f"{self.path}.ctl")
            control.sendall(json.dumps(told).encode() + b"\n")
            assert json.loads(control.makefile().readline()) is not None

    def request(self) -> socket.socket:
        port = self.path.with_suffix(".web.port")
        client = socket.socket(socket.AF_INET if port.exists() else socket.AF_UNIX)
        client.settimeout(PATIENCE_SECONDS)
        client.connect(("127.0.0.1", int(port.read_text())) if port.exists() else str(self.path))
        client.sendall(b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")
        return client


def answer(client: socket.socket) -> bytes:
    with client, client.makefile("rb") as file:
        return file.read()


def assert_waits(client: socket.socket, seconds: float) -> None:
    """Nothing is answered for so long."""
    client.settimeout(seconds)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(PATIENCE_SECONDS)


@pytest.fixture
def begin(tmp_path: Path):
    begun: list[Parked] = []

    def begin(back: list[tuple[str, int]], **more: Any) -> Parked:
        begun.append(Parked(tmp_path, back, **more))
        return begun[-1]

    yield begin
    for each in begun:
        each.process.kill()
        each.process.wait()
        each.process.stdout.close()


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, nor anybody else can have meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_what_waits_and_what_comes_later_goes_to_the_old_instance_when_nobody_releases_it(begin):
    """The client was killed before it stopped the old instance: that one goes on as if nothing had been."""
    with instance() as port:
        parked = begin([("127.0.0.1", port)])
        waiting = parked.request()
        assert_waits(waiting, 0.3)
        parked.session_ends()
        assert answer(waiting).endswith(b"old")
        assert answer(parked.request()).endswith(b"old")


def test_what_waits_is_told_to_come_again_when_no_instance_is_left(begin):
    """503 with Retry-After: what waits at its bound, what comes later at once."""
    with closed_port() as port:
        parked = begin([("127.0.0.1", port)], seconds=5.0)
        waiting = parked.request()
        parked.session_ends()
        first = answer(waiting)
        began = time.monotonic()
        later = answer(parked.request())
        # It would be 5 s, had it waited like the first.
        assert time.monotonic() - began < 4
    for each in (first, later):
        assert each.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: " in each


def test_an_instance_that_is_stopping_gets_nothing_back_before_it_has_had_its_time(begin):
    """What is begun on it would be lost; one that runs on after that, as the stop never came, gets all."""
    with instance() as port:
        parked = begin([("127.0.0.1", port)])
        parked.tell(stopping=3.0)
        waiting = parked.request()
        parked.session_ends()
        assert_waits(waiting, 1.0)
        assert answer(waiting).endswith(b"old")


def test_what_waits_goes_on_waiting_while_somebody_sweeps(begin):
    """The sweep starts the old instance, and says itself when that one is healthy: it accepts before."""
    with instance() as booting:
        parked = begin([("127.0.0.1", booting)])
        parked.tell(stopping=0.5)
        waiting = parked.request()
        parked.session_ends()
        parked.tell(stopping=60.0)
        # The patience of before: half a second, and the one that a stop may take longer.
        assert_waits(waiting, 3.0)
        parked.tell(to=[["127.0.0.1", booting]])
        assert answer(waiting).endswith(b"old")


def test_what_waits_for_what_nobody_serves_any_more_is_told_at_once(begin):
    """The release that went live has no such service: nobody is kept waiting for it."""
    parked = begin([])
    waiting = parked.request()
    assert_waits(waiting, 0.3)
    began = time.monotonic()
    parked.tell(to=[])
    answers = [answer(each) for each in (waiting, parked.request())]
    # It would be as long as they may wait.
    assert time.monotonic() - began < PATIENCE_SECONDS / 2
    for each in answers:
        assert each.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: " in each


def test_the_next_session_has_the_last_word(begin):
    """Orphaned, and sent back to the old instance, it follows whoever says where the instances are now."""
    with instance() as old, instance(b"new") as new:
        parked = begin([("127.0.0.1", old)])
        parked.session_ends()
        assert answer(parked.request()).endswith(b"old")
        parked.tell(to=[["127.0.0.1", new]])
        assert answer(parked.request()).endswith(b"new")
        parked.tell(close=True)
        assert parked.process.wait(PATIENCE_SECONDS) == 0
        assert not parked.path.exists()


@pytest.mark.parametrize("tcp", [False, True], ids=["socket", "port"])
def test_one_that_ends_late_leaves_its_successors_door_open(begin, tcp: bool):
    """It still passes on a long request of an earlier deployment; the next one parks at the same names."""
    with socket.create_server(("127.0.0.1", 0)) as slow, instance(b"new") as new:
        earlier = begin([], tcp=tcp)
        long = earlier.request()
        earlier.tell(to=[("127.0.0.1", slow.getsockname()[1])])
        passed, _ = slow.accept()
        earlier.tell(close=True)
        later = begin([], tcp=tcp)
        passed.close()
        long.close()
        assert earlier.process.wait(PATIENCE_SECONDS) == 0
        waiting = later.request()
        later.tell(to=[("127.0.0.1", new)])
        assert answer(waiting).endswith(b"new")


@pytest.mark.parametrize("tcp", [False, True], ids=["socket", "port"])
def test_who_gave_up_makes_room_and_what_it_asked_for_is_never_done(begin, tcp: bool):
    """Clients that try again would fill it with what nobody waits for, and all of that would run at the end."""
    with server(b"new") as new:
        parked = begin([], tcp=tcp, most=3)
        for _ in range(20):
            for each in [parked.request() for _ in range(3)]:
                each.close()
        waiting = [parked.request() for _ in range(3)]
        for each in waiting:
            assert_waits(each, 0.1)
        assert answer(parked.request()).startswith(b"HTTP/1.1 503 ")
        parked.tell(to=[new.server_address])
        assert [answer(each)[-3:] for each in waiting] == [b"new"] * 3
        assert new.asked == 3


def test_who_only_ended_its_own_half_still_gets_its_answer(begin):
    """It has said all it wanted, and waits for the answer."""
    with instance(b"new") as new:
        parked = begin([])
        waiting = parked.request()
        waiting.shutdown(socket.SHUT_WR)
        assert_waits(waiting, 0.3)
        parked.tell(to=[("127.0.0.1", new)])
        assert answer(waiting).endswith(b"new")


def test_more_wait_than_the_soft_limit_on_files_allows(begin):
    """Newer engines give containers a soft limit of 1024, where 1000 that wait need 2000 when they go on."""
    with instance(b"new") as new:
        parked = begin([], most=60, files="ulimit -Sn 40; ulimit -Hn 1024;")
        waiting = [parked.request() for _ in range(60)]
        assert_waits(waiting[-1], 0.3)
        parked.tell(to=[("127.0.0.1", new)])
        assert [answer(each)[-3:] for each in waiting] == [b"new"] * 60


def test_at_the_hard_limit_on_files_nobody_is_cut_and_it_goes_on(begin):
    """Who finds no room is told 503, who finds it waits; and both still work afterwards."""
    with instance(b"new") as new:
        parked = begin([], most=1000, files="ulimit -n 64;")
        waiting = [parked.request() for _ in range(200)]
        first = waiting[0]
        assert_waits(first, 0.3)
        parked.tell(to=[("127.0.0.1", new)])
        answers = [answer(each) for each in waiting]
        assert answers[0].endswith(b"new")
        assert {each.split()[1] for each in answers} == {b"200", b"503"}
        assert answer(parked.request()).endswith(b"new")


def test_an_instance_that_is_slow_to_accept_gets_what_is_left_of_the_time_to_wait(begin):
    """Its queue is full at first: what still may wait does, and is not told 503 before its time."""
    with socket.socket() as slow:
        slow.bind(("127.0.0.1", 0))
        slow.listen(0)
        where = slow.getsockname()
        in_the_queue = socket.create_connection(where)
        parked = begin([])
        waiting = [parked.request() for _ in range(3)]
        parked.tell(to=[where])
        # Longer than it takes to be sure that an instance is not there.
        assert_waits(waiting[-1], parking.CONNECT_SECONDS + 1.5)
        in_the_queue.close()
        slow.settimeout(PATIENCE_SECONDS)
        left = len(waiting)
        while left:
            taken, _ = slow.accept()
            with taken:
                if taken.recv(65536):
                    taken.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nslow")
                    left -= 1
        assert [answer(each)[-4:] for each in waiting] == [b"slow"] * 3
