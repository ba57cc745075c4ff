"""Two supernodes: edges keep to one, and go to the next when it dies, with the address that they have."""

from __future__ import annotations

import time

from n2n.lab.namespaces import wait_until
from n2n.lab.nodes import EdgeNode, SupernodeNode
from n2n.lab.topology import Lab
from n2n.lab.traffic import ping

from .needs import need_tool
from .networks import PATIENCE

#: Seconds between two heartbeats of these edges.
HEARTBEAT = 10.0


def test_when_a_supernode_dies_edges_go_to_the_next_one_and_keep_their_addresses() -> None:
    for tool in ("ping", "rsync"):
        need_tool(tool)
    with Lab() as lab:
        switch = lab.switch()
        for number, name in enumerate(["first", "second", "a", "b"], start=1):
            lab.host(name).attach(switch, f"198.18.0.{number}/24")
        first = SupernodeNode(lab.hosts["first"])
        first.start()
        first.wait_ready(PATIENCE)
        both = "198.18.0.1:7777,198.18.0.2:7777"
        edges = [EdgeNode(lab.hosts[name], both, heartbeat_interval=f"{HEARTBEAT:g}s") for name in "ba"]
        for edge in edges:
            edge.start()
            edge.wait_registered(PATIENCE)
        addresses = [edge.address for edge in edges]
        shared = lab.hosts["second"].folder / "leases"
        # As docs/OPERATING.md has it, but for the host.
        first.host.run("rsync", "-a", f"{first.config['state_dir']}/", f"{shared}/")
        second = SupernodeNode(lab.hosts["second"], state_dir=str(shared))
        second.start()
        second.wait_ready(PATIENCE)
        assert second.status()["edges"] == 0, "they keep to the first"
        first.kill()
        began = time.monotonic()
        wait_until("both are at the second", lambda: second.status().get("edges") == 2, PATIENCE)
        assert time.monotonic() - began < 2 * HEARTBEAT
        assert [edge.address for edge in edges] == addresses
        assert all("198.18.0.2" in str(edge.status()["supernode"]) for edge in edges)
        assert ping(edges[0].host, edges[1].address, count=1).received == 1
