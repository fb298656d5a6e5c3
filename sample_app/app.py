"""The routes. `uvicorn sample_app.app:app` serves them; the environment says where the data is."""

import asyncio
import hashlib
import html
import os
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from sample_app.notes import Notes

VERSION = os.environ.get("SAMPLE_VERSION") or Path(__file__).with_name("VERSION").read_text().strip()
INSTANCE = socket.gethostname()
NOTE_LENGTH = 2000

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Notes, version {version}</title>
<style>body {{ font: 1.1rem/1.5 system-ui, sans-serif; max-width: 36rem; margin: 3rem auto }}</style>
<h1>Notes</h1>
<p>Version <b>{version}</b>, answered by {instance}. {count} notes are kept.</p>
<form method="post" action="notes"><input name="text" required aria-label="note"> <button>Keep</button></form>
<ul>{notes}</ul>
</html>
"""


@asynccontextmanager
async def with_notes(app: Starlette) -> AsyncIterator[None]:
    """Open the notes while the app runs, in the folder that `DATA` names (default: /data)."""
    app.state.notes = Notes.beneath(Path(os.environ.get("DATA", "/data")))
    yield


def notes_of(request: Request) -> Notes:
    """The notes that this app opened."""
    notes = request.app.state.notes
    assert isinstance(notes, Notes)
    return notes


def number(request: Request, name: str, default: float, most: float) -> float:
    """A number from the query, refused unless it is between 0 and `most`."""
    text = request.query_params.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        raise HTTPException(400, f"{name} must be a number, not {text!r}") from None
    if not 0 <= value <= most:
        raise HTTPException(400, f"{name} must be between 0 and {most:g}, not {text}")
    return value


def up(request: Request) -> Response:
    """Is this instance fit for traffic: does its database answer."""
    try:
        notes_of(request).check()
    except sqlite3.Error as refused:
        return PlainTextResponse(f"the database does not answer: {refused}\n", status_code=503)
    return PlainTextResponse("up\n")


async def version(request: Request) -> Response:
    """Which version answers, and from which instance."""
    return JSONResponse({"version": VERSION, "instance": INSTANCE})


def page(request: Request) -> Response:
    """The page for people."""
    notes = notes_of(request)
    latest = "".join(f"<li>{html.escape(note.text)} <small>{note.at}</small>" for note in notes.latest(10))
    return HTMLResponse(
        PAGE.format(
            version=html.escape(VERSION), instance=html.escape(INSTANCE), count=notes.count(), notes=latest
        )
    )


def list_notes(request: Request) -> Response:
    """How many notes there are and the newest twenty; `?containing=` looks only at those with that text."""
    notes, containing = notes_of(request), request.query_params.get("containing", "")
    return JSONResponse(
        {
            "count": notes.count(containing),
            "notes": [note.as_json() for note in notes.latest(20, containing)],
        }
    )


async def add_note(request: Request) -> Response:
    """Keep a note: `{"text": "..."}`, or the page's form."""
    from_form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    try:
        if from_form:
            text = parse_qs((await request.body()).decode())["text"][0]
        else:
            text = (await request.json())["text"]
    except (ValueError, KeyError, TypeError):
        text = None
    if not isinstance(text, str) or not 1 <= len(text) <= NOTE_LENGTH:
        raise HTTPException(400, f"a note is a text of 1 to {NOTE_LENGTH} characters")
    note = await run_in_threadpool(notes_of(request).add, text, version=VERSION)
    if from_form:
        return RedirectResponse("./", status_code=303)
    return JSONResponse(note.as_json(), status_code=201)


async def slow(request: Request) -> Response:
    """An answer that takes `?seconds=` (default 10)."""
    seconds = number(request, "seconds", default=10, most=120)
    await asyncio.sleep(seconds)
    return JSONResponse({"version": VERSION, "instance": INSTANCE, "seconds": seconds})


async def events(request: Request) -> Response:
    """Server-sent events: `?count=` of them (default 10), one every `?interval=` seconds (default 0.5)."""
    count = int(number(request, "count", default=10, most=100_000))
    interval = number(request, "interval", default=0.5, most=60)

    async def stream() -> AsyncIterator[str]:
        for event in range(1, count + 1):
            yield f"id: {event}\ndata: {VERSION}\n\n"
            if event < count:
                await asyncio.sleep(interval)

    return StreamingResponse(stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def echo(socket: WebSocket) -> None:
    """A websocket that sends back whatever text it gets."""
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


async def upload(request: Request) -> Response:
    """Take a body of any size without holding it: how many bytes came, and their SHA-256."""
    digest, received = hashlib.sha256(), 0
    async for chunk in request.stream():
        digest.update(chunk)
        received += len(chunk)
    return JSONResponse({"version": VERSION, "bytes": received, "sha256": digest.hexdigest()})


app = Starlette(
    lifespan=with_notes,
    routes=[
        Route("/", page),
        Route("/up", up),
        Route("/version", version),
        Route("/notes", list_notes, methods=["GET"]),
        Route("/notes", add_note, methods=["POST"]),
        Route("/slow", slow),
        Route("/events", events),
        WebSocketRoute("/ws", echo),
        Route("/upload", upload, methods=["POST"]),
    ],
)
