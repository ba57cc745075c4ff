"""Joins one protocol core to one data plane, to the clock, and to the event loop.

The core decides and the plane moves packets; this is the wire between them.  Everything here runs on the loop's
thread, but for the body of :class:`PlaneThread`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from n2n.daemon.logs import Event
from n2n.types import Endpoint, Instant, MacAddress

__all__ = ["CoreLike", "Drive", "PlaneLike", "PlaneThread", "instant"]

#: Datagrams taken from the plane per turn of the loop, so that timers and clients get theirs.
BATCH: Final = 64
#: A core whose timer is always due must not turn the loop into a spin; still less one whose timer fails.
_MIN_DELAY: Final = 0.001
_FAULT_DELAY: Final = 1.0

_LOG: Final = logging.getLogger("n2n.drive")


class PlaneLike(Protocol):
    """What a daemon uses of the data plane; tests put a fake in its place."""

    @property
    def event_fd(self) -> int: ...
    def receive(self, limit: int = 64) -> list[tuple[bytes, bytes, int]]: ...
    def send(self, datagram: bytes, ip: bytes, port: int, socket: int = 0) -> bool: ...
    def next_sequence(self) -> int: ...
    def run(self) -> None: ...
    def stop(self) -> None: ...
    def features(self) -> dict[str, bool | int | str]: ...
    def counters(self) -> dict[str, int]: ...
    def peer_counters(self, mac: bytes) -> dict[str, int] | None: ...
    def set_supernode(self, ip: bytes, port: int) -> None: ...
    def add_socket(self, fd: int) -> int: ...
    def drop_socket(self, number: int) -> None: ...
    def put_peer(self, mac: bytes, ip: bytes, port: int, direct: bool, socket: int = 0) -> None: ...
    def drop_peer(self, mac: bytes) -> None: ...
    def peer_mtu(self, mac: bytes, mtu: int) -> None: ...
    def load_open(self, mac: bytes, token: bytes, seconds: float, budget: int) -> None: ...
    def load_close(self) -> None: ...
    def load_look(self) -> dict[str, int]: ...
    def load_arrivals(self) -> dict[int, int]: ...
    def load_send(
        self,
        datagram: bytes,
        ip: bytes,
        port: int,
        socket: int,
        *,
        first: int,
        count: int,
        rate: float,
        seconds: float,
        note: bool = False,
    ) -> tuple[int, int, int, list[int]]: ...
    def allow_source(self, mac: bytes, ip: bytes, port: int) -> None: ...
    def put_member(self, header_id: int, group: int, mac: bytes, ip: bytes, port: int) -> None: ...
    def drop_member(self, header_id: int, group: int, mac: bytes) -> None: ...


class CoreLike(Protocol):
    """The common shape of EdgeCore and SupernodeCore."""

    def receive(self, datagram: bytes, source: Endpoint, now: Instant) -> None: ...
    def handle_timer(self, now: Instant) -> None: ...
    def next_timer(self) -> float | None: ...
    def drain(self) -> Sequence[Any]: ...


def instant() -> Instant:
    """The moment it is, on both clocks."""
    return Instant(time.monotonic(), time.time())


class PlaneThread:
    """Runs a plane in a thread of its own and notices when it dies.

    Args:
        plane: what to run.
        on_death: called on `loop` with the cause, if `run()` ends without :meth:`stop` having been called.
    """

    def __init__(self, plane: PlaneLike, loop: asyncio.AbstractEventLoop, on_death: Callable[[str], None]) -> None:
        self._plane = plane
        self._loop = loop
        self._on_death = on_death
        self._stopping = False
        # A thread that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._main, name="n2n-plane", daemon=True)

    def start(self) -> None:
        """Begin to move packets."""
        self._thread.start()

    def stop(self, timeout: float = 0.7) -> bool:
        """Stop the plane and wait for its thread; False if it did not end within `timeout` seconds."""
        self._stopping = True
        self._plane.stop()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _main(self) -> None:
        cause = "it returned without being told to"
        try:
            self._plane.run()
        except BaseException as error:  # whatever it was, the daemon must hear of it
            cause = f"{type(error).__name__}: {error}"
        if not self._stopping and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_death, cause)


CoreT = TypeVar("CoreT", bound=CoreLike)


class Drive(Generic[CoreT]):
    """Feeds a core from the plane and from one timer, and hands its actions to `execute`.

    Args:
        core: what decides.
        plane: where datagrams come from.
        execute: carries out the actions of one drained batch, in order.
        aside: is offered each datagram first; what it takes (True) the core does not get.
    """

    def __init__(
        self,
        core: CoreT,
        plane: PlaneLike,
        execute: Callable[[Sequence[Any]], None],
        aside: Callable[[bytes, Endpoint], bool] | None = None,
    ) -> None:
        self.core = core
        self.faults = 0
        self.first: Callable[[bytes], bool] | None = None
        """Looks at each datagram before the core does; what it takes (True) the core does not see. Must not raise."""
        self.noticed: Callable[[MacAddress], None] | None = None
        """Told, after the core, that the host sends frames to this peer. Must not raise."""
        self._plane = plane
        self._execute = execute
        self._aside = aside
        # A supernode's core has no use for it, and its plane gives no notices.
        self._traffic: Callable[[MacAddress, Instant], None] | None = getattr(core, "traffic", None)
        self._loop = asyncio.get_running_loop()
        self._event_fd = -1
        self._timer: asyncio.TimerHandle | None = None
        self._due: float | None = None
        self._turn: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Begin to listen to the plane."""
        self._event_fd = self._plane.event_fd
        self._loop.add_reader(self._event_fd, self._readable)
        self.settle()

    def stop(self) -> None:
        """Listen no more; the core keeps what it knows."""
        if self._event_fd >= 0:
            self._loop.remove_reader(self._event_fd)
            self._event_fd = -1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._due = None

    def call(self, step: Callable[..., object], *args: Any) -> None:
        """Let the core take one step, ``step(*args, now)``, then carry out what it asks for."""
        self.guard(step, *args)
        self.settle()

    def guard(self, step: Callable[..., object], *args: Any) -> None:
        """Let the core take one step of several; call `settle` after the last."""
        self._guard(step, *args, instant())

    def settle(self) -> None:
        """Carry out what the core asks for, and set the clock for what it waits for."""
        while actions := self.core.drain():
            self._execute(actions)
        self._arm()
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    async def turn(self) -> None:
        """Wait until the core has taken another step."""
        if self._turn is None or self._turn.done():
            self._turn = self._loop.create_future()
        # One future serves all who wait: a waiter that is cancelled must not cancel it for the others.
        await asyncio.shield(self._turn)

    def _readable(self) -> None:
        if self._event_fd < 0:
            return
        batch = self._plane.receive(BATCH)
        now = instant()
        for datagram, ip, port in batch:
            if ip and self.first is not None and self.first(datagram):
                continue
            if ip:
                source = Endpoint.of_packed(ip, port)
                if self._aside is None or not self._aside(datagram, source):
                    self._guard(self.core.receive, datagram, source, now)
            elif self._traffic is not None:  # frames were sent to this peer
                self._guard(self._traffic, mac := MacAddress(datagram), now)
                if self.noticed is not None:
                    self.noticed(mac)
        self.settle()

    def _timed(self) -> None:
        self._timer = self._due = None
        before = self.faults
        self._guard(self.core.handle_timer, instant())
        if self.faults == before:
            self.settle()
        else:
            self._timer = self._loop.call_later(_FAULT_DELAY, self._timed)

    def _arm(self) -> None:
        due = self.core.next_timer() if self._event_fd >= 0 else None
        if due == self._due and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = None
        if due is not None:
            self._timer = self._loop.call_later(max(due - time.monotonic(), _MIN_DELAY), self._timed)

    def _guard(self, step: Callable[..., object], *args: Any) -> None:
        # A core promises never to raise for what the network sends.  If it does, that is a bug of ours:
        # one packet is lost and said so, the network stays.
        try:
            step(*args)
        except Exception as error:
            self.faults += 1
            _LOG.exception(Event("core_fault", {"error": repr(error), "faults": self.faults}))
