"""Is the supernode there, does it know us, where does it see us, what does our NAT do?  One small question tells.

Only a supernode that welcomed our card is asked (:class:`~n2n.wire.cards.Where`).  While frames go by way of it, it is
asked every second, since nothing else would tell soon that it is gone, that it started again and forgot us, or that our
NAT gave us another port; otherwise seldom.  The same question to its second port tells whether our NAT gives one public
endpoint for all destinations.
"""

from __future__ import annotations

import hashlib
import math
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
    """

    def __init__(
        self,
        settings: WatchSettings,
        outbox: Outbox,
        token: Callable[[], str],
        watcher: Watcher,
        is_local: Callable[[Endpoint], bool],
    ) -> None:
        self.due: float | None = None
        """When `step` is to be called next, monotonic seconds."""
        self._settings = settings
        self._out = outbox
        self._token = token
        self._watcher = watcher
        self._is_local = is_local
        self._busy_at = -math.inf
        self._awaited = b""
        self._misses = 0
        self._probe: Endpoint | None = None
        self._probe_token = b""
        self._probes_left = 0
        self._seen: Endpoint | None = None
        self._seen_by_probe: Endpoint | None = None

    def begin(self, welcome: bytes, now: Instant) -> None:
        """We are registered; `welcome` is what the supernode said of itself (nothing: a v5 one, which is not asked)."""
        self.end()
        if not welcome:
            return
        try:
            port = Welcome.unpack(welcome).probe_port
        except MalformedDatagram:
            self._out.count("welcome_bad")
            return
        supernode = self._out.supernode
        self._probe = Endpoint(supernode.ip, port) if supernode is not None and port else None
        self._probes_left = self._settings.probes if self._probe is not None else 0
        self.due = now.mono

    def end(self) -> None:
        """We are not registered any more."""
        self.due = self._probe = self._seen = self._seen_by_probe = None
        self._awaited = self._probe_token = b""
        self._misses = self._probes_left = 0

    @property
    def awaiting(self) -> bool:
        """A question is open."""
        return bool(self._awaited)

    def busy(self, now: Instant) -> None:
        """Frames go by way of the supernode."""
        was = now.mono - self._busy_at < self._settings.busy_for
        self._busy_at = now.mono
        if not was and self.due is not None:
            self.due = min(self.due, now.mono)

    def step(self, now: Instant) -> None:
        """Ask, or give up."""
        if self.due is None or self.due > now.mono:
            return
        if self._awaited:
            self._misses += 1
            if self._misses >= self._settings.misses:
                self.end()
                self._watcher.supernode_lost(now)
                return
        self.due = now.mono + self._settings.busy
        self._awaited = self._new_token()
        self._out.ask_where(self._awaited, None, now)
        if self._probe is not None and self._probes_left:
            self._probes_left -= 1
            self._probe_token = self._new_token()
            self._out.ask_where(self._probe_token, self._probe, now)

    def _new_token(self) -> bytes:
        return hashlib.blake2b(self._token().encode(), digest_size=TOKEN_SIZE).digest()

    def answered(self, field: bytes, now: Instant) -> None:
        """The supernode's main port answered something."""
        answer = self._read(field, self._awaited)
        if answer is None:
            return
        self._awaited, self._misses = b"", 0
        busy = now.mono - self._busy_at < self._settings.busy_for
        waiting = self._probe is not None and self._probes_left > 0
        self.due = now.mono + (self._settings.busy if busy or waiting else self._settings.idle)
        if answer.observed != self._seen:
            self._seen = answer.observed
            self._judge(now)
        if not answer.known:
            self._watcher.supernode_forgot(now)

    def probed(self, field: bytes, source: Endpoint, now: Instant) -> None:
        """A pong in the supernode's name came from elsewhere."""
        if source != self._probe:
            self._out.count("where_unasked")
            return
        answer = self._read(field, self._probe_token)
        if answer is not None:
            self._probe_token, self._probes_left = b"", 0
            self._seen_by_probe = answer.observed
            self._judge(now)

    def _read(self, field: bytes, awaited: bytes) -> Where | None:
        try:
            answer = Where.unpack(field)
        except MalformedDatagram:
            self._out.count("where_bad")
            return None
        if not awaited or answer.token != awaited or not answer.answer:
            self._out.count("where_unasked")
            return None
        return answer

    def _judge(self, now: Instant) -> None:
        seen, other = self._seen, self._seen_by_probe
        if seen is None:
            return
        if self._is_local(seen):
            self._watcher.mapping_found(Mapping.OPEN, now)
        elif other is not None:
            self._watcher.mapping_found(Mapping.EASY if seen == other else Mapping.HARD, now)
