"""Fits an edge to its paths: the TAP's MTU to that of the supernode, and TCP connections to each peer's.

The path to the supernode is the one that every peer is reached by at last, so it decides what the TAP device takes.
A peer's own path may be smaller: connections with it are made to fit by their MSS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from n2n.daemon.pathprobe import PathProber
from n2n.proto.edge import PeerView
from n2n.types import Endpoint, MacAddress

__all__ = ["PathMtu", "Surface"]

#: Seconds until what was found is looked at again: paths change, and nobody tells.
_AGAIN: Final = 600.0
#: Seconds to let a change settle: a path comes with others.
_SETTLE: Final = 0.2
#: Peers probed at a time.
_AT_ONCE: Final = 8
_IPV4, _IPV6 = 28, 48
"""Bytes of the IP and UDP headers."""
_ETHERNET, _VFUZE, _DATA, _SEAL, _ZSTD = 14, 7, 30, 28, 16
"""Bytes of what is around an IP packet; zstd's for what does not compress."""
#: The smallest MTU that a TAP device gets: IPv4 wants it.
_SMALLEST: Final = 576


@dataclass(frozen=True, slots=True)
class Surface:
    """What the edge adds to each IP packet that its TAP gives.

    Args:
        vfuze, sealed, compressed: as its configuration says.
    """

    vfuze: bool
    sealed: bool
    compressed: bool

    def around(self, endpoint: Endpoint) -> int:
        """Bytes by which the packet on the path is larger than the one in the tunnel."""
        return self.within + (_IPV4 if endpoint.ip.version == 4 else _IPV6)

    @property
    def within(self) -> int:
        """The same without the headers of IP and UDP: bytes that a datagram has more than the packet in it."""
        header = _VFUZE if self.vfuze else _DATA
        return header + _ETHERNET + _SEAL * self.sealed + _ZSTD * self.compressed


class PathMtu:
    """Measures, again and again, and sets what follows from it.

    Args:
        prober: measures.
        mac: our address: what is sent to it comes back from the supernode.
        surface: what is around a packet.
        asked: MTU of the TAP device in the configuration, now.
        peers: the other edges.
        set_tap: gives the TAP device another MTU.
        clamp: makes TCP connections with a peer fit an MTU; 0: any.
        tell: level, event and fields.
    """

    def __init__(
        self,
        prober: PathProber,
        mac: MacAddress,
        surface: Surface,
        *,
        asked: Callable[[], int],
        peers: Callable[[], Iterable[PeerView]],
        set_tap: Callable[[int], Awaitable[None]],
        clamp: Callable[[MacAddress, int], None],
        tell: Callable[[str, str, dict[str, object]], None],
    ) -> None:
        self.mtu = asked()
        """What the TAP device has, or shall have."""
        self._prober = prober
        self._mac = mac
        self._surface = surface
        self._asked = asked
        self._peers = peers
        self._set_tap = set_tap
        self._clamp = clamp
        self._tell = tell
        self._supernode: Endpoint | None = None
        self._relay: int | None = None
        self._direct: dict[MacAddress, Endpoint] = {}
        self._found: dict[MacAddress, tuple[Endpoint, int | None]] = {}
        self._clamped: dict[MacAddress, int] = {}
        self._stale = True
        self._wake = asyncio.Event()

    def look_again(self, supernode: Endpoint | None = None) -> None:
        """Measure everything again, soon: the network changed, or the edge registered (with this supernode)."""
        self._supernode = supernode or self._supernode
        self._stale = True
        self._found.clear()
        self._wake.set()

    def peer_put(self, mac: MacAddress, endpoint: Endpoint, direct: bool) -> None:
        """A peer's path is this one now."""
        if direct:
            self._direct[mac] = endpoint
            if self._found.get(mac, (None, 0))[0] != endpoint:
                self._wake.set()
        else:
            self._direct.pop(mac, None)
        self._fit(mac)

    def peer_dropped(self, mac: MacAddress) -> None:
        """A peer is gone; the data plane has forgotten its figure with it."""
        for known in (self._direct, self._found, self._clamped):
            known.pop(mac, None)

    def reset(self, mtu: int) -> None:
        """The TAP device was given this MTU, as somebody configured it."""
        self.mtu = mtu
        self.look_again()

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_AGAIN):
                    await self._wake.wait()
            except TimeoutError:
                self.look_again()
            await asyncio.sleep(_SETTLE)
            self._wake.clear()
            if self._stale:
                self._stale = False
                await self._measure_supernode()
            await self._measure_peers()

    async def _measure_supernode(self) -> None:
        endpoint = self._supernode
        if endpoint is None:
            return
        asked, around = self._asked(), self._surface.around(endpoint)
        found = await self._prober.measure(self._mac, endpoint, asked + around)
        if self._supernode != endpoint or found is None:  # moved meanwhile, or nothing is known: as it was
            return
        self._relay = found - around
        mtu = max(min(self._relay, asked), _SMALLEST)
        if mtu != self.mtu:
            self.mtu = mtu
            await self._set_tap(mtu)
            why = f"packets of at most {found} bytes get to the supernode at {endpoint} and back"
            level = "warning" if mtu < asked else "info"
            self._tell(level, "mtu", {"mtu": mtu, "configured": asked, "why": why})
        for mac in tuple(self._clamped):
            self._fit(mac)

    async def _measure_peers(self) -> None:
        """All direct ones that know of this, and whose path was not measured yet."""
        new = {mac: at for mac, at in self._direct.items() if self._found.get(mac, (None, 0))[0] != at}
        ours = {view.mac for view in self._peers() if view.kind == "n2n"} if new else set()
        todo = [(mac, at) for mac, at in new.items() if mac in ours]
        for first in range(0, len(todo), _AT_ONCE):
            await asyncio.gather(*(self._measure_peer(mac, at) for mac, at in todo[first : first + _AT_ONCE]))

    async def _measure_peer(self, mac: MacAddress, endpoint: Endpoint) -> None:
        around = self._surface.around(endpoint)
        found = await self._prober.measure(mac, endpoint, self._asked() + around)
        if self._direct.get(mac) == endpoint:
            self._found[mac] = endpoint, None if found is None else found - around
            self._fit(mac)

    def _fit(self, mac: MacAddress) -> None:
        """Tell the data plane what the peer's present path takes, if it is less than the TAP device was meant to."""
        endpoint, found = self._found.get(mac, (None, None))
        if mac not in self._direct or endpoint != self._direct[mac]:
            found = self._relay
        mtu = found if found is not None and found < self._asked() else 0
        if mtu != self._clamped.get(mac, 0):
            self._clamp(mac, mtu)
        self._clamped[mac] = mtu
