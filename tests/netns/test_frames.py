"""Every kind of frame arrives at the other edges, however it travels.

For each way to wrap a frame (VFuze or not, sealed or not, compressed or not), four edges of one community: a and b
reach each other directly, c and d only through the supernode.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from n2n.lab.nodes import EdgeNode
from n2n.lab.traffic import ping, transfer

from .frames import BROADCAST, Tapped, echo_sizes, flood, link_local, multicast
from .networks import Network, apart, network, wait_paths

#: The TAP's MTU is 1420; an IP header and an ICMP header take 28.
LARGEST_ECHO = 1392
WRAPPINGS = [
    pytest.param(wrapping, id="-".join(name for name, on in wrapping.items() if on) or "bare")
    for wrapping in (
        dict(zip(("vfuze", "sealed", "compressed"), choice, strict=True))
        for choice in itertools.product((True, False), repeat=3)
    )
]
PATHS = ["direct", "relay"]


@dataclass
class Community:
    """Four running edges."""

    edges: dict[str, EdgeNode]

    def pair(self, path: str) -> tuple[EdgeNode, EdgeNode]:
        names = "ab" if path == "direct" else "cd"
        return self.edges[names[0]], self.edges[names[1]]


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network("abcd") as found:
        apart(found.host("c"), found.host("d"))
        yield found


@pytest.fixture(scope="module", params=WRAPPINGS)
def community(request: pytest.FixtureRequest, net: Network) -> Iterator[Community]:
    wrapping: dict[str, bool] = request.param
    label = "".join(str(int(on)) for on in wrapping.values())
    edges = {
        name: net.edge(
            name,
            name=f"{name}{label}",
            community=f"wrapping-{label}",
            vfuze=wrapping["vfuze"],
            passphrase="a secret of the test" if wrapping["sealed"] else None,
            compress=wrapping["compressed"],
        )
        for name in "abcd"
    }
    net.up(*edges.values())
    wait_paths("direct", edges["a"], edges["b"])
    edges["c"].wait_path(edges["d"], "relay")
    edges["d"].wait_path(edges["c"], "relay")
    yield Community(edges)
    for edge in edges.values():
        assert edge.stop() == 0, edge.process and edge.process.tail()


@pytest.fixture(params=PATHS)
def pair(request: pytest.FixtureRequest, community: Community) -> tuple[EdgeNode, EdgeNode]:
    return community.pair(request.param)


def test_unicast_both_ways_on_the_path_that_is_told(
    pair: tuple[EdgeNode, EdgeNode], request: pytest.FixtureRequest
) -> None:
    path = request.node.callspec.params["pair"]
    for here, there in (pair, pair[::-1]):
        before = here.counters()
        assert ping(here.host, there.address, count=3, interval=0.02).received == 3
        after = here.counters()
        grown = {name: after[f"plane_tx_{name}"] - before[f"plane_tx_{name}"] for name in ("direct", "relay")}
        other = "relay" if path == "direct" else "direct"
        assert grown[path] >= 3, grown
        assert grown[other] < 3, grown


def test_every_size_comes_back_whole(pair: tuple[EdgeNode, EdgeNode]) -> None:
    here, there = pair
    assert echo_sizes(here.host, there.address, range(1, LARGEST_ECHO + 1)) == []


def test_ipv6_between_link_local_addresses(pair: tuple[EdgeNode, EdgeNode]) -> None:
    for here, there in (pair, pair[::-1]):
        target = f"{link_local(there.mac)}%{here.tap}"
        assert ping(here.host, target, count=2, interval=0.02, options=["-6"]).received == 2


def test_arp_is_answered_by_the_edge_itself(pair: tuple[EdgeNode, EdgeNode]) -> None:
    here, there = pair
    here.host.namespace.ip("neighbour", "flush", "dev", here.tap)
    assert ping(here.host, there.address, count=1).received == 1
    assert there.mac in here.host.namespace.ip("neighbour", "show", there.address, "dev", here.tap)


def test_multicast_reaches_who_has_joined(pair: tuple[EdgeNode, EdgeNode]) -> None:
    for here, there in (pair, pair[::-1]):
        assert multicast(here, there, "239.255.18.18")
        assert multicast(here, there, "ff02::6e32")


@pytest.mark.parametrize("size", [14, 60, 1434])
def test_broadcast_and_multicast_frames_reach_everybody(community: Community, size: int) -> None:
    with ExitStack() as stack:
        taps = [stack.enter_context(Tapped(edge)) for edge in community.edges.values()]
        for sender in taps:
            others = [tap for tap in taps if tap is not sender]
            for dest in (BROADCAST, bytes.fromhex("01005e7f1212"), bytes.fromhex("333300006e32")):
                assert flood(sender, others, dest, size), f"from {sender.edge.name} to {dest.hex(':')}"


def test_tcp_in_bulk_arrives_as_it_was_sent(pair: tuple[EdgeNode, EdgeNode]) -> None:
    for here, there in (pair, pair[::-1]):
        found = transfer(here.host, there.host, there.address, size=5_000_000)
        assert found.verified
        assert found.bytes == 5_000_000
