"""Parks requests while a service has no instance: one process in the sidecar, standard library only.

The proxy connects to its socket and sends what clients sent. Nothing of it is read until there is an instance
to send it to: the connection then goes straight through, body and answer, whatever they are. A request that
has waited for its bound is answered 503 with Retry-After; so is one too many. One whose client gave up is
forgotten: the proxies close their connection when their client closes its own.

Standard input ends with the session that began the parking. When nobody has released what waits by then, it
goes on to the old instance if that still runs, and so does what comes later. Else nothing new waits, and what
waits is let go at its bound. Either lasts until another session says where the instances are.
"""

import asyncio
import contextlib
import json
import os
import resource
import select
import socket
import stat
import sys
from collections.abc import Iterator

BACKLOG = 4096
# How long requests are still passed on whose bodies were on their way when traffic was let go: a proxy
# may have the whole of one before it connects. 1 GB, the default of `max_body`, takes so long at 4.5 Mbit/s.
LINGER_SECONDS = 1800.0
CHUNK_BYTES = 65536
SORRY = b"503: this app is just being replaced; please try it again\n"
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Type: text/plain\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(SORRY), SORRY)
)
# How long the rest of a refused request is read, so that its sender reads the answer before the end.
REFUSING_SECONDS = 2.0
# Also a request that has waited for its bound gets this long to reach an instance that is there by now.
CONNECT_SECONDS = 2.0
# An instance whose queue is full is silent. The kernel would ask again less and less often.
ATTEMPT_SECONDS = 1.0
PAUSE_SECONDS = 0.05
# Descriptors that are not connections': the door, the control, what Python itself needs.
OWN_DESCRIPTORS = 32
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
        self.refusing = False
        # Those that have not reached an instance yet, by descriptor, and what notices that one is gone.
        self.waiting: dict[int, asyncio.Task[None]] = {}
        self.ends = select.epoll()
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
        asyncio.get_running_loop().add_reader(self.ends.fileno(), self._forget)
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
            try:
                connection, _ = await loop.sock_accept(door)
            except OSError:
                # No descriptor is left, or the client went away: what comes later is no worse for it.
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            connection.setblocking(False)
            task = asyncio.create_task(self._arrived(connection))
            self.passing.add(task)
            task.add_done_callback(self.passing.discard)

    async def _arrived(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        bound = loop.time() + self.seconds
        try:
            try:
                with self._until_gone(connection):
                    if not self.released.is_set():
                        await self._wait(bound)
                    async with asyncio.timeout_at(max(bound, loop.time() + CONNECT_SECONDS)):
                        backend = await self._backend(loop, self.targets)
            except OSError:
                # It has waited for its bound, there is no room for it, or no instance that accepts it.
                await refuse(connection)
                return
            with backend:
                # A moment ago, perhaps: what it asked for must not be done for nobody.
                if not gone(connection):
                    await asyncio.gather(_pump(loop, connection, backend), _pump(loop, backend, connection))
        finally:
            connection.close()

    @contextlib.contextmanager
    def _until_gone(self, connection: socket.socket) -> Iterator[None]:
        """This task ends when the client goes away meanwhile."""
        descriptor, task = connection.fileno(), asyncio.current_task()
        assert task is not None
        self.ends.register(descriptor, end_of(connection))
        self.waiting[descriptor] = task
        try:
            yield
        finally:
            self._waits_no_more(descriptor)

    def _waits_no_more(self, descriptor: int) -> asyncio.Task[None] | None:
        task = self.waiting.pop(descriptor, None)
        if task is not None:
            self.ends.unregister(descriptor)
        return task

    def _forget(self) -> None:
        """Forget the requests whose clients are gone: they make room for others, and reach no instance."""
        for descriptor, _ in self.ends.poll(0):
            task = self._waits_no_more(descriptor)
            if task is not None:
                task.cancel()

    async def _wait(self, bound: float) -> None:
        """Wait for the release. Raises TimeoutError at the bound, and at once for one too many."""
        if len(self.waiting) > self.most:
            self._forget()
        if self.refusing or len(self.waiting) > self.most:
            raise TimeoutError
        async with asyncio.timeout_at(bound):
            await self.released.wait()

    async def _backend(
        self, loop: asyncio.AbstractEventLoop, targets: list[tuple[str, int]]
    ) -> socket.socket:
        """A connection to one of these instances, tried again and again. Raises OSError without any."""
        while targets:
            self.next += 1
            with contextlib.suppress(OSError):
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    return await connected(loop, targets[self.next % len(targets)])
            await asyncio.sleep(PAUSE_SECONDS)
        raise ConnectionRefusedError

    async def _told(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A session says where the instances are, that the old ones will stop, or that this is over."""
        told = json.loads(await reader.readline())
        waiting = len(self.waiting)
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


async def connected(loop: asyncio.AbstractEventLoop, target: tuple[str, int]) -> socket.socket:
    """A connection to an instance. Raises OSError, also when this process has no descriptor left."""
    backend = socket.socket()
    try:
        backend.setblocking(False)
        await loop.sock_connect(backend, target)
    except BaseException:
        backend.close()
        raise
    return backend


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


def end_of(connection: socket.socket) -> int:
    """What epoll tells of a connection when the proxy has closed it, beside what it always tells.

    Over a unix socket that is known for certain. Over TCP one that only ended its half looks alike: neither
    proxy does that, nor goes on itself for a client that did.
    """
    return 0 if connection.family == socket.AF_UNIX else select.EPOLLRDHUP


def gone(connection: socket.socket) -> bool:
    """Whether the proxy has closed a connection."""
    look = select.poll()
    look.register(connection, end_of(connection))
    return bool(look.poll(0))


def descriptors() -> int:
    """How many this process may have, from now on: Docker's soft limit, 1024 often, is for select() alone."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


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
    # Each that waits needs a second one when it passes on, and each that is refused has one for a moment.
    asked["most"] = min(asked["most"], (descriptors() - OWN_DESCRIPTORS) // 3)
    asyncio.run(Parking(**asked).run())


if __name__ == "__main__":
    main()
