"""An edge that is measured by another (or measures it): who may, and frames that take the long way for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from typing import Protocol

from n2n.daemon.responder import MAX_SECONDS, Responder
from n2n.proto.peers import PeerView
from n2n.types import Endpoint, MacAddress

__all__ = ["Measured"]


class _Edge(Protocol):
    """What is used of the edge."""

    def peers(self) -> tuple[PeerView, ...]: ...
    def tell(self, level: str, event: str, fields: Mapping[str, object]) -> None: ...


class Measured:
    """The edge's part in ``n2n bench PEER``.

    Args:
        edge: whose.
        put: tells the data plane the way to a peer: (mac, endpoint, direct).
    """

    def __init__(self, edge: _Edge, put: Callable[[MacAddress, Endpoint, bool], None]) -> None:
        self._edge = edge
        self._put = put
        self._ways: dict[MacAddress, tuple[Endpoint, bool]] = {}
        self._relayed: dict[MacAddress, asyncio.TimerHandle] = {}
        self._allowed = False
        self._where: tuple[IPv4Address, str] | None = None
        self.responder = Responder(self)

    @property
    def counts(self) -> dict[str, int]:
        """What the responder counted, by name."""
        return self.responder.counters()

    def allow(self, allowed: bool) -> None:
        """Answer, or answer no more."""
        self._allowed = allowed
        self._listen()

    def configured(self, address: IPv4Address, device: str) -> None:
        """The edge has this virtual address, on this device of the host."""
        self._where = address, device
        self._listen()

    def _listen(self) -> None:
        self.responder.close()
        if not self._allowed or self._where is None:
            return
        try:
            self.responder.open(*self._where)
        except OSError as error:
            self._edge.tell("warning", "bench_off", {"error": str(error), "address": str(self._where[0])})

    def close(self) -> None:
        """The edge ends."""
        self.responder.close()
        for timer in self._relayed.values():
            timer.cancel()
        self._relayed.clear()

    # ---- the long way -------------------------------------------------------------------------

    def put_peer(self, mac: MacAddress, endpoint: Endpoint, direct: bool) -> None:
        """The core has found a way to a peer."""
        self._ways[mac] = endpoint, direct
        self._put(mac, endpoint, direct and mac not in self._relayed)

    def drop_peer(self, mac: MacAddress) -> None:
        """The peer is gone."""
        self._ways.pop(mac, None)
        if timer := self._relayed.pop(mac, None):
            timer.cancel()

    def relay_to(self, mac: MacAddress, seconds: float) -> bool:
        """Send frames to a peer by the supernode for so long (at most `MAX_SECONDS`); 0 ends that.

        Returns:
            False where there is no such peer.
        """
        if timer := self._relayed.pop(mac, None):
            timer.cancel()
        if mac not in self._ways:
            return False
        if seconds > 0:
            loop = asyncio.get_running_loop()
            self._relayed[mac] = loop.call_later(min(seconds, MAX_SECONDS), self.relay_to, mac, 0)
        self.put_peer(mac, *self._ways[mac])
        return True

    # ---- what the responder asks --------------------------------------------------------------

    def knows(self, address: IPv4Address) -> bool:
        """See :class:`n2n.daemon.responder.Host`."""
        return self._member(address) is not None

    def relay(self, address: IPv4Address, seconds: float) -> bool:
        """See :class:`n2n.daemon.responder.Host`."""
        mac = self._member(address)
        return mac is not None and self.relay_to(mac, seconds)

    def tell(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        """See :class:`n2n.daemon.responder.Host`."""
        self._edge.tell(level, event, fields)

    def _member(self, address: IPv4Address) -> MacAddress | None:
        return next((view.mac for view in self._edge.peers() if view.virtual_ip == address), None)
