"""A load in a process of its own, so that what the caller does meanwhile doesn't slow it down."""

import asyncio
import signal
from collections.abc import Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Literal, Self

from bench.load.report import Progress, Report
from bench.load.settings import Order, Settings, order
from bench.load.steady import Steady

Word = Literal["progress", "stop"]
Heard = Progress | Report | Literal["begun"]


class Load:
    """Load on a loopback address while the `with` block runs; for `seconds` and `requests` at most.

    The arguments are those of `steady_load`. As with all that `multiprocessing` spawns, a script that uses it
    guards its own start with `if __name__ == "__main__"`.
    """

    def __init__(
        self,
        url: str,
        *,
        host: str | None = None,
        shapes: Mapping[str, int],
        seconds: float = 600,
        requests: int = 5_000_000,
        settings: Settings | None = None,
    ) -> None:
        self._order = order(url, host, dict(shapes), seconds, requests, settings)
        self._report: Report | None = None

    def __enter__(self) -> Self:
        spawn = get_context("spawn")
        here, there = spawn.Pipe()
        self._pipe: Connection[Word, Heard] = here
        self._process = spawn.Process(target=_serve, args=(self._order, there), name="load", daemon=True)
        self._process.start()
        # Here it must be closed, for the end of the process to be seen.
        there.close()
        self._hear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()
        self._process.join()

    def progress(self) -> Progress:
        """The account so far."""
        self._pipe.send("progress")
        heard = self._hear()
        assert isinstance(heard, Progress)
        return heard

    def stop(self) -> Report:
        """Send nothing new, wait for what is under way, and give account; again, the same account."""
        if self._report is None:
            self._pipe.send("stop")
            heard = self._hear()
            assert isinstance(heard, Report)
            self._report = heard
        return self._report

    def _hear(self) -> Heard:
        try:
            return self._pipe.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"the load's process ended with {self._process.exitcode}") from None


def _serve(order: Order, pipe: "Connection[Heard, Word]") -> None:
    # Ctrl-C reaches the whole group; the caller decides what it means, and the pipe's end says so.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_answer(order, pipe))


async def _answer(order: Order, pipe: "Connection[Heard, Word]") -> None:
    said: asyncio.Queue[Word | None] = asyncio.Queue()

    def hear() -> None:
        try:
            said.put_nowait(pipe.recv())
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(pipe.fileno())
            said.put_nowait(None)

    load = Steady(order)
    await load.begun()
    pipe.send("begun")
    asyncio.get_running_loop().add_reader(pipe.fileno(), hear)
    while (word := await said.get()) is not None:
        if word == "progress":
            pipe.send(load.progress())
        else:
            pipe.send(await load.stop())
    await load.abandon()
