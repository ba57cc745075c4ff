"""Watches this host's network for an edge: tells it when its place in the network changed, and when the host slept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from n2n.errors import NetlinkError
from n2n.net import ClockJumps, NetworkEvents, Surroundings

__all__ = ["Change", "Watch"]

#: Seconds between a message of the kernel and the look: one change makes many.
_SETTLE: Final = 0.2
#: Least seconds between two looks: routers may change routes all the time.
_GAP: Final = 1.0
#: Seconds between two looks at the clocks.
_TICK: Final = 2.0
#: Seconds between two looks at the network where the kernel tells nothing.
_BLIND: Final = 5.0

IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Change:
    """What became different.

    Args:
        seen: how it is now.
        reason: `network_changed` or `woke_up` where paths must be found anew; empty where there are only other
            addresses.
        what: the same for people.
    """

    seen: Surroundings
    reason: str
    what: str


class Watch:
    """Looks again when the kernel says that something changed, and when the host slept.

    Args:
        look: takes milliseconds and is called in a thread.
        target: whither the way leads that `look` tells (where it is another than before, that is no change).
        changed: told of each change, the first look included (with an empty reason).
        warn: told once when the network cannot be watched, with the cause.
        jumps: tells whether the host slept.
        listen: opens the kernel's messages.
    """

    def __init__(
        self,
        look: Callable[[IPAddress | None], Surroundings],
        target: Callable[[], IPAddress | None],
        changed: Callable[[Change], None],
        warn: Callable[[str], None],
        *,
        jumps: ClockJumps | None = None,
        listen: Callable[[], NetworkEvents] = NetworkEvents,
    ) -> None:
        self._look = look
        self._target = target
        self._changed = changed
        self._warn = warn
        self._warned = False
        self._jumps = jumps or ClockJumps()
        self._listen = listen
        self._wake = asyncio.Event()
        self._seen: Surroundings | None = None
        self._seen_target: IPAddress | None = None
        self._lost = False

    def look_again(self) -> None:
        """Look soon, whatever the kernel says (the target is another, or an address of our own came)."""
        self._wake.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            events = self._listen()
        except NetlinkError as error:
            self._complain(str(error))
            await self._follow(_BLIND)
            return

        def heard() -> None:
            if events.drain():
                self._wake.set()

        loop.add_reader(events.fileno(), heard)
        try:
            await self._follow(None)
        finally:
            loop.remove_reader(events.fileno())
            events.close()

    async def _follow(self, blind: float | None) -> None:
        await self._examine("")
        waited = 0.0
        while True:
            try:
                async with asyncio.timeout(_TICK):  # wait_for of Python 3.11 may swallow the end of this task
                    await self._wake.wait()
            except TimeoutError:
                waited += _TICK
                if self._jumps.slept():
                    await self._examine("woke_up")
                elif blind is not None and waited >= blind:
                    waited = 0.0
                    await self._examine("")
                continue
            await asyncio.sleep(_SETTLE)
            self._wake.clear()
            await self._examine("woke_up" if self._jumps.slept() else "")
            await asyncio.sleep(_GAP - _SETTLE)

    async def _examine(self, reason: str) -> None:
        target = self._target()
        try:
            seen = await asyncio.to_thread(self._look, target)
        except NetlinkError as error:
            self._complain(str(error))
            if reason and self._seen is not None:
                self._changed(Change(self._seen, reason, "the host slept"))
            return
        before, self._seen = self._seen, seen
        same_target, self._seen_target = target == self._seen_target, target
        if before is None or not same_target:
            self._lost = seen.way is None and target is not None
            self._changed(Change(seen, reason, describe(seen)))
            return
        if seen.way is None:  # whatever happened: nothing can be done about it before there is one
            self._lost, reason = True, ""
        elif self._lost or seen.way != before.way:
            self._lost = False
            reason = reason or "network_changed"
        if reason or seen.addresses != before.addresses:
            self._changed(Change(seen, reason, describe(seen)))

    def _complain(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(what)


def describe(seen: Surroundings) -> str:
    """The way in words."""
    if seen.way is None:
        return "there is no route to the supernode"
    via = f" via {seen.way.gateway}" if seen.way.gateway else ""
    return f"{seen.way.source} on {seen.way.device}{via}"
