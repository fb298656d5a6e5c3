"""What each slot answered, while two releases serve."""

from __future__ import annotations

import json
import re
import socket

from immutable_local.sidecar.hands.ground import dump
from immutable_local.sidecar.hands.proxy import connection_to

# Where the sidecar's own process counts what a proxy tells it, that keeps no counts itself.
COUNTER = ("127.0.0.1", 8096)
COUNTER_SECONDS = 1.0
METRIC = re.compile(
    r'(?P<name>\w+)\{code="(?P<code>\d+)".*,service="(?P<service>[^"@]+)@file"\} (?P<amount>\S+)'
)


def counted(keys: list[str]) -> dict[str, list[int]]:
    """Requests and errors of each key, as the sidecar's own process counts them, if it can say."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(COUNTER_SECONDS)
        try:
            asking.sendto(b"?" + dump(keys), COUNTER)
            told: dict[str, list[int]] = json.loads(asking.recv(65536))
            return told
        except (OSError, ValueError):
            return {}


def metrics(sock: str, name: str, services: list[str]) -> dict[str, list[int]]:
    """Requests and errors of each service, from the proxy's metrics."""
    import http.client

    connection = connection_to(sock, 5.0)
    found: dict[str, list[int]] = {}
    try:
        connection.request("GET", "/metrics")
        for line in connection.getresponse().read().decode().splitlines():
            told = METRIC.fullmatch(line)
            if told is None or told["name"] != name or told["service"] not in services:
                continue
            counts = found.setdefault(told["service"], [0, 0])
            amount = int(float(told["amount"]))
            counts[0] += amount
            counts[1] += amount if told["code"].startswith("5") else 0
    except (OSError, http.client.HTTPException):
        return {}
    finally:
        connection.close()
    return found
