"""The bench's own arithmetic, and the relay that counts requests."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from pathlib import Path

from bench.speed.relay import counting, distant
from bench.speed.report import cells, markdown, told
from bench.speed.row import Bound, Row, Unmeasured, missed

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def row(imm: float, floor: float, bound: Bound) -> Row:
    return Row("key", "figure", (imm / 2, imm, imm * 9), "by hand", (floor / 2, floor, floor * 9), bound)


def test_a_median_at_its_bound_is_within_it_and_one_beyond_is_not() -> None:
    """One slow sample decides nothing; the bound is times the floor and a fixed part."""
    bound = Bound(times=1.5, plus=0.25)
    assert row(1.75, 1.0, bound).met
    assert not row(1.76, 1.0, bound).met
    assert row(1.75, 1.0, bound).ratio == 1.75


def test_where_more_is_better_less_than_the_bound_is_not_met() -> None:
    bound = Bound(times=0.75, least=True)
    assert row(75, 100, bound).met
    assert not row(74, 100, bound).met


def test_a_flat_bound_counts_where_it_is_more_than_the_multiple() -> None:
    bound = Bound(times=6, flat=0.12)
    assert row(0.12, 0.01, bound).met
    assert not row(0.13, 0.01, bound).met
    assert row(0.13, 0.03, bound).met


def test_a_row_that_is_not_measured_is_told_and_never_counts_as_met_or_missed() -> None:
    unmeasured = Unmeasured("ssh", "not installed: sshd")
    assert missed([unmeasured, row(2, 1, Bound(times=1)), row(1, 1, Bound(times=1))]) == ["key"]
    assert cells(unmeasured)[0] == "ssh: not measured: not installed: sshd"


def test_the_table_for_the_docs_says_how_many_samples_its_medians_are_of() -> None:
    """Written by hand they would be of another run one day."""
    said = markdown([row(1, 1, Bound(times=1)), Unmeasured("ssh", "not installed: sshd")])
    assert "\nMedians of so many samples: key 3. Load average at the end: " in said


def test_values_are_told_in_the_unit_that_people_read() -> None:
    assert [told(0.0123, "s"), told(0.4123, "s"), told(1.5, "s")] == ["12.3 ms", "412 ms", "1.50 s"]
    assert [told(18_300.4, "/s"), told(27, "count")] == ["18,300 /s", "27"]


class Server:
    """Answers every request of every connection alike."""

    def __init__(self, listening: socket.socket) -> None:
        self.listening = listening
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self.listening.accept()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    @staticmethod
    def _answer(connection: socket.socket) -> None:
        while connection.recv(65536):
            connection.sendall(ANSWER)


class Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=5)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


def test_each_request_of_the_sdk_is_counted_once_and_a_builders_apart(tmp_path: Path) -> None:
    """On a kept connection; what is asked of the sidecar is told by its name, beats left out."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "engine.sock"))
        listening.listen()
        Server(listening)
        with counting(tmp_path / "relay.sock", tmp_path / "engine.sock") as relay:
            kept = Connection(tmp_path / "relay.sock")
            for agent, path in (("docker-sdk-python/7", "/v1.41/images/json"), ("Docker-Client", "/build")):
                kept.request("GET", path, headers={"User-Agent": agent})
                assert kept.getresponse().read() == b"ok"
            for line in (b'{"id": 1, "do": "lock"}\n', b'{"id": 2, "do": "beat"}\n'):
                kept.sock.sendall(line)
                assert kept.sock.recv(4096) == ANSWER
            kept.close()
            assert relay.of_kind("request") == ["GET /images/json"]
            assert relay.of_kind("builder") == ["GET /build"]
            assert relay.of_kind("sidecar") == ["lock"]


def test_a_distant_server_answers_a_round_trip_later() -> None:
    """Each way takes half of it, and nothing is lost or changed on the way."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        Server(listening)
        with distant("127.0.0.1", listening.getsockname()[1], 0.06) as port:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.connect()
            began = time.monotonic()
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"ok"
            assert time.monotonic() - began >= 0.06
            connection.close()
