"""Between a client and the engine's socket: notes each request, and each thing asked of the sidecar.

What is noted is a count first: it doesn't depend on how busy the machine is. With `seconds` every piece of
a stream is held up on its way, as a line of that length would: half a round trip each way.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

# A client sends a request's head in a piece of its own, and the next one when the answer has come.
HEAD = re.compile(rb"(GET|HEAD|POST|PUT|DELETE) (?:/v[0-9.]+)?(/\S*) HTTP/1\.[01]\r\n")
ASKED = re.compile(rb'"do": "(\w+)"')
PIECE = 1 << 16
# What the Docker SDK calls itself, and imm before the SDK is loaded; the builder calls itself otherwise.
ASKING = re.compile(rb"(?i)user-agent: (docker-sdk-python|imm)")


@dataclass(frozen=True)
class Noted:
    """One request of imm's (`GET /containers/json`), of the builder's, or one to the sidecar."""

    kind: str
    """`request`, `builder`, `sidecar`"""
    what: str
    at: float
    """When it passed, on the monotonic clock."""


class Relay:
    """Listens on a socket and passes on what comes to the engine's. `noted` grows meanwhile."""

    def __init__(self, listening: socket.socket, reach: Callable[[], socket.socket], delay: float) -> None:
        self.noted: list[Noted] = []
        self._listening = listening
        self._reach = reach
        self._delay = delay
        threading.Thread(target=self._accept, daemon=True).start()

    def of_kind(self, kind: str) -> list[str]:
        """What was noted of this kind, in its order."""
        return [each.what for each in self.noted if each.kind == kind]

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
                if client.family == socket.AF_INET:
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                engine = self._reach()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client, engine, self._note), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(engine, client, None), daemon=True).start()

    def _pass_on(
        self, source: socket.socket, target: socket.socket, note: Callable[[bytes], None] | None
    ) -> None:
        pieces: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
        if self._delay:
            threading.Thread(target=_deliver, args=(pieces, target), daemon=True).start()
        piece = b"more"
        while piece:
            try:
                piece = source.recv(PIECE)
            except OSError:
                piece = b""
            if note is not None and piece:
                note(piece)
            if self._delay:
                pieces.put((time.monotonic() + self._delay, piece))
            else:
                _send(target, piece)

    def _note(self, piece: bytes) -> None:
        head = HEAD.match(piece)
        if head is not None:
            kind = "request" if ASKING.search(piece) else "builder"
            self.noted.append(Noted(kind, f"{head[1].decode()} {head[2].decode()}", time.monotonic()))
            return
        if piece.startswith(b'{"id": '):
            for line in piece.splitlines():
                asked = ASKED.search(line)
                if asked is not None and asked[1] != b"beat":
                    self.noted.append(Noted("sidecar", asked[1].decode(), time.monotonic()))


def _deliver(pieces: SimpleQueue[tuple[float, bytes]], target: socket.socket) -> None:
    piece = b"more"
    while piece:
        due, piece = pieces.get()
        time.sleep(max(0.0, due - time.monotonic()))
        _send(target, piece)


def _send(target: socket.socket, piece: bytes) -> None:
    """An empty piece is the end of what comes this way; the other way may go on."""
    with suppress(OSError):
        if piece:
            target.sendall(piece)
        else:
            target.shutdown(socket.SHUT_WR)


@contextmanager
def counting(path: Path, engine: Path) -> Iterator[Relay]:
    """A socket at `path` that leads to the engine's, noting what passes."""

    def reach() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(engine))
        return connection

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(64)
        try:
            yield Relay(listening, reach, 0.0)
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            path.unlink()


@contextmanager
def distant(address: str, port: int, round_trip: float) -> Iterator[int]:
    """A port of the loopback that leads there over a line with this round trip; yields its number."""

    def reach() -> socket.socket:
        connection = socket.create_connection((address, port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        try:
            Relay(listening, reach, round_trip / 2)
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
