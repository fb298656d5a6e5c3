"""The sidecar's own process: it says that nobody owns an address, and counts what the proxy answers.

Both for proxies that can't do it themselves. Standard library only. It listens on loopback addresses of the
proxy's network namespace.
"""

import contextlib
import http.server
import json
import signal
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable

PAGE = ("127.0.0.1", 8097)
COUNTER = ("127.0.0.1", 8096)
# Room for what arrives while this process waits for its turn.
BUFFER_BYTES = 4 << 20
READING_SECONDS = 2.0


class Page(http.server.BaseHTTPRequestHandler):
    """404 to everything."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """Say for what there is no app."""
        host = self.headers.get("X-Forwarded-Host") or self.headers.get("Host") or "this address"
        said = (
            f"404: this is imm's proxy, and no app here serves {host.partition(':')[0]}{self.path}\n".encode()
        )
        self.send_response(404)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(said)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)
        self.close_connection = True
        self.read_on()

    def read_on(self) -> None:
        """What is still being sent is read for a moment: closing over it would destroy the answer."""
        deadline = time.monotonic() + READING_SECONDS
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(READING_SECONDS)
            while time.monotonic() < deadline and self.rfile.read1(65536):
                continue

    def version_string(self) -> str:
        """Nothing of what it is made with."""
        return "imm"

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Whatever the method is, it is answered the same."""
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def log_message(self, *_: object) -> None:
        """Nothing: what a stranger asks for is not worth a line."""


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    allow_reuse_address = True


def count() -> None:
    """Count, by key, the requests that the proxy tells of, and those that ended with 500 or more.

    A datagram ends with `KEY STATUS`; one that begins with '?' asks for the counts of a list of keys.
    """
    counts: dict[str, list[int]] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        heard.bind(COUNTER)
        while True:
            told, sender = heard.recvfrom(65536)
            if told.startswith(b"?"):
                wanted = {key: counts[key] for key in json.loads(told[1:]) if key in counts}
                heard.sendto(json.dumps(wanted).encode(), sender)
                continue
            *_, key, status = told.decode(errors="replace").split(" ")
            of_key = counts.setdefault(key, [0, 0])
            of_key[0] += 1
            of_key[1] += status >= "500"


if __name__ == "__main__":
    # What a session leaves running is not left as a zombie when it ends.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    threading.Thread(target=count, daemon=True).start()
    Server(PAGE, Page).serve_forever()
