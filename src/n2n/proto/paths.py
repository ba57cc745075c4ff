"""Whether one endpoint of a peer can be reached directly: pings, pongs, and what follows from them.

A :class:`Probe` belongs to one endpoint.  It is told of rounds (one every ping interval, for all peers together), says
how many pings to send, and judges pongs.  A peer has one probe today, for the endpoint that the supernode saw; more
candidates mean more probes, not another machine.

    unknown --round--> pending --30 rounds--> unavailable --round, backing off--> (unavailable)
                          ^  \\________pong________ | ______pong_____/
                          |                       v v
                          +----3 rounds silent--- available

"Available" means: our ping reached the peer, however its pong came back (protocol v5 sends pongs by way of the
supernode until the peer has found its own way to us).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from n2n.proto.pacing import Backoff, Pace
from n2n.types import Endpoint, Instant
from n2n.wire import P2PStatus

__all__ = ["Change", "Pong", "Probe", "ProbeSettings", "Round"]

#: Characters of a check id that is answered.  Ours are at most 64 + 2 * 17 + 45 + 5 + 6 + the token.
CHECK_ID_LIMIT: Final = 1024
_AGAIN: Final = Pace(first=6.0, factor=2.0, cap=60.0)


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """How endpoints are probed.

    Args:
        burst: pings of one round to a peer that is not reached (4, as v5: they also open NATs).
        pending_rounds: rounds after which a silent peer counts as unavailable (30, as v5: 90 s).
        lost_rounds: rounds without an answer after which an available peer is taken from the direct path.
        again: pace of further rounds for an unavailable peer.
        nudge_interval: seconds between two times that a sign of life brings the next such round forward.
    """

    burst: int = 4
    pending_rounds: int = 30
    lost_rounds: int = 3
    again: Pace = _AGAIN
    nudge_interval: float = 30.0


class Change(Enum):
    """What a round did to the status."""

    NONE = "none"
    STARTED = "probing"
    GIVEN_UP = "no_answer"
    """Unavailable; probing goes on, more slowly."""
    LOST = "silent"
    """Was available, and no longer answers."""


class Pong(Enum):
    """What a pong was worth."""

    UNASKED = "unasked"
    REPEATED = "repeated"
    COUNTED = "counted"


@dataclass(frozen=True, slots=True)
class Round:
    """What to do in one round: send `pings` pings with this check id (0: none)."""

    pings: int
    check_id: str
    change: Change


_NO_PINGS: Final = Round(0, "", Change.NONE)


@dataclass(slots=True)
class _Asked:
    check_id: str
    at: float
    answered: bool = False


class Probe:
    """One endpoint of one peer.

    Args:
        endpoint: what is probed.
        label: the part of the check id that names who asks whom and where, as v5 writes it.  What follows it in a ping
            is unpredictable and told to nobody but the endpoint.
        settings: how.
        jitter: see :class:`~n2n.proto.pacing.Backoff`.
    """

    __slots__ = (
        "_again",
        "_asked",
        "_misses",
        "_next_again",
        "_nudged",
        "_rounds_left",
        "_settings",
        "endpoint",
        "full_duplex",
        "label",
        "last_pong",
        "rtt",
        "status",
    )

    def __init__(self, endpoint: Endpoint, label: str, settings: ProbeSettings, jitter: Callable[[], float]) -> None:
        self.endpoint = endpoint
        self.label = label
        self.status = P2PStatus.UNKNOWN
        self.full_duplex = False
        """The last pong came directly."""
        self.rtt: float | None = None
        """Seconds from the last ping that was answered directly to its pong."""
        self.last_pong: float | None = None
        """Unix seconds of the last pong that counted."""
        self._settings = settings
        self._again = Backoff(settings.again, jitter)
        self._asked: list[_Asked] = []
        self._misses = 0
        self._rounds_left = 0
        self._next_again = 0.0
        self._nudged: float | None = None

    @property
    def available(self) -> bool:
        """Frames may go there."""
        return self.status is P2PStatus.AVAILABLE

    @property
    def asked(self) -> bool:
        """It was pinged at least once."""
        return bool(self._asked)

    def begin_round(self, now: Instant, token: Callable[[], str]) -> Round:
        """A ping round begins; `token` returns text that nobody can predict, a new one for every call."""
        status = self.status
        if status is P2PStatus.UNKNOWN:
            return self._start(now, token, Change.STARTED)
        if status is P2PStatus.PENDING:
            self._rounds_left -= 1
            if self._rounds_left > 0:
                return self._ask(now, token, self._settings.burst, Change.NONE)
            self.status = P2PStatus.UNAVAILABLE
            self._again.reset()
            self._next_again = now.mono + self._again.delay()
            return Round(0, "", Change.GIVEN_UP)
        if status is P2PStatus.AVAILABLE:
            return self._check(now, token)
        if now.mono < self._next_again:
            return _NO_PINGS
        self._next_again = now.mono + self._again.delay()
        return self._ask(now, token, self._settings.burst, Change.NONE)

    def _start(self, now: Instant, token: Callable[[], str], change: Change) -> Round:
        self.status = P2PStatus.PENDING
        self.full_duplex = False
        self._misses = 0
        self._rounds_left = self._settings.pending_rounds
        return self._ask(now, token, self._settings.burst, change)

    def _check(self, now: Instant, token: Callable[[], str]) -> Round:
        """One ping keeps an available peer; after a miss it gets a burst, to tell loss from the end of the path."""
        self._misses = 0 if self._asked and self._asked[-1].answered else self._misses + 1
        if self._misses >= self._settings.lost_rounds:
            return self._start(now, token, Change.LOST)
        return self._ask(now, token, self._settings.burst if self._misses else 1, Change.NONE)

    def _ask(self, now: Instant, token: Callable[[], str], pings: int, change: Change) -> Round:
        check_id = f"{self.label}.{token()}"
        # The round before may still be answered: a pong by way of the supernode can take long.
        self._asked = [*self._asked[-1:], _Asked(check_id, now.mono)]
        return Round(pings, check_id, change)

    def pong(self, check_id: str, direct: bool, now: Instant) -> Pong:
        """A pong came; the first one that answers a round counts, all of that round say by which way."""
        asked = next((one for one in self._asked if one.check_id == check_id), None)
        if asked is None:
            return Pong.UNASKED
        self.full_duplex = direct
        if asked.answered:
            return Pong.REPEATED
        asked.answered = True
        self.status = P2PStatus.AVAILABLE
        self._misses = 0
        self.last_pong = now.wall
        if direct:
            self.rtt = now.mono - asked.at
        return Pong.COUNTED

    def nudge(self, now: Instant) -> bool:
        """The peer was heard directly, or something changed: an unavailable one is worth a round at once."""
        if self.status is not P2PStatus.UNAVAILABLE:
            return False
        if self._nudged is not None and now.mono - self._nudged < self._settings.nudge_interval:
            return False
        self._nudged = now.mono
        self._again.reset()
        self._next_again = now.mono
        return True

    def restart(self) -> None:
        """Our own address changed: what was known of the way no longer holds."""
        self.status = P2PStatus.UNKNOWN
        self.full_duplex = False
        self._asked.clear()
        self._misses = 0
