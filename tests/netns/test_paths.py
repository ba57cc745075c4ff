"""Direct, relayed, and from one to the other: with real TAPs and real processes."""

from __future__ import annotations

import itertools
from contextlib import ExitStack

import pytest

from n2n.lab.nodes import EdgeNode
from n2n.lab.traffic import ping, transfer

from .frames import Tapped, flood
from .networks import PATIENCE, apart, network, wait_paths

SECRET = "a secret of the test"


def relayed(counters: dict[str, int]) -> int:
    return counters["plane_relayed"]


def test_two_edges_talk_directly_and_the_supernode_carries_none_of_it() -> None:
    with network("ab") as net:
        a, b = net.edge("a", passphrase=SECRET), net.edge("b", passphrase=SECRET)
        net.up(a, b)
        assert ping(a.host, b.address, count=1).received == 1, "reachable before any path is found"
        wait_paths("direct", a, b)
        before = relayed(net.supernode.counters())
        for here, there in ((a, b), (b, a)):
            assert transfer(here.host, there.host, there.address, size=20_000_000).verified
        assert relayed(net.supernode.counters()) - before < 100


def test_three_edges_reach_each_other_directly() -> None:
    with network("abc") as net:
        edges = [net.edge(name, passphrase=SECRET) for name in "abc"]
        net.up(*edges)
        assert len({edge.address for edge in edges}) == 3
        wait_paths("direct", *edges)
        for here, there in itertools.permutations(edges, 2):
            assert ping(here.host, there.address, count=2, interval=0.02).received == 2


@pytest.mark.parametrize("passphrase", [None, SECRET], ids=["plain", "sealed"])
def test_where_the_direct_way_is_blocked_the_supernode_relays(passphrase: str | None) -> None:
    with network("ab") as net:
        apart(net.host("a"), net.host("b"))
        a, b = net.edge("a", passphrase=passphrase), net.edge("b", passphrase=passphrase)
        net.up(a, b)
        a.wait_path(b, "relay", PATIENCE)
        b.wait_path(a, "relay", PATIENCE)
        before = relayed(net.supernode.counters())
        for here, there in ((a, b), (b, a)):
            assert ping(here.host, there.address, count=3, interval=0.02).received == 3
            assert transfer(here.host, there.host, there.address, size=5_000_000).verified
        assert relayed(net.supernode.counters()) - before > 2 * 5_000_000 // 1400
        assert a.path_to(b) == "relay"
        assert ping(a.host, b.host.addr, count=1).received == 0, "the direct way is blocked indeed"


def test_several_edges_on_one_host() -> None:
    """Two of one community and one of another beside each other, each with a TAP and an identity of its own."""
    with network("ab") as net:
        one = net.edge("a", name="one", tap="n2n_one")
        two = net.edge("a", name="two", tap="n2n_two")
        other = net.edge("a", name="other", tap="n2n_other", community="elsewhere")
        far = net.edge("b", name="far")
        far_other = net.edge("b", name="far-other", tap="n2n_other", community="elsewhere")
        edges: list[EdgeNode] = [one, two, other, far, far_other]
        net.up(*edges)
        assert len({edge.mac for edge in edges}) == 5
        assert len({edge.address for edge in edges}) == 5
        assert {"n2n_one", "n2n_two", "n2n_other"} <= set(net.host("a").interfaces())
        assert ping(other.host, far_other.address, count=2, interval=0.02).received == 2
        wait_paths("direct", one, two, far)
        with ExitStack() as stack:
            first, second, third = (stack.enter_context(Tapped(edge)) for edge in (one, two, far))
            assert flood(first, [second, third])
            assert flood(second, [first, third])
            assert flood(third, [first, second])
            assert flood(first, [second], second.mac), "unicast between two edges of one host"
