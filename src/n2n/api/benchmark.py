"""What the control socket of an edge answers ``n2n bench PEER``.

``bench`` (peer: name, virtual address or MAC address of a member): {peer: {mac, name, virtual_ip, path}, address (of
this edge, without the prefix), tap, port (of the other's responder), usage: thread name -> {user, system}, CPU seconds
so far}.

``bench_relay`` (mac, seconds): frames to that member go by the supernode for so long; 0 ends that: {relayed: bool}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from n2n.api.control import Method
from n2n.daemon.responder import MAX_SECONDS, PORT, thread_usage
from n2n.errors import ConfigError, NotReady
from n2n.proto.edge import PeerView
from n2n.types import MacAddress

if TYPE_CHECKING:
    from n2n.daemon.edge import EdgeDaemon

__all__ = ["bench_methods"]


def bench_methods(daemon: EdgeDaemon) -> dict[str, Method]:
    """The two methods of this edge."""

    async def bench(params: Mapping[str, Any]) -> object:
        wanted = params.get("peer")
        if not isinstance(wanted, str):
            raise ConfigError("peer is the name, the virtual address or the MAC address of a member")
        if daemon.address is None:
            raise NotReady("the edge has no virtual address yet: see n2n status")
        view = _find(daemon.peers(), wanted)
        return {
            "peer": {
                "mac": str(view.mac),
                "name": view.name,
                "virtual_ip": None if view.virtual_ip is None else str(view.virtual_ip),
                "path": view.path,
            },
            "address": str(daemon.address.ip),
            "tap": daemon.tap_name,
            "port": PORT,
            "usage": thread_usage(),
        }

    async def bench_relay(params: Mapping[str, Any]) -> object:
        mac, seconds = params.get("mac"), params.get("seconds")
        if not isinstance(mac, str) or isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise ConfigError("bench_relay needs a mac and seconds")
        if not 0 <= seconds <= MAX_SECONDS:
            raise ConfigError(f"these seconds are not between 0 and {MAX_SECONDS:g}")  # not shown: it may have any size
        try:
            address = MacAddress.parse(mac)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        return {"relayed": daemon.measured.relay_to(address, float(seconds)) and seconds > 0}

    return {"bench": bench, "bench_relay": bench_relay}


def _find(peers: tuple[PeerView, ...], wanted: str) -> PeerView:
    found = [view for view in peers if wanted.lower() == str(view.mac) or wanted == str(view.virtual_ip)]
    found = found or [view for view in peers if wanted == view.name]
    if len(found) > 1:
        raise ConfigError(f"several members are called {wanted!r}: say which by address ({_addresses(found)})")
    if not found:
        raise ConfigError(f"there is no member {wanted[:64]!r}: n2n peers shows who is there")
    return found[0]


def _addresses(views: list[PeerView]) -> str:
    return ", ".join(str(view.virtual_ip or view.mac) for view in views[:8])
