"""What the network offers: the daemons that run, the port, the clock, the supernode, the MTU, clashes."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final, NamedTuple

from n2n.config import EdgeConfig, SupernodeConfig
from n2n.config.mtu import AUTO_MTU
from n2n.doctor.findings import Check, Finding, Subject, failed, ok, warning
from n2n.errors import MalformedDatagram, N2NError, PlatformError
from n2n.net import bind_to, open_udp, resolve, routes_clashing
from n2n.store import KnownKeys
from n2n.types import SUPERNODE_MAC, ZERO_MAC, Endpoint
from n2n.wire import PacketType, ProtoV, SNPublicSecret, build, clean_name, key_fingerprint, parse, virtual_network

__all__ = ["CHECKS"]

#: No clock that is right shows less: this was written later (2025-01-01).
_EARLIEST: Final = 1_735_689_600
#: Seconds that two clocks may differ before it is worth a word.
_SKEW: Final = 60
#: TIME_ERROR of adjtimex(2): the clock is not synchronised.
_UNSYNCHRONISED: Final = 5
#: Larger than struct timex on every architecture.
_TIMEX: Final = 512
_TRIES: Final = 3
_PATIENCE: Final = 1.0
# linux/in.h and in6.h: socket options that Python has no names for everywhere.
_IP_MTU: Final = 14
_IPV6_MTU: Final = 24
#: Around a packet of the TAP: Ethernet header, short header, and (sealed) nonce and tag; then UDP and IP.
_ETHERNET, _VFUZE, _SEAL, _UDP, _IPV4, _IPV6 = 14, 7, 28, 8, 20, 40


class Reply(NamedTuple):
    """What the supernode said."""

    key: bytes
    seconds: float
    clock: int
    """Its clock in Unix seconds; 0 if it does not tell."""


def daemons(subject: Subject) -> Iterator[Finding]:
    """What runs here already."""
    for name, status in subject.running.items():
        if not status.get("role"):
            yield warning("daemon", f"{name} runs, but this user may not ask it", "Run as root, or join its group")
        elif status.get("ready"):
            where = status.get("address") or status.get("listen")
            yield ok("daemon", f"{status['role']} {name} is up ({where})")
        else:
            state, reason = status.get("state", "starting"), status.get("reason", "")
            remedy = f"See n2n logs --instance {name}, and what is said of the supernode below"
            yield failed("daemon", f"{status['role']} {name} is not ready: {state} ({reason})", remedy)


def port(subject: Subject) -> Iterator[Finding]:
    """Is the UDP port free?"""
    config = subject.config
    if config is None:
        return
    listen = config.listen_address if isinstance(config, SupernodeConfig) else config.listen
    if subject.itself is not None:
        key = "listen" if subject.role == "supernode" else "local"
        yield ok("port", f"UDP {subject.itself.get(key)} is in use by this {subject.role}, which runs")
        return
    try:
        open_udp(listen).close()  # of port 0: whichever is free
    except PlatformError as error:
        yield failed("port", str(error), "Stop who holds it, or choose another port")
        return
    yield ok("port", f"UDP {listen} is free" if not listen.endswith(":0") else "a UDP port is free")


def clock(_: Subject) -> Iterator[Finding]:
    """Is the clock sane?"""
    if time.time() < _EARLIEST:
        when = time.strftime("%Y-%m-%d", time.gmtime())
        yield failed("clock", f"the clock shows {when}", "Set it (date -s ...), and run a time service")
        return
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX))
    except (OSError, AttributeError):
        return  # another C library: the supernode's answer says more anyway
    if state == _UNSYNCHRONISED:
        remedy = "Run a time service (systemd-timesyncd, chrony): leases and logs tell times"
        yield warning("clock", "the kernel says that the clock is not synchronised", remedy)
    else:
        yield ok("clock", "the clock is set")


def supernode(subject: Subject) -> Iterator[Finding]:
    """Does each supernode answer a question for its key?"""
    if subject.edge is not None:
        for address in subject.edge.supernodes:
            yield from _supernode(subject.edge, address)


def _supernode(config: EdgeConfig, address: str) -> Iterator[Finding]:
    try:
        endpoints = asyncio.run(resolve(address, socket.AF_UNSPEC))
    except N2NError as error:
        yield failed("supernode", str(error), "Check supernode_addr, and the name service (getent hosts NAME)")
        return
    endpoint = next((one for one in endpoints if one.ip.version == 4), endpoints[0])
    reply = ask_key(endpoint, config.bind)
    if reply is None:
        remedy = (
            "Does it run (n2n supernode status there), is its UDP port open in every firewall on the way, "
            "and does this host's firewall let answers in?"
        )
        yield failed("supernode", f"{address} ({endpoint}) does not answer", remedy)
        return
    shown = f"{address} ({endpoint}) answers after {reply.seconds * 1000:.1f} ms"
    yield ok("supernode", f"{shown}; its key is SHA256:{key_fingerprint(reply.key)}")
    if reply.clock and abs(reply.clock - time.time()) > _SKEW:
        apart = round(reply.clock - time.time())
        remedy = "Set the one that is wrong; what they tell each other of times is off by that much"
        yield warning("clock", f"the supernode's clock is {apart:+d} s from this host's", remedy)
    yield from _known_key(config, reply.key, address)
    yield from _mtu(config, endpoint)


def _known_key(config: EdgeConfig, key: bytes, address: str) -> Iterator[Finding]:
    """Is it the key that edges of this host know?"""
    known = KnownKeys(config.state_dir).get(address) if config.state_dir is not None else None
    if known is None or known.public_pem == key:
        return
    was = f"the supernode's key is another than the one known, SHA256:{key_fingerprint(known.public_pem)}"
    if known.lasts if config.accept_new_key is None else not config.accept_new_key:
        remedy = "If its operator changed it: n2n key accept. If nobody did, somebody stands between you and it"
        yield failed("supernode_key", f"{was}: edges refuse it", remedy)
    else:
        yield warning("supernode_key", f"{was}", "If it was not started anew, somebody may stand between you and it")


def ask_key(endpoint: Endpoint, bind: str = "") -> Reply | None:
    """Ask a supernode for its key, as every edge does first; None if no answer comes (three questions, 3 s)."""
    question = build(ProtoV(PacketType.SN_PUBLIC_SECRET, source=ZERO_MAC, dest=SUPERNODE_MAC), SNPublicSecret(True))
    family = socket.AF_INET if endpoint.ip.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        if bind:
            bind_to(sock, bind)
        sock.connect((str(endpoint.ip), endpoint.port))
        for _ in range(_TRIES):
            start = time.monotonic()
            try:
                sock.send(question)
                reply = _await_key(sock, start)
            except OSError:  # refused by an ICMP message, unreachable
                reply = None
                time.sleep(0.1)
            if reply is not None:
                return reply
    return None


def _await_key(sock: socket.socket, start: float) -> Reply | None:
    while (left := start + _PATIENCE - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            packet = parse(sock.recv(65536))
        except TimeoutError:
            return None
        except MalformedDatagram:
            continue
        header, message = packet.header, packet.message
        if isinstance(header, ProtoV) and isinstance(message, SNPublicSecret) and not message.is_request:
            return Reply(message.pem_data, time.monotonic() - start, header.timestamp)
    return None


def _mtu(config: EdgeConfig, endpoint: Endpoint) -> Iterator[Finding]:
    """Do full packets fit into the path to the supernode, as far as the kernel knows it?"""
    v4 = endpoint.ip.version == 4
    with socket.socket(socket.AF_INET if v4 else socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect((str(endpoint.ip), endpoint.port))
        path = sock.getsockopt(*((socket.IPPROTO_IP, _IP_MTU) if v4 else (socket.IPPROTO_IPV6, _IPV6_MTU)))
    if config.tap_mtu == AUTO_MTU:
        yield ok("mtu", f"tap_mtu is auto: the TAP device gets what the path to the supernode takes ({path})")
        return
    around = _ETHERNET + _VFUZE + (_SEAL if config.encryption_passphrase else 0) + _UDP + (_IPV4 if v4 else _IPV6)
    if config.tap_mtu + around <= path:
        yield ok("mtu", f"a full packet of {config.tap_mtu} bytes fits into the path to the supernode ({path})")
        return
    what = f"a full packet of {config.tap_mtu} bytes takes {config.tap_mtu + around} on a path of {path}"
    yield warning("mtu", f"{what}: it travels in fragments, which some networks lose", f"tap_mtu: {path - around}")


def clash(subject: Subject) -> Iterator[Finding]:
    """Does the overlay's range lie over a local network?"""
    taps = {str(status["tap"]) for status in subject.running.values() if status.get("tap")}
    for name, status in subject.running.items():
        if status.get("role") == "edge" and status.get("address"):
            network = IPv4Network(str(status["address"]), strict=False)
            yield _clash(network, taps, f"edge {name}", sure=True)
    config = subject.edge
    if config is not None and subject.itself is None:
        base, prefix = _default_block()
        community = clean_name(config.community)
        yield _clash(virtual_network(config.community, base, prefix), taps, f"community {community}", sure=False)


def _default_block() -> tuple[IPv4Address, int]:
    config = SupernodeConfig(state_dir=None)
    return config.community_subnet, config.community_subnet_cidr


def _clash(network: IPv4Network, taps: set[str], whose: str, *, sure: bool) -> Finding:
    clashes = routes_clashing(network, ignore=taps)
    what = f"{network} of {whose}" + ("" if sure else " (at a supernode with the usual community_subnet)")
    if not clashes:
        return ok("clash", f"{what} lies apart from every local network")
    remedy = "Leave that network, or have the supernode's operator choose another community_subnet"
    found = f"{what} clashes with {', '.join(clashes)}"
    return failed("clash", found, remedy) if sure else warning("clash", found, remedy)


CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("daemon", daemons),
    ("port", port),
    ("clock", clock),
    ("supernode", supernode),
    ("clash", clash),
)


def statuses() -> dict[str, dict[str, Any]]:
    """The status of every daemon of this host; an empty one where this user may not ask."""
    from n2n.api.client import connect, live_instances

    found: dict[str, dict[str, Any]] = {}
    for name in sorted(live_instances()):
        try:
            with connect(name, timeout=3.0) as client:
                found[name] = client.call("status")
        except N2NError:
            found[name] = {}
    return found
