"""What a supernode can be told about itself, with the defaults and the reasons for the limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final

from n2n.proto.leases import LEASE_LIFETIME
from n2n.proto.limits import Rate

__all__ = ["SupernodeSettings"]

_SHORTEST_PREFIX: Final = 8
_LONGEST_PREFIX: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernodeSettings:
    """Settings of a supernode; the defaults of what v5 has are the reference's.

    Args:
        base: start of the block from which communities get their networks.
        prefix: prefix length of one community's network, 8 to 30.
        expiry: seconds without heartbeat or registration after which an edge counts as gone.
        cleanup_interval: seconds between two looks for such edges.
        strict_hash_checking: refuse an edge whose header carries another community id than its community's name gives.
        probe_port: UDP port of a second socket, where edges ask from which endpoint they are seen; 0: there is none.
        key_lasts: the key is kept over restarts, and edges are told so.
        vfuze: relay packets with the short header (the data plane does; the core only carries the word).
        mapped_addresses: tell IPv4 socket addresses as 16 bytes, as the reference does on a dual-stack socket.
        lease_lifetime: seconds for which an address is renewed.
        source_rate: work that costs a decryption (registrations, heartbeats, leaves) for one source.
        total_rate: the same for all sources; a 2048-bit decryption takes well under a millisecond.
        key_rate: answers to key requests for one source; an answer is up to ten times as long as its question.
        where_rate: key requests for one source, those that only ask where it is seen too: an edge asks so up to once a
            second, many may be behind one NAT, and such an answer is no longer than its question.
        key_total: the same for all sources.
        retry_rate: how often one endpoint is told to register.
        retry_total: the same for all endpoints.
        member_rate: requests of one registered edge (heartbeats, lists, states), each kind by itself.
        stray_rate: peer lists sent to an edge because of requests that came from elsewhere than its own address.
        heavy_rate: full states and leases sent to all edges together: the answers that take most time to make.
        community_rate: new communities from one source.
        note_rate: notes caused by strangers, so that they cannot fill a log.
        max_communities: communities remembered, idle ones included.
        max_members: registered edges in all communities; give the plane as many places.
        max_leases: leases in all communities.
        max_pending: decryptions under way.
        max_sources: sources remembered by each of the limits.
        max_state_bytes: bytes of stored P2P states in all communities.
        max_clock_skew: if set, registrations, heartbeats and leaves whose header's time is further from ours are
            dropped, in seconds.  Off by default: an edge whose clock is wrong works with v5, and a header's time
            is not authenticated; what was seen before is recognised by its ciphertext in any case.

    Raises:
        ValueError: a value is impossible.
    """

    base: IPv4Address = field(default=IPv4Address("10.128.0.0"))
    prefix: int = 24
    expiry: float = 600.0
    cleanup_interval: float = 300.0
    strict_hash_checking: bool = True
    probe_port: int = 0
    key_lasts: bool = False
    vfuze: bool = True
    mapped_addresses: bool = True
    lease_lifetime: float = LEASE_LIFETIME
    source_rate: Rate = field(default=Rate(200, 1000))
    total_rate: Rate = field(default=Rate(1000, 4000))
    key_rate: Rate = field(default=Rate(30, 300))
    where_rate: Rate = field(default=Rate(300, 1000))
    key_total: Rate = field(default=Rate(2000, 4000))
    retry_rate: Rate = field(default=Rate(5, 20))
    retry_total: Rate = field(default=Rate(5000, 10_000))
    member_rate: Rate = field(default=Rate(2, 20))
    stray_rate: Rate = field(default=Rate(0.2, 5))
    heavy_rate: Rate = field(default=Rate(50, 100))
    community_rate: Rate = field(default=Rate(1, 128))
    note_rate: Rate = field(default=Rate(10, 100))
    max_communities: int = 4096
    max_members: int = 16_384
    max_leases: int = 65_536
    max_pending: int = 1024
    max_sources: int = 8192
    max_state_bytes: int = 64 << 20
    max_clock_skew: float | None = None

    def __post_init__(self) -> None:
        if not _SHORTEST_PREFIX <= self.prefix <= _LONGEST_PREFIX:
            raise ValueError(f"prefix {self.prefix} is not between {_SHORTEST_PREFIX} and {_LONGEST_PREFIX}")
        for name in ("expiry", "cleanup_interval", "lease_lifetime"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)} is not above 0")
        for name in ("max_communities", "max_members", "max_leases", "max_pending", "max_sources"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is not above 0")
