"""Several services, domains and paths of one app, as clients meet them; and what nobody serves."""

from __future__ import annotations

import hashlib
import time

import pytest

from tests.host import HEALTHCHECK, Host, Project


@pytest.fixture(scope="module")
def app(shared: Host) -> Project:
    """Web on `/` in two replicas, api below /api without its prefix, docs below /docs with it, a worker."""
    app = shared.project()
    quick = {"healthcheck": HEALTHCHECK, "stop_grace_period": "2s"}
    app.version("1", replicas=2, domains=[app.domain, f"www.{app.domain}"])
    app.service(
        "api",
        port=8001,
        path="/api",
        strip_path=True,
        domains=[app.domain],
        environment={"PORT": "8001"},
        **quick,
    )
    app.service("docs", port=8000, path="/docs", domains=[app.domain], **quick)
    app.service("admin", port=8000, path="/admin", domains=[f"admin.{app.domain}"], **quick)
    app.service("worker", behave="worker", stop_grace_period="0s")
    shared.up(app)
    return app


@pytest.mark.parametrize("why", ["down", "its release fails"])
def test_what_has_an_image_of_its_own_ends_last(host: Host, why: str):
    """A worker that is just ending its job may need the database for that."""
    app = host.project()
    careful = (
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), sys.exit()))\n"
    )
    serves = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit())\n"
    ends = [["python3", "-c", each + "while True: signal.pause()"] for each in (careful, serves)]
    app.service("worker", command=ends[0]).service("db", image=host.base, command=ends[1])
    if why == "down":
        host.up(app)
    else:
        app.version("1", behave="sick", healthcheck={**HEALTHCHECK, "start_period": "4s"})
    began = int(time.time())
    if why == "down":
        host.imm(app, "down")
    else:
        host.up(app, expect=1)
    mine = {"event": "die", "label": [f"imm.app={app.name}", "imm.role=instance"]}
    told = host.engine.events(since=began, until=int(time.time()) + 1, decode=True, filters=mine)
    *_, last = [each["Actor"]["Attributes"]["imm.service"] for each in told]
    assert last == "db"


def test_every_replica_of_every_service_runs(shared: Host, app: Project):
    services = ["admin", "api", "docs", "web", "worker"]
    assert shared.running(app) == sorted(
        [*(f"{app.name}-{service}-1-green-1" for service in services), f"{app.name}-web-1-green-2"]
    )


def test_requests_reach_every_replica(shared: Host, app: Project):
    answered = {shared.get("/who", app) for _ in range(20)}
    assert answered == {f"{app.name}-web-1-green-1", f"{app.name}-web-1-green-2"}


@pytest.mark.parametrize(
    ("path", "service", "inside"),
    [
        ("/echo", "web", "/echo"),
        ("/api/echo", "api", "/echo"),
        ("/api/v2/echo?q=1", "api", "/v2/echo?q=1"),
        ("/docs/echo", "docs", "/docs/echo"),
        ("/apiary/echo", "web", "/apiary/echo"),
        ("/docsy/echo", "web", "/docsy/echo"),
    ],
)
def test_the_longest_prefix_that_ends_with_a_segment_leads_to_its_service(
    shared: Host, app: Project, path: str, service: str, inside: str
):
    """The query goes along; a stripped prefix doesn't."""
    assert shared.get(path, app) == f"{service} {inside}"


def test_each_domain_leads_to_its_services_alone(shared: Host, app: Project):
    assert shared.get("/version", app, domain=f"www.{app.domain}") == "1"
    assert shared.get("/admin/echo", app, domain=f"admin.{app.domain}") == "admin /admin/echo"
    assert shared.ask("/api/echo", app, domain=f"admin.{app.domain}").status == 404


@pytest.mark.parametrize("domain", ["nobody.localhost", "admin.{domain}", "x.www.{domain}"])
def test_an_address_that_nobody_owns_answers_404_and_says_whose(shared: Host, app: Project, domain: str):
    """Whose 404 is this? The proxy's own, and for what was asked."""
    host = domain.format(domain=app.domain)
    answer = shared.ask("/shop/7", app, domain=host)
    assert answer.status == 404
    assert answer.text == f"404: this is imm's proxy, and no app here serves {host}/shop/7\n"


def test_the_apps_own_404_is_left_as_it_is(shared: Host, app: Project):
    answer = shared.ask("/missing", app)
    assert (answer.status, answer.text) == (404, "web /missing")


def test_the_proxy_tells_no_client_which_instance_answered(shared: Host, app: Project):
    """That header is for imm's own proof of a flip, on a private socket."""
    assert "x-imm-upstream" not in shared.ask("/version", app).headers


def test_a_body_arrives_whole(shared: Host, app: Project):
    body = bytes(range(256)) * 8192
    answer = shared.ask("/upload", app, method="POST", body=body)
    assert answer.text == hashlib.sha256(body).hexdigest()


def test_services_reach_each_other_by_name(shared: Host, app: Project):
    """One network for the app."""
    ask = "import urllib.request as u; print(u.urlopen('http://api:8001/version', timeout=5).read().decode())"
    assert shared.printed(f"{app.name}-worker-1-green-1", "python3", "-c", ask) == "1\n"
