"""An edge that keeps to one interface, and underlays of IPv6, IPv4, and both."""

from __future__ import annotations

from n2n.lab.namespaces import wait_until
from n2n.lab.nodes import EdgeNode, SupernodeNode
from n2n.lab.topology import Host, Lab, Switch
from n2n.lab.traffic import ping, transfer

from .networks import PATIENCE, wait_paths

SECRET = "a secret of the test"


def six(host: Host, number: int) -> None:
    host.namespace.ip("address", "add", f"2001:db8::{number}/64", "dev", "eth0", "nodad")


def four(host: Host, switch: Switch, number: int) -> None:
    host.attach(switch, f"198.18.0.{number}/24")


def test_an_edge_sends_and_listens_by_its_interface_only() -> None:
    with Lab() as lab:
        first, second = lab.switch("first"), lab.switch("second")
        sn, a, b = (lab.host(name) for name in ("sn", "a", "b"))
        for number, host in enumerate((sn, a, b), start=1):
            host.attach(first, f"198.18.0.{number}/24")
        a.attach(second, "198.18.0.9/24", interface="eth1")
        supernode = SupernodeNode(sn)
        supernode.start()
        supernode.wait_ready(PATIENCE)
        a.namespace.ip("route", "add", "198.18.0.1/32", "dev", "eth1")  # the better way, but nobody is there
        lost = EdgeNode(a, supernode, name="lost", tap="n2n_lost", passphrase=SECRET)
        bound = EdgeNode(a, supernode, name="bound", passphrase=SECRET, bind="eth0")
        far = EdgeNode(b, supernode, passphrase=SECRET)
        for edge in (lost, bound, far):
            edge.start()
        bound.wait_registered(PATIENCE)
        far.wait_registered(PATIENCE)
        wait_paths("direct", bound, far)
        assert ping(b, bound.address, count=2, interval=0.05).received == 2
        assert far.peer(bound)["endpoint"].startswith("198.18.0.2:")  # type: ignore[index]
        assert not lost.address, "the other one follows the routes, and gets nowhere"


def test_an_interface_that_is_not_there_is_refused_with_its_name() -> None:
    with Lab() as lab:
        host = lab.host("a")
        edge = EdgeNode(host, "198.18.0.1:7777", bind="eth7")
        edge.start()
        wait_until("it ends", lambda: not edge.alive, PATIENCE)
        assert "no interface of that name" in (host.folder / "a.log").read_text()


def test_edges_of_either_family_meet_through_a_supernode_of_both() -> None:
    with Lab() as lab:
        switch = lab.switch()
        sn, v4, v6, both = (lab.host(name) for name in ("sn", "v4", "v6", "both"))
        four(sn, switch, 1)
        four(v4, switch, 2)
        v6.attach(switch)
        four(both, switch, 4)
        for number, host in ((1, sn), (3, v6), (4, both)):
            six(host, number)
        supernode = SupernodeNode(sn)
        supernode.start()
        supernode.wait_ready(PATIENCE)
        one = EdgeNode(v4, supernode, passphrase=SECRET)
        other = EdgeNode(v6, "[2001:db8::1]:7777", passphrase=SECRET)
        third = EdgeNode(both, "[2001:db8::1]:7777", passphrase=SECRET)
        edges = (one, other, third)
        for edge in edges:
            edge.start()
        for edge in edges:
            edge.wait_registered(PATIENCE)
        other.wait_path(third, "direct", PATIENCE)
        third.wait_path(other, "direct", PATIENCE)
        one.wait_path(other, "relay", PATIENCE)
        for here, there in ((one, other), (other, third), (third, one)):
            assert transfer(here.host, there.host, there.address, size=500_000).verified
            assert ping(there.host, here.address, count=1).received == 1
        wait_until("IPv6 takes more of a packet", lambda: 1401 <= other.status()["mtu"] <= 1403, PATIENCE)
        assert one.status()["mtu"] == 1420
        assert one.path_to(other) == "relay"
