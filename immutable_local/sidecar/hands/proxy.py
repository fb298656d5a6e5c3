"""The proxy asked in private: who answers, what is in force, what is in flight."""

from __future__ import annotations

import contextlib
import os
import socket
import time

from immutable_local.sidecar.hands.ground import PROXY, named, need_network

TYPE_CHECKING = False
if TYPE_CHECKING:
    import http.client
    from typing import Any

# How long an instance that was healthy just now may refuse, or not answer, once traffic goes to it.
REFUSING_SECONDS = 2.0
GATEWAY_ERRORS = (502, 504)


def connection_to(sock: str, timeout: float) -> http.client.HTTPConnection:
    """A connection to a private socket of the proxy's, or to a loopback address that only it shares."""
    import http.client

    if ":" in sock:
        need_network()
        return http.client.HTTPConnection(sock, timeout=timeout)
    connection = http.client.HTTPConnection("localhost", timeout=timeout)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(timeout)
    connection.sock.connect(str(PROXY / "run" / named(sock)))
    return connection


def through(sock: str, path: str, host: str = "localhost", timeout: float = 5.0) -> dict[str, Any]:
    """One request through a socket of the proxy's: status, headers and the begin of its body, or why not."""
    import http.client

    try:
        with contextlib.closing(connection_to(sock, timeout)) as connection:
            connection.request("GET", path, headers={"Host": host, "User-Agent": "imm-confirm"})
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            # A stream never ends: the headers are enough for those who ask for a path of an application's.
            body = response.read(4096).decode(errors="replace") if host == "localhost" else ""
            return {"status": response.status, "headers": headers, "body": body}
    except (OSError, http.client.HTTPException) as failed:
        return {"failed": type(failed).__name__, "detail": str(failed)}


def confirm(
    sock: str, requests: list[dict[str, Any]], seconds: float, unanswered: list[int]
) -> dict[str, Any]:
    """Ask through the proxy until one of its addresses answered each request; returns what is missing.

    The proxy says on this socket alone which upstream answered, so the proof is the address, not a status;
    but for `unanswered`: what the proxy says itself, and as that upstream's, when there was no answer. New
    instances that refuse are given up sooner than a proxy that doesn't follow: clients meet them meanwhile.
    """
    deadline = time.monotonic() + seconds
    missing = list(requests)
    last: dict[str, Any] = {}
    while missing:
        request = missing[0]
        last = through(sock, request["path"], request["host"], request["timeout"])
        answered = last.get("headers", {}).get("x-imm-upstream", "").split(", ")[-1]
        if answered in request["addresses"] and last["status"] not in unanswered:
            missing.pop(0)
            continue
        if last.get("status") in GATEWAY_ERRORS:
            deadline = min(deadline, time.monotonic() + REFUSING_SECONDS)
        if time.monotonic() >= deadline:
            return {"missing": missing, "last": last}
        time.sleep(0.005)
    return {"missing": [], "last": last}


def loaded(sock: str, generation: str, seconds: float) -> dict[str, Any]:
    """Wait until the proxy serves the configuration of that name: thrice in a row, as workers overlap."""
    deadline = time.monotonic() + seconds
    in_a_row = 0
    while in_a_row < 3:
        answer = through(sock, "/generation")
        in_a_row = in_a_row + 1 if answer.get("body", "").strip() == generation else 0
        if in_a_row == 0:
            if time.monotonic() >= deadline:
                return {"loaded": False, "last": answer}
            time.sleep(0.01)
    return {"loaded": True}


def passed(address: str, path: str, seconds: float) -> bool:
    """Wait until each of the proxy's workers has answered; whether they did.

    Connections spread over the workers by chance: with this many, one is left out once in 3,000 times.
    """
    deadline = time.monotonic() + seconds
    host, _, port = address.partition(":")
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    with contextlib.ExitStack() as open_ones:
        try:
            connections = []
            for _ in range(16 + 8 * (os.cpu_count() or 1)):
                connections.append(
                    open_ones.enter_context(socket.create_connection((host, int(port)), seconds))
                )
                connections[-1].sendall(request)
            for each in connections:
                each.settimeout(max(0.01, deadline - time.monotonic()))
                each.recv(4096)
        except OSError:
            return False
    return True


def idle(sock: str, keys: list[str], seconds: float) -> list[str]:
    """Wait until nothing is in flight for the keys, as the proxy counts; returns those still busy."""
    deadline = time.monotonic() + seconds
    busy = list(keys)
    while True:
        busy = [key for key in busy if through(sock, f"/idle/{key}").get("status") != 204]
        if not busy or time.monotonic() >= deadline:
            return busy
        time.sleep(0.02)


def answers(sock: str, path: str, seconds: float) -> bool:
    """Wait until the proxy answers 200 to this path."""
    deadline = time.monotonic() + seconds
    while through(sock, path).get("status") != 200:
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.005)
    return True


def unconnected(addresses: dict[str, list[str]], seconds: float) -> list[str]:
    """Wait until the proxy has no connection to these addresses; returns whose it still has."""
    need_network()
    deadline = time.monotonic() + seconds
    while True:
        connected = established()
        busy = [name for name, wanted in addresses.items() if connected & set(wanted)]
        if not busy or time.monotonic() >= deadline:
            return busy
        time.sleep(0.02)


def established() -> set[str]:
    """The addresses that connections of this network namespace, which is the proxy's, lead to."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table) as rows:
            next(rows)
            for row in rows:
                fields = row.split()
                # Being made, established, or closed by the other side alone.
                if fields[3] in ("01", "02", "08"):
                    found.add(socket.inet_ntoa(bytes.fromhex(fields[2][-13:-5])[::-1]))
    return found
