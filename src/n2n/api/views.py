"""What daemons tell about themselves: the documented, stable fields of the control socket and of ``--json``.

Times are Unix seconds (float), durations seconds, addresses text; what is not known is null.  Fields may be added, none
is renamed or taken away.

``status`` of both: role, instance, version, pid, started, uptime, ready, data_plane (what it uses of the kernel), web
{url, problem} (where its pages or metrics are served; null: nowhere).

``status`` of an edge, besides: state (idle, resolving, key, registering, registered, refused, closed), reason (what
brought it there), state_since, attempts, retry_in, name, community, mac, address (``ip/prefix``), tap, mtu, local,
public (the edge's endpoint as the supernode sees it), supernode {configured, endpoint, key, refused_key (another one
that was not taken)}, vfuze, sealed, compressed, peers {total, direct, relay}, traffic {tx_frames, tx_bytes, rx_frames,
rx_bytes, tx_direct, tx_relay}, port_mapping {mode, state (off, searching, not_needed, none, refused, double_nat,
unproven, working), reason, remedy, method, router, internal, external, lifetime, expires}, nat (what its NAT does:
unknown, open, easy (one public endpoint for all destinations), hard (another one for each)).

``status`` of a supernode, besides: listen, key, subnet, vfuze, strict_hash_checking, edges, leases, relayed,
communities: list of {name, network, derived, edges, leases}.

`key` is the fingerprint of the supernode's key: SHA-256 in hexadecimal digits.

``peers`` (edge): at, peers: list of {mac, name, virtual_ip, endpoint, path (direct, relay), status (unknown, pending,
available, full_duplex, unavailable), one_way, full_duplex, reason, since, rtt, last_pong, updated, kind (n2n, v5,
unknown), in_use (the endpoint that frames go to, null while they go by relay), their_path (the way that its frames
take, as it said last: direct, relay, null), candidates: list of {kind (local, mapped, ipv6, reflexive, peer), endpoint,
answers, straight, rtt, in_use}, nat (as `nat` in the status, as the peer says), mtu (the largest packet that the path
to it takes, null: not measured), tx_frames, tx_bytes, rx_frames, rx_bytes}.

``ping`` (edge; of `mac`): outer, relay (seconds there and back, straight and by way of the supernode; null: no answer).

``names`` (edge): at, names: list of {name, hostname (null: it has none), address, mac, self}.

``history`` (edge; params peer, since, limit): at, peer, changes: list of {at, mac, name, path (direct, relay, gone),
reason, endpoint}, the newest first.

``leases``: at, leases: list of {community, ip, mac, name, registered, expires, renewed}.

``state`` of an edge (how all edges see each other): at, community, reachable: list of {mac, name, virtual_ip, endpoint,
peers: list of {mac, name, status, full_duplex}}, offline: list of {mac, name, virtual_ip, last_seen}.  ``state`` of a
supernode: communities: list of {name, network, edges: list of {mac, name, virtual_ip, endpoint, registered, idle}}.

``counters``: name -> number, see :meth:`n2n.daemon.base.Daemon.counters`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import asdict
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from n2n.proto.actions import LeaseRecord
from n2n.proto.edge import Answer, PeerView
from n2n.types import Instant, MacAddress
from n2n.wire import GoTime, LeasesInfos, P2PFullState, P2PStatus, clean_name, key_fingerprint
from n2n.wire.messages import Peer, PeerInfo, PeerP2PInfos, UDPAddr

if TYPE_CHECKING:  # a process loads only the daemon that it is
    from n2n.daemon.edge import EdgeDaemon
    from n2n.daemon.portmap import PortMapView
    from n2n.daemon.supernode import SupernodeDaemon

__all__ = [
    "edge_leases",
    "edge_names",
    "edge_peers",
    "edge_state",
    "edge_status",
    "supernode_leases",
    "supernode_state",
    "supernode_status",
]


def edge_status(daemon: EdgeDaemon, instance: str) -> dict[str, Any]:
    """The result of `status` for an edge; see the head of this module."""
    core, config = daemon.core, daemon.config
    view = core.registration(_now()) if core is not None else None
    public = core.reflexive if core is not None else None
    endpoint = core.supernode if core is not None else None
    peers = daemon.peers()
    direct = sum(peer.path == "direct" for peer in peers)
    return _common("edge", instance, daemon) | {
        "state": daemon.state.value,
        "reason": view.reason if view is not None else "new",
        "state_since": view.since if view is not None else None,
        "attempts": view.attempts if view is not None else 0,
        "retry_in": view.retry_in if view is not None else None,
        "name": config.edge_id,
        "community": config.community,
        "mac": _text(daemon.mac),
        "address": _text(daemon.address),
        "tap": daemon.tap_name,
        "mtu": daemon.mtu,
        "local": _text(daemon.local),
        "public": _text(public),
        "supernode": {
            "configured": config.supernode_addr,
            "endpoint": _text(endpoint),
            "key": _fingerprint(core.trust.key if core is not None else None),
            "refused_key": _fingerprint(core.trust.refused if core is not None else None),
        },
        "vfuze": config.enable_vfuze,
        "sealed": bool(config.encryption_passphrase),
        "compressed": config.compress_payload,
        "peers": {"total": len(peers), "direct": direct, "relay": len(peers) - direct},
        "traffic": _traffic(daemon.counters()),
        "port_mapping": {"mode": config.port_mapping} | _port_mapping(daemon.port_mapping),
        "nat": core.nat.name.lower() if core is not None else "unknown",
    }


def supernode_status(daemon: SupernodeDaemon, instance: str) -> dict[str, Any]:
    """The result of `status` for a supernode; see the head of this module."""
    core, config = daemon.core, daemon.config
    communities = core.communities() if core is not None else ()
    counters = daemon.counters()
    return _common("supernode", instance, daemon) | {
        "listen": _text(daemon.local),
        "key": _fingerprint(daemon.public_pem),
        "subnet": f"{config.community_subnet}/{config.community_subnet_cidr}",
        "vfuze": config.enable_vfuze,
        "strict_hash_checking": config.strict_hash_checking,
        "edges": sum(view.members for view in communities),
        "leases": sum(view.leases for view in communities),
        "relayed": counters.get("plane_relayed", 0) + counters.get("plane_relayed_flood", 0),
        "communities": [
            {
                "name": clean_name(view.name),
                "network": str(view.network),
                "derived": view.derived,
                "edges": view.members,
                "leases": view.leases,
            }
            for view in communities
        ],
    }


def edge_peers(daemon: EdgeDaemon) -> dict[str, Any]:
    """The result of `peers`; see the head of this module."""
    return {"at": time.time(), "peers": [_peer(daemon, view) for view in daemon.peers()]}


def edge_names(daemon: EdgeDaemon) -> dict[str, Any]:
    """The result of `names`; see the head of this module."""
    names = [
        {
            "name": named.member.name,
            "hostname": named.hostname,
            "address": _text(named.member.address),
            "mac": str(named.member.mac),
            "self": named.member.mac == daemon.mac,
        }
        for named in daemon.names()
    ]
    return {"at": time.time(), "names": names}


def edge_leases(answer: Answer[LeasesInfos]) -> dict[str, Any]:
    """The result of `leases` for an edge, from the supernode's answer; see the head of this module."""
    entries = (answer.message.leases_with_edges_infos or {}).values()
    leases = [
        {
            "community": clean_name(answer.message.community_name),
            "ip": _ip(entry.lease.ip),
            "mac": clean_name(entry.lease.mac),
            "name": clean_name(entry.lease_edge_infos.edge_id),
            "registered": entry.lease_edge_infos.is_registered,
            "expires": _unix(entry.lease.expiry),
            "renewed": _unix(entry.lease.last_renew),
        }
        for entry in entries
    ]
    return {"at": answer.at, "leases": sorted(leases, key=_by_address)}


def supernode_leases(daemon: SupernodeDaemon, community: str | None) -> dict[str, Any]:
    """The result of `leases` for a supernode: of one community, or of all."""
    core = daemon.core
    leases: list[dict[str, Any]] = []
    for view in core.communities() if core is not None else ():
        if core is not None and community in (None, view.name):
            registered = {member.mac for member in core.members(view.name)}
            leases += _leases(core.leases(view.name), registered)
    return {"at": time.time(), "leases": sorted(leases, key=_by_address)}


def edge_state(answer: Answer[P2PFullState]) -> dict[str, Any]:
    """The result of `state` for an edge, from the supernode's answer; see the head of this module."""
    message = answer.message
    communities = message.p2p_community_datas
    offline = [
        {
            "mac": clean_name(entry.mac_addr),
            "name": clean_name(entry.desc),
            "virtual_ip": _ip(entry.virtual_ip),
            "last_seen": _unix(entry.last_update),
        }
        for entry in (communities.unreachables or {}).values()
    ]
    reachable = [_reachable(mac, infos) for mac, infos in (communities.reachables or {}).items()]
    name = clean_name(message.community_name)
    return {"at": answer.at, "community": name, "reachable": reachable, "offline": offline}


def supernode_state(daemon: SupernodeDaemon) -> dict[str, Any]:
    """The result of `state` for a supernode; see the head of this module."""
    core = daemon.core
    now = time.monotonic()
    communities = []
    for view in core.communities() if core is not None else ():
        edges = [
            {
                "mac": str(member.mac),
                "name": member.name,
                "virtual_ip": str(member.virtual_ip),
                "endpoint": str(member.endpoint),
                "registered": member.registered,
                "idle": round(now - member.last_seen, 3),
            }
            for member in (core.members(view.name) if core is not None else ())
        ]
        communities.append({"name": clean_name(view.name), "network": str(view.network), "edges": edges})
    return {"at": time.time(), "communities": communities}


def _common(role: str, instance: str, daemon: EdgeDaemon | SupernodeDaemon) -> dict[str, Any]:
    from n2n import __version__

    started = daemon.started_at
    return {
        "role": role,
        "instance": instance,
        "version": __version__,
        "pid": os.getpid(),
        "started": started,
        "uptime": None if started is None else round(time.time() - started, 3),
        "ready": daemon.ready,
        "data_plane": daemon.features(),
    }


def _traffic(counters: dict[str, int]) -> dict[str, int]:
    names = {
        "tx_frames": "tap_rx",
        "tx_bytes": "tap_rx_bytes",
        "rx_frames": "tap_tx",
        "rx_bytes": "tap_tx_bytes",
        "tx_direct": "tx_direct",
        "tx_relay": "tx_relay",
    }
    return {name: counters.get(f"plane_{source}", 0) for name, source in names.items()}


def _port_mapping(view: PortMapView) -> dict[str, Any]:
    return {
        "state": view.state.value,
        "reason": view.reason,
        "remedy": view.remedy,
        "method": view.method,
        "router": view.router,
        "internal": _text(view.internal),
        "external": _text(view.external),
        "lifetime": view.lifetime,
        "expires": view.expires,
    }


def _peer(daemon: EdgeDaemon, view: PeerView) -> dict[str, Any]:
    counts = daemon.peer_counters(view.mac)
    return {
        "mac": str(view.mac),
        "name": view.name,
        "virtual_ip": _text(view.virtual_ip),
        "endpoint": str(view.endpoint),
        "path": view.path,
        "status": view.status.name.lower(),
        "one_way": view.one_way,
        "full_duplex": view.full_duplex,
        "reason": view.reason,
        "since": view.since,
        "rtt": view.rtt,
        "last_pong": view.last_pong,
        "updated": view.updated,
        "kind": view.kind,
        "in_use": _text(view.in_use),
        "their_path": view.their_path,
        "nat": view.nat.name.lower(),
        "mtu": daemon.peer_mtu(view.mac),
        "candidates": [asdict(candidate) | {"endpoint": str(candidate.endpoint)} for candidate in view.candidates],
    } | {name: counts.get(name, 0) for name in ("tx_frames", "tx_bytes", "rx_frames", "rx_bytes")}


def _leases(records: Iterable[LeaseRecord], registered: set[MacAddress]) -> list[dict[str, Any]]:
    return [
        {
            "community": clean_name(record.community),
            "ip": str(record.ip),
            "mac": str(record.mac),
            "name": clean_name(record.name),
            "registered": record.mac in registered,
            "expires": record.expiry,
            "renewed": record.last_renew,
        }
        for record in records
    ]


def _reachable(mac: str, infos: PeerP2PInfos) -> dict[str, Any]:
    own = infos.from_.infos if infos.from_ is not None else PeerInfo()
    return {
        "mac": clean_name(mac),
        "name": clean_name(own.desc),
        "virtual_ip": _ip(own.virtual_ip),
        "endpoint": _socket(own.pub_socket),
        "peers": [_seen(peer) for peer in infos.to],
    }


def _seen(peer: Peer) -> dict[str, Any]:
    known = peer.p2p_status in tuple(P2PStatus)
    return {
        "mac": peer.infos.mac_addr.hex(":"),
        "name": clean_name(peer.infos.desc),
        "status": P2PStatus(peer.p2p_status).name.lower() if known else "unknown",
        "full_duplex": peer.is_full_duplex,
    }


def _by_address(lease: dict[str, Any]) -> tuple[str, int]:
    address = lease["ip"]
    return lease["community"], int(ip_address(address)) if address else 0


def _socket(address: UDPAddr | None) -> str | None:
    ip = _ip(address.ip) if address is not None else None
    return f"{ip}:{address.port}" if address is not None and ip is not None else None


def _ip(packed: bytes) -> str | None:
    """Text of 4 or 16 bytes; an IPv4 address in its mapped form is an IPv4 address."""
    if len(packed) == 16 and packed[:12] == bytes(10) + b"\xff\xff":
        packed = packed[12:]
    return str(ip_address(packed)) if len(packed) in (4, 16) else None


def _unix(moment: GoTime | None) -> float | None:
    return None if moment is None else moment.unix + moment.nsec / 1e9


def _fingerprint(public_pem: bytes | None) -> str | None:
    return None if public_pem is None else key_fingerprint(public_pem)


def _text(value: object | None) -> str | None:
    return None if value is None else str(value)


def _now() -> Instant:
    return Instant(time.monotonic(), time.time())
