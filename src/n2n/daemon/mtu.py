"""Fits an edge to its paths: the TAP's MTU to that of the supernode, and what goes to a peer to that peer's.

The path to the supernode is the one that every peer is reached by at last, so it decides what the TAP device takes.
A peer's own path may be smaller: connections with it are made to fit by their MSS, and a host that sends it larger
packets is told so.

Paths change, and nobody tells. One that large packets are sent by is tried twice a second with a packet of the size
that it took so far; where that is lost and smaller ones are not, what it takes now is found at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from n2n.config.mtu import AUTO_MTU, LARGEST_MTU, USUAL_MTU
from n2n.daemon.pathprobe import PathProber
from n2n.proto.edge import PeerView
from n2n.types import Endpoint, MacAddress

__all__ = ["PathMtu", "Surface"]

#: Seconds until what was found is looked at again: a path that became larger is found so.
_AGAIN: Final = 600.0
#: Seconds to let a change settle: a path comes with others.
_SETTLE: Final = 0.2
#: Seconds between two checks of a path in use, and for how many of them a path counts as in use: the data plane tells
#: once a second that frames are sent.
_CHECK: Final = 0.5
_CHECKS: Final = 6
#: Seconds until a peer that answered nothing is measured again, if frames are sent to it.
_SILENT: Final = 20.0
#: Peers probed at a time.
_AT_ONCE: Final = 8
_IPV4, _IPV6 = 28, 48
"""Bytes of the IP and UDP headers."""
_ETHERNET, _VFUZE, _DATA, _SEAL, _ZSTD = 14, 7, 30, 28, 16
"""Bytes of what is around an IP packet; zstd's for what does not compress."""
#: The smallest MTU that a TAP device gets: IPv4 wants it.
_SMALLEST: Final = 576
#: The smallest with which IPv6 works inside (RFC 8200).
_SMALLEST_IPV6: Final = 1280


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


@dataclass(frozen=True, slots=True)
class _Found:
    """What a path takes: bytes of the IP packet inside; None: nothing was answered."""

    mtu: int | None
    at: float


class PathMtu:
    """Measures, again and again, and sets what follows from it.

    Args:
        prober: measures.
        mac: our address: what is sent to it comes back from the supernode.
        surface: what is around a packet.
        asked: MTU of the TAP device in the configuration, now.
        peers: the other edges.
        sent: bytes of the frames that were sent to a peer so far.
        set_tap: gives the TAP device another MTU.
        clamp: makes what is sent to a peer fit an MTU; 0: any.
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
        sent: Callable[[MacAddress], int],
        set_tap: Callable[[int], Awaitable[None]],
        clamp: Callable[[MacAddress, int], None],
        tell: Callable[[str, str, dict[str, object]], None],
    ) -> None:
        self.mtu = asked() or USUAL_MTU
        """What the TAP device has, or shall have."""
        self._prober = prober
        self._mac = mac
        self._surface = surface
        self._asked = asked
        self._peers = peers
        self._sent = sent
        self._set_tap = set_tap
        self._clamp = clamp
        self._tell = tell
        self._supernode: Endpoint | None = None
        self._relay: int | None = None
        self._direct: dict[MacAddress, Endpoint] = {}
        self._kinds: dict[MacAddress, Literal["n2n", "v5"]] = {}
        self._found: dict[MacAddress, dict[Endpoint, _Found]] = {}
        self._stale: set[tuple[MacAddress, Endpoint]] = set()
        self._clamped: dict[MacAddress, int] = {}
        self._all_stale = True
        self._wake = asyncio.Event()
        self._measuring: set[tuple[MacAddress, Endpoint]] = set()
        self._used: dict[MacAddress, int] = {}
        self._counted: dict[MacAddress, int] = {}
        self._in_use = asyncio.Event()

    @property
    def _most(self) -> int:
        """The largest MTU that is of interest."""
        return self._asked() or LARGEST_MTU

    @property
    def _usual(self) -> int:
        """What hosts may send without being told of a path: those behind a bridge know nothing of our device."""
        return self._asked() or max(self.mtu, USUAL_MTU)

    def look_again(self, supernode: Endpoint | None = None) -> None:
        """Measure everything again, soon: the network changed, or the edge registered (with this supernode)."""
        self._supernode = supernode or self._supernode
        self._all_stale = True
        self._stale = {(mac, endpoint) for mac, paths in self._found.items() for endpoint in paths}
        self._kinds.clear()
        self._wake.set()

    def peer_put(self, mac: MacAddress, endpoint: Endpoint, direct: bool) -> None:
        """A peer's path is this one now."""
        if direct:
            self._direct[mac] = endpoint
            known = self._found.get(mac, {})
            for other in [one for one in known if one not in {endpoint, self._supernode}]:
                del known[other]
            if not self._is_fresh(mac, endpoint):
                self._wake.set()
        else:
            self._direct.pop(mac, None)
        self._fit(mac)

    def peer_dropped(self, mac: MacAddress) -> None:
        """A peer is gone; the data plane has forgotten its figure with it."""
        for known in (self._direct, self._kinds, self._found, self._clamped, self._used, self._counted):
            known.pop(mac, None)

    def reset(self, mtu: int) -> None:
        """The TAP device was given this MTU, as somebody configured it."""
        self.mtu = mtu
        self.look_again()

    def used(self, mac: MacAddress) -> None:
        """The host sends frames to this peer."""
        if mac in self._clamped:
            self._used[mac] = _CHECKS
            self._in_use.set()

    # ---- measuring ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Measure what is new, and from time to time everything, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_AGAIN):
                    await self._wake.wait()
            except TimeoutError:
                self.look_again()
            await asyncio.sleep(_SETTLE)
            self._wake.clear()
            if self._all_stale:
                self._all_stale = False
                await self._measure_supernode()
            await self._side_by_side(self._measure, [one for one in self._direct.items() if not self._is_fresh(*one)])

    async def _side_by_side(
        self,
        step: Callable[[MacAddress, Endpoint], Awaitable[None]],
        todo: list[tuple[MacAddress, Endpoint]],
    ) -> None:
        for first in range(0, len(todo), _AT_ONCE):
            await asyncio.gather(*(step(*one) for one in todo[first : first + _AT_ONCE]))

    def _is_fresh(self, mac: MacAddress, endpoint: Endpoint) -> bool:
        return endpoint in self._found.get(mac, {}) and (mac, endpoint) not in self._stale

    async def _measure_supernode(self) -> None:
        endpoint = self._supernode
        if endpoint is not None:
            most = self._most + self._surface.around(endpoint)
            await self._relayed_by(endpoint, await self._prober.measure(self._mac, endpoint, most))

    async def _relayed_by(self, endpoint: Endpoint, found: int | None) -> None:
        """Packets of so many bytes get to the supernode: what the TAP device gets follows from that."""
        if self._supernode != endpoint or found is None:  # moved meanwhile, or nothing is known: as it was
            return
        self._relay = found - self._surface.around(endpoint)
        asked, mtu = self._asked(), max(min(self._relay, self._most), _SMALLEST)
        if mtu != self.mtu:
            self.mtu = mtu
            await self._set_tap(mtu)
            why = f"packets of at most {found} bytes get to the supernode at {endpoint} and back"
            level = "warning" if mtu < (asked or _SMALLEST_IPV6) else "info"
            self._tell(level, "mtu", {"mtu": mtu, "configured": asked or "auto", "why": why})
        for mac in tuple(self._clamped):
            self._fit(mac)

    async def _measure(self, mac: MacAddress, endpoint: Endpoint) -> None:
        """A peer's path, straight or by way of the supernode, if it is known what the peer answers."""
        kind, path = self._kind(mac), (mac, endpoint)
        if kind is None or path in self._measuring:
            return
        self._measuring.add(path)
        try:
            most = self._most + self._surface.around(endpoint)
            found = await self._prober.measure(mac, endpoint, most, plain=kind == "v5")
        finally:
            self._measuring.discard(path)
        self._stale.discard(path)
        self._keep(mac, endpoint, found)

    def _keep(self, mac: MacAddress, endpoint: Endpoint, found: int | None) -> None:
        """Packets of so many bytes get to a peer by this endpoint; None: it does not answer."""
        if mac not in self._clamped or endpoint not in {self._direct.get(mac), self._supernode}:
            return
        paths = self._found.setdefault(mac, {})
        if found is not None:
            mtu: int | None = found - self._surface.around(endpoint)
        else:  # as it was, if that is known: it may be cut for a while
            mtu = paths[endpoint].mtu if endpoint in paths else None
        paths[endpoint] = _Found(mtu, asyncio.get_running_loop().time())
        self._fit(mac)

    def _kind(self, mac: MacAddress) -> Literal["n2n", "v5"] | None:
        if mac not in self._kinds:
            self._kinds = {view.mac: view.kind for view in self._peers() if view.kind != "unknown"}
        return self._kinds.get(mac)

    def measured(self, mac: MacAddress) -> int | None:
        """Bytes of the largest IP packet that the present path to a peer takes; None: that was not measured."""
        endpoint = self._direct.get(mac, self._supernode)
        found = self._found.get(mac, {}).get(endpoint) if endpoint is not None else None
        return self._limit(mac) if found is not None and found.mtu is not None else None

    def _limit(self, mac: MacAddress) -> int | None:
        """What is believed to be the largest IP packet that gets to a peer; None: nothing is known."""
        limits = []
        if mac not in self._direct or self._direct[mac] not in self._found.get(mac, {}):
            limits.append(self._relay)  # also of a direct path of which nothing is known yet
        endpoint = self._direct.get(mac, self._supernode)
        found = self._found.get(mac, {}).get(endpoint) if endpoint is not None else None
        if found is not None:
            limits.append(found.mtu if found.mtu is not None else self._unmeasurable())
        return min((limit for limit in limits if limit is not None), default=None)

    def _fit(self, mac: MacAddress) -> None:
        """Tell the data plane what the peer's present path takes, if it is less than what hosts may send."""
        limit = self._limit(mac)
        mtu = limit if limit is not None and limit < self._usual else 0
        if mtu != self._clamped.get(mac, 0):
            self._clamp(mac, mtu)
        self._clamped[mac] = mtu

    def _unmeasurable(self) -> int | None:
        """What a path takes that answers no probe: what v5 edges send by it; nobody else would answer none."""
        if self._asked() == AUTO_MTU:
            return USUAL_MTU if self._relay is None else min(self._relay, USUAL_MTU)
        return self._relay

    # ---- paths in use ------------------------------------------------------------------------

    async def watch(self) -> None:
        """Check the paths in use, while there are any, until cancelled."""
        while True:
            await self._in_use.wait()
            busy = [mac for mac in self._used if self._is_busy(mac)]
            for mac in tuple(self._used):
                self._used[mac] -= 1
                if not self._used[mac]:
                    del self._used[mac]
            by = {mac: at for mac in busy if (at := self._direct.get(mac, self._supernode)) is not None}
            if by:
                relayed = any(mac not in self._direct for mac in by)
                await asyncio.gather(self._check_supernode(relayed), self._side_by_side(self._check, list(by.items())))
            if not self._used:
                self._in_use.clear()
                self._counted.clear()
            await asyncio.sleep(_CHECK)

    def _is_busy(self, mac: MacAddress) -> bool:
        """Whether there was at least half a full packet for the peer since it was asked before."""
        sent, before = self._sent(mac), self._counted.get(mac)
        self._counted[mac] = sent
        return before is not None and sent - before >= self.mtu // 2

    async def _check_supernode(self, wanted: bool) -> None:
        endpoint = self._supernode
        if not wanted or endpoint is None or self._relay is None:
            return
        size = self._relay + self._surface.around(endpoint)
        found = await self._prober.check(self._mac, endpoint, size)
        if found is not None and found < size:
            await self._relayed_by(endpoint, found)

    async def _check(self, mac: MacAddress, endpoint: Endpoint) -> None:
        """See whether a path still takes what it did; measure it where that is not known."""
        found = self._found.get(mac, {}).get(endpoint)
        if found is None or (mac, endpoint) in self._stale:
            await self._measure(mac, endpoint)
        elif found.mtu is None:
            if asyncio.get_running_loop().time() - found.at >= _SILENT:
                await self._measure(mac, endpoint)
        elif (kind := self._kind(mac)) is not None and (mac, endpoint) not in self._measuring:
            size = found.mtu + self._surface.around(endpoint)
            now = await self._prober.check(mac, endpoint, size, plain=kind == "v5")
            if now is not None and now < size and self._found.get(mac, {}).get(endpoint) is found:
                self._keep(mac, endpoint, now)
                mtu = now - self._surface.around(endpoint)
                why = f"packets of {size} bytes no longer get to {endpoint}, those of {now} do"
                self._tell("info", "peer_mtu", {"peer": str(mac), "mtu": mtu, "before": found.mtu, "why": why})
