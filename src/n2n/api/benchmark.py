"""What the control socket of an edge answers ``n2n bench PEER``.

``bench`` (peer: name, virtual address or MAC address of a member): {peer: {mac, name, virtual_ip, path}, address (of
this edge, without the prefix), tap, port (of the other's responder), datagram (bytes of the one that a frame of full
size makes), usage: thread name -> {user, system}, CPU seconds so far}.

``bench_outer`` (mac, seconds, token: 16 hexadecimal digits): loads of that peer, outside of the tunnel, are taken
for so long: {}. ``bench_outer_send`` (mac, size, rate, seconds, questions): they are sent to it: {}.
``bench_outer_look`` (mac, trips): what `n2n.daemon.outer.Loads.look` tells, and with `trips` the nanoseconds of each
answered question.
``bench_outer_close`` (mac): no more of all that: {}. Rates are in bits a second; the path must be direct.

``bench_relay`` (mac, seconds): frames to that member go by the supernode for so long; 0 ends that: {relayed: bool}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from n2n.api.control import Method
from n2n.daemon.mtu import Surface
from n2n.daemon.responder import MAX_RATE, MAX_SECONDS, PORT, thread_usage
from n2n.errors import ConfigError, N2NError, NotReady
from n2n.proto.edge import PeerView
from n2n.types import MacAddress

if TYPE_CHECKING:
    from n2n.daemon.edge import EdgeDaemon
    from n2n.daemon.outer import Loads

__all__ = ["bench_methods"]

#: Who measures, as the edge is told: whoever may use the control socket.
_OWNER: Final = "control socket"
#: Seconds after the last question in which nobody else measures the path outside of the tunnel.
_HOLD: Final = 20.0


def bench_methods(daemon: EdgeDaemon) -> dict[str, Method]:
    """What this edge answers."""

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
            "datagram": _datagram(daemon),
            "usage": thread_usage(),
        }

    async def bench_relay(params: Mapping[str, Any]) -> object:
        address, seconds = _mac(params), _number(params, "seconds", MAX_SECONDS)
        return {"relayed": daemon.measured.relay_to(address, seconds) and seconds > 0}

    return {"bench": bench, "bench_relay": bench_relay} | _outer_methods(daemon)


def _outer_methods(daemon: EdgeDaemon) -> dict[str, Method]:
    """Those for the path outside of the tunnel."""

    def loads(params: Mapping[str, Any]) -> Loads:
        mac = _mac(params)
        return daemon.measured.loads((_OWNER, mac), mac, MAX_RATE / 8, _HOLD)

    async def bench_outer(params: Mapping[str, Any]) -> object:
        token = params.get("token")
        if not isinstance(token, str) or len(token) != 16 or not all(c in "0123456789abcdef" for c in token):
            raise ConfigError("bench_outer needs a token of 16 hexadecimal digits")
        loads(params).open(_number(params, "seconds", MAX_SECONDS), bytes.fromhex(token))
        return {}

    async def bench_outer_send(params: Mapping[str, Any]) -> object:
        size, rate = int(_number(params, "size", 65535)), _number(params, "rate", MAX_RATE) / 8
        seconds, questions = _number(params, "seconds", MAX_SECONDS), params.get("questions") is True
        loads(params).send(size=size, rate=rate, seconds=seconds, questions=questions)
        return {}

    async def bench_outer_look(params: Mapping[str, Any]) -> object:
        found = loads(params)
        return found.look() | ({"trips": found.trips()} if params.get("trips") is True else {})

    async def bench_outer_close(params: Mapping[str, Any]) -> object:
        daemon.measured.end_loads((_OWNER, _mac(params)))
        return {}

    return {
        "bench_outer": bench_outer,
        "bench_outer_send": bench_outer_send,
        "bench_outer_look": bench_outer_look,
        "bench_outer_close": bench_outer_close,
    }


def _datagram(daemon: EdgeDaemon) -> int:
    """Bytes of the datagram that a frame of full size makes."""
    config = daemon.config
    return daemon.mtu + Surface(config.enable_vfuze, bool(config.encryption_passphrase), config.compress_payload).within


def _mac(params: Mapping[str, Any]) -> MacAddress:
    mac = params.get("mac")
    if not isinstance(mac, str):
        raise ConfigError("a mac is needed, the address of a member")
    try:
        return MacAddress.parse(mac)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _number(params: Mapping[str, Any], name: str, most: float) -> float:
    value = params.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{name} must be a number")
    if not 0 <= value <= most:
        raise ConfigError(f"{name} is not between 0 and {most:g}")  # not shown: it may have any size
    return float(value)


def _find(peers: tuple[PeerView, ...], wanted: str) -> PeerView:
    found = [view for view in peers if wanted.lower() == str(view.mac) or wanted == str(view.virtual_ip)]
    found = found or [view for view in peers if wanted == view.name]
    if len(found) > 1:
        raise ConfigError(f"several members are called {wanted!r}: say which by address ({_addresses(found)})")
    if not found:
        raise N2NError(f"there is no member {wanted[:64]!r}: n2n peers shows who is there")
    return found[0]


def _addresses(views: list[PeerView]) -> str:
    return ", ".join(str(view.virtual_ip or view.mac) for view in views[:8])
