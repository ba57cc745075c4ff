"""Paths that take less than 1500 bytes and say nothing about it: found by probing, and nothing hangs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from n2n.lab.namespaces import wait_until
from n2n.lab.nodes import EdgeNode, SupernodeNode
from n2n.lab.topology import Host, Lab
from n2n.lab.traffic import ping, transfer

from .networks import PATIENCE, Network, wait_paths
from .streams import echo_sizes

SECRET = "a secret of the test"
BLACK_HOLE = """table inet hole {
 chain out { type filter hook output priority 0
  icmp type destination-unreachable drop
  icmpv6 type packet-too-big drop
 }
}
"""
NO_FRAGMENTS = """table ip whole {
 chain in { type filter hook prerouting priority -450
  iifname "eth0" ip frag-off & 0x3fff != 0 drop
 }
}
"""


def nft(host: Host, rules: str) -> None:
    host.run("nft", "-f", "-", input=rules)


@contextmanager
def bottleneck(mtu: int = 1280, *, fragments: bool = False, wide: int = 1500) -> Iterator[Network]:
    """Edge "b" is behind a router whose other leg is small; ICMP about that is lost, and so are fragments."""
    with Lab() as lab:
        street, narrow = lab.switch("wide", mtu=wide), lab.switch("narrow", mtu=mtu)
        lab.host("sn").attach(street, "198.18.0.1/24", gateway="198.18.0.254")
        lab.host("a").attach(street, "198.18.0.2/24", gateway="198.18.0.254")
        router = lab.host("router")
        router.attach(street, "198.18.0.254/24")
        router.attach(narrow, "198.18.1.254/24", interface="eth1")
        lab.host("b").attach(narrow, "198.18.1.2/24", gateway="198.18.1.254")
        with router.entered():
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        nft(router, BLACK_HOLE)
        if not fragments:
            for host in (lab.hosts["a"], lab.hosts["b"], lab.hosts["sn"]):
                nft(host, NO_FRAGMENTS)
        supernode = SupernodeNode(lab.hosts["sn"])
        supernode.start()
        supernode.wait_ready(PATIENCE)
        yield Network(lab, supernode)


def fitted(edge: EdgeNode, path: int) -> None:
    """Its TAP device takes what the path to the supernode does (7 + 28 + 14 + 28 bytes are around a sealed frame)."""
    wait_until("the MTU fits", lambda: path - 79 <= edge.status()["mtu"] <= path - 77, PATIENCE)
    shown = edge.host.namespace.ip("link", "show", edge.tap)
    assert f"mtu {edge.status()['mtu']} " in shown


@pytest.mark.parametrize("path", ["direct", "relay"])
def test_connections_do_not_hang_where_the_path_is_small_and_silent(path: str) -> None:
    with bottleneck() as net:
        if path == "relay":
            for host, other in (("a", "198.18.1.2"), ("b", "198.18.0.2")):
                nft(net.host(host), f"table ip apart {{ chain out {{ type filter hook output priority 0\n"
                    f"ip daddr {other} drop\n}}\n}}\n")  # fmt: skip
        a, b = net.edge("a", passphrase=SECRET), net.edge("b", passphrase=SECRET)
        net.up(a, b)
        wait_paths(path, a, b)
        fitted(b, 1280)
        assert a.status()["mtu"] == 1420, "its own path to the supernode takes all"
        log = (b.host.folder / "b.log").read_text()
        assert "bytes get to the supernode" in log
        if path == "direct":
            wait_until("the peer's path is known", lambda: clamps(a, b), PATIENCE)
        for here, there in ((a, b), (b, a)):
            assert transfer(here.host, there.host, there.address, size=2_000_000).verified
        assert ping(b.host, a.address, count=2, size=b.status()["mtu"] - 28, interval=0.05).received == 2
        assert a.counters()["daemon_mtu_probes"] < 200


def clamps(here: EdgeNode, there: EdgeNode) -> bool:
    """A host behind `there` that thinks of 1500 bytes begins a connection: is it made to fit?"""
    before = here.counters()["plane_mss_clamped"]
    there.host.namespace.ip("link", "set", there.tap, "mtu", "1420")
    try:
        transfer(here.host, there.host, there.address, size=1000)
    finally:
        there.host.namespace.ip("link", "set", there.tap, "mtu", str(there.status()["mtu"]))
    return here.counters()["plane_mss_clamped"] > before


def test_full_frames_before_anything_is_known_are_fragmented_by_the_router() -> None:
    """Where fragments pass, nothing depends on the probing: this edge's TAP keeps its size."""
    with bottleneck(fragments=True) as net:
        a, b = net.edge("a", passphrase=SECRET), net.edge("b", passphrase=SECRET)
        net.up(a, b)
        wait_paths("direct", a, b)
        assert ping(a.host, b.address, count=2, size=1392, interval=0.05, options=["-M", "do"]).received == 2


def test_a_jumbo_underlay_is_used_as_configured() -> None:
    with Lab() as lab:
        switch = lab.switch(mtu=9000)
        for number, name in enumerate(("sn", "a", "b"), start=1):
            lab.host(name).attach(switch, f"198.18.0.{number}/24")
        supernode = SupernodeNode(lab.hosts["sn"])
        supernode.start()
        supernode.wait_ready(PATIENCE)
        net = Network(lab, supernode)
        a, b = net.edge("a", passphrase=SECRET, tap_mtu=8900), net.edge("b", passphrase=SECRET, tap_mtu=9000)
        net.up(a, b)
        wait_paths("direct", a, b)
        fitted(b, 9000)
        assert a.status()["mtu"] == 8900
        assert ping(a.host, b.address, count=2, size=8800, interval=0.05).received == 2


@pytest.mark.parametrize(("underlay", "fits"), [(1280, 1203), (1500, 1423), (9000, 8923)])
def test_auto_is_what_the_path_takes(underlay: int, fits: int) -> None:
    with Lab() as lab:
        switch = lab.switch(mtu=underlay)
        for number, name in enumerate(("sn", "a", "b"), start=1):
            lab.host(name).attach(switch, f"198.18.0.{number}/24")
        supernode = SupernodeNode(lab.hosts["sn"])
        supernode.start()
        supernode.wait_ready(PATIENCE)
        net = Network(lab, supernode)
        a, b = edges = [net.edge(name, passphrase=SECRET, tap_mtu="auto") for name in "ab"]
        net.up(*edges)
        wait_paths("direct", *edges)
        for edge in edges:
            fitted(edge, underlay)
            wait_until("it is exact", lambda edge=edge: fits - 2 <= edge.status()["mtu"] <= fits, PATIENCE)
        full = min(edge.status()["mtu"] for edge in edges)
        for here, there in ((a, b), (b, a)):
            assert ping(here.host, there.address, count=2, size=full - 28, interval=0.05).received == 2
            assert transfer(here.host, there.host, there.address, size=2_000_000).verified


def test_members_with_auto_on_paths_of_unlike_sizes() -> None:
    """One member's TAP takes jumbo packets, the other's does not: hosts are told what the way there takes."""
    with bottleneck(1500, wide=9000) as net:
        a, b = edges = [net.edge(name, passphrase=SECRET, tap_mtu="auto") for name in "ab"]
        net.up(*edges)
        wait_paths("direct", *edges)
        fitted(a, 9000)
        fitted(b, 1500)
        for _ in range(2):
            for here, there in ((a, b), (b, a)):
                assert transfer(here.host, there.host, there.address, size=2_000_000).verified
        wait_until("UDP and echoes pass", lambda: not echo_sizes(a.host, b.address, [5000, 8000]), PATIENCE)
        assert not echo_sizes(b.host, a.address, [5000])
        assert a.counters()["plane_told_too_big"] > 0
