"""Networks of communities: v5's derivation, and no two alike."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from n2n.proto.networks import NetworkPlan
from n2n.wire import virtual_network

BASE = IPv4Address("10.128.0.0")


def clashing(prefix: int, count: int) -> list[str]:
    """Names that the derivation puts into one network."""
    found: dict[IPv4Network, list[str]] = {}
    number = 0
    while True:
        name = f"c{number}"
        number += 1
        names = found.setdefault(virtual_network(name, BASE, prefix), [])
        names.append(name)
        if len(names) == count:
            return names


def test_a_community_gets_the_derived_network_and_keeps_it() -> None:
    plan = NetworkPlan(BASE, 24)
    assignment = plan.assign("acme")
    assert assignment == (IPv4Network("10.171.51.0/24"), True)
    assert plan.assign("acme") == assignment
    assert dict(plan.networks) == {"acme": IPv4Network("10.171.51.0/24")}


def test_of_two_that_clash_the_later_one_gets_the_next_network_in_the_block() -> None:
    first, second, third = clashing(24, 3)
    plan = NetworkPlan(BASE, 24)
    own = plan.assign(first)
    assert own is not None
    assert own.derived
    moved = plan.assign(second)
    assert moved is not None
    assert not moved.derived
    after = IPv4Address((int(own.network.network_address) + 256) | int(BASE))
    assert moved.network == IPv4Network((after, 24))
    again = plan.assign(third)
    assert again is not None
    assert len({own.network, moved.network, again.network}) == 3
    other = NetworkPlan(BASE, 24)
    assert [other.assign(name) for name in (first, second, third)] == [own, moved, again], "deterministic"


@pytest.mark.parametrize(("base", "prefix"), [("10.128.0.0", 12), ("192.168.0.0", 14), ("10.0.0.0", 13)])
def test_every_network_of_the_block_is_found_and_then_no_more(base: str, prefix: int) -> None:
    plan = NetworkPlan(IPv4Address(base), prefix)
    free_bits = (0x00FFFFFF & ~int(IPv4Address(base)) & ~(0xFFFFFFFF >> prefix)).bit_count()
    given = []
    for number in range(2**free_bits):
        assignment = plan.assign(f"name{number}")
        assert assignment is not None
        given.append(assignment.network)
    assert len(set(given)) == len(given)
    assert {int(network.network_address) & int(IPv4Address(base)) for network in given} == {int(IPv4Address(base))}
    assert plan.assign("one too many") is None
    plan.release("name1")
    again = plan.assign("one too many")
    assert again is not None
    assert again.network == given[1]


def test_a_saved_network_is_kept_if_it_belongs_to_the_plan() -> None:
    plan = NetworkPlan(BASE, 24)
    assert plan.keep("a", IPv4Network("10.200.1.0/24"))
    assert not plan.keep("b", IPv4Network("10.200.1.0/24")), "another's"
    assert not plan.keep("a", IPv4Network("10.200.2.0/24")), "it has one"
    assert not plan.keep("c", IPv4Network("10.200.2.0/25")), "another prefix length"
    assert not plan.keep("c", IPv4Network("10.1.2.0/24")), "outside of the block"
    assert not plan.keep("c", IPv4Network("192.168.2.0/24")), "outside of the block"
    assert plan.assign("a") == (IPv4Network("10.200.1.0/24"), False)
