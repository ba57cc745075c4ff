"""Which edge has which virtual address: given once, kept for as long as the address space allows.

A lease is renewed for 24 hours whenever its edge registers anew, and while it stays.  Its end does *not* free the
address: an edge that comes back after a year gets what it had.  Only when a network has no address left that nobody
ever had is one taken from an edge that is not registered: first from one whose lease has run out, then from one that
registered once and was never heard of again (a stranger with many machine ids would otherwise hold a network for a
day).  An address belongs to one edge at every moment.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from typing import Final, NamedTuple

from n2n.proto.actions import LeaseRecord
from n2n.types import MacAddress

__all__ = ["LEASE_LIFETIME", "Grant", "LeaseBook", "LeaseRecord", "Refusal"]

#: Seconds for which the reference renews a lease (WIRE 13).
LEASE_LIFETIME: Final = 86_400.0
#: Seconds for which even an edge that never sent a heartbeat keeps its address in a full network.
_PROBATION: Final = 600.0
#: A full network is searched for an address to reclaim at most this often, in seconds.
_SEARCH_AGAIN: Final = 1.0


class Refusal(StrEnum):
    """Why there is no address for an edge."""

    EXHAUSTED = "no_free_address"
    OWNER = "mac_of_another_machine"
    UNKNOWN_COMMUNITY = "unknown_community"


class Grant(NamedTuple):
    """An address given to an edge."""

    record: LeaseRecord
    reclaimed: LeaseRecord | None
    """The lease that had to give way; it exists no more."""


@dataclass(slots=True)
class _Pool:
    """The addresses of one community."""

    network: IPv4Network
    of: dict[MacAddress, LeaseRecord] = field(default_factory=dict)
    by_ip: dict[int, MacAddress] = field(default_factory=dict)
    fresh: int = 0
    """Every host address below this one is, or was, somebody's, or lies in `holes`."""
    holes: list[int] = field(default_factory=list)
    """Heap of addresses below `fresh` that were released."""
    unconfirmed: set[MacAddress] = field(default_factory=set)
    search_at: float = 0.0

    def __post_init__(self) -> None:
        self.fresh = self.first

    @property
    def first(self) -> int:
        return int(self.network.network_address) + 1

    @property
    def last(self) -> int:
        return int(self.network.broadcast_address) - 1

    def put(self, record: LeaseRecord) -> None:
        self.of[record.mac] = record
        self.by_ip[int(record.ip)] = record.mac

    def take(self, mac: MacAddress) -> LeaseRecord | None:
        self.unconfirmed.discard(mac)
        record = self.of.pop(mac, None)
        if record is not None:
            del self.by_ip[int(record.ip)]
        return record

    def release(self, mac: MacAddress) -> LeaseRecord | None:
        record = self.take(mac)
        if record is not None and int(record.ip) < self.fresh:
            heapq.heappush(self.holes, int(record.ip))
        self.search_at = 0.0
        return record

    def lowest_unused(self) -> int | None:
        while self.fresh <= self.last and self.fresh in self.by_ip:
            self.fresh += 1
        while self.holes and self.holes[0] in self.by_ip:
            heapq.heappop(self.holes)
        if self.holes:
            return heapq.heappop(self.holes)
        if self.fresh > self.last:
            return None
        self.fresh += 1
        return self.fresh - 1


class LeaseBook:
    """The leases of all communities.

    Args:
        lifetime: seconds for which a lease is renewed.
        limit: number of leases in all communities together; at the limit, addresses are reclaimed as if the network
            were full.
    """

    def __init__(self, lifetime: float = LEASE_LIFETIME, limit: int = 65_536) -> None:
        self.lifetime = lifetime
        self._limit = limit
        self._pools: dict[str, _Pool] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def open(self, community: str, network: IPv4Network) -> None:
        """Begin to give out the addresses of a community's network; nothing changes if it was open."""
        self._pools.setdefault(community, _Pool(network))

    def close(self, community: str) -> tuple[LeaseRecord, ...]:
        """Give up a community; returns the leases that end by that."""
        pool = self._pools.pop(community, None)
        if pool is None:
            return ()
        self._count -= len(pool.of)
        return tuple(pool.of.values())

    def restore(self, record: LeaseRecord) -> bool:
        """Take over a lease from an earlier run.

        Returns:
            False, and nothing is kept, if the community is not open, the address is no host address of its network,
            or the address or the edge has a lease already.
        """
        pool = self._pools.get(record.community)
        if (
            pool is None
            or not pool.first <= int(record.ip) <= pool.last
            or record.mac in pool.of
            or int(record.ip) in pool.by_ip
            or self._count >= self._limit
        ):
            return False
        pool.put(record)
        self._count += 1
        return True

    def request(
        self, community: str, mac: MacAddress, owner: bytes, *, name: str, wall: float, busy: Container[MacAddress]
    ) -> Grant | Refusal:
        """An edge is entered anew: the address it had, else the lowest that nobody ever had, else one reclaimed.

        Args:
            community: an open community.
            mac: the edge.
            owner: SHA-256 of its machine id.
            name: what it calls itself, fit to be stored.
            wall: now, in Unix seconds.
            busy: edges that are registered there and keep their addresses.
        """
        pool = self._pools.get(community)
        if pool is None:
            return Refusal.UNKNOWN_COMMUNITY
        held = pool.of.get(mac)
        if held is not None:
            if held.owner != owner:
                return Refusal.OWNER
            record = replace(held, name=name, expiry=wall + self.lifetime, last_renew=wall)
            pool.put(record)
            return Grant(record, None)
        reclaimed = None
        ip = pool.lowest_unused() if self._count < self._limit else None
        if ip is None:
            reclaimed = self._reclaim(pool, wall, busy)
            if reclaimed is None:
                return Refusal.EXHAUSTED
            ip = int(reclaimed.ip)
        record = LeaseRecord(community, mac, IPv4Address(ip), owner, name, wall + self.lifetime, wall)
        pool.put(record)
        pool.unconfirmed.add(mac)
        self._count += 1
        return Grant(record, reclaimed)

    def stays(self, community: str, mac: MacAddress, wall: float) -> LeaseRecord | None:
        """A registered edge shows that it is still there.

        Returns:
            Its lease, if that was renewed (half of its lifetime had gone by) and needs to be saved.
        """
        pool = self._pools.get(community)
        held = pool.of.get(mac) if pool is not None else None
        if pool is None or held is None:
            return None
        pool.unconfirmed.discard(mac)
        if held.expiry - wall > self.lifetime / 2:
            return None
        record = replace(held, expiry=wall + self.lifetime, last_renew=wall)
        pool.put(record)
        return record

    def left(self, community: str) -> None:
        """An edge of this community is registered no more: its address may be one to reclaim."""
        pool = self._pools.get(community)
        if pool is not None:
            pool.search_at = 0.0

    def release(self, community: str, mac: MacAddress) -> LeaseRecord | None:
        """Free an address at an operator's wish; returns the lease that ends by that."""
        pool = self._pools.get(community)
        record = pool.release(mac) if pool is not None else None
        self._count -= record is not None
        return record

    def get(self, community: str, mac: MacAddress) -> LeaseRecord | None:
        """The lease of an edge, run out or not."""
        pool = self._pools.get(community)
        return pool.of.get(mac) if pool is not None else None

    def leases(self, community: str) -> tuple[LeaseRecord, ...]:
        """All leases of a community, oldest first."""
        pool = self._pools.get(community)
        return tuple(pool.of.values()) if pool is not None else ()

    def dormant(self, community: str, wall: float) -> bool:
        """True if no lease of the community would be missed: all have run out, or were never confirmed."""
        pool = self._pools.get(community)
        return pool is None or all(_rank(pool, record, wall) is not None for record in pool.of.values())

    def __iter__(self) -> Iterator[LeaseRecord]:
        for pool in self._pools.values():
            yield from pool.of.values()

    def _reclaim(self, pool: _Pool, wall: float, busy: Container[MacAddress]) -> LeaseRecord | None:
        # A network stays full for long, and whoever asks again must not make us search it again at once.
        if 0.0 <= pool.search_at - wall <= _SEARCH_AGAIN:
            return None
        candidates = [
            (rank, record.mac)
            for record in pool.of.values()
            if record.mac not in busy and (rank := _rank(pool, record, wall)) is not None
        ]
        if not candidates:
            pool.search_at = wall + _SEARCH_AGAIN
            return None
        record = pool.take(min(candidates)[1])
        self._count -= record is not None
        return record


def _rank(pool: _Pool, record: LeaseRecord, wall: float) -> tuple[int, float] | None:
    """How soon a lease may be reclaimed (the least first); None if it may not."""
    if record.expiry <= wall:
        return 0, record.expiry
    if record.mac in pool.unconfirmed and record.last_renew + _PROBATION <= wall:
        return 1, record.last_renew
    return None
