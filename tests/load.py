"""Clients that go on asking on kept-alive connections while something happens, and note what they lose."""

from __future__ import annotations

import http.client
import threading
import time
from types import TracebackType
from typing import Self

from tests.host import Host, Project

PAUSE_SECONDS = 0.005


class Load:
    """Light, steady load on one app: `sent`, what was `lost` of it, and the `answers` in their order."""

    def __init__(self, host: Host, project: Project, path: str = "/version", clients: int = 6) -> None:
        self.host = host
        self.project = project
        self.path = path
        self.sent = 0
        self.slowest = 0.0
        self.lost: list[str] = []
        self.answers: list[str] = []
        self._noting = threading.Lock()
        self._stop = threading.Event()
        self._clients = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Self:
        for each in self._clients:
            each.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for each in self._clients:
            each.join(timeout=30)

    def _ask(self) -> None:
        connection = self.host.connection()
        while not self._stop.is_set():
            began = time.monotonic()
            lost = answer = None
            try:
                connection.request("GET", self.path, headers={"Host": self.project.domain})
                response = connection.getresponse()
                answer = response.read().decode()
                if response.status != 200:
                    lost = f"{response.status}: {answer}"
            except (OSError, http.client.HTTPException) as failed:
                lost = f"{type(failed).__name__}: {failed}"
                connection.close()
            with self._noting:
                self.sent += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
                if lost is not None:
                    self.lost.append(lost)
                elif answer is not None and answer not in self.answers[-1:]:
                    self.answers.append(answer)
            self._stop.wait(PAUSE_SECONDS)
        connection.close()
