"""One client: it sends each request once and puts down what became of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from random import Random

from bench.load.account import Account, clock
from bench.load.connection import Answer, Connection, Lost
from bench.load.settings import Order

Check = Callable[[Answer], str | None]
"""What is wrong with an answer, if anything."""


class Client:
    """One client: its connection, which it keeps alive, and the account that it adds to."""

    def __init__(self, order: Order, account: Account, random: Random) -> None:
        self.order = order
        self.settings = order.settings
        self.account = account
        self.random = random
        self.begun = asyncio.Event()
        """Set once it has sent something, or failed to."""
        self.round_trip = 0.0
        self._connection: Connection | None = None

    def head(self, method: str, target: str, *more: str) -> bytes:
        """The head of a request."""
        lines = (f"{method} {target} HTTP/1.1", f"Host: {self.order.host}", "User-Agent: imm-load", *more)
        return "".join(f"{line}\r\n" for line in (*lines, "")).encode()

    async def ask(
        self,
        request: bytes,
        body: AsyncIterator[bytes] | None = None,
        *,
        status: int = 200,
        check: Check | None = None,
        lasting: float = 0.0,
        to_first_piece: bool = False,
        tells_who: bool = False,
    ) -> None:
        """Send a request once, and put down what became of it.

        `lasting` is how long it takes by itself, in seconds. The time put down begins when the body was sent,
        where there is one, and ends with the first piece of the answer's body where that is asked for.
        `tells_who`: the answer's body says which instance gave it.
        """
        account = self.account
        connection = None if self._connection is None or self._connection.closed else self._connection
        pieces: list[float] = []
        sent = since = account.send()
        try:
            if connection is None:
                connection = self._connection = await Connection.open(
                    self.order.address,
                    self.order.port,
                    timeout=self.settings.timeout,
                    round_trip=self.round_trip,
                )
            coming = connection.begin(
                timeout=self.settings.timeout + lasting,
                on_piece=(lambda _: pieces.append(clock())) if to_first_piece else None,
            )
            connection.send(request)
            self.begun.set()
            if body is not None:
                async for piece in body:
                    if coming.done():
                        connection.close()
                        break
                    connection.send(piece)
                since = clock()
            answer = await coming
        except Lost as lost:
            await self.lose(str(lost), sent, 0 if connection is None else connection.answers)
            return
        at = pieces[0] if pieces else clock()
        wrong = f"status {answer.status}" if answer.status != status else check(answer) if check else None
        if wrong is not None:
            await self.lose(wrong, sent, connection.answers - 1)
            return
        account.answered(sent, at - since)
        if tells_who:
            account.served.answered(answer.body, sent, at)

    async def lose(self, cause: str, sent: float, reused: int) -> None:
        """Put down a loss."""
        self.account.lose(cause, sent, reused)
        self.begun.set()
        await asyncio.sleep(self.settings.pause_after_loss)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
