"""A connection to the engine that can be cut, or fall silent, between a client and the socket."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self


class Wire:
    """Listens on a unix socket and passes everything on to another one."""

    def __init__(self, folder: Path, target: str) -> None:
        self.path = folder / "wire.sock"
        self.target = target
        self._open = threading.Event()
        self._open.set()
        self._ends: list[socket.socket] = []
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(self.path))
        self._door.listen(128)

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def silence(self) -> None:
        """Nothing passes any more, and nobody is told."""
        self._open.clear()

    def cut(self) -> None:
        """Every connection ends, and there is no new one."""
        self._door.close()
        for each in self._ends:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            engine = socket.socket(socket.AF_UNIX)
            engine.connect(self.target)
            self._ends += [client, engine]
            for each in ((client, engine), (engine, client)):
                threading.Thread(target=self._pass_on, args=each, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while part := source.recv(65536):
                self._open.wait()
                sink.sendall(part)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return
