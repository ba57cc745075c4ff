"""What a protocol core asks the world to do.

A core decides and never acts: every call into it (`receive`, `handle_timer`, ...) may append actions, and
`drain()` hands them over in the order in which they must be carried out.  That order matters in one place:
a `Save...` or `Drop...` action that stands before a `Send` must be durable before that datagram leaves, so that
an address an edge was told is never forgotten by a crash.

All are immutable values, so that a test compares them with `==`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Literal, TypeAlias

from n2n.types import Endpoint, MacAddress

__all__ = [
    "Action",
    "AllowSource",
    "Birthday",
    "Configure",
    "Decrypt",
    "DropLease",
    "DropMember",
    "DropNetwork",
    "DropPeer",
    "EdgeAction",
    "KeepKey",
    "LeaseRecord",
    "Level",
    "Note",
    "PutMember",
    "PutPeer",
    "Resolve",
    "SaveLease",
    "SaveNetwork",
    "Send",
    "SendProbe",
    "SetSupernode",
    "SupernodeAction",
]

Level: TypeAlias = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """One address given to one edge, as it is kept across restarts.

    The pair (community, mac) is its key; (community, ip) is unique as well.

    Args:
        community: name of the community (surrogate escapes for bytes that are not UTF-8).
        mac: the edge's address, derived from its machine id and the community.
        ip: the address it was given, a host address of the community's network.
        owner: SHA-256 of the machine id (32 bytes): another machine id with the same MAC is refused.
        name: what the edge called itself when it last registered, bounded and without control characters.
        expiry: Unix seconds from which on the address may be reclaimed, if the edge is not registered.
        last_renew: Unix seconds of the registration that renewed it last.
    """

    community: str
    mac: MacAddress
    ip: IPv4Address
    owner: bytes
    name: str
    expiry: float
    last_renew: float


@dataclass(frozen=True, slots=True)
class Send:
    """Send one datagram from the core's UDP socket."""

    datagram: bytes
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class SendProbe:
    """Send one datagram from the supernode's second socket, the one at its probe port.

    Args:
        fresh: from a port that nothing was ever sent to instead, used for this datagram alone.
    """

    datagram: bytes
    endpoint: Endpoint
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth a log line, or an event for whoever watches.

    Args:
        level: as in the standard `logging`.
        event: a fixed name in snake_case (for filters), never text from the network.
        fields: its circumstances; text from the network is normalised and bounded before it gets here.
    """

    level: Level
    event: str
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decrypt:
    """Open an RSA ciphertext off the loop, and answer with ``decrypted(token, plaintext | None, now)``.

    Args:
        token: names the question; never used twice by one core.
        ciphertext: exactly as long as the supernode's key (256 bytes for 2048 bits).
    """

    token: int
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class PutMember:
    """Make the plane relay for an edge, or move it to another endpoint (the former one loses it).

    Args:
        header_id: community id that the edge's packets carry; with `mac` the key of the table.
        group: number of the community; frames pass between members of one group only.
        mac: source MAC that its packets carry.
        endpoint: where its datagrams come from and go to.
    """

    header_id: int
    group: int
    mac: MacAddress
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class DropMember:
    """Make the plane forget the edge that `PutMember` with the same key made known."""

    header_id: int
    group: int
    mac: MacAddress


@dataclass(frozen=True, slots=True)
class SaveLease:
    """Keep this lease; it replaces the one with the same (community, mac)."""

    record: LeaseRecord


@dataclass(frozen=True, slots=True)
class DropLease:
    """Forget a lease (its address was reclaimed, or an operator released it)."""

    community: str
    mac: MacAddress


@dataclass(frozen=True, slots=True)
class SaveNetwork:
    """Keep which network a community got."""

    community: str
    network: IPv4Network


@dataclass(frozen=True, slots=True)
class DropNetwork:
    """Forget which network a community had (the community was given up; its leases are dropped beside it)."""

    community: str


@dataclass(frozen=True, slots=True)
class Configure:
    """Give the TAP device its address and bring it up; then announce it (gratuitous ARP)."""

    ip: IPv4Address
    prefix: int


@dataclass(frozen=True, slots=True)
class SetSupernode:
    """Tell the plane where to send what goes by relay."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class PutPeer:
    """Add a peer to the plane, or change it: frames go to `endpoint` if `direct`, else to the supernode."""

    mac: MacAddress
    endpoint: Endpoint
    direct: bool


@dataclass(frozen=True, slots=True)
class DropPeer:
    """Make the plane forget a peer."""

    mac: MacAddress


@dataclass(frozen=True, slots=True)
class AllowSource:
    """Take frames from this further endpoint as the peer's."""

    mac: MacAddress
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Birthday:
    """Open many sockets at once, send one datagram from each, and see whether anything comes back to one.

    The world answers with ``birthday_won(mac, endpoint, now)``: then a socket got a datagram from `endpoint`, and all
    that is sent to `endpoint` from now on leaves by that socket (which the plane receives from, too).  What it got is
    handed to ``receive`` after that.  The other sockets are closed after `seconds` in any case.  Another one for the
    same peer takes the place of the first.

    Args:
        mac: the peer.
        endpoint: where the datagrams go, and where an answer must come from.
        datagram: what each socket sends once.
        sockets: how many, at most 256; fewer where the host does not let so many be opened.
        seconds: how long they wait.
    """

    mac: MacAddress
    endpoint: Endpoint
    datagram: bytes
    sockets: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Resolve:
    """Resolve the supernode's name; the world answers with ``set_supernode(endpoint, now)``.

    Args:
        again: the name that was resolved last, to see whether it stands for another address now; False: where there
            are several supernodes, or several addresses, it is the turn of the next one.
    """

    again: bool = False


SupernodeAction: TypeAlias = (
    Send | SendProbe | Note | Decrypt | PutMember | DropMember | SaveLease | DropLease | SaveNetwork | DropNetwork
)


@dataclass(frozen=True, slots=True)
class KeepKey:
    """Edge: remember a supernode's key for the next run.

    Args:
        public_pem: the key (PEM as on the wire).
        lasts: the supernode said that it does.
        supernode: by which name it is known (`EdgeCore.known_as`); empty: it was given none.
    """

    public_pem: bytes
    lasts: bool
    supernode: str = ""


EdgeAction: TypeAlias = (
    Send | Note | Configure | SetSupernode | PutPeer | DropPeer | AllowSource | Birthday | Resolve | KeepKey
)
Action: TypeAlias = SupernodeAction | EdgeAction
