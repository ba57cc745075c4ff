"""What every daemon needs of its process: an event loop, signals, systemd, and an orderly end.

A daemon is started step by step, and each step leaves behind how to undo it (:class:`contextlib.ExitStack`), so
that a failure half-way leaves nothing in the system.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

__all__ = ["RECENT", "Listeners", "hang_up", "notify_systemd", "on_signals", "run", "watchdog_period"]

T = TypeVar("T")

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
#: Events that are kept for those who come later.
RECENT: Final = 256


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end on a uvloop event loop."""
    import uvloop  # 20 ms that only a daemon pays

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def hang_up(writer: asyncio.StreamWriter, patience: float) -> None:
    """Close a connection; what the other side does not take within `patience` seconds is thrown away.

    `StreamWriter.close` alone keeps the descriptor, and all that was not taken, for as long as the other side likes.
    """
    writer.close()
    try:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(patience):
                await writer.wait_closed()
    finally:
        writer.transport.abort()


def on_signals(stop: Callable[[], None], reload: Callable[[], None]) -> Callable[[], None]:
    """Call `stop` at SIGTERM and SIGINT and `reload` at SIGHUP, until the returned function is called."""
    loop = asyncio.get_running_loop()
    handlers = dict.fromkeys(_SIGNALS, stop) | {signal.SIGHUP: reload}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)

    def undo() -> None:
        for number in handlers:
            loop.remove_signal_handler(number)

    return undo


def notify_systemd(*lines: str) -> bool:
    """Tell systemd about this service (sd_notify(3)): "READY=1", "STOPPING=1", "STATUS=...".

    Returns:
        False where there is nobody to tell (NOTIFY_SOCKET is unset) or the message could not be sent: a
        supervisor that went away is no reason for a network to stop.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.connect(address)
            sock.sendall("\n".join(lines).encode())
    except OSError:
        return False
    return True


def watchdog_period() -> float | None:
    """Seconds between two signs of life that systemd wants (half of what it allows, see sd_watchdog_enabled(3)).

    Returns:
        None where nobody watches this process.
    """
    allowed, who = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not allowed.isdecimal() or not int(allowed) or who != str(os.getpid()):
        return None
    return int(allowed) / 2e6


class Listeners:
    """Who wants to hear of the events of a daemon. A listener must not raise and must not block."""

    def __init__(self) -> None:
        self._listeners: dict[int, Callable[[dict[str, object]], None]] = {}
        self._recent: deque[dict[str, object]] = deque(maxlen=RECENT)
        self._next = 0

    def add(self, listener: Callable[[dict[str, object]], None], recent: int = 0) -> Callable[[], None]:
        """Call `listener` with every event from now on, until the returned function is called.

        Args:
            listener: gets the event (see `tell`).
            recent: so many of the last events come first, at most `RECENT`.
        """
        for event in self.recent(recent):
            listener(event)
        token = self._next
        self._next += 1
        self._listeners[token] = listener

        def remove() -> None:
            self._listeners.pop(token, None)

        return remove

    def recent(self, count: int) -> list[dict[str, object]]:
        """The last `count` events, the oldest first; at most `RECENT` are kept."""
        return list(self._recent)[max(len(self._recent) - count, 0) :]

    def tell(self, event: dict[str, object]) -> None:
        """Hand one event (keys: time, level, event, fields) to everybody."""
        self._recent.append(event)
        for listener in tuple(self._listeners.values()):
            listener(event)
