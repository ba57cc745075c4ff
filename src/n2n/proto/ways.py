"""The ways to one n2n peer: which endpoints to ping when, which of them to use, and when to let go.

    idle ----wanted----> searching ----an answer----> held ----nobody uses it for long----> idle
                          ^     | nobody answers        |
                          |     v                       | silent: the next candidate that answers, else
                          +-- waiting (3, 6, ... 60 s) <+         searching again at once
                                   while it is wanted

A way is **wanted** while frames for the peer were sent within a minute, or it called us; in small communities always.
While **searching**, all candidates are pinged in rounds, and the peer, having been called by way of the supernode, does
the same towards us: both NATs open at the same time.  While **held**, the endpoint in use is pinged: often while frames
flow, so that its end is noticed within two seconds, and seldom otherwise, at an interval that is found
(:mod:`n2n.proto.keeping`).

Nothing here sends: what is to be done is left in `Way.todo`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from n2n.proto.candidates import CandidateView, Trial, much_quicker, preference, rank
from n2n.proto.keeping import Keeper, WaySettings
from n2n.proto.pacing import Backoff
from n2n.types import Endpoint, Instant
from n2n.wire import Candidate, CandidateKind, P2PStatus

__all__ = ["Todo", "Way"]

#: An endpoint that answered so long ago (seconds) can take over from one that fell silent.
_FRESH: Final = 2.0
#: Endpoints that the peer was heard from and that do not answer any more, of which a search still tries so many: a NAT
#: that gave another port each time leaves dead ones behind.
_DEAD: Final = 3


@dataclass(slots=True)
class Todo:
    """What a way wants done.

    Args:
        pings: endpoints and check ids.
        call: ask the peer, by way of the supernode, to search as well.
        reason: why the way is another, or its state is; None: nothing changed.
        lost: the endpoint in use fell silent: perhaps it is our own address that changed.
        failed: a search is about to end without an answer.
    """

    pings: list[tuple[Endpoint, str]] = field(default_factory=list)
    call: bool = False
    reason: str | None = None
    lost: bool = False
    failed: bool = False


class Way:
    """The ways to one peer.

    Args:
        settings: see :class:`WaySettings`.
        label_of: the public part of the check ids of pings to an endpoint.
        token: returns unpredictable text, another each time.
        jitter: see :class:`~n2n.proto.pacing.Backoff`.
        eager: whether the way is wanted although nobody uses it.
    """

    def __init__(
        self,
        settings: WaySettings,
        *,
        label_of: Callable[[Endpoint], str],
        token: Callable[[], str],
        jitter: Callable[[], float],
        eager: Callable[[], bool],
    ) -> None:
        self.trials: dict[Endpoint, Trial] = {}
        self.chosen: Endpoint | None = None
        """Where frames go; None: by way of the supernode."""
        self._seen: Endpoint | None = None
        self.todo = Todo()
        self.keeper = Keeper(settings, jitter)
        self.asked = False
        """Something was pinged."""
        self.last_pong: float | None = None
        """Unix seconds of the last answer."""
        self.stuck = False
        """The last search got no answer in the time in which one usually comes, and nothing answered since."""
        self.relay_rtt: float | None = None
        """Seconds from our last call to its answer, there and back by way of the supernode."""
        self._settings = settings
        self._label_of = label_of
        self._token = token
        self._eager = eager
        self._again = Backoff(settings.again, jitter)
        self._used_at = -math.inf
        self._called_at = -math.inf
        self._started = self._explored = -math.inf
        self._announced = False
        self._round = 0
        self._round_at: float | None = None
        self._again_at: float | None = None
        self._check_at: float | None = None

    # -- what is known

    @property
    def due(self) -> float | None:
        """When `step` is to be called next, monotonic seconds."""
        times = [at for at in (self._round_at, self._again_at, self._check_at) if at is not None]
        return min(times, default=None)

    @property
    def searching(self) -> bool:
        """Rounds are under way."""
        return self._round_at is not None

    @property
    def label(self) -> str:
        """The public part of the check id of pings to the endpoint in use, or to any."""
        trial = self.trials.get(self.chosen) if self.chosen is not None else None
        trial = trial or next(iter(self.trials.values()), None)
        return trial.label if trial is not None else ""

    def views(self) -> tuple[CandidateView, ...]:
        """All candidates, for people."""
        return tuple(trial.view(trial.endpoint == self.chosen) for trial in self.trials.values())

    def just_started(self, now: Instant) -> bool:
        """A search began so lately that there is no use in another."""
        return self.searching and now.mono - self._started < self._settings.rounds[-2]

    @property
    def straight(self) -> bool:
        """The endpoint in use answers straight."""
        return self.chosen is not None and self.trials[self.chosen].straight

    @property
    def status(self) -> P2PStatus:
        """How far the direct path has got, in the words of v5."""
        if self.chosen is not None:
            return P2PStatus.AVAILABLE
        if self.searching:
            return P2PStatus.PENDING
        return P2PStatus.UNKNOWN if self._again_at is None else P2PStatus.UNAVAILABLE

    def wanted(self, now: Instant) -> bool:
        """Somebody has use for a direct path."""
        return self._eager() or self._used(now) or now.mono - self._called_at < self._settings.in_use

    def _used(self, now: Instant) -> bool:
        """Frames for the peer were sent lately."""
        return now.mono - self._used_at < self._settings.in_use

    def _calls(self, now: Instant) -> bool:
        """We may call: who was only called does not, or two idle edges would keep each other awake for ever."""
        return self._eager() or self._used(now)

    def take_todo(self) -> Todo:
        """What is to be done now."""
        todo, self.todo = self.todo, Todo()
        return todo

    # -- candidates

    def set_candidates(self, candidates: Iterable[Candidate]) -> bool:
        """The peer's card; True if it has something new.  What is no longer on it goes, unless it is in use."""
        told = {endpoint: kind for kind, endpoint in candidates}
        for endpoint, trial in [*self.trials.items()]:
            if endpoint == self._seen and endpoint not in told:
                trial.kind = CandidateKind.REFLEXIVE
            elif trial.kind is not CandidateKind.PEER and endpoint not in told and endpoint != self.chosen:
                del self.trials[endpoint]
        added = [self.add(kind, endpoint) for endpoint, kind in told.items()]
        return any(trial is not None for trial in added)

    def add(self, kind: CandidateKind, endpoint: Endpoint) -> Trial | None:
        """Another endpoint; None if it is known, or there is no room for it."""
        known = self.trials.get(endpoint)
        if known is not None:
            if rank(kind) < rank(known.kind):
                known.kind = kind
            return None
        if len(self.trials) >= self._settings.trials and not self._make_room():
            return None
        trial = self.trials[endpoint] = Trial(kind, endpoint, self._label_of(endpoint))
        return trial

    def _make_room(self) -> bool:
        for endpoint, trial in self.trials.items():
            if trial.kind is CandidateKind.PEER and not trial.available and endpoint != self.chosen:
                del self.trials[endpoint]
                return True
        return False

    def see(self, endpoint: Endpoint | None) -> None:
        """The supernode sees the peer there; None: where it cannot be reached."""
        self._seen = endpoint
        if endpoint is not None:
            self.add(CandidateKind.REFLEXIVE, endpoint)

    def moved(self, before: Endpoint, after: Endpoint | None, now: Instant) -> None:
        """The supernode sees the peer elsewhere."""
        held = self.chosen is not None
        if self.chosen == before:
            self._let_go("peer_changed")
        self.trials.pop(before, None)
        self.see(after)
        if held or self.wanted(now):
            self.start(now)
            if self.chosen is None and held:
                self._tell("peer_changed")

    # -- searching

    def start(self, now: Instant, *, call: bool = True) -> None:
        """Ping all candidates, from now on in rounds; what is in use stays so while it answers."""
        self._forget_dead(now)
        self._started = self._explored = now.mono
        self._round = 0
        self._round_at = now.mono
        self._again_at = None
        self.stuck = False
        self.todo.call |= call
        if self.chosen is None:
            self._tell("probing")
        else:
            self._check_at = now.mono

    def _forget_dead(self, now: Instant) -> None:
        fresh = {trial.endpoint for trial in self._fresh(now)} | {self.chosen}
        dead = [one for one in self.trials.values() if one.kind is CandidateKind.PEER and one.endpoint not in fresh]
        dead.sort(key=Trial.last_sign)
        for trial in dead[:-_DEAD]:
            del self.trials[trial.endpoint]

    def called(self, now: Instant, *, start: bool) -> None:
        """The peer asks us to search as well."""
        self._called_at = now.mono
        if start:
            self.start(now, call=False)

    def traffic(self, now: Instant) -> None:
        """Frames are being sent to the peer."""
        flowed, waited_for = self._flowing(now), self._used(now)
        self._used_at = now.mono
        if self.chosen is not None:
            if not flowed:
                self._check_at = now.mono
        elif not self.searching and (self._again_at is None or not waited_for):
            self._again.reset()
            self.start(now)

    def _flowing(self, now: Instant) -> bool:
        return now.mono - self._used_at < self._settings.flowing

    def step(self, now: Instant) -> None:
        """Do what is due."""
        if self._round_at is not None and self._round_at <= now.mono:
            self._next_round(now)
        if self._again_at is not None and self._again_at <= now.mono:
            self._again_at = None
            if self.chosen is None and self._calls(now):
                self.start(now)
                self._next_round(now)
        if self._check_at is not None and self._check_at <= now.mono:
            self._check(now)

    def _next_round(self, now: Instant) -> None:
        rounds = self._settings.rounds
        for trial in self.trials.values():
            if trial.answered_at is None or trial.answered_at < self._started or not trial.straight:
                self._ping(trial, now)
        self._round += 1
        if self._round < len(rounds):
            self._round_at = self._started + rounds[self._round]
            if self._round == len(rounds) - 1 and self.chosen is None:
                self.stuck = self.todo.failed = True
            return
        self._round_at = None
        if self.chosen is None:
            self._tell("no_answer")
            patience = 1.0 if self._used(now) else self._settings.unused
            self._again_at = now.mono + patience * self._again.delay() if self._calls(now) else None

    def ping_now(self, trial: Trial, now: Instant) -> None:
        """The peer was heard from there: is it reached there, too?  Not more often than the rounds would ask."""
        if trial.asked_at is None or now.mono - trial.asked_at >= self._settings.rounds[1]:
            self._ping(trial, now)

    def _ping(self, trial: Trial, now: Instant) -> None:
        self.asked = True
        self.todo.pings.append((trial.endpoint, trial.ask(self._token, now)))

    # -- answers

    def answered(self, check_id: str, straight: bool, now: Instant) -> Trial | None:
        """A pong came; the endpoint that it speaks for, or None if it answers none of our pings."""
        trial = next((t for t in self.trials.values() if t.answer(check_id, straight, now)), None)
        if trial is None:
            return None
        self.last_pong = now.wall
        if trial.endpoint == self.chosen:
            self._confirmed(now)
        self._choose(now)
        return trial

    def _confirmed(self, now: Instant) -> None:
        self.keeper.survived()
        self.keeper.last = now.mono
        # A last ping tells the peer that we reach it now.
        soon = self._flowing(now) or not self._announced
        pause = self._settings.check if soon else self.keeper.pause()
        self._check_at = now.mono + pause

    def _choose(self, now: Instant) -> None:
        best = min(self._fresh(now), key=preference, default=None)
        if best is None or best.endpoint == self.chosen:
            return
        present = self.trials[self.chosen] if self.chosen is not None else None
        if present is None:
            self._take(best, "answered", now)
        elif preference(best)[:2] < preference(present)[:2]:
            self._take(best, "better", now)
        elif best.rtt is not None and (present.rtt is None or much_quicker(best.rtt, present.rtt)):
            self._take(best, "quicker", now)

    def _fresh(self, now: Instant) -> list[Trial]:
        """Those that answered just now."""
        return [
            trial
            for trial in self.trials.values()
            if trial.available and trial.answered_at is not None and now.mono - trial.answered_at <= _FRESH
        ]

    def _take(self, trial: Trial, reason: str, now: Instant) -> None:
        self.chosen = trial.endpoint
        self._again.reset()
        self._again_at = None
        self._announced = self.stuck = False
        self._tell(reason)
        self._confirmed(now)

    # -- holding

    def contact(self, endpoint: Endpoint, now: Instant) -> None:
        """A datagram came from there, and its answer went back: that keeps the way open, too."""
        if endpoint != self.chosen:
            return
        self.keeper.last = now.mono
        if self._announced and not self._flowing(now) and not self.trials[endpoint].unanswered:
            self._check_at = now.mono + self.keeper.pause()

    def _check(self, now: Instant) -> None:
        """Ping the endpoint in use, unless it is silent or nobody needs it."""
        assert self.chosen is not None
        settings, trial = self._settings, self.trials[self.chosen]
        if trial.silent(settings.patience, settings.misses, now):
            self._lose(trial, now)
            return
        if not self._eager() and now.mono - max(self._used_at, self._called_at) > settings.hold:
            self._let_go("idle")
            return
        late = trial.overdue(now)
        if (late and trial.unanswered == 1) or (self._flowing(now) and now.mono - self._explored >= settings.explore):
            # Whatever takes over must be known to answer; and a better way may have come.
            self._explored = now.mono
            self._ping_others(now)
        if not trial.unanswered:
            self.keeper.test(now)
        self._ping(trial, now)
        self._announced = True
        self._check_at = now.mono + (settings.check_lost if late else settings.check)

    def _ping_others(self, now: Instant) -> None:
        for trial in self.trials.values():
            if trial.endpoint != self.chosen:
                self._ping(trial, now)

    def _lose(self, trial: Trial, now: Instant) -> None:
        trial.available = False
        if not self._flowing(now):
            self.keeper.failed()
        self.todo.lost = True
        able = self._fresh(now)
        if able:
            self._take(min(able, key=preference), "silent", now)
        else:
            self._let_go("silent")
        if self.wanted(now):
            self.start(now, call=self._calls(now))
            self._tell("silent")

    def _let_go(self, reason: str) -> None:
        self.chosen = None
        self._check_at = None
        self._tell(reason)

    def restart(self, reason: str, now: Instant) -> None:
        """Our own address changed: nothing that is known of any way holds."""
        for endpoint, trial in [*self.trials.items()]:
            if trial.kind is CandidateKind.PEER:
                del self.trials[endpoint]
            else:
                trial.forget()
        held = self.chosen is not None
        self.keeper.reset()
        self._again.reset()
        self._let_go(reason)
        self._again_at = self._round_at = None
        if held or self.wanted(now):
            self.start(now)
            self._tell(reason)

    def adopt(self, endpoint: Endpoint, now: Instant) -> None:
        """What v5's rounds found before the peer showed that it is more than that: this endpoint is in use."""
        trial = self.trials[endpoint]
        trial.available = trial.straight = True
        trial.answered_at = self._called_at = now.mono
        self.chosen = endpoint
        self._check_at = now.mono

    def stop(self) -> None:
        """Ask for nothing more."""
        self._round_at = self._again_at = self._check_at = None

    def _tell(self, reason: str) -> None:
        self.todo.reason = reason
