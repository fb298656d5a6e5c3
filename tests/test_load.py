"""Requests on kept-alive connections, while releases come and go: none is lost."""

from __future__ import annotations

import threading
import time

from tests.host import Host, Project
from tests.load import Load


def test_up_and_revert_under_load_lose_no_request(host: Host, app: Project):
    """The clients see version 1, then 2, then 1 again, and nothing else."""
    host.up(app)
    with Load(host, app) as load:
        host.up(app.version("2"))
        host.revert(app)
    assert load.lost == []
    assert load.sent > 200
    assert load.answers[0] == load.answers[-1] == "1"
    assert set(load.answers) == {"1", "2"}


def test_a_release_of_another_shape_loses_no_request(host: Host, app: Project):
    """More replicas and another domain change the proxy's structure: it is loaded anew under load."""
    host.up(app)
    with Load(host, app) as load:
        host.up(app.version("2", replicas=2, domains=[app.domain, f"www.{app.domain}"]))
        host.up(app.version("3", replicas=1, domains=[app.domain]))
    assert load.lost == []
    assert load.answers[-1] == "3"


def test_a_release_that_fails_loses_no_request(host: Host, app: Project):
    host.up(app)
    with Load(host, app) as load:
        host.up(app.version("2", behave="crash"), expect=1)
    assert load.lost == []
    assert load.answers == ["1"]


def test_a_request_in_flight_is_answered_by_the_instance_it_began_with(host: Host, app: Project):
    """The old instance goes when it has answered: drained, not guessed."""
    host.up(app)
    answers: list[str] = []
    slow = threading.Thread(target=lambda: answers.append(host.get("/slow?5", app)))
    slow.start()
    result = host.up(app.version("2")).result
    slow.join()
    assert answers == ["1"]
    assert result["seconds"] > 2


def test_a_request_that_outlasts_the_drain_is_cut_and_up_says_so(host: Host, app: Project):
    host.up(app.version("1", drain="1s"))
    ended: list[float] = []

    def ask() -> None:
        host.ask("/slow?40", app)
        ended.append(time.monotonic())

    slow = threading.Thread(target=ask)
    slow.start()
    began = time.monotonic()
    outcome = host.up(app.version("2"))
    slow.join()
    assert ended[0] - began < 35
    assert "web: still busy after 1 s; what is left is cut" in outcome.stderr


def test_a_second_apps_arrival_cuts_nobodys_connection(host: Host, app: Project):
    """A stream that is being read, and clients that keep their connections, notice nothing."""
    host.up(app)
    stream = host.connection()
    stream.request("GET", "/stream?6", headers={"Host": app.domain})
    answer = stream.getresponse()
    with Load(host, app) as load:
        second = host.project()
        host.up(second.version("second"))
        assert host.get("/version", second) == "second"
        host.imm(second, "down")
    lines = answer.read().decode().split()
    assert load.lost == []
    assert lines[-1] == "end" and set(lines[:-1]) == {"1"}
