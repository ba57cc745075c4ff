"""Notices that a router forgot its mappings, from the age that it tells (RFC 6887, 8.5; RFC 6886, 3.6)."""

from __future__ import annotations

from typing import Final

__all__ = ["Epoch"]

#: Seconds by which two clocks may differ at any time, and the part of the time passed by which they may drift.
_SLACK: Final = 2.0
_DRIFT: Final = 1 / 16


class Epoch:
    """Compares what a router tells with the clock of this host.

    >>> epoch = Epoch()
    >>> epoch.restarted(100, 0.0), epoch.restarted(160, 60.0), epoch.restarted(3, 120.0)
    (False, False, True)
    """

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None

    def restarted(self, epoch: int | None, now: float) -> bool:
        """Take one more value.

        Args:
            epoch: seconds, as the router told; None: it told nothing, which proves nothing.
            now: monotonic seconds.

        Returns:
            True if it cannot be the continuation of the value before: the router was restarted, or is another.
        """
        if epoch is None:
            return False
        last, self._last = self._last, (epoch, now)
        if last is None:
            return False
        theirs, ours = epoch - last[0], now - last[1]
        if theirs < -1:
            return True
        return ours + _SLACK < theirs * (1 - _DRIFT) or theirs + _SLACK < ours * (1 - _DRIFT)
