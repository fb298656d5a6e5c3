"""The sidecar's own process: it says that nobody owns an address, for proxies that can't say it themselves.

Standard library only. It listens on a loopback address of the proxy's network namespace.
"""

import http.server
import signal
import socketserver
import sys


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

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def log_message(self, *_: object) -> None:
        """Nothing: what a stranger asks for is not worth a line."""


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    allow_reuse_address = True


if __name__ == "__main__":
    # What a session leaves running is not left as a zombie when it ends.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Server(("127.0.0.1", 8097), Page).serve_forever()
