"""When each of many peers wants to be looked at: the next one in constant time, however many there are."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final

from n2n.types import MacAddress

__all__ = ["Agenda"]

#: Entries that no longer count are thrown out when there are so many times more of them than others, and some at all.
_SLACK: Final = 4
_SOME: Final = 64


class Agenda:
    """Peers by the time of their next step."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, bytes]] = []
        self._due: dict[bytes, float] = {}

    def set(self, mac: MacAddress, due: float | None) -> None:
        """A peer wants to be looked at then (monotonic seconds), or not at all."""
        if due is None:
            self._due.pop(mac.raw, None)
        elif self._due.get(mac.raw) != due:
            self._due[mac.raw] = due
            heapq.heappush(self._heap, (due, mac.raw))
        if len(self._heap) > _SOME + _SLACK * len(self._due):
            self._heap = [(at, raw) for raw, at in self._due.items()]
            heapq.heapify(self._heap)

    def next(self) -> float | None:
        """The earliest time, or None."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, mono: float) -> Iterator[MacAddress]:
        """Those whose time has come, each once; they are on the agenda no more."""
        while (due := self.next()) is not None and due <= mono:
            _, raw = heapq.heappop(self._heap)
            del self._due[raw]
            yield MacAddress(raw)

    def clear(self) -> None:
        """Nobody wants anything."""
        self._heap.clear()
        self._due.clear()
