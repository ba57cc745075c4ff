"""Is the supernode there, does it know us, where does it see us, what does our NAT do?  One small question tells.

A supernode that welcomed our card is asked so (:class:`~n2n.wire.cards.Where`).  While frames go by way of it, it is
asked every second, since nothing else would tell soon that it is gone, that it started again and forgot us, or that our
NAT gave us another port; otherwise seldom.  The same question to its second port tells whether our NAT gives one public
endpoint for all destinations.

A v5 supernode answers no heartbeat, but whoever asks for its key gets it: it is asked for that once in a heartbeat, to
see whether it is there.  The key in the answer is not looked at: a supernode that started again with another one does
not know us, and says so at our next heartbeat.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

from n2n.errors import MalformedDatagram
from n2n.proto.edge_outbox import Outbox
from n2n.proto.watching import WatchSettings
from n2n.types import Endpoint, Instant
from n2n.wire import TOKEN_SIZE, Mapping, Welcome, Where

__all__ = ["Watch", "Watcher"]


class Watcher(Protocol):
    """Who is told."""

    def supernode_lost(self, now: Instant) -> None:
        """It does not answer any more."""

    def supernode_forgot(self, now: Instant) -> None:
        """It does not know us where we are: it started again, or our address is another."""

    def mapping_found(self, mapping: Mapping, now: Instant) -> None:
        """What our NAT does, as far as is known."""


class Watch:
    """Asks, and judges the answers.

    Args:
        settings: how often.
        outbox: sends the questions.
        token: returns unpredictable text, another each time.
        watcher: is told what the answers mean.
        is_local: whether an endpoint is our host's own.
        heartbeat: seconds between two heartbeats.
    """

    def __init__(
        self,
        settings: WatchSettings,
        outbox: Outbox,
        token: Callable[[], str],
        watcher: Watcher,
        *,
        is_local: Callable[[Endpoint], bool],
        heartbeat: Callable[[], float],
    ) -> None:
        self.due: float | None = None
        """When `step` is to be called next, monotonic seconds."""
        self._settings = settings
        self._out = outbox
        self._token = token
        self._watcher = watcher
        self._is_local = is_local
        self._heartbeat = heartbeat
        self._busy_at = -math.inf
        self._plain = False
        # What was asked and not answered, oldest first: an answer may take longer than the pause between two questions.
        self._awaited: deque[bytes] = deque()
        self._probe: Endpoint | None = None
        self._probe_awaited: deque[bytes] = deque()
        self._probes_left = 0
        self._seen: Endpoint | None = None
        self._seen_by_probe: Endpoint | None = None

    def begin(self, welcome: bytes, now: Instant) -> None:
        """We are registered; `welcome` is what the supernode said of itself (nothing: a v5 one)."""
        self.end()
        port = self._read_welcome(welcome)
        if port is None:
            self._plain = self._settings.plain
            self.due = now.mono + self._heartbeat() if self._plain else None
            return
        supernode = self._out.supernode
        self._probe = Endpoint(supernode.ip, port) if supernode is not None and port else None
        self._probes_left = self._settings.probes if self._probe is not None else 0
        self.due = now.mono

    def _read_welcome(self, welcome: bytes) -> int | None:
        """The supernode's second port, 0 for none; None: it is a v5 one."""
        if not welcome:
            return None
        try:
            return Welcome.unpack(welcome).probe_port
        except MalformedDatagram:
            self._out.count("welcome_bad")
            return None

    def end(self) -> None:
        """We are not registered any more."""
        self.due = self._probe = self._seen = self._seen_by_probe = None
        self._awaited.clear()
        self._probe_awaited.clear()
        self._probes_left = 0
        self._plain = False

    @property
    def awaiting(self) -> bool:
        """A question is open."""
        return bool(self._awaited)

    def busy(self, now: Instant) -> None:
        """Frames go by way of the supernode."""
        was = now.mono - self._busy_at < self._settings.busy_for
        self._busy_at = now.mono
        if not was and not self._plain and self.due is not None:
            self.due = min(self.due, now.mono)

    def step(self, now: Instant) -> None:
        """Ask, or give up."""
        if self.due is None or self.due > now.mono:
            return
        if len(self._awaited) >= self._settings.misses:
            self.end()
            self._watcher.supernode_lost(now)
            return
        self._awaited.append(self._new_token())
        if self._plain:
            self.due = now.mono + min(self._settings.plain_late, self._heartbeat() / 4)
            self._out.ask_key(now)
            return
        self.due = now.mono + self._settings.late
        self._out.ask_where(self._awaited[-1], None, now)
        if self._probe is not None and self._probes_left:
            self._probes_left -= 1
            self._probe_awaited.append(self._new_token())
            self._out.ask_where(self._probe_awaited[-1], self._probe, now)

    def _new_token(self) -> bytes:
        return hashlib.blake2b(self._token().encode(), digest_size=TOKEN_SIZE).digest()

    def answered(self, field: bytes, now: Instant) -> None:
        """The supernode's main port answered something."""
        answer = self._read(field, self._awaited)
        if answer is None:
            return
        if answer.observed != self._seen:
            if self._seen is not None and self._probe is not None:
                # What the second port saw was before: together the two would look like a NAT that is hard.
                self._seen_by_probe, self._probes_left = None, self._settings.probes
            self._seen = answer.observed
            self._judge(now)
        busy = now.mono - self._busy_at < self._settings.busy_for
        waiting = self._probe is not None and self._probes_left > 0
        self.due = now.mono + (self._settings.busy if busy or waiting else self._settings.idle)
        if not answer.known:
            self._watcher.supernode_forgot(now)

    def key_came(self, now: Instant) -> bool:
        """The supernode's key came; False if that is no answer to a question of ours."""
        if not self._plain or not self._awaited:
            return False
        self._awaited.clear()
        self.due = now.mono + self._heartbeat()
        return True

    def probed(self, field: bytes, source: Endpoint, now: Instant) -> None:
        """A pong in the supernode's name came from elsewhere."""
        if source != self._probe:
            self._out.count("where_unasked")
            return
        answer = self._read(field, self._probe_awaited)
        if answer is not None:
            self._probes_left = 0
            self._seen_by_probe = answer.observed
            self._judge(now)

    def _read(self, field: bytes, awaited: deque[bytes]) -> Where | None:
        """An answer to one of these questions, none of which waits for one any longer then."""
        try:
            answer = Where.unpack(field)
        except MalformedDatagram:
            self._out.count("where_bad")
            return None
        if answer.token not in awaited or not answer.answer:
            self._out.count("where_unasked")
            return None
        awaited.clear()
        return answer

    def _judge(self, now: Instant) -> None:
        seen, other = self._seen, self._seen_by_probe
        if seen is None:
            return
        if self._is_local(seen):
            self._watcher.mapping_found(Mapping.OPEN, now)
        elif other is not None:
            self._watcher.mapping_found(Mapping.EASY if seen == other else Mapping.HARD, now)
