"""A data plane that moves nothing, and a core that says what it is told: to test what lies between them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from n2n.types import Endpoint, Instant, MacAddress


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that nobody announces; a test that waits in vain is ended by its own limit."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.002)


class FakePlane:
    """Records what it is told; `feed` makes a control datagram wait."""

    def __init__(self, role: str = "edge", udp_fd: int = -1, **settings: object) -> None:
        self.role = role
        self.settings = settings
        self.calls: list[tuple[Any, ...]] = []
        self.sent: list[tuple[bytes, bytes, int]] = []
        self.sockets: dict[int, int] = {}
        self.waiting: deque[tuple[bytes, bytes, int]] = deque()
        self.full: set[bytes] = set()
        self.death: BaseException | None = None
        self.refuses_to_stop = False
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.stopped = threading.Event()
        self._sequence = 0

    def feed(self, datagram: bytes, ip: bytes = b"\x7f\0\0\1", port: int = 7777) -> None:
        self.waiting.append((datagram, ip, port))
        os.eventfd_write(self.event_fd, 1)

    def receive(self, limit: int = 64) -> list[tuple[bytes, bytes, int]]:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.event_fd)
        taken = [self.waiting.popleft() for _ in range(min(limit, len(self.waiting)))]
        if self.waiting:
            os.eventfd_write(self.event_fd, 1)
        return taken

    def notice(self, mac: bytes) -> None:
        """Say that the host sends frames to a peer."""
        self.feed(mac, b"", 0)

    def send(self, datagram: bytes, ip: bytes, port: int, socket: int = 0) -> bool:
        assert socket == 0 or socket in self.sockets
        self.sent.append((datagram, ip, port))
        return True

    def add_socket(self, fd: int) -> int:
        free = [number for number in range(1, 9) if number not in self.sockets]
        if not free:
            raise ValueError("the plane has room for 8 further sockets, and all is taken")
        self.sockets[free[0]] = fd
        self.calls.append(("add_socket", fd))
        return free[0]

    def drop_socket(self, number: int) -> None:
        self.sockets.pop(number, None)
        self.calls.append(("drop_socket", number))

    def next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def run(self) -> None:
        self.stopped.wait()
        if self.death is not None:
            raise self.death

    def die(self, cause: BaseException | None) -> None:
        self.death = cause
        self.stopped.set()

    def stop(self) -> None:
        self.calls.append(("stop",))
        if not self.refuses_to_stop:
            self.stopped.set()

    def features(self) -> dict[str, bool | int | str]:
        return {"gso": True}

    def counters(self) -> dict[str, int]:
        return {"udp_rx": 1}

    def peer_counters(self, mac: bytes) -> dict[str, int] | None:
        return None

    def set_supernode(self, *args: Any) -> None:
        self.calls.append(("set_supernode", *args))

    def put_peer(self, mac: bytes, ip: bytes, port: int, direct: bool, socket: int = 0) -> None:
        if mac in self.full:
            raise ValueError("the plane has room for 1 peers, and all is taken")
        assert socket == 0 or socket in self.sockets
        self.calls.append(("put_peer", mac, ip, port, direct, *([socket] if socket else [])))

    def drop_peer(self, *args: Any) -> None:
        self.calls.append(("drop_peer", *args))

    def peer_mtu(self, *args: Any) -> None:
        self.calls.append(("peer_mtu", *args))

    def allow_source(self, *args: Any) -> None:
        self.calls.append(("allow_source", *args))

    def put_member(self, *args: Any) -> None:
        self.calls.append(("put_member", *args))

    def drop_member(self, *args: Any) -> None:
        self.calls.append(("drop_member", *args))


class FakeCore:
    """Answers each datagram with the actions of `script`, and is due when `due` says."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, Endpoint]] = []
        self.wanted: list[MacAddress] = []
        self.timers = 0
        self.due: float | None = None
        self.actions: list[Any] = []
        self.raise_on: bytes | None = None
        self.timer_raises = False

    def receive(self, datagram: bytes, source: Endpoint, now: Instant) -> None:
        if datagram == self.raise_on:
            raise ValueError("a bug")
        self.seen.append((datagram, source))
        self.actions.append(datagram)

    def traffic(self, mac: MacAddress, now: Instant) -> None:
        self.wanted.append(mac)

    def handle_timer(self, now: Instant) -> None:
        self.timers += 1
        if self.timer_raises:
            raise ValueError("a bug")
        self.due = None

    def next_timer(self) -> float | None:
        return self.due

    def drain(self) -> Sequence[Any]:
        actions, self.actions = self.actions, []
        return actions
