"""Two proxies, one behaviour: every promise of this file holds behind nginx and behind Traefik.

All tests share one engine and one host, which is switched from one kind to the other once. The first app
stays from the first test to the last.
"""

from __future__ import annotations

import hashlib
import json
import re
import signal
import threading
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from immutable_local.wait import until
from tests.conftest import soak
from tests.host import HEALTHCHECK, Answer, Outcome, Project
from tests.proxies.conftest import KINDS
from tests.proxies.place import Place, lost, moment, seconds

pytestmark = pytest.mark.engine

# Every shape that a client may have; each of them has begun before anything else does.
MIXED = {"busy": 2, "idle": 6, "fresh": 1, "slow": 1, "streams": 1, "uploads": 1, "websockets": 1}
SHORT = {"slow": 0.8, "stream_events": 6, "upload_pieces": 6, "socket_life": 0.8}
FORGED = "203.0.113.66"


@pytest.fixture(scope="session")
def second(place: Place, first: Project, kind: str) -> Project:
    """An app with two domains and three services on paths of one site."""
    app = place.project(f"second-{kind}")
    site = [app.domain, f"www.{app.domain}"]
    check = {**HEALTHCHECK, "path": "/up"}
    # What its health check asks inside is another service's outside: it isn't proved by that one's answers.
    app.service("web", domains=site, max_body="10k", healthcheck={**HEALTHCHECK, "path": "/api/health"})
    app.service("api", port=8000, domains=site, path="/api", healthcheck=check)
    app.service(
        "cut",
        port=8000,
        domains=site[:1],
        path="/cut",
        strip_path=True,
        healthcheck=check,
        replicas=2,
        response_timeout="2s",
    )
    place.up(app)
    return app


@pytest.fixture(scope="session")
def swapped(place: Place, first: Project, kind: str) -> Project:
    """An app that is replaced again and again."""
    app = place.project(f"swapped-{kind}")
    place.up(app.version("0"))
    return app


@pytest.fixture(scope="session")
def alone(place: Place, first: Project, kind: str) -> Project:
    """An app whose data is for one writer, replaced stop-first again and again."""
    app = place.alone(f"alone-{kind}", hold="30s")
    place.up(app.version("0"))
    return app


class TestAddresses:
    """Which app and which service answers, for what."""

    def test_domains_and_paths_lead_to_their_services(self, place: Place, second: Project):
        """A path is a whole part of a path, and is seen by the service unless it is to be cut off."""
        for domain in (second.domain, f"www.{second.domain}", second.domain.upper()):
            for path, service in (("/", "web"), ("/api", "api"), ("/api/x?y=1", "api"), ("/apix", "web")):
                assert answered(place, path, second, domain=domain) == (service, path)
        assert answered(place, "/cut/x/y?z=1", second) == ("cut", "/x/y?z=1")
        assert answered(place, "/cut", second) == ("cut", "/")
        assert answered(place, "/cutter", second) == ("web", "/cutter")
        assert answered(place, "/cut", second, domain=f"www.{second.domain}") == ("web", "/cut")

    def test_the_first_app_answers_for_the_host_itself(self, place: Place, first: Project, second: Project):
        for name in ("localhost", "localhost:8080", "127.0.0.1", "127.0.0.1:8080", "[::1]:8080"):
            assert place.told("/x", domain=name)["instance"].startswith("first-web-"), name
        assert place.told("/x", first)["instance"].startswith("first-web-")

    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_an_address_that_nobody_owns_is_told_to_be_nobodys(
        self, place: Place, second: Project, method: str
    ):
        """By whom, and which address: also to those who send a body."""
        body = bytes(2_000_000) if method == "POST" else None
        answer = place.ask("/x", domain="nobody.example", method=method, body=body)
        assert answer.status == 404
        assert answer.text == "404: this is imm's proxy, and no app here serves nobody.example/x\n"

    def test_an_app_that_is_taken_off_leaves_the_others(self, place: Place, first: Project, kind: str):
        app = place.project(f"gone-{kind}")
        place.up(app)
        with place.load(first, {"idle": 8}, idle_gap=0.1) as load:
            assert place.version(app) == "1"
            place.imm(app, "down")
            assert place.ask("/version", app).status == 404
            assert lost(load.stop()) == []
        assert place.version(first) == "1"

    def test_the_kind_is_told(self, place: Place, first: Project, kind: str):
        assert place.status(first)["proxy"] == {"kind": kind, "state": "running"}
        assert place.proxy_status()["kind"] == kind
        told = place.imm(first, "status", text=True).stdout
        assert f"proxy: {kind}, running" in told


class TestRequests:
    """What an application is sent, and what its client gets."""

    def test_headers_about_the_client_are_the_proxys_own(self, place: Place, first: Project):
        """What a client says of itself proves nothing, however it spells it."""
        names = [
            "X-Forwarded-For",
            "X-Real-IP",
            "X-Forwarded-Host",
            "X-Forwarded-Proto",
            "X-Forwarded-Prefix",
        ]
        names += ["X-Forwarded-Server", "X-Forwarded-Port", "X_Forwarded_For", "X_Real_IP", "x-forwarded-for"]
        names += ["X-Forwarded-Scheme", "X-Forwarded-Ssl"]
        names += ["X.Forwarded.For", "X.Real.Ip", "X_forwarded.For", "X~Forwarded~Proto", "X-Forwarded_Host"]
        lines = [f"{name}: {FORGED}" for name in names] + [f"Forwarded: for={FORGED};host={FORGED}"]
        lines += ["Connection: close, X-Forwarded-For, X-Real-IP"]
        head = [f"GET /x HTTP/1.1\r\nHost: {first.domain}:8080", *lines, "\r\n"]
        [answer] = place.exchange("\r\n".join(head).encode())
        came = [(name.lower(), value) for name, value in json.loads(answer.text)["headers"]]
        assert FORGED not in str(came)
        once = {name: value for name, value in came if [each for each, _ in came].count(name) == 1}
        assert once["host"] == once["x-forwarded-host"] == f"{first.domain}:8080"
        assert (once["x-forwarded-proto"], once["x-forwarded-port"]) == ("http", "8080")
        assert once["x-forwarded-for"] == once["x-real-ip"]
        assert re.fullmatch(r"[0-9.]+", once["x-real-ip"])

    def test_the_prefix_that_was_cut_off_is_told(self, place: Place, second: Project):
        headers = {name.lower(): value for name, value in place.told("/cut/x", second)["headers"]}
        assert headers["x-forwarded-prefix"] == "/cut"

    def test_a_request_line_that_names_a_host_wins_over_the_header(self, place: Place, second: Project):
        """The app is chosen by it: what the app is told must be the same name, and the same port."""
        for site, port in ((second.domain, "80"), (f"{second.domain}:81", "81")):
            line = f"GET http://{site}/api/x?y HTTP/1.1\r\nHost: {FORGED}:66\r\n"
            [answer] = place.exchange(f"{line}Connection: close\r\n\r\n".encode())
            told = json.loads(answer.text)
            came = {name.lower(): value for name, value in told["headers"]}
            assert told["target"] == "/api/x?y"
            assert came["host"] == came["x-forwarded-host"] == site
            assert came["x-forwarded-port"] == port

    def test_a_connection_may_become_a_websocket_and_nothing_else(self, place: Place, second: Project):
        """In another protocol, which the proxy doesn't look into, a client could say of itself what it likes."""
        for asked, passed in (
            ("websocket", True),
            ("WebSocket", True),
            ("h2c", False),
            ("h2c, websocket", False),
            ("h2c;q=1", False),
            ("foo, websocket", False),
            ("websockets", False),
            ("tcp", False),
            ("tcp\r\nUpgrade: websocket", False),
        ):
            head = f"GET /x HTTP/1.1\r\nHost: {second.domain}\r\nUpgrade: {asked}\r\n"
            more = "Connection: close, Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
            [answer] = place.exchange(f"{head}{more}".encode())
            came = {name.lower(): value for name, value in json.loads(answer.text)["headers"]}
            assert came.get("upgrade") == (asked if passed else None)
            assert ("upgrade" in came.get("connection", "").lower()) == passed

    def test_what_is_said_to_a_proxy_of_the_applications_own_is_said_to_nobody_here(
        self, place: Place, second: Project
    ):
        """Else an answer of one app would send requests on to another, or to imm's own pages."""
        said = {
            "X-Accel-Redirect": "/api/x",
            "X-Accel-Limit-Rate": "1",
            "X-Accel-Charset": "koi8-r",
            "X-Accel-Buffering": "yes",
            "X-Accel-Expires": "60",
        }
        for target in ("/api/x", "@imm_gap", "/nowhere"):
            said["X-Accel-Redirect"] = target
            answer = place.ask(f"/says?{urllib.parse.urlencode(said)}", second)
            assert (answer.status, json.loads(answer.text)["instance"].split("-")[-4]) == (200, "web")
            assert {name: answer.headers.get(name.lower()) for name in said} == said
            assert answer.headers["content-type"] == "application/json"

    def test_a_request_that_gets_no_answer_is_not_begun_again(self, place: Place, second: Project):
        """By another instance: it would take as much again, of the client's time and the application's."""

        def begun() -> int:
            answers = [place.told("/cut/slow-ones", second) for _ in range(10)]
            by_instance = {each["instance"]: each["begun"] for each in answers}
            assert len(by_instance) == 2
            return sum(by_instance.values())

        before = begun()
        assert place.ask("/cut/slow?seconds=20", second).status == 504
        assert begun() == before + 1

    @pytest.mark.parametrize(
        "target",
        ["/a%2Fb", "/a%20b", "/a;b=c", "/a%3Bb", "/%C3%A9", "/a%25b?c=%2F%20+d", "/a%0Ab", "/?a=/.b"],
    )
    def test_a_path_arrives_as_it_was_sent(self, place: Place, second: Project, target: str):
        assert place.told(target, second)["target"] == target
        assert place.told(f"/api{target}", second)["target"] == f"/api{target}"
        assert place.told(f"/cut{target}", second)["target"] == target

    def test_two_slashes_in_a_path_are_one_behind_traefik_alone(
        self, place: Place, second: Project, kind: str
    ):
        """What is left of a path never begins with two: to many an application a host follows there."""
        seen = "/x//y" if kind == "nginx" else "/x/y"
        assert place.told("/x//y", second)["target"] == seen
        assert place.told("/cut/x//y", second)["target"] == place.told("/cut//x//y", second)["target"] == seen

    @pytest.mark.parametrize("dots", ["..", ".%2e", "%2E%2E"])
    def test_dots_lead_to_whoever_has_the_path_that_they_mean(self, place: Place, second: Project, dots: str):
        """And an application whose prefix is cut off sees no path that leads out of it."""
        assert answered(place, f"/cut/{dots}/api/x", second)[0] == "api"
        assert answered(place, f"/api/{dots}/cut/x", second) == ("cut", "/x")
        assert answered(place, f"/cut/{dots}/cut/x", second) == ("cut", "/x")

    def test_pipelined_requests_are_answered_in_their_order(self, place: Place, first: Project):
        requests = [f"GET /{number} HTTP/1.1\r\nHost: {first.domain}\r\n" for number in range(9)]
        requests += [f"GET /9 HTTP/1.1\r\nHost: {first.domain}\r\nConnection: close\r\n"]
        answers = place.exchange("".join(f"{each}\r\n" for each in requests).encode())
        assert [json.loads(each.text)["target"] for each in answers] == [f"/{number}" for number in range(10)]

    def test_a_large_chunked_upload_arrives_whole(self, place: Place, first: Project):
        """20 MB, of which the proxy isn't told the length."""
        piece = bytes(range(256)) * 1024
        chunk = b"%x\r\n%b\r\n" % (len(piece), piece)
        head = f"POST /upload HTTP/1.1\r\nHost: {first.domain}\r\nConnection: close\r\n"
        [answer] = place.exchange(
            f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), *[chunk] * 80, b"0\r\n\r\n"
        )
        told = json.loads(answer.text)
        assert told["bytes"] == 80 * len(piece)
        assert told["sha256"] == hashlib.sha256(piece * 80).hexdigest()

    def test_the_bound_of_one_service_is_not_that_of_another_beneath_it(self, place: Place, second: Project):
        """Many a site has a path of its own for uploads."""
        too_much = b"x" * 10_241
        assert place.ask("/x", second, method="POST", body=too_much).status == 413
        assert place.ask("/api/x", second, method="POST", body=too_much).status == 200

    def test_events_arrive_as_they_are_sent(self, place: Place, first: Project):
        """Each before the next one is even sent, which waits until it is asked for."""
        connection = place.connection()
        connection.request("GET", "/events?count=3", headers={"Host": first.domain})
        answer, came = connection.getresponse(), 0
        while line := answer.readline():
            if line.startswith(b"data: "):
                came += 1
                place.told("/next", first)
        assert came == 3


class TestSwaps:
    """A release is replaced, and nobody notices but by the version."""

    @soak
    def test_up_and_revert_lose_nothing_under_every_shape_of_load(self, place: Place, swapped: Project):
        """Once the flip is over, whatever is sent is answered by the new release."""
        was = place.version(swapped)
        swapped.version("of every shape")
        for words, version in ((["up"], "of every shape"), (["revert"], was)):
            with place.load(swapped, MIXED, **SHORT) as load:
                outcome = place.imm(swapped, *words)
                report = load.stop()
            assert lost(report) == []
            assert min(shape.sent for shape in report.shapes) > 1
            old, new = report.served
            assert new.version == version
            # It is told in whole milliseconds.
            assert old.last_sent < moment(outcome, "flip") + 0.001

    def test_an_idle_host_drains_at_once(self, place: Place, swapped: Project):
        """Whatever was answered just before: what is waited for is known, not guessed."""
        took = []
        for version in ("idle 1", "idle 2", "idle 3"):
            assert place.version(swapped)
            took.append(seconds(place.up(swapped.version(version)), "drain"))
            # Others are at work on this machine: one of three is not disturbed.
            if took[-1] < 1:
                break
        assert min(took) < 1, took

    def test_what_is_in_flight_to_a_service_that_gets_another_name_ends_before_it_goes(
        self, place: Place, kind: str, first: Project
    ):
        """No service of the new release is where it was."""
        app = place.project(f"renamed-{kind}").version("1", domains=[f"renamed-{kind}.example"])
        place.up(app)
        app.settings["services"]["site"] = app.settings["services"].pop("web")
        domain = {"domain": f"renamed-{kind}.example"}
        with ThreadPoolExecutor() as threads:
            with place.begun(app.write(), "up", step="check_health") as running:
                slow = threads.submit(place.told, "/slow?seconds=4", **domain)
                outcome = running.ends()
            assert slow.result()["instance"].startswith(f"{app.name}-web-")
        assert seconds(outcome, "drain") > 1
        assert place.told("/version", **domain)["instance"].startswith(f"{app.name}-site-")
        place.imm(app, "down")

    @soak
    @pytest.mark.parametrize("behave", ["hasty", "deaf"])
    def test_what_is_under_way_ends_before_the_old_instance_does(
        self, place: Place, swapped: Project, behave: str
    ):
        """A slow answer, and an upload that no instance knows of yet; then SIGTERM.

        The one application ends on it at once, whatever it is doing, the other one never.
        """
        place.up(swapped.version(f"0 {behave}", behave=behave, stop_grace_period="1s"))
        with ThreadPoolExecutor() as threads:
            known = slow_ones(place, swapped)
            slow = threads.submit(place.told, "/slow?seconds=3", swapped)
            begun = threading.Event()
            upload = threads.submit(slow_upload, place, swapped, 2.0, begun)
            assert begun.wait(10)
            assert until(lambda: slow_ones(place, swapped) > known, 10, 0.02)
            outcome = place.up(swapped.version(f"1 {behave}"))
            assert slow.result()["version"] == upload.result()["version"] == f"0 {behave}"
        assert place.version(swapped) == f"1 {behave}"
        assert ("did not end within 1 s of SIGTERM" in outcome.stderr) == (behave == "deaf")

    @soak
    def test_a_release_that_refuses_connections_never_sends_them_back(self, place: Place, swapped: Project):
        """Although the old instance is still there, with a request of its own."""
        was = place.version(swapped)
        with ThreadPoolExecutor() as threads:
            known = slow_ones(place, swapped)
            slow = threads.submit(place.told, "/slow?seconds=4", swapped)
            assert until(lambda: slow_ones(place, swapped) > known, 10, 0.02)
            with place.begun(swapped.version("refusing", behave="hasty"), "up", step="drain") as running:
                assert place.told("/refuse", swapped)["version"] == "refusing"
                answers = [place.ask("/version", swapped) for _ in range(30)]
                assert not slow.done()
                running.ends()
            assert slow.result()["version"] == was
        assert {each.status for each in answers} == {502}, answers

    @soak
    def test_a_release_that_answers_no_more_before_the_flip_is_proved_is_taken_back(
        self, place: Place, swapped: Project
    ):
        """It was healthy once. That the proxy sends requests to it is no proof that it answers them."""
        place.up(swapped.version("well", behave="hasty"))
        outcome = place.up(swapped.version("faint", behave="faint"), expect=1)
        assert outcome.states("check_health", "flip") == ["done", "failed"]
        assert place.version(swapped) == "well"

    @soak
    def test_changes_of_shape_lose_nothing(self, place: Place, kind: str, first: Project):
        """Replicas, port, domains, path, and whether it is cut off; on idle kept-alive connections."""
        app = place.project(f"shape-{kind}")
        other = f"www.{app.domain}"
        place.up(app.version("1", domains=[app.domain]))
        with place.load(app, {"idle": 12, "distant": 6, "fresh": 1}) as load:
            place.up(app.version("2", replicas=2, domains=[app.domain, other]))
            assert {place.told("/version", app)["instance"][-1] for _ in range(20)} == {"1", "2"}
            assert place.told("/version", app, domain=other)["version"] == "2"
            port = {"PORT": "8001"}
            place.up(app.version("3", replicas=1, domains=[app.domain], port=8001, environment=port))
            assert place.ask("/version", app, domain=other).status == 404
            place.up(app.version("4", path="/version"))
            assert place.ask("/elsewhere", app).status == 404
            place.up(app.version("5", path="/"))
            assert place.ask("/elsewhere", app).status == 200
            report = load.stop()
        assert lost(report) == []
        assert [each.version for each in report.served] == ["1", "2", "2", "3", "4", "5"]
        place.imm(app, "down")

    @soak
    def test_one_change_of_shape_right_after_another_loses_nothing(
        self, place: Place, kind: str, first: Project
    ):
        """Of clients that pause for as long as a deployment takes: their connections are those of before it."""
        app = place.project(f"soon-{kind}")
        place.up(app.version("1"))
        with place.load(app, {"idle": 40}, idle_gap=1.8) as load:
            place.up(app.version("2", port=8001, environment={"PORT": "8001"}))
            place.up(app.version("3"))
            place.up(app.version("4", port=8000, environment={"PORT": "8000"}))
            report = load.stop()
        place.imm(app, "down")
        assert lost(report) == []
        assert [each.version for each in report.served] == ["1", "2", "3", "4"]

    def test_cutting_the_path_off_from_now_on_loses_nothing(self, place: Place, kind: str, first: Project):
        """The old release sees the whole path until the flip, the new one what is left of it."""
        app = place.project(f"strip-{kind}")
        check = {**HEALTHCHECK, "path": "/up"}
        place.up(app.version("1", path="/a", healthcheck=check))
        with place.load(app, {"idle": 8}, path="/a/x%2Fy", idle_gap=0.1) as load:
            place.up(app.version("2", strip_path=True))
            report = load.stop()
        place.imm(app, "down")
        assert lost(report) == []
        # An instance that saw two paths would be here twice: it tells what it saw.
        assert [each.version for each in report.served] == ["1", "2"]

    @soak
    def test_a_path_that_moves_beneath_itself_and_back_loses_nothing(
        self, place: Place, kind: str, first: Project
    ):
        """What is cut off, and told, is what the release that answers would have cut off."""
        app = place.project(f"beneath-{kind}")
        check = {**HEALTHCHECK, "path": "/up"}
        place.up(app.version("1", path="/a", strip_path=True, healthcheck=check))
        with place.load(app, {"idle": 8}, path="/a/b/c", idle_gap=0.1) as load:
            seen = [place.told("/a/b/c", app)]
            for version, path in (("2", "/a/b"), ("3", "/a")):
                place.up(app.version(version, path=path))
                seen.append(place.told("/a/b/c", app))
            report = load.stop()
        place.imm(app, "down")
        assert lost(report) == []
        assert [each["target"] for each in seen] == ["/b/c", "/c", "/b/c"]
        told = [dict(each["headers"]) for each in seen]
        assert [each["X-Forwarded-Prefix"] for each in told] == ["/a", "/a/b", "/a"]
        assert [each.version for each in report.served] == ["1", "2", "3"]

    def test_what_is_removed_or_renamed_is_nobodys_from_the_flip_on(
        self, place: Place, kind: str, first: Project
    ):
        """Its path belongs to who is above it, or to its new name; whichever slot it was on, while both
        releases are up as well, and where imm 0.1.0 made the old one live."""
        app = place.project(f"renamed-{kind}")
        # Each release, and which service has the path in it: from green, and from blue.
        releases = {
            "1": "api",
            "2": "",
            "3": "api",
            "4": "api",
            "5": "backend",
            "6": "api",
            "7": "api",
            "8": "",
        }

        def up(version: str) -> Outcome:
            for name in {"api", "backend"} & app.settings["services"].keys():
                del app.settings["services"][name]
            if name := releases[version]:
                app.service(name, port=8000, domains=[app.domain], path="/api", healthcheck=HEALTHCHECK)
            if version == "8":
                for flag in (place.live_folder(app) / "live").glob("*.blue"):
                    flag.unlink()
            watch = "1500ms" if version in "25" else "0s"
            return place.up(app.set(release={"watch": watch}).version(version))

        up("1")
        with place.load(app, {"idle": 8, "fresh": 2}, path="/api/x", idle_gap=0.1) as load:
            flips = [moment(up(version), "flip") for version in [*releases][1:]]
            report = load.stop()
        place.imm(app, "down")
        assert lost(report) == []
        served = [(each.version, each.instance.split("-")[-4]) for each in report.served]
        assert served == [(version, name or "web") for version, name in releases.items()]
        for old, flip in zip(report.served, flips, strict=False):
            # It is told in whole milliseconds.
            assert old.last_sent < flip + 0.001


class TestHold:
    """One writer: the old instance ends before the new one starts, and requests wait meanwhile."""

    def test_nothing_is_lost_and_there_are_never_two(self, place: Place, alone: Project):
        """Bodies included: what was answered to have been written is there, once."""
        shapes = {"busy": 2, "idle": 6, "fresh": 1, "slow": 1, "uploads": 1, "notes": 2, "websockets": 1}
        alone.version("1")
        for words in (["up"], ["revert"]):
            before = len(json.loads(place.get("/notes", alone)))
            with never_two(place, alone), place.load(alone, shapes, **SHORT) as load:
                outcome = place.imm(alone, *words)
                report = load.stop()
            assert outcome.states("hold", "stop_old", "flip") == ["done"] * 3
            assert lost(report) == []
            assert len(json.loads(place.get("/notes", alone))) - before == report.shape("notes").sent

    @soak
    def test_a_new_release_that_never_gets_healthy_leaves_the_waiting_to_the_old_one(
        self, place: Place, alone: Project
    ):
        was = place.version(alone)
        check = dict(alone.settings["services"]["web"]["healthcheck"])
        alone.version("sick", behave="sick", healthcheck={**check, "start_period": "1s"})
        with never_two(place, alone), place.load(alone, {"busy": 1, "idle": 6, "notes": 2}) as load:
            place.up(alone, expect=1)
            report = load.stop()
        alone.version("0", behave="", healthcheck=check)
        assert lost(report) == []
        assert {each.version for each in report.served} == {was}
        assert place.version(alone) == was

    def test_what_a_client_gave_up_while_it_waited_is_never_done(self, place: Place, alone: Project):
        """Either proxy ends its own connection when the client ends, so that nothing waits for nobody."""
        before = json.loads(place.get("/notes", alone))
        with place.begun(alone.version("2"), "up", step="start") as running:
            impatient = place.connection()
            impatient.timeout = 0.5
            impatient.request("POST", "/notes", body=b"for nobody", headers={"Host": alone.domain})
            with pytest.raises(TimeoutError):
                impatient.getresponse()
            impatient.close()
            patient = place.ask("/notes", alone, method="POST", body=b"for somebody")
            running.ends()
        assert patient.status == 201
        assert json.loads(place.get("/notes", alone))[len(before) :] == ["for somebody"]

    @soak
    def test_more_than_may_wait_are_told_at_once_to_come_again(self, place: Place, kind: str, first: Project):
        app = place.alone(f"few-{kind}", hold="30s", hold_requests=3)
        place.up(app)
        with place.begun(app.version("2"), "up", step="start") as running, ThreadPoolExecutor(8) as threads:
            asking = [threads.submit(place.ask, "/version", app) for _ in range(8)]
            until(lambda: sum(each.done() for each in asking) == 5, 10, pause=0.01)
            early = [each.result() for each in asking if each.done()]
            running.ends()
            late = [each.result() for each in asking]
        assert_told_to_wait(early)
        assert len(early) == 5
        assert sorted(each.status for each in late) == [200] * 3 + [503] * 5
        place.imm(app, "down")

    @soak
    @pytest.mark.parametrize("step", ["hold", "stop_old", "start"])
    def test_a_client_that_is_killed_leaves_nobody_waiting_beyond_the_bound(
        self, place: Place, kind: str, first: Project, step: str
    ):
        """They are told to come again; the next command puts all right, and there are never two."""
        app = place.alone(f"killed-{kind}", hold="2s")
        place.up(app.version("1"))
        with never_two(place, app), clients(place, app) as answers:
            with place.begun(app.version("2"), "up", step=step) as running:
                running.interrupt(signal.SIGKILL)
                running.process.wait()
            killed = time.monotonic()
            # Who came after the kill has an answer: of its guard's doing, or at the bound.
            assert until(lambda: any(sent > killed for sent, _, _ in list(answers)), 30, 0.02)
            place.up(app.version("1"))
            right = time.monotonic()
            assert until(lambda: any(sent > right for sent, _, _ in list(answers)), 30, 0.02)
        assert_told_to_wait([answer for _, _, answer in answers if answer.status != 200])
        assert all(answer.status == 200 for sent, _, answer in answers if sent > right)
        assert max(took for _, took, _ in answers) < 10


class TestKinds:
    @soak
    def test_a_host_moves_to_the_other_kind_and_back_with_its_apps(
        self, place: Place, first: Project, second: Project, kind: str
    ):
        """It says how long nobody listened; everybody is reachable when it returns."""
        other = next(each for each in KINDS if each != kind)
        for now in (other, kind):
            outcome = place.switch(now)
            assert outcome.result["kind"] == now
            assert re.search(r"nobody listened for [0-9.]+ s", outcome.stderr)
            assert place.version(first) == place.version(second) == "1"
            assert answered(place, "/cut/x", second) == ("cut", "/x")
            assert place.proxy_status()["kind"] == now


def answered(place: Place, target: str, app: Project, **more: str) -> tuple[str, str]:
    """Which service answered, and which path it saw."""
    told = place.told(target, app, **more) if target != "/up" else {}
    return told["instance"].removeprefix(f"{app.name}-").partition("-")[0], told["target"]


def slow_ones(place: Place, app: Project) -> int:
    """How many slow requests have reached the instance."""
    return int(place.told("/slow-ones", app)["begun"])


def slow_upload(place: Place, app: Project, lasting: float, begun: threading.Event) -> dict:
    """A chunked body that takes that long to send."""
    with place.socket() as connection:
        head = f"POST /upload HTTP/1.1\r\nHost: {app.domain}\r\nConnection: close\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(20):
            connection.sendall(b"4\r\nmore\r\n")
            begun.set()
            time.sleep(lasting / 20)
        connection.sendall(b"0\r\n\r\n")
        answer = connection.makefile("rb").read()
    told = dict(json.loads(answer.partition(b"\r\n\r\n")[2]))
    assert told["bytes"] == 80
    return told


@contextmanager
def clients(place: Place, app: Project) -> Iterator[list[tuple[float, float, Answer]]]:
    """Clients that go on asking: when each request was sent, how long it took, and its answer."""
    answers: list[tuple[float, float, Answer]] = []
    enough = threading.Event()

    def ask() -> None:
        while not enough.wait(0.05):
            sent = time.monotonic()
            answer = place.ask("/version", app)
            answers.append((sent, time.monotonic() - sent, answer))

    with ThreadPoolExecutor() as threads:
        asking = [threads.submit(ask) for _ in range(6)]
        try:
            yield answers
        finally:
            enough.set()
    for each in asking:
        each.result()


def assert_told_to_wait(answers: list[Answer]) -> None:
    for each in answers:
        assert each.status == 503, each
        assert each.headers["retry-after"] == "2"
        assert "just being replaced" in each.text


@contextmanager
def never_two(place: Place, app: Project) -> Iterator[None]:
    """By the engine's events: whoever starts finds nobody there."""
    alive, began = set(place.running(app)), time.time()
    yield
    for event, name in place.lives(app, began, time.time()):
        if event == "die":
            alive.discard(name)
        else:
            assert not alive, f"{name} started beside {alive}"
            alive.add(name)
    assert alive == set(place.running(app))
