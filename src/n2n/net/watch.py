"""Notices that something about this host's network changed, and that the host slept.

Neither says what: whoever hears of it looks (:func:`n2n.net.surroundings.surroundings`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from typing import Final

from n2n.errors import NetlinkError

__all__ = ["ClockJumps", "NetworkEvents"]

# linux/rtnetlink.h: links, addresses and routes of both families.
_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
#: Bytes of the largest message that is taken; none of it is looked at.
_MESSAGE: Final = 65536
#: Messages taken in a turn of the loop.
_BATCH: Final = 64
#: Seconds that the clocks may differ by without a sleep: reading them takes time.
_SLEPT: Final = 1.0
#: Seconds by which the wall clock must run ahead before that counts: clocks are also set by people and by NTP.
_WALL_JUMP: Final = 10.0


class NetworkEvents:
    """The kernel's messages about links, addresses and routes, as a descriptor to wait for.

    Messages are thrown away unread, so nothing in them can do harm: that there was one is all that is told.  The socket
    belongs to the network namespace of the calling thread.

    Raises:
        NetlinkError: the kernel gives no such socket (a sandbox without AF_NETLINK).

    >>> events = NetworkEvents()
    >>> events.drain()
    False
    >>> events.close()
    """

    def __init__(self) -> None:
        opened: socket.socket | None = None
        try:
            kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            opened = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
            opened.bind((0, _GROUPS))
        except OSError as error:
            if opened is not None:
                opened.close()
            raise NetlinkError(
                f"cannot listen to changes of the network: {os.strerror(error.errno or 0).lower()}. "
                "Allow AF_NETLINK sockets (RestrictAddressFamilies= of a systemd unit)"
            ) from error
        self._socket = opened

    def fileno(self) -> int:
        """Readable when there is something to `drain`."""
        return self._socket.fileno()

    def drain(self) -> bool:
        """Take what waits (a bounded number of messages); True if there was anything."""
        some = False
        with contextlib.suppress(BlockingIOError):
            for _ in range(_BATCH):
                try:
                    self._socket.recv(_MESSAGE)
                except BlockingIOError:
                    raise
                except OSError:  # ENOBUFS: more came than the kernel keeps
                    return True
                some = True
        return some

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


def _clocks() -> tuple[float, float, float]:
    return time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), time.time()


class ClockJumps:
    """Notices that time passed which CLOCK_MONOTONIC did not count: the host slept, or was a guest that stood still.

    CLOCK_BOOTTIME goes on while a host sleeps.  A guest that its host stopped has no such clock; its wall clock is set
    forward when it goes on.

    Args:
        clocks: gives monotonic, boot time and wall clock in seconds; tests give their own.

    >>> jumps = ClockJumps()
    >>> jumps.slept()
    0.0
    """

    def __init__(self, clocks: Callable[[], tuple[float, float, float]] = _clocks) -> None:
        self._clocks = clocks
        self._before = clocks()

    def slept(self) -> float:
        """Seconds that passed uncounted since the last call; 0.0 where there were none worth mentioning."""
        before, now = self._before, self._clocks()
        self._before = now
        passed, boot, wall = (after - earlier for earlier, after in zip(before, now, strict=True))
        if boot - passed > _SLEPT:
            return boot - passed
        return wall - passed if wall - passed > _WALL_JUMP else 0.0
