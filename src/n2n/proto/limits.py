"""How much a stranger can make the supernode do: token buckets by source, in tables that cannot grow without end.

A source address proves nothing (it is easily forged), so every limit by source has one for all sources beside it, and
a table that is full forgets the source it has not heard of for longest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from ipaddress import IPv4Address
from typing import Final, Generic, NamedTuple, TypeVar

from n2n.proto.pacing import Bucket
from n2n.types import Endpoint

__all__ = ["KeyedBuckets", "Rate", "Strangers", "Told", "source_key"]

K = TypeVar("K", bound=Hashable)

#: An IPv6 host can use any address of its link: the whole /64 counts as one source (RFC 4291, 2.5.4).
_V6_SOURCE_SHIFT: Final = 64


class Rate(NamedTuple):
    """A limit: `per_second` in the long run, `burst` at once."""

    per_second: float
    burst: float


def source_key(endpoint: Endpoint) -> tuple[int, int]:
    """What counts as one source: an IPv4 address, or the /64 network of an IPv6 address.

    >>> source_key(Endpoint.parse("[2001:db8::1]:1")) == source_key(Endpoint.parse("[2001:db8::ffff]:2"))
    True
    """
    if isinstance(endpoint.ip, IPv4Address):
        return 4, int(endpoint.ip)
    return 6, int(endpoint.ip) >> _V6_SOURCE_SHIFT


class KeyedBuckets(Generic[K]):
    """One token bucket per key, for at most `limit` keys.

    Args:
        rate: of each bucket.
        limit: number of keys; the one not heard of for longest gives way to a new one.
    """

    def __init__(self, rate: Rate, limit: int) -> None:
        self._rate = rate
        self._limit = limit
        self._table: OrderedDict[K, tuple[Bucket, float]] = OrderedDict()
        # After this long without a packet a bucket is full again, and need not be remembered.
        self._idle = rate.burst / rate.per_second if rate.per_second > 0 else float("inf")

    def __len__(self) -> int:
        return len(self._table)

    def take(self, key: K, mono: float) -> bool:
        """Take a token of this key, if there is one."""
        entry = self._table.pop(key, None)
        bucket = entry[0] if entry is not None else Bucket(self._rate.per_second, self._rate.burst)
        if entry is None and len(self._table) >= self._limit:
            self._table.popitem(last=False)
        self._table[key] = bucket, mono
        return bucket.take(mono)

    def purge(self, mono: float) -> None:
        """Forget the keys whose buckets are full again."""
        while self._table:
            key, (_, last) = next(iter(self._table.items()))
            if mono - last <= self._idle:
                return
            del self._table[key]


class Told(NamedTuple):
    """What to do about a packet of an unregistered edge."""

    retry: bool
    """Tell it to register."""
    wake: bool
    """It was told long ago and does not come: send the key unasked as well."""


class _Stranger:
    __slots__ = ("bucket", "first", "last")

    def __init__(self, rate: Rate, mono: float) -> None:
        self.bucket = Bucket(rate.per_second, rate.burst)
        self.first = self.last = mono


class Strangers:
    """Endpoints whose packets come from unregistered edges, and what they were told.

    A v5 edge that was told to register asks for the key once and waits without end for the answer; if that is lost, it
    stays away for good, but goes on sending pings and frames.  The key sent unasked wakes it up (WIRE, quirk 15).

    Args:
        rate: how often one endpoint is told.
        limit: number of endpoints remembered.
        wake_after: seconds from the first telling until the key is sent unasked, and between two such.
        forget_after: seconds of silence after which an endpoint is forgotten.
    """

    def __init__(self, rate: Rate, limit: int, *, wake_after: float = 15.0, forget_after: float = 60.0) -> None:
        self._rate = rate
        self._limit = limit
        self._wake_after = wake_after
        self._forget_after = forget_after
        self._table: OrderedDict[Endpoint, _Stranger] = OrderedDict()

    def __len__(self) -> int:
        return len(self._table)

    def heard(self, endpoint: Endpoint, mono: float) -> Told:
        """A packet of an unregistered edge came from here."""
        entry = self._table.pop(endpoint, None)
        if entry is None:
            if len(self._table) >= self._limit:
                self._table.popitem(last=False)
            entry = _Stranger(self._rate, mono)
        self._table[endpoint] = entry
        entry.last = mono
        wake = mono - entry.first >= self._wake_after
        if wake:
            entry.first = mono
        return Told(retry=entry.bucket.take(mono), wake=wake)

    def forget(self, endpoint: Endpoint) -> None:
        """The edge there has registered."""
        self._table.pop(endpoint, None)

    def purge(self, mono: float) -> None:
        """Forget those that fell silent."""
        while self._table:
            endpoint, entry = next(iter(self._table.items()))
            if mono - entry.last <= self._forget_after:
                return
            del self._table[endpoint]
