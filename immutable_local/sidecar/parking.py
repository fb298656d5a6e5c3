"""Parks requests while a service has no instance: one process in the sidecar, standard library only.

The proxy connects to its socket and sends what clients sent. Nothing of it is read until there is an instance
to send it to: the connection then goes straight through, body and answer, whatever they are. A request that
has waited for its bound is let go (the proxy then answers 503 with Retry-After); so is one too many.

Standard input ends with the session that began the parking: from then on nothing new is parked, and what
waits is let go at its bound, unless another session releases it before.
"""

import asyncio
import json
import os
import socket
import sys
from typing import Any

BACKLOG = 4096
# How long a release still passes requests on whose bodies were on their way when traffic was let go.
LINGER_SECONDS = 600.0
CHUNK_BYTES = 65536
CONNECT_TRIES = 40
CONNECT_PAUSE_SECONDS = 0.05


class Parking:
    """The parked connections of one service, and those that pass through."""

    def __init__(self, path: str, seconds: float, most: int) -> None:
        self.path = path
        self.seconds = seconds
        self.most = most
        self.waiting = 0
        self.parked = 0
        self.passing: set[asyncio.Task[None]] = set()
        self.targets: list[tuple[str, int]] = []
        self.released = asyncio.Event()
        self.closed = asyncio.Event()
        self.next = 0

    async def run(self) -> None:
        """Park until released and passed on, or until orphaned and let go."""
        door = await self._listen(self.path, self._arrived)
        control = await asyncio.start_unix_server(self._told, self.path + ".ctl")
        await self._watch_session()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await self.closed.wait()
        door.close()
        while self.passing:
            await asyncio.wait(set(self.passing))
        control.close()
        for name in (self.path, self.path + ".ctl"):
            # A later parking of the same service has put its own socket there.
            if self._inode(name) == self.inodes[name]:
                os.unlink(name)

    async def _listen(self, path: str, arrived: Any) -> socket.socket:
        for name in (path, path + ".ctl"):
            if os.path.exists(name):
                os.unlink(name)
        door = socket.socket(socket.AF_UNIX)
        door.bind(path)
        os.chmod(path, 0o666)
        door.listen(BACKLOG)
        door.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(door))
        return door

    async def _accept(self, door: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(door)
            connection.setblocking(False)
            task = asyncio.create_task(self._arrived(connection))
            self.passing.add(task)
            task.add_done_callback(self.passing.discard)

    async def _arrived(self, connection: socket.socket) -> None:
        try:
            if not self.released.is_set():
                if self.waiting >= self.most:
                    return
                self.waiting += 1
                self.parked += 1
                try:
                    await asyncio.wait_for(self.released.wait(), self.seconds)
                finally:
                    self.waiting -= 1
            await self._pass_through(connection)
        except (TimeoutError, OSError):
            pass
        finally:
            connection.close()

    async def _pass_through(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        backend = await self._backend(loop)
        try:
            await asyncio.gather(_pump(loop, connection, backend), _pump(loop, backend, connection))
        finally:
            backend.close()

    async def _backend(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        for attempt in range(CONNECT_TRIES):
            self.next += 1
            backend = socket.socket()
            backend.setblocking(False)
            try:
                await loop.sock_connect(backend, self.targets[self.next % len(self.targets)])
                return backend
            except OSError:
                backend.close()
                if attempt == CONNECT_TRIES - 1:
                    raise
                await asyncio.sleep(CONNECT_PAUSE_SECONDS)
        raise OSError

    async def _told(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A session says where the instances are now, or that this parking is over."""
        told = json.loads(await reader.readline())
        waiting = self.waiting
        if "to" in told:
            self.targets = [(host, port) for host, port in told["to"]]
            self.released.set()
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self.closed.set)
        else:
            self.closed.set()
        writer.write(json.dumps({"released": waiting, "parked": self.parked}).encode() + b"\n")
        await writer.drain()
        writer.close()

    async def _watch_session(self) -> None:
        self.inodes = {name: self._inode(name) for name in (self.path, self.path + ".ctl")}
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        self._watching = asyncio.create_task(self._orphaned(reader))

    async def _orphaned(self, reader: asyncio.StreamReader) -> None:
        await reader.read()
        if not self.released.is_set():
            self._accepting.cancel()
            if self._inode(self.path) == self.inodes[self.path]:
                os.unlink(self.path)
            await asyncio.sleep(self.seconds)
            if not self.released.is_set():
                self.closed.set()

    @staticmethod
    def _inode(name: str) -> int | None:
        try:
            return os.stat(name).st_ino
        except FileNotFoundError:
            return None


async def _pump(loop: asyncio.AbstractEventLoop, source: socket.socket, sink: socket.socket) -> None:
    """Everything that one side sends, to the other; its end is passed on too."""
    try:
        while part := await loop.sock_recv(source, CHUNK_BYTES):
            await loop.sock_sendall(sink, part)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        # One side is gone: the other must not wait for it.
        for each in (source, sink):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    asyncio.run(Parking(asked["path"], asked["seconds"], asked["most"]).run())
