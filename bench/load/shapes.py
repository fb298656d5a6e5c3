"""The shapes of load: what one client of each does, over and over, until the load ends."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable

from bench.load.client import Client
from bench.load.connection import Answer
from bench.load.sockets import websockets


async def busy(client: Client) -> None:
    """One request after the other."""
    await _short(client, gap=0.0)


async def idle(client: Client) -> None:
    """Requests with gaps, in which the server may close the connection."""
    await _short(client, gap=client.settings.idle_gap)


async def distant(client: Client) -> None:
    """The same, where the client hears of a closed connection, and the server of a request, late."""
    client.round_trip = client.settings.round_trip
    await _short(client, gap=client.settings.idle_gap)


async def _short(client: Client, gap: float) -> None:
    account, request = client.account, client.head("GET", client.settings.path)
    while account.going:
        if gap:
            await asyncio.sleep(client.random.uniform(0, gap))
        await client.ask(request, tells_who=True)


async def fresh(client: Client) -> None:
    """A connection for each request."""
    account, request = client.account, client.head("GET", client.settings.path, "Connection: close")
    while account.going:
        await client.ask(request, tells_who=True)
        await asyncio.sleep(client.settings.fresh_gap)


async def slow(client: Client) -> None:
    """Answers that take their time."""
    seconds = client.settings.slow
    request = client.head("GET", f"/slow?seconds={seconds:g}")
    while client.account.going:
        await client.ask(request, lasting=seconds)


async def streams(client: Client) -> None:
    """Streams of events. The time put down is that to the first event, so that a buffering proxy shows."""
    settings = client.settings
    target = f"/events?count={settings.stream_events}&interval={settings.stream_interval:g}"
    request = client.head("GET", target, "Accept: text/event-stream")
    expected = [str(event).encode() for event in range(1, settings.stream_events + 1)]

    def check(answer: Answer) -> str | None:
        came = re.findall(rb"^id: (\d+)", answer.body, re.MULTILINE)
        return None if came == expected else f"wrong answer: {len(came)} of {len(expected)} events"

    while client.account.going:
        await client.ask(
            request,
            check=check,
            lasting=settings.stream_events * settings.stream_interval,
            to_first_piece=True,
        )


async def uploads(client: Client) -> None:
    """Bodies that are sent piece by piece. The time put down is that from the last piece to the answer."""
    settings = client.settings
    piece = client.random.randbytes(settings.upload_piece)
    chunk = b"%x\r\n%b\r\n" % (len(piece), piece)
    digest = hashlib.sha256(piece * settings.upload_pieces).hexdigest()
    request = client.head("POST", "/upload", "Transfer-Encoding: chunked")

    async def body() -> AsyncIterator[bytes]:
        for _ in range(settings.upload_pieces):
            yield chunk
            await asyncio.sleep(settings.upload_interval)
        yield b"0\r\n\r\n"

    def check(answer: Answer) -> str | None:
        try:
            return None if json.loads(answer.body)["sha256"] == digest else "wrong answer: another body"
        except (ValueError, KeyError, TypeError):
            return "wrong answer: not what /upload answers"

    while client.account.going:
        await client.ask(
            request, body(), check=check, lasting=settings.upload_pieces * settings.upload_interval
        )


async def notes(client: Client) -> None:
    """Rows, each of which must be there in the end."""
    body = json.dumps({"text": client.settings.note}).encode()
    request = client.head("POST", "/notes", "Content-Type: application/json", f"Content-Length: {len(body)}")
    while client.account.going:
        await client.ask(request + body, status=201)
        await asyncio.sleep(client.settings.note_interval)


DOES: dict[str, Callable[[Client], Awaitable[None]]] = {
    "busy": busy,
    "idle": idle,
    "distant": distant,
    "fresh": fresh,
    "slow": slow,
    "streams": streams,
    "uploads": uploads,
    "websockets": websockets,
    "notes": notes,
}
