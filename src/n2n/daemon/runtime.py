"""What every daemon needs of its process: an event loop, signals, systemd, and an orderly end.

A daemon is started step by step, and each step leaves behind how to undo it (:class:`contextlib.ExitStack`), so
that a failure half-way leaves nothing in the system.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

__all__ = ["Listeners", "notify_systemd", "on_signals", "run"]

T = TypeVar("T")

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end on a uvloop event loop."""
    import uvloop  # 20 ms that only a daemon pays

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def on_signals(stop: Callable[[], None]) -> Callable[[], None]:
    """Call `stop` at SIGTERM and SIGINT, from now on until the returned function is called."""
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)

    def undo() -> None:
        for number in _SIGNALS:
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


class Listeners:
    """Who wants to hear of the events of a daemon. A listener must not raise and must not block."""

    def __init__(self) -> None:
        self._listeners: dict[int, Callable[[dict[str, object]], None]] = {}
        self._next = 0

    def add(self, listener: Callable[[dict[str, object]], None]) -> Callable[[], None]:
        """Call `listener` with every event from now on, until the returned function is called."""
        token = self._next
        self._next += 1
        self._listeners[token] = listener

        def remove() -> None:
            self._listeners.pop(token, None)

        return remove

    def tell(self, event: dict[str, object]) -> None:
        """Hand one event (keys: time, level, event, fields) to everybody."""
        for listener in tuple(self._listeners.values()):
            listener(event)
