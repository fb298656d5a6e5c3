"""What the sidecar says of an address that no app has."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator

import pytest

from immutable_local.sidecar.page import Page, Server


@pytest.fixture
def port() -> Iterator[int]:
    with Server(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "TRACE", "PROPFIND"])
def test_nobodys_address_is_nobodys_whatever_is_asked(port: int, method: str):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(method, "/x", headers={"Host": "nobody.example:8080"})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Server"]) == (404, "imm")
    assert answer.read() == b"404: this is imm's proxy, and no app here serves nobody.example/x\n"
    connection.close()


def test_whoever_still_sends_reads_the_answer(port: int):
    """An answer over which the connection is reset is none: a proxy would tell its client 502."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(b"POST /x HTTP/1.1\r\nHost: nobody.example\r\nContent-Length: 3000000\r\n\r\n")
        for _ in range(30):
            client.sendall(b"x" * 100_000)
        with client.makefile("rb") as answer:
            assert answer.read().startswith(b"HTTP/1.1 404 ")
