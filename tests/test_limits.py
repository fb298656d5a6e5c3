"""A limit of requests is part of a release; a flip is over when every worker of the proxy knows of it."""

from __future__ import annotations

import os
import signal

import pytest

from immutable_local.wait import until
from tests.host import Answer, Host, Project

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def app(shared: Host) -> Project:
    app = shared.project()
    shared.up(app.version("1", max_body="10k"))
    return app


def test_another_limit_is_another_release(shared: Host, app: Project):
    shared.up(app.version("1", max_body="20k"))
    assert post(shared, app, b"x" * 20_480).status == 200
    assert post(shared, app, b"x" * 20_481).status == 413
    shared.revert(app)
    assert post(shared, app, b"x" * 20_480).status == 413


def post(host: Host, app: Project, body: bytes) -> Answer:
    return host.ask("/echo", app, method="POST", body=body)


def test_a_flip_waits_for_a_worker_that_lost_its_processor(shared: Host):
    """It may have read which slot serves, and not yet counted the request that it is about to send there."""
    app = shared.project()
    shared.up(app.version("1"))
    processes = shared.engine.top("imm-proxy", ps_args="-eo pid,args")["Processes"]
    workers = [int(pid) for pid, args in processes if "worker process" in args and "down" not in args]
    if not workers:
        pytest.skip("a proxy without workers of its own")
    for each in workers[1:]:
        os.kill(each, signal.SIGSTOP)
    try:
        with shared.begun(app.version("2"), "up", step="flip") as running:
            assert until(lambda: running.has_begun("record"), 2.0, pause=0.05) is None
            for each in workers[1:]:
                os.kill(each, signal.SIGCONT)
            assert running.ends().result["outcome"] == "live"
    finally:
        for each in workers[1:]:
            os.kill(each, signal.SIGCONT)
