"""The complete path through a supernode that runs already, between two edges of this process.

They need no rights: in place of a TAP device each has one end of a socket pair. Which way the frames take is what the
edges find: direct, or relayed by that supernode.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from n2n._fastpath.trial import BATCH, Exchange
from n2n.bench.local import AT_ONCE, SINGLE
from n2n.bench.measure import Trial, exchange
from n2n.bench.options import COMPONENTS
from n2n.errors import NotReady

if TYPE_CHECKING:
    from n2n.api.faces import Edge

__all__ = ["through"]

_PATIENCE: Final = 20.0
#: Seconds in which a direct path is found, or is not there: three rounds of pings.
_DIRECT: Final = 10.0
_ETHERTYPE: Final = b"\x88\xb5"  # IEEE 802: for local experiments
_BUFFER: Final = 4 << 20
_TIMEOUT: Final = 1000


class _Pair:
    """Two edges in one community, in an event loop of their own thread; `ends` are what programs of each would use."""

    def __init__(self, supernode: str, community: str, sealed: bool) -> None:
        self._settings = {
            "supernode_addr": supernode,
            "community": community,
            "heartbeat_interval": 5.0,
            "encryption_passphrase": secrets.token_hex(16) if sealed else None,
        }
        self.edges: list[Edge] = []
        self.ends: list[socket.socket] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bench-edges", daemon=True)
        self._stack = contextlib.AsyncExitStack()

    def __enter__(self) -> _Pair:
        self._thread.start()
        try:
            self._await(self._start(), 2 * _PATIENCE)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _await(self, work: object, patience: float) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(patience)  # type: ignore[arg-type]

    async def _start(self) -> None:
        from n2n.api.faces import Edge
        from n2n.net import Tap

        for name in ("a", "b"):
            ours, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
            self._stack.callback(ours.close)
            for one in (ours, device):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
            tap = Tap(device.detach(), f"bench-{name}")
            more = {
                "edge_id": f"bench-{name}-{secrets.token_hex(2)}",
                "tap": tap,
                "machine_id": secrets.token_bytes(16),
            }
            edge = Edge(**self._settings, **more)  # type: ignore[arg-type]
            await self._stack.enter_async_context(edge)
            self.edges.append(edge)
            self.ends.append(ours)
        for edge in self.edges:
            await edge.wait_ready(_PATIENCE)

    def close(self) -> None:
        """Both leave the supernode."""
        with contextlib.suppress(TimeoutError):
            self._await(self._stack.aclose(), _PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)
        if not self._thread.is_alive():
            self._loop.close()

    def ways(self) -> list[str]:
        """The path of each edge to the other; "" where it does not know of it."""
        found: list[str] = []

        async def look() -> None:
            for edge, other in (self.edges, self.edges[::-1]):
                found.append(next((peer.path for peer in edge.peers() if peer.mac == other.mac), ""))

        self._await(look(), _PATIENCE)
        return found

    def way(self) -> str:
        """Wait until both know each other, and a while for the direct path; returns "direct", "relay" or "mixed"."""
        until = time.monotonic() + _DIRECT
        while (ways := self.ways()) != ["direct", "direct"] and time.monotonic() < until:
            time.sleep(0.05)
        if "" in ways:
            raise NotReady(f"the two edges did not hear of each other from {self._settings['supernode_addr']}")
        return ways[0] if ways[0] == ways[1] else "mixed"


@contextlib.contextmanager
def through(
    supernode: str, community: str, sizes: Sequence[int], tell: Callable[[str], None]
) -> Iterator[Iterator[list[Trial]]]:
    """The trials, in one group.

    Args:
        supernode: ``host:port``.
        community: in which the edges meet; those that seal in one of that name with "-sealed" behind it.
        tell: told what is waited for.

    Raises:
        ConfigError: the address has another form.
        NotReady: the supernode does not answer, or the edges do not find each other.
    """
    tell(f"two edges register at {supernode}")
    with _Pair(supernode, community, False) as plain, _Pair(supernode, f"{community}-sealed", True) as sealed:
        pairs = {"plain": plain, "sealed": sealed}
        tell("the edges look for the direct path")
        ways = {kind: pair.way() for kind, pair in pairs.items()}
        yield iter(
            [
                [
                    _trial(pairs[kind], size, f"through {supernode}, {ways[kind]}, {kind}, {name}", batch)
                    for size in sizes
                    for kind in pairs
                    for name, batch in ((SINGLE, 1), (AT_ONCE, BATCH))
                ]
            ]
        )


def _trial(pair: _Pair, size: int, variant: str, batch: int) -> Trial:
    a, b = pair.edges
    assert a.mac is not None
    assert b.mac is not None
    head = b.mac.raw + a.mac.raw + _ETHERTYPE
    near, far = (end.fileno() for end in pair.ends)

    def make(count: int) -> Exchange:
        return Exchange(near, far, size, head=head, near_offset=14, far_offset=14, batch=count)

    return Trial(COMPONENTS["path"], size, variant, exchange(make, batch, time.process_time_ns, timeout_ms=_TIMEOUT))
