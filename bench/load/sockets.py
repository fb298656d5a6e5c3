"""The shape of load that is websockets."""

import asyncio

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from bench.load.account import clock
from bench.load.client import Client


class _Once(connect):
    """A handshake that is sent once: a redirect is an answer like any other, and leads nowhere."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def websockets(client: Client) -> None:
    """Sockets with an echo now and then; opening one is a request, and so is each echo."""
    order, settings, account = client.order, client.settings, client.account
    while account.going:
        sent = account.send()
        try:
            socket = await _Once(
                f"ws://{order.host}/ws",
                host=order.address,
                port=order.port,
                proxy=None,
                compression=None,
                ping_interval=None,
                open_timeout=settings.timeout,
                close_timeout=2,
            )
        except InvalidStatus as refused:
            await client.lose(f"status {refused.response.status_code}", sent, 0)
        except (InvalidHandshake, InvalidMessage, EOFError) as wrong:
            await client.lose(f"closed: {wrong}", sent, 0)
        except TimeoutError:
            await client.lose("timeout", sent, 0)
        except ConnectionRefusedError:
            await client.lose("refused", sent, 0)
        except OSError as failed:
            await client.lose(f"reset: {failed}", sent, 0)
        else:
            account.answered(sent, clock() - sent)
            client.begun.set()
            async with socket:
                await _echoes(client, socket, clock())


async def _echoes(client: Client, socket: ClientConnection, opened: float) -> None:
    settings, account = client.settings, client.account
    echoes = 0
    while account.going and clock() - opened < settings.socket_life:
        sent = account.send()
        try:
            async with asyncio.timeout(settings.timeout):
                await socket.send(str(echoes))
                came = await socket.recv()
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else "no close frame"
            if settings.drain is not None and clock() - opened >= settings.drain:
                account.sent -= 1
                account.drained += 1
            else:
                await client.lose(f"cut ({code})", sent, echoes)
            return
        except TimeoutError:
            await client.lose("timeout", sent, echoes)
            return
        if came != str(echoes):
            await client.lose("wrong answer: another echo", sent, echoes)
            return
        account.answered(sent, clock() - sent)
        echoes += 1
        await asyncio.sleep(settings.socket_interval)
