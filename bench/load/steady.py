"""A load in this event loop."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random

from bench.load.account import Account, Going, Instances, clock
from bench.load.client import Client
from bench.load.report import Progress, Report
from bench.load.settings import Order, Settings, order
from bench.load.shapes import DOES


class Steady:
    """A running load. Made inside an event loop, where it begins at once."""

    def __init__(self, order: Order) -> None:
        self._going = Going(order.seconds, order.requests)
        self._cpu_before = time.process_time()
        self._instances = Instances()
        self._accounts = [
            Account(shape, clients, self._going, self._instances) for shape, clients in order.shapes
        ]
        self._clients = [
            Client(order, account, Random(f"{account.shape} {number}"))
            for account in self._accounts
            for number in range(account.clients)
        ]
        self._tasks = [asyncio.create_task(self._run(client)) for client in self._clients]

    @staticmethod
    async def _run(client: Client) -> None:
        try:
            await DOES[client.account.shape](client)
        finally:
            client.begun.set()
            client.close()

    async def begun(self) -> None:
        """Wait until each client has sent its first request, or failed to."""
        for client in self._clients:
            await client.begun.wait()

    def progress(self) -> Progress:
        """The account so far."""
        return Progress(
            sent=sum(account.sent for account in self._accounts),
            lost=sum(len(account.losses) for account in self._accounts),
            seconds=clock() - self._going.began,
            why=self._going.why,
        )

    async def stop(self) -> Report:
        """Send nothing new, wait for what is under way, as long as it takes, and give account."""
        if self._going.why is None:
            self._going.why = "stopped"
        await asyncio.gather(*self._tasks)
        return Report(
            began=self._going.began,
            ended=clock(),
            why=self._going.why,
            shapes=tuple(account.report() for account in self._accounts),
            served=self._instances.report(),
            cpu=time.process_time() - self._cpu_before,
        )

    async def abandon(self) -> None:
        """End at once, whatever is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def steady_load(
    url: str,
    *,
    host: str | None = None,
    shapes: Mapping[str, int],
    seconds: float = 600,
    requests: int = 5_000_000,
    settings: Settings | None = None,
) -> AsyncIterator[Steady]:
    """Keep load on `url`, which must be a loopback address, while the block runs, for `seconds` at most.

    `shapes` says how many clients of each there are; `host` is for the Host header, with or without a port.
    `NotLoopback` or another `ValueError` when the load is refused.
    """
    load = Steady(order(url, host, dict(shapes), seconds, requests, settings))
    try:
        await load.begun()
        yield load
    finally:
        await load.abandon()
