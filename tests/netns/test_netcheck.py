"""`n2n netcheck` behind real NAT routers, small paths, blocked UDP, and a router that maps ports."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from n2n.lab.gateway import HomeRouter
from n2n.lab.nat import TOOLS, Internet
from n2n.lab.nodes import EdgeNode, SupernodeNode
from n2n.lab.topology import Host, Lab

from .needs import need_tool
from .networks import PATIENCE

#: Kind of a site -> mapping and filtering that can be told from there.
SEEN = {
    "full": ("endpoint-independent", "endpoint-independent or address-dependent"),
    "addr": ("endpoint-independent", "endpoint-independent or address-dependent"),
    "port": ("endpoint-independent", "address and port-dependent"),
    "symmetric": ("endpoint-dependent", "address and port-dependent"),
    "open": ("none", "endpoint-independent or address-dependent"),
    "carrier": ("endpoint-dependent", "address and port-dependent"),
    "blocked": ("unknown", "unknown"),
}


def netcheck(host: Host, *words: str, status: int = 0) -> Any:
    """Run it there, and read what it prints."""
    env = {"HOME": str(host.folder), "N2N_RUN_DIR": str(host.folder / "run")}
    result = host.run(sys.executable, "-m", "n2n", "netcheck", *words, "--json", check=False, env=env)
    assert result.returncode == status, (result.stdout, result.stderr)
    return json.loads(result.stdout)


def test_every_kind_of_nat_is_told() -> None:
    for tool in TOOLS:
        need_tool(tool)
    with Lab() as lab:
        internet = Internet(lab)
        node = SupernodeNode(internet.host("sn"))
        node.start()
        node.wait_ready(PATIENCE)
        sites = {kind: internet.site(f"s{number}", kind) for number, kind in enumerate(SEEN)}
        sites["port"].router.set_mtu(1400, black_hole=True)
        mute = internet.site("mute", "port")
        internet.fence.cut(mute.public, node.host.addr)
        with ThreadPoolExecutor() as pool:  # each mostly waits
            silent = pool.submit(netcheck, mute.host, "--supernode", node.endpoint, status=4)
            asked = {
                kind: pool.submit(netcheck, site.host, "--supernode", node.endpoint) for kind, site in sites.items()
            }
            found = {kind: one.result() for kind, one in asked.items()}
        assert {kind: (one["nat"]["mapping"], one["nat"]["filtering"]) for kind, one in found.items()} == SEEN
        for kind, one in found.items():
            assert one["nat"]["public"].startswith(f"{sites[kind].public}:")
        assert found["port"]["mtu"] == {"known": 1500, "found": 1400, "exact": True}
        assert found["full"]["mtu"] == {"known": 1500, "found": 1500, "exact": False}
        assert "UDP is blocked" in silent.result()["verdict"]


def test_behind_a_router_that_maps_ports_and_while_an_edge_runs() -> None:
    need_tool("nft")
    need_tool("miniupnpd")
    with Lab() as lab:
        street, rooms = lab.switch("street"), lab.switch("rooms")
        router = HomeRouter(lab.host("router"), street, "44.128.0.1/24", rooms, "10.1.0.1/24")
        inside, outside = lab.host("inside"), lab.host("sn")
        inside.attach(rooms, "10.1.0.2/24", gateway="10.1.0.1")
        outside.attach(street, "44.128.0.10/24")
        router.start()
        node = SupernodeNode(outside)
        node.start()
        node.wait_ready(PATIENCE)
        edge = EdgeNode(inside, node, local_port=40001)
        edge.start()
        edge.wait_registered(PATIENCE)
        found = netcheck(inside)
        assert found["supernode"]["endpoint"] == node.endpoint
        assert found["nat"]["kind"] == "a port-restricted NAT"
        assert "maps ports" in found["verdict"]
        assert [(one["name"], one["answers"]) for one in found["router"]["methods"]] == [
            ("upnp", True), ("nat-pmp", True), ("pcp", True),
        ]  # fmt: skip
        assert (found["router"]["external_ip"], found["router"]["double_nat"]) == ("44.128.0.1", None)
        assert found["edges"][0]["port_mapping"]["mode"] == "auto"
        router.options["says"] = "44.128.7.7"
        router.restart()
        again = netcheck(inside, "--config", str(edge.folder / "config.yaml"))
        assert "44.128.7.7" in again["router"]["double_nat"]
        assert again["remedies"]
