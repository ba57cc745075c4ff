"""How long the ways to a peer take, measured now."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple

from n2n.errors import NotReady
from n2n.proto.edge import EdgeCore, EdgeState, PeerView
from n2n.types import MacAddress

if TYPE_CHECKING:
    from n2n.daemon.edge import EdgeDaemon

__all__ = ["Trip", "measure"]

#: Seconds between two looks whether an answer has come; what is told was measured by the core, not by these.
_LOOK: Final = 0.01


class Trip(NamedTuple):
    """Seconds there and back; None: no answer."""

    outer: float | None
    """Straight, by UDP, to the endpoint in use."""
    relay: float | None
    """By way of the supernode."""


async def measure(daemon: EdgeDaemon, mac: MacAddress, patience: float = 1.0) -> Trip:
    """Ask a peer over both ways.

    Raises:
        NotReady: the edge is not registered, or there is no such peer.
    """
    before = _view(daemon, mac)
    daemon.call(EdgeCore.measure, mac)
    after, direct = before, before.in_use is not None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience if before.kind == "n2n" else 0):
            while True:
                await asyncio.sleep(_LOOK)
                after = _view(daemon, mac)
                if after.relay_trip != before.relay_trip and (not direct or after.outer_trip != before.outer_trip):
                    break
    return Trip(
        after.outer_trip if after.outer_trip != before.outer_trip else None,
        after.relay_trip if after.relay_trip != before.relay_trip else None,
    )


def _view(daemon: EdgeDaemon, mac: MacAddress) -> PeerView:
    if daemon.state is not EdgeState.REGISTERED:
        raise NotReady("the edge is not registered: see n2n status")
    view = next((one for one in daemon.peers() if one.mac == mac), None)
    if view is None:
        raise NotReady(f"there is no peer {mac}: see n2n peers")
    return view
