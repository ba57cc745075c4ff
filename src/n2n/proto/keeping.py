"""How ways to n2n peers are found and kept: the times, and the interval of keep-alives, which is found."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from n2n.proto.pacing import Pace
from n2n.types import Instant

__all__ = ["Keeper", "WaySettings"]

_AGAIN: Final = Pace(first=3.0, factor=2.0, cap=60.0)
#: Keep-alives are early by up to this share of their interval.
_SPREAD: Final = 0.25


@dataclass(frozen=True, slots=True)
class WaySettings:
    """How ways to n2n peers are found and kept.  Times in seconds.

    Args:
        rounds: when the rounds of a search are, from its start.
        again: pace of further searches while the way is wanted.
        unused: where it is wanted although nobody uses it, they come so many times later.
        flowing: frames count as flowing for so long after a notice of them (one a second comes).
        check: between two pings of an endpoint in use while frames flow.
        check_lost: the same while an answer is overdue.
        patience: an endpoint whose first unanswered ping is that old, and a round trip more, is silent.
        misses: unanswered pings that it takes besides.
        explore: while frames flow, the other endpoints are pinged as often, once each, to find a better one.
        in_use: so long after the last frame (or call) a way is wanted.
        hold: so long after the last frame (or call) a way is held.
        keep_first: first interval of keep-alives; UDP mappings live 30 s in many NATs, 20 s in few.
        keep_last: longest interval of keep-alives (RFC 4787 asks NATs for 120 s).
        keep_factor: it grows by this while the way survives it.
        trials: endpoints tried per peer.
        eager_limit: in communities of at most so many other edges all ways are always wanted.
    """

    rounds: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)
    again: Pace = _AGAIN
    unused: float = 5.0
    flowing: float = 2.0
    check: float = 0.4
    check_lost: float = 0.2
    patience: float = 1.1
    misses: int = 3
    explore: float = 30.0
    in_use: float = 60.0
    hold: float = 300.0
    keep_first: float = 15.0
    keep_last: float = 110.0
    keep_factor: float = 1.5
    trials: int = 16
    eager_limit: int = 16


class Keeper:
    """Finds how long a way may be quiet.

    Whichever side's pause ends first pings, and both begin anew: so the NATs of both are tried.

    Args:
        settings: first and last interval, and the growth.
        jitter: see :class:`~n2n.proto.pacing.Backoff`.
    """

    __slots__ = ("_jitter", "_limit", "_settings", "_tested", "interval", "last")

    def __init__(self, settings: WaySettings, jitter: Callable[[], float]) -> None:
        self._settings = settings
        self._jitter = jitter
        self.last = -math.inf
        """Monotonic seconds of the last datagram on this way, in whichever direction."""
        self.reset()

    def reset(self) -> None:
        """Another network: nothing is known."""
        self.interval = self._settings.keep_first
        self._limit = self._settings.keep_last
        self._tested = 0.0

    def pause(self) -> float:
        """Seconds until the next keep-alive: up to a quarter less than the interval, or both sides would always ping
        at one moment, and open both NATs anew however long they were quiet."""
        return self.interval * (1.0 - _SPREAD * self._jitter())

    def test(self, now: Instant) -> None:
        """A keep-alive is sent after the quiet time so far."""
        self._tested = now.mono - self.last

    def survived(self) -> None:
        """It was answered."""
        if self._tested >= self.interval * (1.0 - _SPREAD):
            self.interval = min(self.interval * self._settings.keep_factor, self._limit)
        self._tested = 0.0

    def failed(self) -> None:
        """It was not: longer intervals are not tried again."""
        if self._tested >= self._settings.keep_first:
            self._limit = max(self._settings.keep_first, self.interval / self._settings.keep_factor)
            self.interval = self._settings.keep_first
        self._tested = 0.0
