"""Subnets and slot addresses: none is given twice, none that somebody else has."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from immutable_local.app import Service
from immutable_local.errors import ImmError
from immutable_local.network import (
    FIRST_SLOT,
    LAST_SLOT,
    PROXY_NETWORK,
    app_network,
    choose_subnet,
    give_addresses,
    host_routes,
    proxy_address,
)
from immutable_local.routes import SLOTS, Side, Structure
from tests.values import NAMES

POOL = "10.201.0.0/22"
EMPTY = Structure("shop", 1, {}, {})
SUBNET = "10.201.5.0/24"


@given(st.lists(st.tuples(st.integers(0, 2**11 - 1), st.integers(20, 30)), max_size=12))
def test_a_chosen_subnet_overlaps_with_nothing_that_is_taken(taken: list[tuple[int, int]]):
    """Networks of any size, in and beside the pool; when none is left, that is an error."""
    base = int(ipaddress.IPv4Address("10.200.252.0"))
    networks = [ipaddress.IPv4Network((base + at, size), strict=False) for at, size in taken]
    try:
        chosen = choose_subnet(POOL, map(str, networks))
    except ImmError as full:
        assert full.code == "no_subnet"
        every = ipaddress.IPv4Network(POOL).subnets(new_prefix=24)
        assert all(any(each.overlaps(network) for network in networks) for each in every)
        return
    assert chosen.prefixlen == 24 and chosen.subnet_of(ipaddress.IPv4Network(POOL))
    assert not any(chosen.overlaps(network) for network in networks)


def test_the_first_free_subnet_is_chosen_and_what_is_no_ipv4_network_is_passed_over():
    assert str(choose_subnet(POOL, ["10.201.0.0/24", "fd00::/64", "", "10.201.1.7/32"])) == "10.201.2.0/24"


def test_host_routes_are_read_as_the_kernel_writes_them():
    """Little-endian hexadecimal; the default route overlaps with everything and is left out."""
    table = (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        "docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
        "tun0\t0180000A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n"
    )
    assert host_routes(table) == [
        "192.0.2.0/255.255.255.0",
        "172.17.0.0/255.255.0.0",
        "10.0.128.1/255.255.255.255",
    ]
    assert host_routes("") == []


@given(st.lists(st.tuples(st.sampled_from(["web", "api", "docs"]), st.integers(1, 20)), max_size=8))
def test_addresses_are_given_once_and_kept(asked: list[tuple[str, int]]):
    """Both slots get one for each replica, of the lower half; what was given stays, in its order."""
    structure = EMPTY
    for service, replicas in asked:
        before = structure.addresses
        try:
            structure = give_addresses(structure, SUBNET, service, replicas)
        except ImmError as full:
            assert full.code == "no_address"
            assert (
                2 * sum(max(n for name, n in asked if name == each) for each in {name for name, _ in asked})
                > 125
            )
            return
        for name, of_service in before.items():
            for slot in SLOTS:
                now = structure.addresses[name][slot]
                assert now[: len(of_service[slot])] == of_service[slot]
        assert all(len(structure.addresses[service][slot]) >= replicas for slot in SLOTS)
    given_out = [a for each in structure.addresses.values() for slot in SLOTS for a in each[slot]]
    assert len(given_out) == len(set(given_out))
    lower = [ipaddress.IPv4Address(a) - int(ipaddress.IPv4Address("10.201.5.0")) for a in given_out]
    assert all(FIRST_SLOT <= int(each) <= LAST_SLOT for each in lower)
    assert proxy_address(SUBNET) not in given_out


def test_addresses_of_a_network_that_is_gone_are_given_anew():
    """Somebody removed the network, and its subnet was taken meanwhile."""
    before = give_addresses(EMPTY, "10.201.7.0/24", "web", 1)
    after = give_addresses(before, SUBNET, "web", 1)
    given = [ipaddress.IPv4Address(after.addresses["web"][slot][0]) for slot in SLOTS]
    assert all(each in ipaddress.IPv4Network(SUBNET) for each in given)
    assert len(set(given)) == 2


def test_what_replicas_had_that_went_down_is_there_for_others():
    """An app that was large once isn't for ever."""
    web = Service("web", port=8000, domains=("a.localhost",), replicas=40)
    large = give_addresses(EMPTY, SUBNET, "web", 40)
    large = large.with_side("web", "green", Side.of(web, large.addresses["web"]["green"]))
    small = large.settled((replace(web, replicas=2),), {"web": "green"})
    after = give_addresses(small, SUBNET, "api", 30)
    assert [len(after.addresses[name]["green"]) for name in ("web", "api")] == [2, 30]


def test_when_the_lower_half_is_full_the_error_says_what_to_lower():
    with pytest.raises(ImmError) as full:
        give_addresses(EMPTY, SUBNET, "web", 63)
    assert full.value.code == "no_address"
    assert "replicas" in full.value.hint


@given(NAMES)
def test_the_proxys_own_network_sorts_before_every_apps(name: str):
    """Its gateway is the container's: a network that sorts before would move it and cut connections."""
    assume(name)
    assert sorted([app_network(name), PROXY_NETWORK])[0] == PROXY_NETWORK
