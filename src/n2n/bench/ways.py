"""What ``n2n bench PEER`` says of one way to a peer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from n2n.bench.far import Usage
from n2n.bench.stats import Summary

__all__ = ["Flood", "Stretch", "Way", "difference", "known"]


@dataclass(frozen=True, slots=True)
class Stretch:
    """One stream in one direction.

    Args:
        bytes: that arrived.
        seconds: they took.
        cpu: CPU seconds meanwhile, by end ("here", "there") and thread of the edge there: {"user": ..., "system": ...}.
    """

    bytes: int
    seconds: float
    cpu: dict[str, Usage]

    @property
    def bits_per_second(self) -> float:
        """Of payload; 0 where it took no time."""
        return self.bytes * 8 / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        """By stable names."""
        return {
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "bits_per_second": round(self.bits_per_second),
            "cpu_seconds": self.cpu,
        }


@dataclass(frozen=True, slots=True)
class Flood(Stretch):
    """Datagrams in one direction, outside of the tunnel: bytes are of their payload.

    Args:
        sent, received: how many.
        offered: bits in a second that were to be sent.
        limit: what kept it from being more: "path" (it lost datagrams, or took longer), "sender" (its host could not
            send faster), "receiver" (its host's socket buffer overflowed), "rate" (no more was agreed), "credit" (a
            peer sends no more bytes than it got), or "load" (nothing did: more was not tried).
    """

    sent: int
    received: int
    offered: float
    limit: str

    @property
    def loss(self) -> float:
        """Lost datagrams in a hundred."""
        return 100 * (self.sent - self.received) / self.sent if self.sent else 0.0

    @property
    def at_least(self) -> bool:
        """The path may take more than was seen."""
        return self.limit != "path"

    def as_json(self) -> dict[str, Any]:
        """By stable names."""
        return Stretch.as_json(self) | {
            "sent": self.sent,
            "received": self.received,
            "loss_percent": round(self.loss, 3),
            "offered_bits_per_second": round(self.offered),
            "limit": self.limit,
            "at_least": self.at_least,
        }


@dataclass(frozen=True, slots=True)
class Way:
    """What was measured over one way.

    Args:
        name: "outer" (outside of the tunnel), "tunnel" (the path that frames take anyway), or "relay" (both edges sent
            by the supernode for the time).
        path: "direct" or "relay": what this edge's frames really took; "mixed", where it changed meanwhile.
        sent, received: datagrams there, and those that came back.
        latency: of a datagram there and back, in nanoseconds.
        jitter: mean difference of the times of one datagram and the next, in nanoseconds; NaN for less than two.
        up, down: from here to the peer, and from there.
    """

    name: str
    path: str
    sent: int
    received: int
    latency: Summary
    jitter: float
    up: Stretch
    down: Stretch

    @property
    def loss(self) -> float:
        """Lost datagrams in a hundred."""
        return 100 * (self.sent - self.received) / self.sent if self.sent else 0.0

    def as_json(self) -> dict[str, Any]:
        """By stable names; what is not known is null."""
        names = ("min", "mean", "median", "p95", "p99", "max")
        return {
            "way": self.name,
            "path": self.path,
            "sent": self.sent,
            "received": self.received,
            "loss_percent": round(self.loss, 3),
            "latency_ns": {name: known(getattr(self.latency, name)) for name in names},
            "jitter_ns": known(self.jitter),
            "up": self.up.as_json(),
            "down": self.down.as_json(),
        }


def difference(after: dict[str, Usage], before: dict[str, Usage]) -> dict[str, Usage]:
    """CPU seconds between two looks, by end and thread."""
    return {
        end: {
            thread: {kind: round(value - before[end].get(thread, {}).get(kind, 0.0), 2) for kind, value in used.items()}
            for thread, used in threads.items()
        }
        for end, threads in after.items()
    }


def known(value: float) -> float | None:
    """A whole number for JSON, or null."""
    return None if math.isnan(value) else round(value)
