"""The app that is deployed and measured: standard library only, up as soon as Python is, gone at SIGTERM."""

import http.server
import os
import pathlib
import signal
import time

VERSION = pathlib.Path(__file__).with_name("VERSION").read_bytes()


class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(VERSION)))
        self.end_headers()
        self.wfile.write(VERSION)

    def log_message(self, *of: object) -> None:
        """Nothing: its log is read for the moment when it began to listen."""


class Server(http.server.ThreadingHTTPServer):
    # As application servers have it. Python's own, 5, is less than a proxy's connections that come at once
    # after a flip: the kernel drops some, and tries again after a second.
    request_queue_size = 512


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
time.sleep(float(os.environ.get("BOOT", "0")))
server = Server(("", 8000), App)
print(f"listens since {time.time()}", flush=True)
server.serve_forever()
