"""The app behind the proxies: it speaks raw HTTP/1.1, so that it can tell what reached it. Standard library only.

What the load generator asks for is here, and whatever else is asked is told back as it came. BEHAVE says how
it is bad; with WRITER it takes its data for itself alone, and ends when another one has it.
"""

import asyncio
import base64
import fcntl
import hashlib
import json
import os
import pathlib
import signal
import sys
import time
import urllib.parse

VERSION = pathlib.Path(__file__).with_name("VERSION").read_text()
BEHAVE = os.environ.get("BEHAVE", "")
PORT = int(os.environ.get("PORT", "8000"))
# A release that comes back has the same version and the same name: when it started tells it from its former life.
WHO = {"version": VERSION, "instance": os.environ["HOSTNAME"], "started": time.time()}
NOTES = pathlib.Path(os.environ.get("DATA", "/tmp")) / "notes"
ACCEPT = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10

servers: list[asyncio.Server] = []
connections: set[asyncio.StreamWriter] = set()
begun: list[str] = []
asked_for = asyncio.Semaphore(0)


class Request:
    """One request, its body still on the way."""

    def __init__(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = first.split(" ")
        self.headers = [tuple(line.split(": ", 1)) for line in lines if line]
        self.reader, self.writer = reader, writer
        asked = urllib.parse.urlsplit(self.target)
        self.path, self.query = asked.path, dict(urllib.parse.parse_qsl(asked.query))

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    async def body(self):
        """The pieces of the body as they come."""
        if self.header("transfer-encoding"):
            while size := int((await self.reader.readline()).split(b";")[0], 16):
                left = size
                while left:
                    piece = await self.reader.read(min(left, 65536))
                    left -= len(piece)
                    yield piece
                await self.reader.readline()
            await self.reader.readline()
        elif size := int(self.header("content-length") or 0):
            yield await self.reader.readexactly(size)

    async def digest(self) -> dict:
        digest, size = hashlib.sha256(), 0
        async for piece in self.body():
            digest.update(piece)
            size += len(piece)
        return {"bytes": size, "sha256": digest.hexdigest()}

    async def say(self, told: object, status: int = 200, **headers: str) -> None:
        text = json.dumps(told).encode()
        lines = [f"HTTP/1.1 {status} OK", "Content-Type: application/json", f"Content-Length: {len(text)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "\r\n"]).encode() + text)
        await self.writer.drain()


async def up(request: Request) -> None:
    await request.say("up", 500 if BEHAVE == "sick" else 200)
    if BEHAVE == "faint":
        close_all()


async def version(request: Request) -> None:
    await request.say(WHO)


async def slow(request: Request) -> None:
    begun.append(request.target)
    await asyncio.sleep(float(request.query["seconds"]))
    await request.say(WHO)


async def slow_ones(request: Request) -> None:
    """How many slow requests have reached this instance."""
    await request.say({**WHO, "begun": len(begun)})


async def events(request: Request) -> None:
    """Server-sent events, each telling when it was sent: at intervals, or when the next one is asked for."""
    request.writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for event in range(1, int(request.query["count"]) + 1):
        text = f"id: {event}\ndata: {VERSION} {time.time()}\n\n".encode()
        request.writer.write(b"%x\r\n%s\r\n" % (len(text), text))
        await request.writer.drain()
        if "interval" in request.query:
            await asyncio.sleep(float(request.query["interval"]))
        else:
            await asked_for.acquire()
    request.writer.write(b"0\r\n\r\n")


async def next_event(request: Request) -> None:
    asked_for.release()
    await request.say(WHO)


async def upload(request: Request) -> None:
    await request.say({**WHO, **await request.digest()})


async def notes(request: Request) -> None:
    """A row for each POST, on the disk before it is answered."""
    if request.method == "POST":
        text = b"".join([piece async for piece in request.body()])
        with NOTES.open("ab") as file:
            file.write(text + b"\n")
            file.flush()
            os.fsync(file.fileno())
        await request.say(WHO, 201)
    else:
        await request.say(NOTES.read_text().splitlines() if NOTES.exists() else [])


async def refuse(request: Request) -> None:
    """From now on nobody can connect."""
    await request.say(WHO)
    close_all()


def close_all() -> None:
    for server in servers:
        server.close()
    for each in list(connections):
        each.close()


async def says(request: Request) -> None:
    """These headers are the answer's."""
    await request.say(WHO, **request.query)


async def tell(request: Request) -> None:
    """What came, as it came."""
    about = {"method": request.method, "target": request.target, "headers": request.headers}
    await request.say({**WHO, **about, **await request.digest()})


async def websocket(request: Request) -> None:
    """Every text comes back."""
    key = hashlib.sha1((request.header("sec-websocket-key") + ACCEPT).encode()).digest()
    request.writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(key) + b"\r\n\r\n"
    )
    while True:
        first, second = await request.reader.readexactly(2)
        size, kind = second & 127, first & 15
        if size == 126:
            size = int.from_bytes(await request.reader.readexactly(2), "big")
        mask = await request.reader.readexactly(4)
        masked = await request.reader.readexactly(size)
        text = bytes(byte ^ mask[position % 4] for position, byte in enumerate(masked))
        answer = {TEXT: TEXT, PING: PONG, CLOSE: CLOSE}[kind]
        request.writer.write(bytes([0x80 | answer, len(text)]) + text)
        await request.writer.drain()
        if kind == CLOSE:
            return


DOES = {
    "/up": up,
    "/version": version,
    "/slow": slow,
    "/slow-ones": slow_ones,
    "/events": events,
    "/next": next_event,
    "/upload": upload,
    "/notes": notes,
    "/refuse": refuse,
    "/says": says,
    "/ws": websocket,
}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connections.add(writer)
    try:
        while True:
            request = Request(await reader.readuntil(b"\r\n\r\n"), reader, writer)
            await DOES.get(request.path, tell)(request)
            if request.path == "/ws" or request.header("connection") == "close":
                break
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        connections.discard(writer)
        writer.close()


async def main() -> None:
    if BEHAVE != "deaf":
        # At once, whatever is under way.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    if os.environ.get("WRITER"):
        lock = NOTES.with_name("lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("another instance has the data")
    await asyncio.sleep(float(os.environ.get("BOOT", "0")))
    servers.append(await asyncio.start_server(serve, "", PORT, backlog=1024))
    print(f"version {VERSION} serves", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
