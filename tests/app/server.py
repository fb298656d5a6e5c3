"""The app that the tests deploy: standard library only, and as bad as its environment says."""

import hashlib
import http.server
import os
import pathlib
import signal
import sys
import threading
import time
import urllib.parse

VERSION = pathlib.Path(__file__).with_name("VERSION").read_text()
BEHAVE = os.environ.get("BEHAVE", "")
# What it says of a path that it doesn't know.
UNKNOWN = 503 if BEHAVE == "closed" else 404
PORT = int(os.environ.get("PORT", "8000"))
sickened = threading.Event()
tired = [0.0]


class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        asked = urllib.parse.urlsplit(self.path)
        answer = {
            "/up": self.up,
            "/version": lambda _: self.say(500 if BEHAVE == "erring" else 200, VERSION),
            "/env": lambda name: self.say(200, os.environ.get(name, "")),
            "/read": self.read,
            "/write": self.write,
            "/slow": self.slow,
            "/stream": self.stream,
            "/say": lambda text: (print(text, flush=True), self.say(200, text)),
            "/end": lambda _: os._exit(7),
            "/sicken": self.sicken,
            "/tire": self.tire,
            "/who": lambda _: self.say(200, os.environ["HOSTNAME"]),
        }.get(asked.path, lambda _: self.echo(200 if asked.path.endswith("/echo") else UNKNOWN))
        answer(urllib.parse.unquote(asked.query))

    def do_POST(self):
        size = int(self.headers.get("Content-Length", 0))
        self.say(200, hashlib.sha256(self.rfile.read(size)).hexdigest())

    def up(self, _):
        time.sleep(tired[-1])
        if BEHAVE == "redirect":
            self.say(301, "", Location="/login")
        elif BEHAVE == "hang":
            time.sleep(3600)
        else:
            self.say(500 if BEHAVE == "sick" or sickened.is_set() else 200, "up")

    def sicken(self, _):
        sickened.set()
        self.say(200, "from now on")

    def tire(self, seconds):
        """Healthy from now on after so long."""
        tired.append(float(seconds))
        self.say(200, "from now on")

    def read(self, path):
        try:
            about, text = os.stat(path), pathlib.Path(path).read_text()
            self.say(200, f"{about.st_uid}:{about.st_gid} {about.st_mode & 0o777:o} {text}")
        except OSError as failed:
            self.say(403, failed.strerror)

    def write(self, asked):
        path, _, text = asked.partition("=")
        try:
            with open(path, "a") as file:
                file.write(text)
            self.say(200, "written")
        except OSError as failed:
            self.say(403, failed.strerror)

    def echo(self, status):
        """Which service was asked, and for which path."""
        service = os.environ["HOSTNAME"].split("-")[-4]
        self.say(status, f"{service} {self.path}")

    def slow(self, seconds):
        time.sleep(float(seconds))
        self.say(200, VERSION)

    def stream(self, seconds):
        """One line every 100 ms, with the connection's end as the end."""
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end:
            self.wfile.write(f"{VERSION}\n".encode())
            time.sleep(0.1)
        self.wfile.write(b"end\n")

    def say(self, status, text, **headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(text.encode()))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256

    def handle_error(self, *_):
        """Clients may hang up when they like."""


def main():
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    print(f"version {VERSION} starts", flush=True)
    if BEHAVE == "crash":
        sys.exit("no database: DATABASE_URL is not set")
    if BEHAVE == "write":
        pathlib.Path("/app/cache").touch()
    if BEHAVE == "eat":
        bytearray(512 * 1024 * 1024)
    if BEHAVE == "worker":
        signal.pause()
    time.sleep(float(os.environ.get("BOOT", "0")))
    while BEHAVE == "wait" and not pathlib.Path("/tmp/go").exists():
        time.sleep(0.05)
    Server(("127.0.0.1" if BEHAVE == "loopback" else "", PORT), App).serve_forever()


main()
