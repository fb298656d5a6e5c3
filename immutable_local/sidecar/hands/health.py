"""Health: asked of each instance alone, from the proxy's own network."""

from __future__ import annotations

import errno
import json
import threading
import time

from immutable_local.sidecar.hands.ground import interfaces, need_network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# A refused connection costs the application nothing, so it is tried again at once.
REFUSED_PAUSE_SECONDS = 0.01
checks: dict[int, Check] = {}


class Check(threading.Thread):
    """Asks one instance again and again until it is healthy; remembers what it last saw."""

    def __init__(self, target: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self.target = target
        self.healthy = False
        self.seen: dict[str, int] = {}
        self.last: dict[str, Any] | None = None
        self.changed = threading.Event()
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            answer = ask(self.target)
            if self.ended.is_set():
                break
            self.last = answer
            key = json.dumps(answer, sort_keys=True)
            self.seen[key] = self.seen.get(key, 0) + 1
            if answer.get("healthy"):
                self.healthy = True
                self.changed.set()
                break
            refused = answer.get("failed") in ("refused", "unreachable")
            self.ended.wait(
                min(REFUSED_PAUSE_SECONDS, self.target["interval"]) if refused else self.target["interval"]
            )

    def told(self) -> dict[str, Any]:
        seen = [{**json.loads(key), "times": times} for key, times in list(self.seen.items())]
        return {"healthy": self.healthy, "last": self.last, "seen": seen[-8:]}


def ask(target: dict[str, Any]) -> dict[str, Any]:
    """One health check: the status, or why there is none."""
    import http.client

    connection = http.client.HTTPConnection(target["address"], target["port"], timeout=target["timeout"])
    try:
        connection.request(
            "GET", target["path"], headers={"Host": target["host"], "User-Agent": "imm-health-check"}
        )
        response = connection.getresponse()
        low, high = target["status"]
        told: dict[str, Any] = {"status": response.status, "healthy": low <= response.status <= high}
        location = response.getheader("Location")
        if location:
            told["location"] = location[:500]
        return told
    except TimeoutError:
        return {"failed": "timeout"}
    except ConnectionRefusedError:
        return {"failed": "refused"}
    except (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected):
        return {"failed": "closed"}
    except (http.client.HTTPException, ValueError) as strange:
        return {"failed": "not_http", "detail": f"{type(strange).__name__}: {strange}"[:200]}
    except OSError as failed:
        if failed.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
            return {"failed": "unreachable"}
        return {"failed": "error", "detail": str(failed)}
    finally:
        connection.close()


def check_begin(targets: list[dict[str, Any]]) -> list[int]:
    """Begin to ask each target until it is healthy; returns the checks' numbers."""
    begun = []
    for target in targets:
        number = len(checks) + 1
        checks[number] = Check(target)
        checks[number].start()
        begun.append(number)
    return begun


def check_poll(numbers: list[int], wait: float) -> list[dict[str, Any]]:
    """What each check has seen; returns as soon as all are healthy, after `wait` seconds at the latest."""
    need_network()
    deadline = time.monotonic() + wait
    for number in numbers:
        checks[number].changed.wait(max(0.0, deadline - time.monotonic()))
    return [checks[number].told() for number in numbers]


def check_end(numbers: list[int]) -> list[dict[str, Any]]:
    for number in numbers:
        checks[number].ended.set()
    return [checks[number].told() for number in numbers]


def ask_all(targets: list[dict[str, Any]]) -> list[dict[str, Any] | None]:
    """Ask each target once, side by side."""
    answers: list[dict[str, Any] | None] = [None] * len(targets)

    def answer(index: int, target: dict[str, Any]) -> None:
        answers[index] = ask(target)

    threads = [threading.Thread(target=answer, args=each, daemon=True) for each in enumerate(targets)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def ask_if_joined(targets: list[dict[str, Any]]) -> list[dict[str, Any] | None] | None:
    """As `ask_all`, but None from a network that the proxy has left: there nobody can be reached."""
    return ask_all(targets) if interfaces() else None
