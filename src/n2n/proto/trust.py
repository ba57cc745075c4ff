"""Which key of the supernode an edge believes.

Protocol v5 does not authenticate the key, and its supernodes make a new one at every start.  So the first key is taken,
and remembered; another one later is taken with a warning, unless the supernode said that its key lasts (those of n2n
that keep their key say so), or the edge was told to believe no other.
"""

from __future__ import annotations

import contextlib
from typing import Final

from n2n.errors import MalformedDatagram
from n2n.proto.actions import KeepKey
from n2n.proto.edge_outbox import Outbox
from n2n.proto.edge_settings import EdgeSettings
from n2n.wire import Welcome, key_fingerprint

__all__ = ["KEY_CHANGED", "KeyTrust"]

#: Why an edge is refused, if it is by itself.
KEY_CHANGED: Final = "supernode_key_changed"


class KeyTrust:
    """The key that is believed, and when another one would be.

    Args:
        settings: with what is known from a former run, and the rule.
        outbox: for notes, counts, and what is to be remembered.
    """

    __slots__ = ("_kept", "_others", "_out", "accept_new", "key", "lasts", "name", "refused")

    def __init__(self, settings: EdgeSettings, outbox: Outbox) -> None:
        self.key = settings.known_key
        self.lasts = settings.known_lasts
        """The supernode said that this key lasts."""
        self.accept_new = settings.accept_new_key
        """True: any other key is taken; False: none; None: only where `lasts` is false."""
        self.refused: bytes | None = None
        """The key that was refused last, until it is accepted or another one taken."""
        self.name = ""
        """Which supernode's key it is, where there are several."""
        self._others: dict[str, tuple[bytes | None, bool]] = dict(settings.known_keys)
        self._kept = (self.key, self.lasts)
        self._out = outbox

    def switch(self, name: str) -> None:
        """Another supernode has another key: from now on it is about this one's."""
        if name == self.name:
            return
        self._others[self.name] = (self.key, self.lasts)
        self.name = name
        self.key, self.lasts = self._others.pop(name, (None, False))
        self._kept = (self.key, self.lasts)
        self.refused = None

    def take(self, key: bytes) -> bool:
        """Judge a key that came: it is the key from now on, or False is returned."""
        before = self.key
        prints = {"known": key_fingerprint(before or b""), "new": key_fingerprint(key)}
        if before is None:
            self._out.note("info", "supernode_key", new=prints["new"])
        elif key != before and not self._accepts():
            self.refused = key
            self._out.count("key_changed")
            self._out.note("error", "supernode_key_refused", **prints)
            return False
        elif key != before:
            self.lasts = False  # that was said of the other one
            self._out.note("warning", KEY_CHANGED, **prints)
        self.key, self.refused = key, None
        return True

    def _accepts(self) -> bool:
        return not self.lasts if self.accept_new is None else self.accept_new

    def accept(self) -> bytes | None:
        """Believe the key that was refused last; returns it, or None if there is none."""
        key, self.refused = self.refused, None
        if key is not None:
            self.key, self.lasts = key, False
        return key

    def confirm(self, n2n: bytes) -> None:
        """The supernode has the key, for it took a registration.

        Args:
            n2n: its further words. One that says nothing of its key takes nothing back.
        """
        with contextlib.suppress(MalformedDatagram):  # v5 says nothing
            self.lasts = self.lasts or Welcome.unpack(n2n).key_lasts
        if self.key is not None and (self.key, self.lasts) != self._kept:
            self._kept = (self.key, self.lasts)
            self._out.act(KeepKey(self.key, self.lasts, self.name))
