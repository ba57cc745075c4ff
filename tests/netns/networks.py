"""The network that most tests here use: a supernode and hosts on one switch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from n2n.lab.nodes import EdgeNode, SupernodeNode
from n2n.lab.topology import Host, Lab

#: Long enough for a slow, busy machine; nothing waits this long unless something is wrong.
PATIENCE = 40.0


@dataclass
class Network:
    """Supernode on host "sn" (198.18.0.1), the other hosts from 198.18.0.2 on."""

    lab: Lab
    supernode: SupernodeNode

    def host(self, name: str) -> Host:
        return self.lab.hosts[name]

    def edge(self, host: str, **config: object) -> EdgeNode:
        """An edge on that host, not yet started."""
        return EdgeNode(self.host(host), self.supernode, **config)  # type: ignore[arg-type]

    def up(self, *edges: EdgeNode) -> None:
        """Start edges, and wait until they are registered."""
        for edge in edges:
            edge.start()
        for edge in edges:
            edge.wait_registered(PATIENCE)


@contextmanager
def network(hosts: Sequence[str], **supernode: object) -> Iterator[Network]:
    """A lab with a running supernode and these hosts."""
    with Lab() as lab:
        switch = lab.switch()
        for number, name in enumerate(["sn", *hosts], start=1):
            lab.host(name).attach(switch, f"198.18.0.{number}/24")
        node = SupernodeNode(lab.hosts["sn"], **supernode)
        node.start()
        node.wait_ready(PATIENCE)
        yield Network(lab, node)


def apart(*hosts: Host) -> None:
    """These hosts no longer reach each other, only the others."""
    for host in hosts:
        host.port.isolate()


def wait_paths(path: str, *edges: EdgeNode) -> None:
    """Wait until every one of these edges reaches every other by `path`."""
    for here in edges:
        for there in edges:
            if here is not there:
                here.wait_path(there, path, PATIENCE)
