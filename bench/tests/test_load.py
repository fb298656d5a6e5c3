"""The account of a load is right: nothing is lost where nothing fails, and every failure is seen."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from bench.load import SHAPES, Load, NotLoopback, Report, Settings, steady_load
from bench.tests.conftest import SampleApp

EVERY_SHAPE = dict.fromkeys(SHAPES, 2)
QUICK = Settings(
    slow=0.3,
    stream_events=5,
    stream_interval=0.05,
    upload_pieces=5,
    upload_interval=0.05,
    socket_life=0.5,
    socket_interval=0.02,
    note_interval=0.02,
    timeout=1,
)
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"version":"1"}'

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def causes(report: Report) -> set[str]:
    return {loss.cause for loss in report.losses}


def loaded(serve: Serve, shapes: dict[str, int], *, seconds: float = 60, requests: int = 1_000_000) -> Report:
    """What a load reports of a server that does this with each connection."""

    async def run() -> Report:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with (
            server,
            steady_load(url, shapes=shapes, seconds=seconds, requests=requests, settings=QUICK) as load,
        ):
            while load.progress().why is None:
                await asyncio.sleep(0.01)
            return await load.stop()

    return asyncio.run(run())


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer what comes on this connection for as long as it is open."""
    while await reader.read(1000):
        writer.write(ANSWER)
    writer.close()


def test_nothing_is_lost_where_nothing_fails(sample: SampleApp) -> None:
    settings = replace(QUICK, stream_interval=0.2)
    with Load(sample.url, shapes=EVERY_SHAPE, settings=settings) as load:
        time.sleep(2)
        report = load.stop()
    assert report.losses == ()
    assert report.why == "stopped"
    for shape in report.shapes:
        assert len(shape.took) == shape.sent > 2, shape.shape
    assert report.shape("slow").latencies().p50 >= QUICK.slow
    assert report.shape("distant").latencies().p50 >= QUICK.round_trip
    # An answer is taken when it begins, not when it ends.
    assert report.shape("streams").latencies().p50 < settings.stream_interval * (settings.stream_events - 1)
    assert [served.version for served in report.served] == ["1"]
    assert sample.count() == report.shape("notes").sent


def test_a_server_that_is_killed_is_seen_by_every_shape(sample: SampleApp) -> None:
    with Load(sample.url, shapes=EVERY_SHAPE, settings=QUICK) as load:
        time.sleep(0.5)
        killed = time.time()
        sample.stop(signal.SIGKILL)
        sample.start("2")
        back = time.time()
        time.sleep(2)
        report = load.stop()
    for shape in report.shapes:
        assert shape.losses, shape.shape
        assert shape.sent == len(shape.took) + len(shape.losses)
        assert shape.latencies(since=back).count > 0, shape.shape
    assert causes(report) <= {"refused", "reset", "closed", "cut in the answer", "cut (no close frame)"}
    assert all(killed - 0.1 < loss.at < back + 1.5 for loss in report.losses)
    (old,), (new,) = report.answered_by("1"), report.answered_by("2")
    assert old.last_answered < back
    assert new.first_answered > killed
    # A row whose answer was lost may have been written all the same; one that was answered must be there.
    notes = report.shape("notes")
    assert len(notes.took) <= sample.count() <= notes.sent


def test_a_kept_alive_connection_that_closes_on_a_request_is_a_loss() -> None:
    """As a reload of nginx does: it closes idle connections, and a client afar hears of it too late."""

    async def close_when_idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # The first request may take its time: this machine has other things to do.
            came = await reader.read(1000)
            while came:
                writer.write(ANSWER)
                came = await asyncio.wait_for(reader.read(1000), timeout=0.1)
        except TimeoutError:
            pass
        writer.close()

    report = loaded(close_when_idle, {"distant": 30}, seconds=3)
    lost = report.shape("distant").losses
    assert lost
    assert {loss.cause for loss in lost} <= {"closed", "reset"}
    assert all(loss.reused > 0 for loss in lost)


@pytest.mark.parametrize(
    ("says", "cause"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "status 502"),
        (b"HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "status 301"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "cut in the answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "cut in the answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nlonger", "wrong answer: not one HTTP answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "wrong answer: not one HTTP answer"),
        (b"", "closed"),
        (None, "timeout"),
    ],
)
def test_each_kind_of_wrong_answer_is_named(says: bytes | None, cause: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        if says is None:
            await reader.read()
        else:
            writer.write(says)
        writer.close()

    report = loaded(serve, {"busy": 1}, requests=3)
    assert report.sent == report.lost == 3
    assert causes(report) == {cause}


def test_events_that_do_not_all_come_are_a_loss() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        body = b"id: 1\ndata: x\n\nid: 3\ndata: x\n\n"
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        writer.close()

    report = loaded(serve, {"streams": 1}, requests=1)
    assert causes(report) == {"wrong answer: 2 of 5 events"}


@pytest.mark.parametrize("location", ["/elsewhere", "http://10.0.0.1/ws"])
def test_a_websocket_follows_no_redirect(location: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 301 Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    report = loaded(serve, {"websockets": 1}, requests=2)
    assert [loss.cause for loss in report.losses] == ["status 301"] * 2


def test_a_refused_upload_is_a_loss_and_the_rest_is_not_sent() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        received.append(await reader.read())

    received: list[bytes] = []
    assert causes(loaded(serve, {"uploads": 1}, requests=1)) == {"status 413"}
    (body,) = received
    assert len(body) < QUICK.upload_pieces * QUICK.upload_piece


@pytest.mark.parametrize(("drain", "lost"), [(None, 3), (60.0, 3), (0.3, 0)])
def test_a_websocket_may_be_cut_when_the_drain_is_over_and_not_before(
    sample: SampleApp, drain: float | None, lost: int
) -> None:
    with Load(
        sample.url, shapes={"websockets": 3}, settings=replace(QUICK, socket_life=60, drain=drain)
    ) as load:
        time.sleep(0.6)
        sample.stop()
        report = load.stop()
    (shape,) = report.shapes
    assert len([loss for loss in shape.losses if loss.cause == "cut (1012)"]) == lost
    assert shape.drained == 3 - lost


def test_it_ends_by_itself() -> None:
    by_count = loaded(answer, {"busy": 2}, requests=50)
    assert (by_count.why, by_count.lost) == ("count", 0)
    assert 50 <= by_count.sent <= 52
    by_time = loaded(answer, {"busy": 2}, seconds=0.2)
    assert (by_time.why, by_time.lost) == ("time", 0)
    assert by_time.ended - by_time.began < 10


@pytest.mark.parametrize("url", ["http://10.0.0.1/", "http://example.com", "http://0.0.0.0:80", "http://"])
def test_it_goes_to_no_other_machine(url: str) -> None:
    with pytest.raises(NotLoopback, match="loopback"):
        Load(url, shapes={"busy": 1})


def test_what_is_out_of_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="only http"):
        Load("https://127.0.0.1", shapes={"busy": 1})
    with pytest.raises(ValueError, match="no such shape"):
        Load("http://127.0.0.1", shapes={"hectic": 1})
    with pytest.raises(ValueError, match="3600"):
        Load("http://127.0.0.1", shapes={"busy": 1}, seconds=1e6)


def test_the_host_header_names_the_app() -> None:
    heard: set[bytes] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        heard.update(line for line in head.split(b"\r\n") if line.lower().startswith(b"host:"))
        writer.write(ANSWER)
        writer.close()

    async def run() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            for url, host in (
                (f"http://127.0.0.1:{port}", "sample.localhost"),
                (f"http://sample.localhost:{port}", None),
            ):
                async with steady_load(url, host=host, shapes={"fresh": 1}, requests=1) as load:
                    assert (await load.stop()).lost == 0
            assert heard == {b"Host: sample.localhost:%d" % port}

    asyncio.run(run())


def test_its_process_ends_with_the_block_whatever_is_under_way(sample: SampleApp) -> None:
    began = time.monotonic()
    with Load(sample.url, shapes={"slow": 2}, settings=replace(QUICK, slow=60)) as load:
        assert load.progress().sent == 2
    assert time.monotonic() - began < 10


def test_the_account_can_be_asked_for_while_it_runs(sample: SampleApp) -> None:
    with Load(sample.url, shapes={"busy": 1}) as load:
        first = load.progress()
        time.sleep(0.2)
        assert load.progress().sent > first.sent
        assert load.stop() is load.stop()
