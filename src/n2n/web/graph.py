"""Who is in a community and how they reach each other, put together from what an edge knows and what it was told.

An edge knows its own paths at first hand (`status`, `peers`); how the others see each other, and who is gone, its
supernode told some time ago (`state`).  Fields are read by name and may be missing; names and addresses come from
strangers and are text, no more.
"""

from __future__ import annotations

import time
from collections.abc import Container, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import islice
from typing import Any, Final, Literal

from n2n.web.text import ago

__all__ = ["MAX_LINKS", "MAX_NODES", "Graph", "Link", "Node", "build_graph", "how_old"]

#: Members and links that are shown; what is beyond is counted. (A full state holds some 30 edges that all see each
#: other.)
MAX_NODES: Final = 1000
MAX_LINKS: Final = 4000
_TEXT_LIMIT: Final = 128
_DIRECT: Final = ("available", "full_duplex")

Kind = Literal["direct", "one_way", "relay"]


@dataclass(frozen=True, slots=True)
class Node:
    """A member.

    Args:
        mac: its address in the community.
        name: what it calls itself.
        address: its virtual address, or "".
        role: self (the edge that tells), member, or offline.
        seen: Unix seconds when an offline one was last there.
    """

    mac: str
    name: str
    address: str
    role: Literal["self", "member", "offline"]
    seen: float | None = None

    @property
    def label(self) -> str:
        """Its name, or what there is in place of one."""
        return self.name or self.address or self.mac


@dataclass(frozen=True, slots=True)
class Link:
    """How two members reach each other.

    Args:
        a: MAC address of one; of the edge that tells, if it is one of the two.
        b: MAC address of the other.
        kind: direct (both ways), one_way, or relay (by the supernode).
        toward: MAC address of the one that is reached directly, where only one is; else "".
        own: the edge that tells is one of the two, and knows it at first hand.
        about: of an own link, what `peers` tells: endpoint, reason, since, rtt, tx_bytes, rx_bytes, ...
    """

    a: str
    b: str
    kind: Kind
    toward: str
    own: bool
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Graph:
    """A community at a moment.

    Args:
        community: its name.
        at: Unix seconds at which the edge told of itself.
        told: Unix seconds of the supernode's word about the others; None: there was none.
        own: MAC address of the edge that tells, or "".
        nodes: in an order that stays while nobody comes or goes: by virtual address.
        links: own ones first.
        left_out: members and links beyond the limits.
    """

    community: str
    at: float
    told: float | None
    own: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    left_out: int = 0

    def count(self, kind: Kind) -> int:
        """How many own links are of this kind."""
        return sum(link.kind == kind for link in self.links if link.own)

    @property
    def offline(self) -> tuple[Node, ...]:
        """Members that are gone."""
        return tuple(node for node in self.nodes if node.role == "offline")


def build_graph(status: Mapping[str, Any], peers: Mapping[str, Any], state: Mapping[str, Any] | None = None) -> Graph:
    """Put a graph together.

    Args:
        status: the answer of an edge to `status`.
        peers: its answer to `peers`.
        state: its answer to `state`; None: there is none yet.
    """
    state = state or {}
    own = _text(status.get("mac"))
    known = {_text(peer.get("mac")): peer for peer in _entries(peers, "peers")}
    reachable = {_text(entry.get("mac")): entry for entry in _entries(state, "reachable")}
    nodes: dict[str, Node] = {}
    if own:
        address = _text(status.get("address")).partition("/")[0]
        nodes[own] = Node(own, _text(status.get("name")), address, "self")
    for mac, entry in known.items():
        if mac and mac not in nodes:
            nodes[mac] = Node(mac, _text(entry.get("name")), _text(entry.get("virtual_ip")), "member")
    # Whom our own list does not name has just left: that list is newer than what the supernode told of all.
    for entry in (*_entries(state, "offline"), *reachable.values()):
        mac = _text(entry.get("mac"))
        if mac and mac not in nodes:
            seen = _number(entry.get("last_seen"))
            nodes[mac] = Node(mac, _text(entry.get("name")), _text(entry.get("virtual_ip")), "offline", seen)
    shown = dict(islice(nodes.items(), MAX_NODES))
    seen_by = {mac: _seen(entry) for mac, entry in reachable.items() if mac in shown and mac in known}
    links = [_own_link(own, mac, peer, seen_by) for mac, peer in known.items() if own and mac in shown]
    pairs = _pairs(seen_by, own, known)
    links += [_link(a, b, seen_by) for a, b in islice(pairs, max(MAX_LINKS - len(links), 0))]
    count = sum(1 for mac in known if own and mac in shown) + len(pairs)
    return Graph(
        community=_text(status.get("community")) or _text(state.get("community")),
        at=_number(peers.get("at")) or 0.0,
        told=_number(state.get("at")),
        own=own,
        nodes=tuple(sorted(shown.values(), key=_place)),
        links=tuple(links[:MAX_LINKS]),
        left_out=len(nodes) - len(shown) + max(count - MAX_LINKS, 0),
    )


def how_old(graph: Graph) -> str:
    """A line that tells how old a graph is."""
    told = (
        f"the others as told {ago(max(graph.at - graph.told, 0))} ago" if graph.told is not None else "others unknown"
    )
    moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(graph.at))
    return f"{moment}, {told.replace('now ago', 'just now')}"


def _own_link(own: str, mac: str, peer: Mapping[str, Any], seen_by: Mapping[str, Mapping[str, bool]]) -> Link:
    there = peer.get("path") == "direct"
    theirs = peer.get("their_path")
    if there or isinstance(theirs, str):
        # Its pongs tell whether it reaches us, or it said so itself.
        back = bool(peer.get("full_duplex")) or theirs == "direct"
    else:
        back = seen_by.get(mac, {}).get(own, False)  # the supernode's word must do
    kind, toward = _judge(own, mac, there=there, back=back)
    return Link(own, mac, kind, toward, own=True, about=peer)


def _pairs(seen_by: Mapping[str, Mapping[str, bool]], own: str, known: Container[str]) -> dict[tuple[str, str], None]:
    """Any two of the others of which one has told how it sees the other, in the order in which they were told."""
    pairs: dict[tuple[str, str], None] = {}
    for mac, others in seen_by.items():
        if mac != own:
            for other in others:
                if other in known and other not in (own, mac):
                    pairs[(mac, other) if mac < other else (other, mac)] = None
    return pairs


def _link(a: str, b: str, seen_by: Mapping[str, Mapping[str, bool]]) -> Link:
    there, back = seen_by.get(a, {}).get(b), seen_by.get(b, {}).get(a)
    # Who has not told yet how it sees the other is taken to see it the same way.
    there, back = (back if there is None else there), (there if back is None else back)
    kind, toward = _judge(a, b, there=bool(there), back=bool(back))
    return Link(a, b, kind, toward, own=False, about={})


def _judge(a: str, b: str, *, there: bool, back: bool) -> tuple[Kind, str]:
    if there and back:
        return "direct", ""
    if there or back:
        return "one_way", b if there else a
    return "relay", ""


def _seen(entry: Mapping[str, Any]) -> dict[str, bool]:
    """Whom an edge reaches directly (True) or does not, by MAC address."""
    peers = _entries(entry, "peers")
    return {mac: peer.get("status") in _DIRECT for peer in peers if isinstance(mac := peer.get("mac"), str)}


def _entries(answer: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    entries = answer.get(name)
    return [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []


def _place(node: Node) -> tuple[int, int, str]:
    try:
        address = ip_address(node.address)
    except ValueError:
        return 9, 0, node.mac
    return address.version, int(address), node.mac


def _text(value: object) -> str:
    return value[:_TEXT_LIMIT] if isinstance(value, str) else ""


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
