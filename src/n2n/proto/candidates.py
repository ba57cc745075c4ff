"""One endpoint at which an n2n peer may be reached: pings in flight, answers, and what follows from them.

A :class:`Trial` decides nothing; :class:`~n2n.proto.ways.Way` has several of them and chooses.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from n2n.types import Endpoint, Instant
from n2n.wire import CandidateKind

__all__ = ["CandidateView", "Trial", "much_quicker", "preference", "rank"]

#: Pings of one trial that may still be answered: at 0.2 s between two, three seconds of them.
_IN_FLIGHT: Final = 16
#: A round trip counts as no longer than this when silence is judged, in seconds.
_SLOWEST: Final = 3.0
#: Share of the last round trip in what is told.
_SMOOTH: Final = 0.3
#: Another endpoint of the same rank is taken only if it is that much quicker: by share, and by seconds.
_QUICKER: Final = 0.7
_QUICKER_BY: Final = 0.005
_RANKS: Final = {CandidateKind.LOCAL: 0, CandidateKind.IPV6: 1}


def rank(kind: CandidateKind) -> int:
    """How much a way is liked for its kind: 0 local, 1 IPv6, 2 any other; less is better."""
    return _RANKS.get(kind, 2)


@dataclass(frozen=True, slots=True)
class CandidateView:
    """A candidate endpoint of a peer, for people.

    Args:
        kind: local, mapped, ipv6, reflexive or peer (a ping of it came from there).
        endpoint: the endpoint.
        answers: our last pings there were answered.
        straight: the answers came straight back, and not by way of the supernode.
        rtt: seconds there and back, when last measured; None if never.
        in_use: our frames go there.
    """

    kind: str
    endpoint: Endpoint
    answers: bool
    straight: bool
    rtt: float | None
    in_use: bool


@dataclass(slots=True)
class _Asked:
    check_id: str
    at: float
    relayed: bool = False
    straight: bool = False


class Trial:
    """One endpoint of one peer.

    Args:
        kind: where it comes from.
        endpoint: what is pinged.
        label: the public part of its pings' check ids.
    """

    __slots__ = (
        "_asked",
        "answered_at",
        "available",
        "endpoint",
        "kind",
        "label",
        "observed",
        "rtt",
        "straight",
        "turnaround",
        "unanswered",
        "unanswered_since",
    )

    def __init__(self, kind: CandidateKind, endpoint: Endpoint, label: str) -> None:
        self.kind = kind
        self.endpoint = endpoint
        self.label = label
        self._asked: deque[_Asked] = deque(maxlen=_IN_FLIGHT)
        self.forget()

    def forget(self) -> None:
        """What was known of it no longer holds."""
        self._asked.clear()
        self.available = False
        """Our pings get there."""
        self.straight = False
        """The answers come straight back."""
        self.rtt: float | None = None
        """Seconds there and straight back."""
        self.turnaround: float | None = None
        """Seconds from a ping to its answer, by whatever way that came."""
        self.answered_at: float | None = None
        """Monotonic seconds of the last answer."""
        self.observed: Endpoint | None = None
        """From where the peer saw the last ping come that it answered straight."""
        self.unanswered = 0
        """Pings sent after the one that was answered last."""
        self.unanswered_since = 0.0
        """When the first of these was sent."""

    @property
    def asked_at(self) -> float | None:
        """When it was pinged last, monotonic seconds."""
        return self._asked[-1].at if self._asked else None

    def last_sign(self) -> float:
        """When it answered last, else when it was pinged last; monotonic seconds, infinite for a new one."""
        known = self.answered_at if self.answered_at is not None else self.asked_at
        return math.inf if known is None else known

    def ask(self, token: Callable[[], str], now: Instant) -> str:
        """A ping is sent now; returns its check id."""
        if self._asked and self._asked[-1].relayed and not self._asked[-1].straight:
            self.straight = False
        check_id = f"{self.label}.{token()}"
        self._asked.append(_Asked(check_id, now.mono))
        if not self.unanswered:
            self.unanswered_since = now.mono
        self.unanswered += 1
        return check_id

    def answer(self, check_id: str, straight: bool, now: Instant) -> bool:
        """A pong came; False if it answers none of our pings."""
        number = next((n for n, asked in enumerate(self._asked) if asked.check_id == check_id), None)
        if number is None:
            return False
        asked = self._asked[number]
        taken = now.mono - asked.at
        if straight:
            self.straight = asked.straight = True
            self.rtt = taken if self.rtt is None else self.rtt + _SMOOTH * (taken - self.rtt)
        else:
            asked.relayed = True
        if self.turnaround is None or straight or not self.straight:
            self.turnaround = taken
        self.available = True
        self.answered_at = now.mono
        later = list(self._asked)[number + 1 :]
        if len(later) < self.unanswered:
            self.unanswered = len(later)
            self.unanswered_since = later[0].at if later else now.mono
        return True

    def silent(self, patience: float, misses: int, now: Instant) -> bool:
        """So many pings in a row went unanswered, the first of them longer ago than `patience` and a round trip."""
        waited = now.mono - self.unanswered_since
        return self.unanswered >= misses and waited >= patience + min(self.turnaround or 0.0, _SLOWEST) * 1.5

    def overdue(self, now: Instant) -> bool:
        """A ping should have been answered by now."""
        return self.unanswered > 0 and now.mono - self.unanswered_since > max(
            0.15, 1.5 * min(self.turnaround or 0.0, _SLOWEST)
        )

    def view(self, in_use: bool) -> CandidateView:
        """It, for people."""
        kind = self.kind.name.lower()
        return CandidateView(kind, self.endpoint, self.available, self.available and self.straight, self.rtt, in_use)


def preference(trial: Trial) -> tuple[bool, int, float]:
    """Less is better: answers straight, is near, is quick."""
    return not trial.straight, rank(trial.kind), trial.rtt if trial.rtt is not None else math.inf


def much_quicker(rtt: float, than: float) -> bool:
    """Whether a round trip of `rtt` seconds is so much shorter than another that the other is left for it."""
    return rtt < than * _QUICKER and than - rtt > _QUICKER_BY
