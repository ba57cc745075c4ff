"""How fast things are done again: delays that grow, and limits on how often a stranger makes us act.

Nothing here reads a clock or draws a random number; both are given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Backoff", "Bucket", "Pace", "Question"]


@dataclass(frozen=True, slots=True)
class Pace:
    """How the delays of repeated attempts grow.

    Args:
        first: seconds after the first attempt.
        factor: each delay is this many times the former (at least 1).
        cap: no delay is longer, in seconds.
        spread: delays are drawn from [1 - spread, 1 + spread] times their value, so that many edges that lost one
            supernode at one moment do not come back at one moment.  The first delay of a row is not spread.
    """

    first: float
    factor: float = 1.5
    cap: float = 30.0
    spread: float = 0.25


class Backoff:
    """The delays of one row of attempts.

    Args:
        pace: how they grow.
        jitter: returns a number in [0, 1) each time; 0.5 leaves delays unspread.
    """

    __slots__ = ("_jitter", "_next", "_pace", "attempts")

    def __init__(self, pace: Pace, jitter: Callable[[], float]) -> None:
        self._pace = pace
        self._jitter = jitter
        self._next = pace.first
        self.attempts = 0
        """Attempts since the last `reset`."""

    def delay(self) -> float:
        """Seconds to wait after the attempt that is made now."""
        delay = self._next
        if self.attempts > 0:
            delay *= 1.0 + self._pace.spread * (2.0 * self._jitter() - 1.0)
        self.attempts += 1
        self._next = min(self._next * self._pace.factor, self._pace.cap)
        return delay

    def reset(self) -> None:
        """Something came of it: start again with the first delay."""
        self._next = self._pace.first
        self.attempts = 0


class Question:
    """A question that is repeated until it is answered.

    Args:
        pace: how its repetitions slow down.
        jitter: see :class:`Backoff`.
    """

    __slots__ = ("_backoff", "asked", "last")

    def __init__(self, pace: Pace, jitter: Callable[[], float]) -> None:
        self._backoff = Backoff(pace, jitter)
        self.asked: float | None = None
        """Monotonic seconds at which it was first asked; None when no answer is awaited."""
        self.last = -math.inf
        """Monotonic seconds at which it was last asked."""

    @property
    def attempts(self) -> int:
        """How often it was asked without an answer."""
        return self._backoff.attempts

    def ask(self, mono: float) -> float:
        """It is asked now, for the first time or again; returns when to ask it again."""
        if self.asked is None:
            self.asked = mono
        self.last = mono
        return mono + self._backoff.delay()

    def end(self) -> None:
        """It was answered, or no longer matters."""
        self.asked = None
        self._backoff.reset()


class Bucket:
    """A token bucket: `rate` per second in the long run, `burst` at once.

    Args:
        rate: tokens that come back per second.
        burst: tokens there are at the start and at most.
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at: float | None = None

    def take(self, mono: float) -> bool:
        """Take a token at this moment (monotonic seconds), if there is one."""
        if self._at is not None and mono > self._at:
            self._tokens = min(self._burst, self._tokens + (mono - self._at) * self._rate)
        self._at = mono if self._at is None else max(mono, self._at)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
