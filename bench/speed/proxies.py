"""imm's proxies beside the same proxy alone, in the plainest configuration that keeps connections.

wrk asks both for the same backend, in turns, on an engine of the bench's own: each proxy at its container's
address, since the engine's forwarding of a published port would hide the difference.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from bench.speed.project import BenchFailed, Project, base_image, deployed
from bench.speed.row import Bound, Row, Unmeasured
from immutable_local.wait import until
from tests.remote.second_engine import NAMESPACES, SecondEngine, why_not

KINDS = ("nginx", "traefik")
PORT = 8080
CONNECTIONS = 32
READY_SECONDS = 10.0
SECONDS, QUICK_SECONDS = 4, 2
# wrk's own summary rounds; this prints requests, microseconds in all, those of the 99th percentile, errors.
COUNTED = """\
done = function(summary, latency)
  local e = summary.errors
  local errors = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format("%d %d %d %d", summary.requests, summary.duration, latency:percentile(99), errors))
end
"""
BACKEND = """\
worker_processes 1;
error_log stderr crit;
pid /tmp/nginx.pid;
events { worker_connections 1024; }
http {
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u;
  scgi_temp_path /tmp/s;
  server { listen 8000; location / { return 200 "0123456789012345678901234567890123456789\\n"; } }
}
"""
PLAIN_NGINX = """\
worker_processes auto;
error_log stderr crit;
pid /tmp/nginx.pid;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  keepalive_requests 100000;
  client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u;
  scgi_temp_path /tmp/s;
  upstream app {{ server {address}:8000; keepalive 64; }}
  server {{
    listen {port};
    location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""
DOCKERFILE = """\
FROM {base}
COPY nginx.conf /etc/nginx/nginx.conf
USER 1000:1000
CMD ["nginx", "-e", "stderr", "-g", "daemon off;"]
"""


def rows(keys: set[str], folder: Path, times: int, quick: bool) -> Iterator[Row | Unmeasured]:
    """Throughput and 99th percentile, for each kind asked for."""
    wanted = [kind for kind in KINDS if kind in keys]
    reason = why_not() or (None if shutil.which("wrk") else "not installed: wrk")
    if reason:
        yield from (Unmeasured(kind, reason) for kind in wanted)
        return
    images = [base_image("python"), *(base_image(kind) for kind in KINDS)]
    script = folder / "counted.lua"
    script.write_text(COUNTED)
    with SecondEngine.running(images) as engine:
        way = {"DOCKER_HOST": engine.unix}
        with deployed(folder, base_image("nginx"), way, prepare=_backend) as project:
            for kind in wanted:
                project.imm("proxy", "up", "--kind", kind)
                yield from _beside(kind, engine, project, script, times, QUICK_SECONDS if quick else SECONDS)


def _backend(project: Project) -> None:
    (project.folder / "nginx.conf").write_text(BACKEND)
    (project.folder / "Dockerfile").write_text(DOCKERFILE.format(base=base_image("nginx")))


def _beside(
    kind: str, engine: SecondEngine, project: Project, script: Path, times: int, seconds: int
) -> Iterator[Row]:
    client = engine.client
    network = f"imm-app-{project.name}"

    def address(container: str) -> str:
        return str(client.inspect_container(container)["NetworkSettings"]["Networks"][network]["IPAddress"])

    backend = project.imm("status").told[-1]["services"]["web"][0]["instance"]
    with _alone(client, kind, network, address(backend)) as alone:
        asked = [(alone, "alone"), ("imm-proxy", project.name)]
        targets = [(address(container), f"{host}.localhost") for container, host in asked]
        for target in targets:
            if not until(partial(_answers, engine, *target), READY_SECONDS, pause=0.05):
                raise BenchFailed(f"{target[0]} does not answer for {target[1]}")
            _wrk(engine, script, *target, 1)
        samples = [[_wrk(engine, script, *target, seconds) for target in targets] for _ in range(times)]
    client.close()
    does = f"{kind} alone"
    floor, imm = zip(*samples, strict=True)
    yield Row(
        kind,
        f"{kind}: requests a second, {CONNECTIONS} connections",
        tuple(each[0] for each in imm),
        does,
        tuple(each[0] for each in floor),
        Bound(times=0.95, least=True),
        "/s",
    )
    yield Row(
        kind,
        f"{kind}: the slowest percent of answers",
        tuple(each[1] for each in imm),
        does,
        tuple(each[1] for each in floor),
        Bound(times=1.1),
    )


@contextmanager
def _alone(client: Any, kind: str, network: str, backend: str) -> Iterator[str]:
    """The same image, plainly configured, in the same network; yields its container."""
    command, environment = _plain(kind, backend)
    made = client.create_container(
        base_image(kind),
        entrypoint=[],
        command=command,
        environment=environment,
        user="101:101",
        host_config=client.create_host_config(network_mode=network, tmpfs={"/tmp": "mode=1777"}),
    )["Id"]
    try:
        client.start(made)
        yield made
    finally:
        client.remove_container(made, force=True)


def _plain(kind: str, backend: str) -> tuple[list[str], Mapping[str, str]]:
    """What it runs, and its configuration, which it writes itself where it may."""
    if kind == "nginx":
        start = 'printf %s "$CONFIGURATION" >/tmp/c && exec nginx -e stderr -c /tmp/c -g "daemon off;"'
        return ["sh", "-c", start], {"CONFIGURATION": PLAIN_NGINX.format(address=backend, port=PORT)}
    routes = {
        "routers": {"app": {"rule": "PathPrefix(`/`)", "service": "app"}},
        "services": {"app": {"loadBalancer": {"servers": [{"url": f"http://{backend}:8000"}]}}},
    }
    start = (
        'printf %s "$CONFIGURATION" >/tmp/c.yml && exec traefik --log.level=ERROR'
        f" --entrypoints.web.address=:{PORT} --providers.file.filename=/tmp/c.yml"
    )
    return ["sh", "-c", start], {"CONFIGURATION": json.dumps({"http": routes})}


def _answers(engine: SecondEngine, address: str, host: str) -> bool:
    """Whether the app answers there already."""

    def ask() -> bool:
        connection = http.client.HTTPConnection(address, PORT, timeout=1)
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/", headers={"Host": host})
            return connection.getresponse().status == 200
        return False

    return engine.enter(ask)


def _wrk(engine: SecondEngine, script: Path, address: str, host: str, seconds: int) -> tuple[float, float]:
    """Requests a second, and the 99th percentile in seconds."""
    inside = ["nsenter", f"--net={NAMESPACES / engine.name}"]
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), "-H", f"Host: {host}"]
    done = subprocess.run(
        [*inside, *command, f"http://{address}:{PORT}/"],
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    if done.returncode:
        raise BenchFailed(f"wrk failed: {done.stdout}{done.stderr}")
    requests, microseconds, slowest, errors = map(int, done.stdout.split("\n")[-1].split())
    if errors or not requests:
        raise BenchFailed(f"{errors} errors in {requests} requests to {host}: {done.stdout}")
    return requests / microseconds * 1e6, slowest / 1e6
