"""Two ways of swapping that lose requests, under the same load: they prove that a loss would be counted."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bench.swap.figures import Run, Swap
from bench.swap.machine import Clock
from bench.swap.swaps import Mix
from immutable_local.wait import until
from tests.host import Project
from tests.proxies.place import Place

PORT = 8081
START_SECONDS = 20.0
LABEL = "imm.bench"
NGINX = """\
worker_processes auto;
error_log stderr warn;
pid /tmp/nginx.pid;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/answers;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  proxy_buffering off;
  map $http_upgrade $upgrading {{ default upgrade; '' ''; }}
  upstream app {{ server {address}:8000; keepalive 64; }}
  server {{
    listen {port};
    location / {{
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $upgrading;
    }}
  }}
}}
"""
RELOAD = 'printf %s "$1" > /tmp/nginx.conf && kill -HUP 1'


def reloaded(place: Place, app: Project, nginx: str, *, flips: int, mix: Mix) -> Run:
    """nginx with the other backend in its configuration each time, and a reload. Both backends run on.

    What it loses, it loses to the reload alone: nobody's process is stopped.
    """
    with _stage(place) as stage:
        backends = [stage.start(stage.app(app, each)) for each in ("one", "two")]
        addresses = [stage.address(each) for each in backends]
        configurations = [NGINX.format(address=each, port=PORT) for each in addresses]
        proxy = stage.start(stage.nginx(nginx, configurations[0]))

        def reload(number: int) -> None:
            configuration = configurations[number % 2]
            made = place.engine.exec_create(proxy, ["sh", "-c", RELOAD, "sh", configuration])["Id"]
            place.engine.exec_start(made)

        return _run(place, "nginx, reloaded", app, flips, mix, "reload", reload)


def stopped_then_started(place: Place, app: Project, *, flips: int, mix: Mix) -> Run:
    """The old container is stopped, then the new one is started in its place, as `docker compose up` does."""
    with _stage(place) as stage:
        containers = [stage.app(app, each, published=True) for each in ("one", "two")]
        stage.start(containers[0])

        def replace(number: int) -> None:
            place.engine.stop(containers[(number + 1) % 2], timeout=2)
            stage.start(containers[number % 2])
            _answering(place)

        return _run(place, "stop, then start", app, flips, mix, "replace", replace)


def _run(
    place: Place, name: str, app: Project, flips: int, mix: Mix, word: str, flip: Callable[[int], None]
) -> Run:
    _answering(place)
    done = []
    clock = Clock.now()
    with place.load(app, mix.shapes, port=PORT, **mix.settings) as load:
        for number in range(1, flips + 1):
            time.sleep(mix.steady)
            began = time.time()
            flip(number)
            done.append(Swap(word, began, time.time()))
        time.sleep(mix.steady)
        report = load.stop()
        return Run(name, True, tuple(done), report, clock.spent(report))


class _Stage:
    """Containers and a network of a reference's own."""

    def __init__(self, place: Place) -> None:
        self.engine: Any = place.engine
        self.place = place
        self.network = "bench"

    def app(self, app: Project, name: str, published: bool = False) -> str:
        """A container of the image that `imm` has made of the app."""
        live = self.place.instances(app)[0]
        host_config = self.engine.create_host_config(
            port_bindings={8000: ("127.0.0.1", PORT)} if published else None, network_mode=self.network
        )
        return self._create(live["ImageID"], name, host_config, ports=[8000])

    def nginx(self, image: str, configuration: str) -> str:
        host_config = self.engine.create_host_config(
            port_bindings={PORT: ("127.0.0.1", PORT)},
            network_mode=self.network,
            tmpfs={"/tmp": "mode=1777"},
        )
        start = 'printf %s "$1" > /tmp/nginx.conf; exec nginx -e stderr -c /tmp/nginx.conf -g "daemon off;"'
        command = {"entrypoint": ["/bin/sh", "-c", start, "sh", configuration], "user": "101:101"}
        return self._create(image, "nginx", host_config, ports=[PORT], **command)

    def start(self, container: str) -> str:
        self.engine.start(container)
        return container

    def address(self, container: str) -> str:
        networks = self.engine.inspect_container(container)["NetworkSettings"]["Networks"]
        return str(networks[self.network]["IPAddress"])

    def _create(self, image: str, name: str, host_config: Any, **more: Any) -> str:
        made = self.engine.create_container(
            image, name=f"bench-{name}", labels={LABEL: ""}, host_config=host_config, **more
        )
        return str(made["Id"])


@contextmanager
def _stage(place: Place) -> Iterator[_Stage]:
    stage = _Stage(place)
    place.engine.create_network(stage.network, labels={LABEL: ""}, check_duplicate=True)
    try:
        yield stage
    finally:
        for each in place.engine.containers(all=True, filters={"label": LABEL}):
            place.engine.remove_container(each["Id"], force=True, v=True)
        place.engine.remove_network(stage.network)


def _answering(place: Place) -> None:
    """Return when the reference answers."""

    def answers() -> bool:
        connection = place.apart.connection(PORT)
        try:
            connection.request("GET", "/version")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    if not until(answers, START_SECONDS, pause=0.02):
        raise TimeoutError(f"nothing answers on port {PORT} after {START_SECONDS:.0f} s")
