"""What edges and communities share: a supernode under a flood, and the memory of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from n2n.lab.namespaces import wait_until
from n2n.lab.nodes import EdgeNode
from n2n.lab.traffic import ping, transfer

from .networks import PATIENCE, Network, apart, network, wait_paths
from .streams import MEGABYTE, both_ways, download, echo_sizes, super_datagrams

SECRET = "a secret of the test"
IDLE_LIMIT = 60_000_000
LOADED_LIMIT = 80_000_000


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network("abcd") as found:
        apart(*(found.host(name) for name in "abcd"))
        yield found


# ---- a flood -------------------------------------------------------------------------------------

#: Sends super-frames of UDP (or datagrams to everybody) as fast as one process can, for ever.
FLOOD = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
one = sys.argv[2] == "everybody"
if not one:
    sock.setsockopt(socket.IPPROTO_UDP, 103, 1300)
data = bytes(1300 if one else 1300 * 49)
while True:
    try:
        sock.sendto(data, (sys.argv[1], 9))
    except OSError:
        pass
"""


@contextmanager
def flooding(sender: EdgeNode, target: str, kind: str) -> Iterator[None]:
    process = sender.host.python("-c", FLOOD, target, kind, log=f"flood-{kind}")
    try:
        yield
        assert process.alive, process.tail()
    finally:
        process.kill()
        sender.host.lab.processes.remove(process)


@pytest.mark.parametrize("kind", ["one", "everybody"])
def test_a_community_that_floods_does_not_starve_another(net: Network, kind: str) -> None:
    secret = {"passphrase": SECRET}
    red = [net.edge(name, name=f"red-{name}-{kind}", community=f"red-{kind}", **secret) for name in "cd"]
    blue = [net.edge(name, name=f"blue-{name}-{kind}", community=f"blue-{kind}", **secret) for name in "ab"]
    net.up(*red, *blue)
    wait_paths("relay", *red)
    wait_paths("relay", *blue)
    target = red[1].address if kind == "one" else f"{red[1].address.rpartition('.')[0]}.255"
    assert echo_sizes(red[0].host, red[1].address, [100]) == []
    counter = "plane_relayed" if kind == "one" else "plane_relayed_flood"

    def flooded() -> int:
        return net.supernode.counters()[counter]

    with flooding(red[0], target, kind):
        before = flooded()
        wait_until("the flood is on", lambda: flooded() > before + 10_000, PATIENCE)
        before = flooded()
        # It ends in an error where TCP stands still for 20 s.
        for here, there in (blue, blue[::-1]):
            found = transfer(here.host, there.host, there.address, size=5_000_000)
            assert found.verified
        assert ping(blue[0].host, blue[1].address, count=10, interval=0.02).received > 0
        packets = 2 * 5_000_000 // 1380
        assert flooded() - before > 2 * packets if kind == "one" else flooded() > before, "the flood went on"
    for edge in (*red, *blue):
        assert edge.stop() == 0, edge.process and edge.process.tail()


# ---- memory --------------------------------------------------------------------------------------


def resident(edge: EdgeNode) -> int:
    assert edge.process is not None
    return edge.process.memory()


def test_memory_of_an_edge(net: Network, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Idle, under load, and after more of it: buffers are made once."""
    for number, settings in enumerate(({"passphrase": SECRET}, {"passphrase": SECRET, "compress": True})):
        name = f"memory-{number}"
        a, b = edges = [net.edge(host, name=f"{host}-{name}", community=name, **settings) for host in "ab"]  # type: ignore[arg-type]
        net.up(*edges)
        wait_paths("relay", *edges)
        idle = [resident(edge) for edge in edges]
        assert all(0 < size < IDLE_LIMIT for size in idle), idle
        sizes: list[list[int]] = []
        for _ in range(8):
            assert both_ways(a.host, b.host, b.address, 8 * MEGABYTE)
            assert download(a.host, b.host, b.address, tmp_path_factory.mktemp("tls"))
            assert super_datagrams(a.host, b.host, b.address) == []
            assert echo_sizes(b.host, a.address, (1, 1392, 65_000)) == []
            sizes.append([resident(edge) for edge in (a, b)])
        assert all(size < LOADED_LIMIT for round_ in sizes for size in round_), sizes
        grown = [last - first for first, last in zip(sizes[3], sizes[-1], strict=True)]
        assert all(size < 3 * MEGABYTE for size in grown), sizes
        for edge in edges:
            assert edge.stop() == 0
