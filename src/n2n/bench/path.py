"""The complete path: a program's datagram goes through its edge, the network, the other edge to a program, and back.

A supernode and two edges on two hosts run as processes in private namespaces, as ``n2n lab demo`` runs them. Each host
has two edges, one that seals and one that does not, so that these two take turns; first a switch keeps the hosts apart,
so that the supernode relays, then it does not.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from n2n._fastpath.trial import BATCH, Exchange
from n2n.bench.local import AT_ONCE, SINGLE, udp_socket
from n2n.bench.measure import Trial, cpu_of, exchange
from n2n.bench.options import COMPONENTS
from n2n.bench.tapdev import HEADERS

__all__ = ["path"]

_ADDRESSES: Final = {"sn": "198.18.0.1/24", "a": "198.18.0.2/24", "b": "198.18.0.3/24"}
_USUAL_MTU: Final = 1420
#: Around a frame on its way: IPv4 (20), UDP (8), the longer header (30), nonce and tag (28), Ethernet's (14): rounded.
_AROUND: Final = 120
_PATIENCE: Final = 60.0
#: Milliseconds after which a packet is lost.
_TIMEOUT: Final = 300


@contextlib.contextmanager
def path(sizes: Sequence[int], tell: Callable[[str], None], community: str) -> Iterator[Iterator[list[Trial]]]:
    """The trials, in two groups: what the supernode relays, and what goes directly.

    A group's trials are for use before the next group is asked for.

    Args:
        tell: told what is waited for.
        community: in which the edges meet; those that seal in one of that name with "-sealed" behind it.

    Raises:
        PermissionError, PlatformError: there are no rights, or no TAP device; the message says what to do.
        NotReady: something did not come up in time.
    """
    from n2n.lab.nodes import EdgeNode, SupernodeNode, start_all
    from n2n.lab.topology import Lab

    tell("a supernode and two edges come up")
    mtu = max(_USUAL_MTU, *(size - 14 for size in sizes))
    with Lab() as lab, contextlib.ExitStack() as stack:
        switch = lab.switch(mtu=max(1500, mtu + _AROUND))
        for name, address in _ADDRESSES.items():
            lab.host(name).attach(switch, address).isolate(name != "sn")
        supernode = SupernodeNode(lab.hosts["sn"])

        def edge(host: str, kind: str) -> EdgeNode:
            passphrase = "benchmark of nothing that is secret" if kind == "sealed" else None
            name = f"{community}-sealed" if kind == "sealed" else community
            more = {"community": name, "tap": f"n2n_{kind}", "passphrase": passphrase, "tap_mtu": mtu}
            return EdgeNode(lab.hosts[host], supernode, name=f"{host}-{kind}", **more)  # type: ignore[arg-type]

        pairs = {kind: (edge("a", kind), edge("b", kind)) for kind in ("plain", "sealed")}
        start_all(supernode, [one for pair in pairs.values() for one in pair], _PATIENCE)
        sockets = {kind: _connected(stack, *pair) for kind, pair in pairs.items()}

        def used(kind: str) -> int | None:
            nodes = (*pairs[kind], supernode)
            return cpu_of(*(node.process.pid for node in nodes if node.process is not None))

        def groups() -> Iterator[list[Trial]]:
            for way in ("relay", "direct"):
                tell(f"the path becomes {way}")
                for name in ("a", "b"):
                    lab.hosts[name].port.isolate(way == "relay")
                for a, b in pairs.values():
                    a.wait_path(b, way, _PATIENCE)
                    b.wait_path(a, way, _PATIENCE)
                yield trials_of(sizes, way, sockets, used)

        yield groups()


def _connected(stack: contextlib.ExitStack, a: object, b: object) -> tuple[socket.socket, socket.socket]:
    """A socket on the host of each edge, bound to its virtual address and connected to the other."""
    from n2n.lab.nodes import EdgeNode

    ends = []
    for node in (a, b):
        assert isinstance(node, EdgeNode)
        with node.host.entered():
            ends.append(stack.enter_context(udp_socket(node.address)))
    ends[0].connect(ends[1].getsockname())
    ends[1].connect(ends[0].getsockname())
    return ends[0], ends[1]


def trials_of(
    sizes: Sequence[int],
    way: str,
    sockets: dict[str, tuple[socket.socket, socket.socket]],
    used: Callable[[str], int | None],
) -> list[Trial]:
    """Both kinds of frames, one at a time and many at once, at every size."""

    def trial(size: int, kind: str, variant: str, batch: int) -> Trial:
        near, far = (one.fileno() for one in sockets[kind])

        def make(count: int) -> Exchange:
            return Exchange(near, far, size - HEADERS, batch=count)

        run = exchange(make, batch, lambda: used(kind), timeout_ms=_TIMEOUT)
        return Trial(COMPONENTS["path"], size, f"{way}, {kind}, {variant}", run)

    return [
        trial(size, kind, name, batch)
        for size in sizes
        for kind in sockets
        for name, batch in ((SINGLE, 1), (AT_ONCE, BATCH))
    ]
