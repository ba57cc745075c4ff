"""Another host bridged behind an edge's TAP: with `bridge` it is part of the network, without it is kept out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from n2n.lab.nodes import EdgeNode
from n2n.lab.topology import Host
from n2n.lab.traffic import ping

from .frames import Tapped, marked_frame
from .networks import Network, apart, network, wait_paths
from .streams import both_ways, echo_sizes, super_datagrams


@dataclass
class House:
    """Edge a with a host behind its TAP, and edge b."""

    a: EdgeNode
    b: EdgeNode
    behind: Host
    address: str
    """Of the host behind."""


#: Which of the two edges bridge.
KINDS = {"open": (True, True), "half": (True, False), "shut": (False, True)}


def house_with(net: Network, kind: str, a: EdgeNode, b: EdgeNode) -> House:
    """A host on a Linux bridge with the TAP of `a`."""
    address = f"{b.address.rpartition('.')[0]}.200"
    behind = net.lab.host(f"behind-{a.name}")
    space, port, bridge = a.host.namespace, f"to_{kind}", f"br_{kind}"
    quiet = ["stp_state", "0", "forward_delay", "0", "mcast_snooping", "0"]
    space.ip("link", "add", bridge, "type", "bridge", *quiet)
    behind.namespace.ip("link", "add", "eth0", "mtu", "1420", "type", "veth", "peer", "name", port, "netns", space.name)
    for name in (a.tap, port):
        space.ip("link", "set", name, "master", bridge)
    space.ip(batch=[f"link set {port} mtu 1420 up", f"link set {bridge} up"])
    behind.namespace.ip(batch=["link set eth0 up", f"address add {address}/24 dev eth0"])
    return House(a, b, behind, address)


@pytest.fixture(scope="module")
def houses() -> Iterator[dict[tuple[str, str], House]]:
    """One of each kind, directly and by relay, each in a community of its own."""
    with network("abcd") as net:
        apart(net.host("c"), net.host("d"))
        edges = {
            (kind, name): net.edge(
                name,
                name=f"{name}-{kind}",
                community=f"{kind}-{names}",
                tap=f"n2n_{kind}",
                passphrase="a secret",
                vfuze=False,
                bridge=bridges,
            )
            for kind, both in KINDS.items()
            for names in ("ab", "cd")
            for name, bridges in zip(names, both, strict=True)
        }
        net.up(*edges.values())
        found = {}
        for kind in KINDS:
            for path, names in (("direct", "ab"), ("relay", "cd")):
                a, b = (edges[kind, name] for name in names)
                wait_paths(path, a, b)
                found[kind, path] = house_with(net, kind, a, b)
        yield found
        for edge in edges.values():
            assert edge.stop() == 0, edge.process and edge.process.tail()


@pytest.fixture(params=["direct", "relay"])
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_house(houses: dict[tuple[str, str], House], path: str) -> House:
    return houses["open", path]


def test_the_host_behind_and_the_other_edge_reach_each_other(open_house: House) -> None:
    house = open_house
    assert ping(house.behind, house.b.address, count=2, interval=0.02).received == 2
    assert ping(house.b.host, house.address, count=2, interval=0.02).received == 2
    sizes = (1, 1000, 1392, 1393, 9000, 40_000)
    assert echo_sizes(house.behind, house.b.address, sizes) == []
    assert echo_sizes(house.b.host, house.address, sizes) == []


def test_tcp_and_super_frames_of_the_host_behind(open_house: House) -> None:
    house = open_house
    assert both_ways(house.behind, house.b.host, house.b.address)
    assert both_ways(house.b.host, house.behind, house.address)
    assert super_datagrams(house.behind, house.b.host, house.b.address) == []
    assert super_datagrams(house.b.host, house.behind, house.address) == []
    assert house.a.counters()["plane_super_rx"] > 0


def test_frames_that_claim_to_come_from_ourselves_are_refused_even_so(open_house: House) -> None:
    house = open_house
    with Tapped(house.a) as sender, Tapped(house.b) as receiver:
        before = house.b.counters()["plane_drop_spoofed"]
        claimed, last = marked_frame(receiver.mac, receiver.mac), marked_frame(receiver.mac, sender.mac)
        sender.send(claimed)
        sender.send(last)
        seen = []
        for frame in receiver.frames(5):
            seen += [one for one in (claimed, last) if frame.startswith(one)]
            if last in seen:
                break
        assert seen == [last]
        assert house.b.counters()["plane_drop_spoofed"] == before + 1


def test_who_does_not_bridge_takes_nothing_from_a_host_behind_another(
    houses: dict[tuple[str, str], House], path: str
) -> None:
    house = houses["half", path]
    before = house.b.counters()["plane_drop_spoofed"]
    assert ping(house.behind, house.b.address, count=2, interval=0.02).received == 0
    assert house.b.counters()["plane_drop_spoofed"] > before
    assert ping(house.b.host, house.address, count=1).received == 0


def test_who_does_not_bridge_takes_nothing_for_a_host_behind_itself(
    houses: dict[tuple[str, str], House], path: str
) -> None:
    house = houses["shut", path]
    mac = house.behind.namespace.run("cat", "/sys/class/net/eth0/address").stdout.strip()
    house.b.host.namespace.ip("neighbour", "replace", house.address, "lladdr", mac, "dev", house.b.tap)
    before = house.a.counters()["plane_drop_destination"]
    assert ping(house.b.host, house.address, count=2, interval=0.02).received == 0
    assert house.a.counters()["plane_drop_destination"] >= before + 2
