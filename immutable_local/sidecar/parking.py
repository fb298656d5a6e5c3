"""Parks requests while a service has no instance: one process in the sidecar, standard library only.

The proxy connects to its socket and sends what clients sent. Nothing of it is read until there is an instance
to send it to: the connection then goes straight through, body and answer, whatever they are. A request that
has waited for its bound is answered 503 with Retry-After; so is one too many.

Standard input ends with the session that began the parking. When nobody has released what waits by then, it
goes on to the old instance if that still runs, and so does what comes later. Else nothing new waits, and what
waits is let go at its bound. Either lasts until another session says where the instances are.
"""

import asyncio
import contextlib
import json
import os
import socket
import stat
import sys

BACKLOG = 4096
# How long a release still passes requests on whose bodies were on their way when traffic was let go.
LINGER_SECONDS = 300.0
CHUNK_BYTES = 65536
SORRY = b"503: this app is just being replaced; please try it again\n"
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Type: text/plain\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(SORRY), SORRY)
)
# How long the rest of a refused request is read, so that its sender reads the answer before the end.
REFUSING_SECONDS = 2.0
CONNECT_SECONDS = 2.0
CONNECT_PAUSE_SECONDS = 0.05
# An instance that the engine was asked to stop has stopped this long after its grace period, or never will.
STOPPED_SECONDS = 1.0


class Parking:
    """The parked connections of one service, and those that pass through."""

    def __init__(self, path: str, seconds: float, most: int, tcp: bool, back: list[list[object]]) -> None:
        self.path = path
        self.tcp = tcp
        self.seconds = seconds
        self.most = most
        # The old instances, and how long they may take to stop once that was asked of them.
        self.back = addresses(back)
        self.stopping: float | None = None
        self.waiting = 0
        self.refusing = False
        self.passing: set[asyncio.Task[None]] = set()
        self.targets: list[tuple[str, int]] = []
        self.released = asyncio.Event()
        self.closed = asyncio.Event()
        self.next = 0
        # The names that this parking put into the folder.
        self.mine: dict[str, tuple[int, str]] = {}

    async def run(self) -> None:
        """Park until released and passed on, or until orphaned and let go."""
        door = self._listen()
        accepting = asyncio.create_task(self._accept(door))
        control = await asyncio.start_unix_server(self._told, self.path + ".ctl")
        for name in (self.path, self.path + ".ctl", self.path + ".port"):
            if (known := identity(name)) is not None:
                self.mine[name] = known
        orphaned = asyncio.create_task(self._orphaned())
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await self.closed.wait()
        accepting.cancel()
        orphaned.cancel()
        self._leave()
        door.close()
        control.close()
        while self.passing:
            await asyncio.wait(set(self.passing))

    def _leave(self) -> None:
        """Take the names away, unless a later parking of the same service has put its own there."""
        while self.mine:
            name, known = self.mine.popitem()
            if identity(name) == known:
                unlink(name)

    def _listen(self) -> socket.socket:
        for name in (self.path, self.path + ".ctl", self.path + ".port"):
            unlink(name)
        if self.tcp:
            # A port of its own each time: what a proxy still has pooled to an earlier one must not be used.
            door = socket.socket()
            door.bind(("127.0.0.1", 0))
            with open(self.path + ".port", "w") as port:
                port.write(str(door.getsockname()[1]))
        else:
            door = socket.socket(socket.AF_UNIX)
            door.bind(self.path)
            os.chmod(self.path, 0o666)
        door.listen(BACKLOG)
        door.setblocking(False)
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
                await self._wait()
            await self._pass_through(connection)
        except TimeoutError:
            await refuse(connection)
        except OSError:
            # The client or the instance is gone: its own side has been told by the connection's end.
            return
        finally:
            connection.close()

    async def _wait(self) -> None:
        """Wait for the release. Raises TimeoutError at the bound, and at once for one too many."""
        if self.refusing or self.waiting >= self.most:
            raise TimeoutError
        self.waiting += 1
        try:
            await asyncio.wait_for(self.released.wait(), self.seconds)
        finally:
            self.waiting -= 1

    async def _pass_through(self, connection: socket.socket) -> None:
        """Raises TimeoutError when no instance accepts it."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            backend = await self._backend(loop, self.targets)
        try:
            await asyncio.gather(_pump(loop, connection, backend), _pump(loop, backend, connection))
        finally:
            backend.close()

    async def _backend(
        self, loop: asyncio.AbstractEventLoop, targets: list[tuple[str, int]]
    ) -> socket.socket:
        """A connection to one of these instances, tried again and again."""
        while True:
            self.next += 1
            backend = socket.socket()
            backend.setblocking(False)
            try:
                await loop.sock_connect(backend, targets[self.next % len(targets)])
                return backend
            except OSError:
                backend.close()
                await asyncio.sleep(CONNECT_PAUSE_SECONDS)
            except asyncio.CancelledError:
                backend.close()
                raise

    async def _told(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A session says where the instances are, that the old ones will stop, or that this is over."""
        told = json.loads(await reader.readline())
        waiting = self.waiting
        if "to" in told:
            self._release(addresses(told["to"]))
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self.closed.set)
        elif "stopping" in told:
            self.stopping = told["stopping"]
        else:
            # Before it is answered: whoever asks for this puts names of its own there next.
            self._leave()
            self.closed.set()
        writer.write(json.dumps({"released": waiting}).encode() + b"\n")
        await writer.drain()
        writer.close()

    def _release(self, targets: list[tuple[str, int]]) -> None:
        self.targets = targets
        self.released.set()

    async def _orphaned(self) -> None:
        """The session has ended without a release: back to the old instance, or nothing new waits."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.read()
        while self.stopping is not None:
            # What is begun on an instance that is just stopping would be lost; and whoever sweeps says anew
            # that it is at work.
            patience, self.stopping = self.stopping, None
            await asyncio.sleep(patience + STOPPED_SECONDS)
        if self.released.is_set():
            return
        if await self._still_runs():
            self._release(self.back)
        else:
            self.refusing = True

    async def _still_runs(self) -> bool:
        """Whether an old instance accepts connections."""
        if not self.back:
            return False
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                (await self._backend(asyncio.get_running_loop(), self.back)).close()
        except TimeoutError:
            return False
        return not self.released.is_set()


def addresses(told: list[list[object]]) -> list[tuple[str, int]]:
    """Hosts and ports as JSON has them."""
    return [(str(host), int(str(port))) for host, port in told]


def identity(name: str) -> tuple[int, str] | None:
    """Which file a name stands for at the moment: another one may get the number of one that was removed."""
    try:
        about = os.stat(name)
        if not stat.S_ISREG(about.st_mode):
            return about.st_ino, ""
        with open(name) as file:
            return about.st_ino, file.read()
    except FileNotFoundError:
        return None


def unlink(name: str) -> None:
    """Remove a name that may be gone."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)


async def refuse(connection: socket.socket) -> None:
    """Answer 503, and read on for a moment: closing over unread bytes would destroy the answer.

    Not before something was asked: a proxy may take an answer that comes first for none, and say 500 itself.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(REFUSING_SECONDS):
            await loop.sock_recv(connection, CHUNK_BYTES)
        await loop.sock_sendall(connection, REFUSAL)
        connection.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(REFUSING_SECONDS):
            while await loop.sock_recv(connection, CHUNK_BYTES):
                continue
    except (TimeoutError, OSError):
        return


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


def main() -> None:
    asked = json.loads(sys.argv[1])
    asyncio.run(Parking(**asked).run())


if __name__ == "__main__":
    main()
