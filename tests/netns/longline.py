"""A long line between two hosts: packets take their time, and some are lost.

The kernel's netem is not everywhere; this is a TUN device in each of two namespaces, and a thread of the test between
them. It carries some thousand packets a second.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import struct
import threading
import time
from collections import deque
from types import TracebackType
from typing import Final

from n2n.lab.topology import Host

__all__ = ["LongLine"]

_TUNSETIFF: Final = 0x400454CA  # linux/if_tun.h
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000


def _open(host: Host, name: str) -> int:
    with host.entered():
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    host.namespace.ip("link", "set", name, "up", "txqueuelen", "10000")  # a test that is not given its turn loses none
    return fd


class LongLine:
    """Lies between the interfaces `name` of two hosts while it is entered.

    Args:
        one, other: its ends.
        delay: seconds of a packet in each direction.
        loss: share of the packets from `one` to `other` that are lost.
    """

    def __init__(self, one: Host, other: Host, *, name: str = "line", delay: float = 0.0, loss: float = 0.0) -> None:
        self._fds = [_open(host, name) for host in (one, other)]
        self._delay, self._loss = delay, loss
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._carry, daemon=True)

    def __enter__(self) -> LongLine:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        for fd in self._fds:
            os.close(fd)

    def _carry(self) -> None:
        chance = random.Random(4)
        under_way: deque[tuple[float, int, bytes]] = deque()
        while not self._stop.is_set():
            now = time.monotonic()
            while under_way and under_way[0][0] <= now:
                _, to, packet = under_way.popleft()
                with contextlib.suppress(OSError):  # its queue is full, or the interface is down
                    os.write(to, packet)
            pause = min(under_way[0][0] - now, 0.1) if under_way else 0.1
            for fd in select.select(self._fds, [], [], pause)[0]:
                onward = fd == self._fds[0]
                for _ in range(64):
                    try:
                        packet = os.read(fd, 65535)
                    except OSError:
                        break
                    if not onward or chance.random() >= self._loss:
                        under_way.append((time.monotonic() + self._delay, self._fds[onward], packet))
