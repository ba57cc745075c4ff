"""An edge that is measured by another (or measures it): who may, and frames that take the long way for a while."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Protocol

from n2n.daemon.drive import PlaneLike
from n2n.daemon.responder import MAX_SECONDS, Responder
from n2n.errors import NotReady
from n2n.proto.peers import PeerView
from n2n.types import Endpoint, MacAddress

if TYPE_CHECKING:
    from n2n.daemon.outer import Loads

__all__ = ["Carrier", "Measured"]

#: Seconds for the last loads of an edge that is being stopped.
_LAST = 0.5


@dataclass(frozen=True, slots=True)
class Carrier:
    """What of an edge carries loads outside of the tunnel.

    Args:
        plane: its data plane.
        mac: its address.
        community: id for headers.
        socket_for: number of the plane's socket by which an endpoint is reached.
        sockets: by which frames come in.
    """

    plane: PlaneLike
    mac: MacAddress
    community: int
    socket_for: Callable[[Endpoint], int]
    sockets: Sequence[socket.socket]


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
        self.carrier: Carrier | None = None
        """What carries loads outside of the tunnel; None before the start."""
        self._loads: Loads | None = None
        self._loads_of: object = None
        self._loads_until = 0.0
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
        if self._loads is not None:
            self._loads.close(_LAST)
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

    # ---- outside of the tunnel ----------------------------------------------------------------

    def loads(self, owner: object, mac: MacAddress, rate: float, seconds: float) -> Loads:
        """Loads between this edge and a peer, for one owner at a time.

        Args:
            owner: who measures: the same one gets the same again.
            rate: most bytes in a second, each way.
            seconds: for which nobody else gets any; counted from the last call.

        Raises:
            NotReady: another measurement is going on, or the edge does not run yet.
        """
        from n2n.daemon.outer import Loads

        now = time.monotonic()
        if self.carrier is None:
            raise NotReady("the edge does not run yet")
        if self._loads is not None and self._loads_of != owner:
            if now < self._loads_until:
                raise NotReady("another measurement is going on: try again later")
            self.end_loads(self._loads_of)
        if self._loads is None:
            self._loads, self._loads_of = Loads(self.carrier, mac, lambda: self._direct(mac), rate), owner
        self._loads_until = now + min(seconds, MAX_SECONDS)
        return self._loads

    def end_loads(self, owner: object) -> None:
        """This owner is done; no harm where it has none."""
        if self._loads is not None and self._loads_of == owner:
            self._loads.close()
            self._loads = self._loads_of = None

    def _direct(self, mac: MacAddress) -> Endpoint | None:
        endpoint, direct = self._ways.get(mac, (None, False))
        return endpoint if direct else None

    # ---- what the responder asks --------------------------------------------------------------

    def knows(self, address: IPv4Address) -> bool:
        """See :class:`n2n.daemon.responder.Host`."""
        return self._member(address) is not None

    def relay(self, address: IPv4Address, seconds: float) -> bool:
        """See :class:`n2n.daemon.responder.Host`."""
        mac = self._member(address)
        return mac is not None and self.relay_to(mac, seconds)

    def loads_of(self, session: object, address: IPv4Address, rate: float, seconds: float) -> Loads:
        """See :class:`n2n.daemon.responder.Host`."""
        mac = self._member(address)
        if mac is None:
            raise NotReady("not a peer any more")
        return self.loads(session, mac, rate, seconds)

    def tell(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        """See :class:`n2n.daemon.responder.Host`."""
        self._edge.tell(level, event, fields)

    def _member(self, address: IPv4Address) -> MacAddress | None:
        return next((view.mac for view in self._edge.peers() if view.virtual_ip == address), None)
