"""One HTTP/1.1 connection of a client that sends each request once and says exactly what became of it.

By hand, since client libraries send some requests again when a kept-alive connection turns out to be
closed, and that is the very loss to be counted.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self


class Lost(Exception):
    """The request that was under way got no whole answer. Its text is the cause."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes


class Connection(asyncio.Protocol):
    """A connection that carries one request at a time."""

    def __init__(self, round_trip: float = 0.0) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._one_way = round_trip / 2
        self._coming: deque[tuple[bytes | None, bool]] = deque()
        self._going: deque[bytes] = deque()
        self._waiting: asyncio.Future[Answer] | None = None
        self._on_piece: Callable[[bytes], None] | None = None
        self._received = bytearray()
        self._body = bytearray()
        self._status = 0
        self._left: int | None = 0
        self._keep = True
        self.closed = False
        """Whether it is known here that no further request can be sent."""
        self.answers = 0
        """How many requests were answered on it."""

    @classmethod
    async def open(cls, address: str, port: int, *, timeout: float, round_trip: float = 0.0) -> Self:
        """Connect. `Lost` when that fails, or takes longer than `timeout` seconds."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                _, connection = await loop.create_connection(lambda: cls(round_trip), address, port)
        except TimeoutError:
            raise Lost("timeout") from None
        except ConnectionRefusedError:
            raise Lost("refused") from None
        except ConnectionResetError:
            raise Lost("reset") from None
        except OSError as failed:
            raise Lost(f"no connection: {failed.strerror}") from None
        if round_trip:
            await asyncio.sleep(round_trip)
        return connection

    def begin(
        self, *, timeout: float, on_piece: Callable[[bytes], None] | None = None
    ) -> "asyncio.Future[Answer]":
        """Expect an answer within `timeout` seconds: `Lost` is raised when there is none, and says why.

        `on_piece` is told of each piece of its body as it comes.
        """
        assert self._waiting is None, "one request at a time"
        self._waiting = answer = self._loop.create_future()
        self._on_piece = on_piece
        self._status, self._left = 0, 0
        self._body.clear()
        if self.closed:
            self._lose("closed")
        else:
            expiry = self._loop.call_later(timeout, self._lose, "timeout")
            answer.add_done_callback(lambda _: expiry.cancel())
        return answer

    def send(self, data: bytes) -> None:
        """Send a part of a request."""
        if self._one_way:
            self._going.append(data)
            self._loop.call_later(self._one_way, self._send_next)
        else:
            self._write(data)

    def close(self) -> None:
        """Close it at once, and wait no more for an answer."""
        self.closed = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()
        if self._transport is not None:
            self._transport.close()

    def _send_next(self) -> None:
        self._write(self._going.popleft())

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._arrive(data)

    def eof_received(self) -> bool:
        self._arrive(None)
        # Over a long link the client goes on sending until it hears of the end.
        return bool(self._one_way)

    def connection_lost(self, error: Exception | None) -> None:
        if isinstance(error, ConnectionResetError | BrokenPipeError):
            self._arrive(b"", reset=True)
        else:
            self._arrive(None)

    # What comes in, late by half a round trip.

    def _arrive(self, data: bytes | None, *, reset: bool = False) -> None:
        if self._one_way:
            self._coming.append((data, reset))
            self._loop.call_later(self._one_way, self._receive_next)
        else:
            self._receive(data, reset)

    def _receive_next(self) -> None:
        self._receive(*self._coming.popleft())

    def _receive(self, data: bytes | None, reset: bool) -> None:
        if data is None or reset:
            self.closed = True
            self._lose("reset" if reset else "closed")
        elif self._waiting is None:
            # An answer nobody asked for, such as 408: the server is about to close.
            self.close()
        else:
            self._received += data
            try:
                self._parse()
            except ValueError:
                self._lose("wrong answer: not one HTTP answer")

    def _lose(self, cause: str) -> None:
        waiting, self._waiting = self._waiting, None
        self.close()
        if waiting is not None and not waiting.done():
            begun = self._status or self._received
            waiting.set_exception(
                Lost("cut in the answer" if begun and cause in ("closed", "reset") else cause)
            )

    # HTTP/1.1, as much of it as answers use.

    def _parse(self) -> None:
        if not self._status and not self._parse_head():
            return
        if self._left is None:
            while self._parse_chunk():
                pass
        elif len(self._received) >= self._left:
            self._take(self._left)
            self._finish()

    def _parse_head(self) -> bool:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._received[:end]).lower()
        del self._received[: end + 4]
        if not head.startswith(b"http/1."):
            raise ValueError(head)
        self._status = int(head[9:12])
        self._keep = b"\r\nconnection: close" not in head
        length = head.find(b"\r\ncontent-length:")
        if b"\r\ntransfer-encoding: chunked" in head:
            self._left = None
        elif length >= 0:
            self._left = int(head[length + 17 :].split(b"\r\n", 1)[0])
        elif self._status in (204, 304):
            self._left = 0
        else:
            raise ValueError("an answer without a length")
        return True

    def _parse_chunk(self) -> bool:
        end = self._received.find(b"\r\n")
        if end < 0:
            return False
        size = int(self._received[:end], 16)
        if len(self._received) < end + size + 4:
            return False
        del self._received[: end + 2]
        if size:
            self._take(size)
        del self._received[:2]
        if not size:
            self._finish()
        return size > 0

    def _take(self, size: int) -> None:
        piece = bytes(self._received[:size])
        del self._received[:size]
        self._body += piece
        if self._on_piece is not None:
            self._on_piece(piece)

    def _finish(self) -> None:
        if self._received:
            raise ValueError("more than one answer")
        waiting, self._waiting = self._waiting, None
        self.answers += 1
        if not self._keep:
            self.close()
        if waiting is not None and not waiting.done():
            waiting.set_result(Answer(self._status, bytes(self._body)))
