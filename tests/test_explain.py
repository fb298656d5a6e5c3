"""Why an instance isn't healthy: what the facts say, and what listens, read from the kernel's tables."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from immutable_local.app import Service
from immutable_local.explain import Inside, judged, parse_listening
from immutable_local.instance import Instance

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 0:0 00:0 0 0 0 1 1 0 100 0 0 10 0
   1: 0100007F:2328 00000000:0000 0A 0:0 00:0 0 0 0 2 1 0 100 0 0 10 0
   2: 0B00007F:9C41 00000000:0000 0A 0:0 00:0 0 0 0 3 1 0 100 0 0 10 0
   3: 020200C0:1F90 010200C0:D431 01 00000000:00000000 00:0 0 0 0 4 1 0 100 0 0 10 0
"""
TCP6 = """\
   0: 00000000000000000000000000000000:0BB8 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 5
   1: 00000000000000000000000001000000:0BB9 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 6
"""


def test_listening_sockets_are_told_and_connections_and_dockers_own_dns_are_not():
    assert parse_listening(TCP) == [("0.0.0.0", 8080), ("127.0.0.1", 9000)]


def test_version_6_of_the_protocol_is_read_too():
    assert parse_listening(TCP6) == [("::", 3000), ("::1", 3001)]


def test_what_is_no_table_listens_to_nothing():
    assert parse_listening("") == parse_listening("cat: not found\n") == []


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux has /proc/net")
@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_socket_of_this_kernel_is_found(family: socket.AddressFamily, address: str):
    """The table as it is, not as it was copied into a test."""
    with socket.socket(family) as listening:
        try:
            listening.bind((address, 0))
        except OSError as failed:
            pytest.skip(f"{address}: {failed}")
        listening.listen()
        table = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        assert (address, listening.getsockname()[1]) in parse_listening(table)


TARGET = {"path": "/up", "port": 8000, "timeout": 5.0, "status": (200, 299)}
REFUSED = {"failed": "refused", "times": 656}
DENIED = "ldap bind: Permission denied, going on without"
IN_VAIN = "OSError: [Errno 30] Read-only file system: '/app/cache/x'"


def told_of(
    log: Sequence[str],
    *,
    seen: Sequence[Mapping[str, Any]] = (REFUSED,),
    listening: Sequence[tuple[str, int]] = (),
    room: str = "",
    user: str = "",
    state: Mapping[str, Any] | None = None,
    **settings: Any,
) -> tuple[list[str], str]:
    service = Service("web", **{"port": 8000, **settings})
    instance = Instance("shop-web-2-blue-1", "c0ffee", service, "blue", "10.0.0.2")
    inspected = {"State": state or {"Running": True}, "Config": {"User": user}}
    return judged(instance, inspected, TARGET, None, seen, Inside(log, listening, room))


@pytest.mark.parametrize("line", [DENIED, IN_VAIN])
def test_a_port_that_is_known_to_be_wrong_goes_before_what_the_log_suggests(line: str):
    """The application survived what it logged: it listens."""
    details, hint = told_of([line], listening=[("0.0.0.0", 3000)])
    assert hint == "correct services.web.port in imm.toml to 3000, then run imm up"
    assert "the container listens on 3000; imm.toml says port = 8000" in details


@pytest.mark.parametrize("status", [302, 404])
def test_an_answer_that_says_what_is_wrong_goes_before_what_the_log_suggests(status: int):
    _, hint = told_of([IN_VAIN], seen=[{"status": status, "times": 3, "healthy": False}])
    assert "services.web.healthcheck.path" in hint


@pytest.mark.parametrize("code", [126, 127])
def test_a_command_that_is_not_run_goes_before_what_the_log_suggests(code: int):
    _, hint = told_of(["sh: x: Permission denied"], state={"Running": False, "ExitCode": code})
    assert hint.startswith("correct services.web.command")


def test_a_lacking_capability_is_suggested_where_nothing_better_is_known():
    details, hint = told_of([DENIED], state={"Running": False, "ExitCode": 1})
    assert "every capability is dropped by default, and something was not permitted" in details
    assert "services.web.cap_add" in hint


@pytest.mark.parametrize(
    "known",
    [
        {"user": "1000"},
        {"user": "app:app"},
        {"cap_add": ("CHOWN",)},
        {"image": "postgres:16"},
        {"listening": [("0.0.0.0", 8000)]},
    ],
    ids=str,
)
def test_no_capability_is_suggested_to_who_could_not_have_it_or_does_without(known: Mapping[str, Any]):
    details, hint = told_of([DENIED], **known)
    assert not any("capability" in each for each in details)
    assert "cap_add" not in hint


def test_a_tmpfs_is_offered_where_it_hides_nothing_of_the_image():
    details, hint = told_of([IN_VAIN], room="/app/cache")
    assert "its root file system is read-only, and it tried to write /app/cache/x" in details
    assert 'services.web.tmpfs = ["/app/cache"]' in hint


def test_no_tmpfs_is_offered_in_place_of_what_the_image_has():
    """Over /etc or /usr/lib it would hide the program itself, and imm refuses one at /."""
    _, hint = told_of(["open /x: Read-only file system"])
    assert hint.startswith("let it write under /tmp")
    assert "tmpfs =" not in hint
    assert "services.web.read_only = false" in hint


def test_an_image_whose_own_command_ends_is_told_of_the_images_command():
    _, hint = told_of([], state={"Running": False, "ExitCode": 0})
    assert hint == "a service must stay in the foreground: correct the image's CMD, then run imm up"


def test_how_often_it_was_seen_stands_in_brackets():
    once = {"status": 500, "times": 1, "healthy": False}
    details, _ = told_of([], seen=[REFUSED, once, {**once, "status": 302, "location": "/login", "times": 12}])
    assert details[:3] == [
        "nothing accepted a connection to port 8000 (656 times)",
        "GET /up answered 500 (healthy is 200 to 299)",
        "GET /up answered 302 to /login (12 times; a redirect is not followed)",
    ]


def test_what_is_not_http_is_told_in_one_line():
    strange = {"failed": "not_http", "detail": "BadStatusLine: \x16\r\n\x1b[2J", "times": 1}
    details, _ = told_of([], seen=[strange])
    assert all(each.isprintable() for each in details)


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("OSError: [Errno 30] Read-only file system: '/app/cache'", "/app/cache"),
        ("Error: EROFS: read-only file system, open '/app/x y'", "/app/x y"),
        ('2026/11/22 03:00:01 [emerg] mkdir() "/var/c" failed (30: Read-only file system)', "/var/c"),
        ("2026/11/22 03:00:01 open /data/x.db: read-only file system", "/data/x.db"),
        ("sh: 1: cannot create /app/pid: Read-only file system", "/app/pid"),
        ("http://db/x: Read-only file system", "a path"),
    ],
)
def test_the_path_that_could_not_be_written_is_read_from_what_programs_say(line: str, path: str):
    details, _ = told_of([line])
    assert f"its root file system is read-only, and it tried to write {path}" in details
