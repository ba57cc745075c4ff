"""A path that becomes smaller while it is used, and says nothing: open connections go on, and new ones work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from socket import socket

import pytest

from n2n.lab.namespaces import wait_until
from n2n.lab.nodes import EdgeNode, SupernodeNode
from n2n.lab.topology import Host, Lab

from .networks import PATIENCE, Network, wait_paths
from .streams import MEGABYTE, connection, download, noise
from .test_mtu import BLACK_HOLE, NO_FRAGMENTS, SECRET, nft

#: Network of the wide and of the narrow segment, by family.
SEGMENTS = {4: ("198.18.0.{}/24", "198.18.1.{}/24"), 6: ("2001:db8:6e::{}/64", "2001:db8:6f::{}/64")}
#: A certificate with these in it has more than 5000 bytes: it fills several packets of the handshake.
NAMES = [f"198.19.{n >> 8}.{n & 255}" for n in range(800)]


@contextmanager
def street(family: int, path: str) -> Iterator[tuple[Network, EdgeNode, EdgeNode, Host]]:
    """Two edges, one of them behind a router that tells nobody what it cannot forward."""
    wide, narrow = SEGMENTS[family]
    gateway = [net.format(254 if family == 4 else "fe") for net in (wide, narrow)]
    via = [one.partition("/")[0] for one in gateway]
    with Lab() as lab:
        segments = lab.switch("wide"), lab.switch("narrow")
        router = lab.host("router")
        for number, segment in enumerate(segments):
            router.attach(segment, gateway[number], interface=f"eth{number}")
        lab.host("sn").attach(segments[0], wide.format(1), gateway=via[0])
        lab.host("a").attach(segments[0], wide.format(2), gateway=via[0])
        lab.host("b").attach(segments[1], narrow.format(2), gateway=via[1])
        with router.entered():
            for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                Path(f"/proc/sys/net/{name}").write_text("1")
        nft(router, BLACK_HOLE)
        a, b = lab.hosts["a"], lab.hosts["b"]
        for host in (a, b, lab.hosts["sn"]):
            nft(host, NO_FRAGMENTS)
        if path == "relay":
            kind = "ip" if family == 4 else "ip6"
            nft(router, f"table inet apart {{ chain through {{ type filter hook forward priority 0\n"
                f"{kind} saddr {a.addr} {kind} daddr {b.addr} drop\n"
                f"{kind} saddr {b.addr} {kind} daddr {a.addr} drop\n}}\n}}\n")  # fmt: skip
        supernode = SupernodeNode(lab.hosts["sn"])
        supernode.start()
        supernode.wait_ready(PATIENCE)
        net = Network(lab, supernode)
        at = f"[{lab.hosts['sn'].addr}]:7777" if family == 6 else supernode.endpoint
        edges = [EdgeNode(host, at, passphrase=SECRET) for host in (a, b)]
        net.up(*edges)
        wait_paths(path, *edges)
        yield net, edges[0], edges[1], router


class Flow:
    """Bytes through a connection, as many as it takes (but no more than some 10 MB/s), until it is stopped."""

    def __init__(self, threads: ThreadPoolExecutor, sender: socket, receiver: socket) -> None:
        self.arrived = 0
        self._stop = threading.Event()
        self._sent = threads.submit(self._send, sender)
        self._read = threads.submit(self._receive, receiver)

    def _send(self, sock: socket) -> int:
        sent = 0
        while not self._stop.is_set():
            sock.sendall(noise(1)[:100_000])
            sent += 100_000
            time.sleep(0.01)
        sock.shutdown(1)
        return sent

    def _receive(self, sock: socket) -> None:
        while block := sock.recv(100_000):
            self.arrived += len(block)

    def goes_on(self, size: int) -> Callable[[], bool]:
        """Whether so many more bytes have arrived than now."""
        wanted = self.arrived + size
        return lambda: self.arrived >= wanted

    def end(self) -> None:
        """All that was sent has arrived."""
        self._stop.set()
        self._read.result()
        assert self.arrived == self._sent.result()


def exchange(near: socket, far: socket) -> None:
    """As ssh: a few keys, then a long answer; in both directions."""
    for one, other in ((near, far), (far, near)):
        one.sendall(b"ls -lR\n")
        assert other.recv(100) == b"ls -lR\n"
        answer = noise(2)[:200_000]
        with ThreadPoolExecutor(1) as threads:
            said = threads.submit(other.sendall, answer)
            got = bytearray()
            while len(got) < len(answer):
                block = one.recv(65536)
                assert block, "it ended"
                got += block
            said.result()
        assert got == answer


@pytest.mark.parametrize(("family", "path"), [(4, "direct"), (6, "direct"), (4, "relay"), (6, "relay")])
def test_open_connections_survive_a_path_that_shrinks(family: int, path: str, tmp_path: Path) -> None:
    with street(family, path) as (_, a, b, router):
        ends = [connection(a.host, b.host, b.address) for _ in range(2)]
        with ends[0] as (here, there), ends[1] as bulk, ThreadPoolExecutor(2) as threads:
            exchange(here, there)
            flow = Flow(threads, *bulk)
            try:
                wait_until("bytes flow", flow.goes_on(2_000_000), PATIENCE)
                wait_until("the path is measured", lambda: (a.peer(b) or {}).get("mtu"), PATIENCE)
                router.namespace.ip("link", "set", "eth1", "mtu", "1280")
                wait_until("what was on its way is there", flow.goes_on(1_000_000), PATIENCE)
                wait_until("bytes flow", flow.goes_on(1_000_000), PATIENCE)
                exchange(here, there)
            finally:
                flow._stop.set()
            flow.end()
        for here_, there_ in ((a, b), (b, a)):
            assert download(here_.host, there_.host, there_.address, tmp_path, MEGABYTE, NAMES)
        if path == "direct":
            assert a.path_to(b) == b.path_to(a) == "direct"
            assert a.counters()["plane_told_too_big"] > 0
        assert a.counters()["daemon_mtu_probes"] < 1000
