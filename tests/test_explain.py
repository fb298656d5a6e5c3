"""What listens inside a container, read from the kernel's tables."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from immutable_local.explain import parse_listening

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
