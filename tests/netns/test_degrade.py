"""What is not there is left out: devices made by somebody else, and paths that take no trains or more than usual."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from n2n.lab.namespaces import wait_until
from n2n.lab.nodes import EdgeNode, SupernodeNode
from n2n.lab.topology import Lab
from n2n.lab.traffic import transfer

from .networks import PATIENCE, Network, apart, network, wait_paths
from .streams import both_ways, echo_sizes, super_datagrams
from .test_mtu import nft

SECRET = "a secret of the test"
SIZE = 10_000_000


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network("ab") as found:
        apart(found.host("a"), found.host("b"))
        yield found


def works(here: EdgeNode, there: EdgeNode) -> None:
    """Every kind of traffic, both ways."""
    for one, other in ((here, there), (there, here)):
        assert transfer(one.host, other.host, other.address, size=SIZE).verified
        assert super_datagrams(one.host, other.host, other.address) == []
        assert echo_sizes(one.host, other.address, (1, 1000, 1392, 1393, 9000, 65_000)) == []
    assert both_ways(here.host, there.host, there.address)


# ---- persistent devices --------------------------------------------------------------------------


def log_of(edge: EdgeNode) -> str:
    assert edge.process is not None
    return edge.process.tail(100_000)


def test_a_device_made_before_without_virtio_headers(net: Network) -> None:
    """The kernel adds them (or it is told that there are none). Used with offloads and then without, the device must
    not hand over what it has not been asked for any more."""
    host = net.host("a")
    host.namespace.ip("tuntap", "add", "dev", "n2n_kept", "mode", "tap")
    try:
        far = net.edge("b", name="far-kept", community="kept", tap="n2n_kept", passphrase=SECRET)
        net.up(far)
        for number, offload in enumerate((True, False, True)):
            name = f"near-kept-{number}"
            config = {"community": "kept", "tap": "n2n_kept", "passphrase": SECRET, "tap_offload": offload}
            near = net.edge("a", name=name, **config, machine_id_file=str(host.folder / "machine-id"))
            net.up(near)
            wait_paths("relay", near, far)
            has = bool(near.status()["data_plane"]["vnet_hdr"])
            assert has or not offload or "no super-frames" in log_of(near)
            assert not has or offload
            works(near, far)
            assert near.stop() == 0
            assert "n2n_kept" in host.interfaces(), "what was there before stays"
        assert far.stop() == 0
    finally:
        host.namespace.ip("link", "delete", "n2n_kept")


def test_a_device_with_queues_that_do_not_fit_is_refused_with_its_name(net: Network) -> None:
    host = net.host("a")
    host.namespace.ip("tuntap", "add", "dev", "n2n_multi", "mode", "tap", "multi_queue")
    try:
        edge = net.edge("a", name="multi", community="multi", tap="n2n_multi", threads=1)
        edge.start()
        assert edge.process is not None
        assert edge.process.wait(PATIENCE) not in (0, None)
        assert "n2n_multi" in log_of(edge)
        assert "Traceback" not in log_of(edge)
        more = net.edge("a", name="multi-2", community="multi", tap="n2n_multi", threads=2)
        net.up(more)
        assert more.stop() == 0
    finally:
        host.namespace.ip("link", "delete", "n2n_multi")


def too_large(*edges: EdgeNode) -> None:
    """Let their TAPs take more than the path does: wait until the edges have fitted them, and undo it."""
    for edge in edges:
        wait_until("the MTU fits the path", lambda edge=edge: edge.status()["mtu"] < 1300, PATIENCE)
        edge.host.namespace.ip("link", "set", edge.tap, "mtu", "1420")


def deaf(*edges: EdgeNode) -> None:
    """Let their hosts not hear what a path takes: what is too large comes on and on, as before ICMP was invented."""
    for edge in edges:
        nft(edge.host, f"table ip deaf {{ chain in {{ type filter hook input priority 0\n"
            f"iifname {edge.tap} icmp type destination-unreachable drop\n}}\n}}\n")  # fmt: skip


# ---- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "underlay", "tap"),
    [
        ("direct", 1280, 1420),
        ("relay", 1280, 1420),
        ("relay", 9000, 8900),
    ],
)
def test_underlays_of_other_sizes(path: str, underlay: int, tap: int) -> None:
    """Below the usual size no train is taken (they are not fragmented); above it they carry jumbo frames."""
    with Lab() as lab:
        switch = lab.switch(mtu=underlay)
        for number, name in enumerate(("sn", "a", "b"), start=1):
            lab.host(name).attach(switch, f"198.18.0.{number}/24")
        supernode = SupernodeNode(lab.hosts["sn"])
        supernode.start()
        supernode.wait_ready(PATIENCE)
        net = Network(lab, supernode)
        if path == "relay":
            apart(lab.hosts["a"], lab.hosts["b"])
        a, b = edges = [net.edge(name, passphrase=SECRET, tap_mtu=tap) for name in "ab"]
        net.up(*edges)
        wait_paths(path, *edges)
        if underlay < 1500:
            deaf(*edges)
            too_large(*edges)
        works(a, b)
        for edge in edges:
            counters = edge.counters()
            if underlay < 1500:
                assert counters["plane_train_refused"] > 0
                assert edge.status()["data_plane"]["gso"], "small ones still go in trains"
            else:
                assert counters["plane_train_refused"] == 0
                assert counters["plane_trains_tx"] > 0


def test_a_bottleneck_behind_a_router() -> None:
    """Only the router knows that its other leg is small: the kernel learns it, and trains of that size end."""
    with Lab() as lab:
        wide, narrow = lab.switch("wide"), lab.switch("narrow", mtu=1280)
        lab.host("sn").attach(wide, "198.18.0.1/24", gateway="198.18.0.254")
        lab.host("a").attach(wide, "198.18.0.2/24", gateway="198.18.0.254")
        router = lab.host("router")
        router.attach(wide, "198.18.0.254/24")
        router.attach(narrow, "198.18.1.254/24", interface="eth1")
        lab.host("b").attach(narrow, "198.18.1.2/24", gateway="198.18.1.254")
        with router.entered():
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        supernode = SupernodeNode(lab.hosts["sn"])
        supernode.start()
        supernode.wait_ready(PATIENCE)
        net = Network(lab, supernode)
        a, b = edges = [net.edge(name, passphrase=SECRET) for name in "ab"]
        net.up(*edges)
        wait_paths("direct", *edges)
        deaf(*edges)
        too_large(b)
        # The first that is too large is lost, and tells the kernel (RFC 1191).
        wait_until("full frames pass", lambda: echo_sizes(a.host, b.address, [1392]) == [], PATIENCE)
        works(a, b)
        assert a.counters()["plane_train_refused"] > 0
        assert a.status()["data_plane"]["gso"]
