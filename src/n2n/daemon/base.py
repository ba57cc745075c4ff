"""What an edge and a supernode have in common as processes: start and stop in order, die with a cause, tell the world.

A start that fails half-way undoes what was done; a stop undoes everything in the opposite order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Self

from n2n.daemon.dataplane import PlaneFactory, compiled_plane
from n2n.daemon.drive import Drive, PlaneLike, PlaneThread
from n2n.daemon.logs import IO_ERROR, Event, log_event
from n2n.daemon.runtime import Listeners
from n2n.errors import LocalProtocolError, N2NError, NotReady, PlatformError
from n2n.net import set_buffers
from n2n.proto.actions import Note, Send
from n2n.types import Endpoint

__all__ = ["Daemon", "PlaneFactory"]

#: Seconds between two looks at what the plane counted.
_WATCH_PERIOD: Final = 60.0
#: Counters of the plane that mean that the host refused something.
_IO_COUNTERS: Final = ("recv_error", "drop_send_error", "drop_tap_error", "drop_control_full", "drop_command")


class Daemon:
    """One running edge or supernode.

    Args:
        plane_factory: makes the data plane; tests give their own.
    """

    role: ClassVar[str]

    def __init__(self, plane_factory: PlaneFactory | None = None) -> None:
        self.listeners = Listeners()
        self.started_at: float | None = None
        """Unix seconds of the start, or None before it."""
        self.action_faults = 0
        self.log = logging.getLogger(f"n2n.{self.role}")
        self._make_plane = plane_factory or compiled_plane
        self._plane: PlaneLike | None = None
        self._socks: list[socket.socket] = []
        self._undo = contextlib.AsyncExitStack()
        self._ended = asyncio.Event()
        self._ready = asyncio.Event()
        self._fatal: N2NError | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._plane_hangs = False
        self._stopped = False
        self._handlers: dict[type, Callable[[Any], None]] = {Send: self._send, Note: self._note}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open everything and begin to work.

        Raises:
            N2NError: something could not be had; nothing is left behind.
        """
        if self.started_at is not None:
            raise LocalProtocolError(f"this {self.role} was started before: make another one")
        self.started_at = time.time()
        try:
            await self._open(self._undo)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Leave the network and give everything back. May be called more than once."""
        if self._plane is not None and not self._stopped:
            self._stopped = True
            self.tell("info", "stopping", {})
        self._ended.set()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._undo.aclose()

    async def wait(self) -> None:
        """Wait until the daemon is asked to stop.

        Raises:
            N2NError: it died instead; this is the cause.
        """
        await self._ended.wait()
        if self._fatal is not None:
            raise self._fatal

    async def wait_ready(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  (it tells how far it got)
        """Wait until the daemon does what it is for.

        Args:
            timeout: seconds, or None to wait as long as it takes.

        Raises:
            NotReady: it did not come up in time; the message tells how far it got.
            N2NError: it died.
        """
        ready = asyncio.ensure_future(self._ready.wait())
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({ready, ended}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            ended.cancel()
        if self._fatal is not None:
            raise self._fatal
        if not self._ready.is_set():
            raise NotReady(f"the {self.role} is not ready: {self._progress()}")

    @property
    def ready(self) -> bool:
        """True while the daemon does what it is for."""
        return self._ready.is_set() and not self._ended.is_set()

    def request_stop(self) -> None:
        """Make `wait` return; whoever waits then calls `stop`."""
        self._ended.set()

    def fail(self, error: N2NError) -> None:
        """End the daemon with this cause (the first one counts)."""
        if self._fatal is None and not self._ended.is_set():
            self._fatal = error
            self.tell("error", "fatal", {"error": str(error)})
        self._ended.set()

    def tell(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        """Write an event to the log and hand it to whoever listens."""
        log_event(self.log, level, event, fields)
        self.listeners.tell({"time": time.time(), "level": level, "event": event, "fields": dict(fields)})

    def live_keys(self) -> dict[str, Callable[[Any], object]]:
        """Configuration keys that can change while it runs (see :mod:`n2n.daemon.live`), and how."""
        return {"udp_buffer_size": self._set_buffers}

    def counters(self) -> dict[str, int]:
        """What was counted, by name: `plane_...` for the data plane, `core_...` for the protocol, `daemon_...`."""
        plane = self._plane.counters() if self._plane is not None else {}
        counts = {f"plane_{name}": value for name, value in plane.items()}
        counts |= {f"core_{name}": value for name, value in self._core_counters().items()}
        return counts | {"daemon_action_faults": self.action_faults} | self._own_counters()

    def features(self) -> dict[str, bool | int | str]:
        """What the data plane uses of kernel and libraries (see `Plane.features`); empty before the start."""
        return self._plane.features() if self._plane is not None else {}

    # ---- for the two kinds of daemon ---------------------------------------------------------

    async def _open(self, undo: contextlib.AsyncExitStack) -> None:
        raise NotImplementedError

    def _progress(self) -> str:
        return "it has not been started"

    def _core_counters(self) -> Mapping[str, int]:
        return {}

    def _own_counters(self) -> dict[str, int]:
        return {}

    def _run_plane(self, plane: PlaneLike, drive: Drive[Any], undo: contextlib.AsyncExitStack) -> None:
        """Start the plane's thread and listen to it; undone in the opposite order."""
        thread = PlaneThread(plane, asyncio.get_running_loop(), self._plane_died)

        def stop() -> None:
            self._plane_hangs = not thread.stop()
            if self._plane_hangs:
                self.tell("error", "plane_hangs", {"remedy": "this is a bug: please report it with the log"})

        undo.callback(stop)
        thread.start()
        undo.callback(drive.stop)
        drive.start()
        features = plane.features()
        self.tell("debug", "data_plane", features)
        self._spawn(self._watch(plane, plane.counters(), features), "watch")

    async def _watch(self, plane: PlaneLike, before: dict[str, int], features: Mapping[str, bool | int | str]) -> None:
        """Say which input and output failed since the last look, and what the kernel refused: the plane only counts."""
        while True:
            await asyncio.sleep(_WATCH_PERIOD)
            features = self._tell_changed(features, plane.features())
            counters = plane.counters()
            for name in _IO_COUNTERS:
                failed = counters.get(name, 0) - before.get(name, 0)
                if failed > 0:
                    self.tell("warning", IO_ERROR, {"kind": name, "count": failed})
            before = counters

    def _tell_changed(
        self, before: Mapping[str, bool | int | str], now: Mapping[str, bool | int | str]
    ) -> Mapping[str, bool | int | str]:
        """Say once what the plane has switched off while it runs; returns what is in force now."""
        for name, value in now.items():
            if value != before.get(name, value):
                what = f"the kernel refused {name} = {before[name]}: the data plane goes on with {value}"
                self.tell("warning", "offload", {"what": what})
        return now

    def _set_buffers(self, size: int) -> None:
        for sock in self._socks:
            set_buffers(sock, size)

    def _release(self, thing: Any) -> None:
        """Close a descriptor's owner, unless a plane that hangs may use it: its number could be another's soon."""
        if not self._plane_hangs:
            thing.close()

    def _spawn(self, coroutine: Any, name: str) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, N2NError):
            self.fail(error)
        elif error is not None:
            self.log.error(Event("task_fault", {"task": task.get_name()}), exc_info=error)
            self.fail(
                PlatformError(f"{task.get_name()} failed: {error!r}. This is a bug: please report it with the log")
            )

    def _plane_died(self, cause: str) -> None:
        self.fail(PlatformError(f"the data plane ended: {cause}"))

    # ---- actions -----------------------------------------------------------------------------

    def _execute(self, actions: Sequence[Any]) -> None:
        """Carry out what the core asked for, in order. One that fails is counted; the others are carried out."""
        for action in actions:
            try:
                self._handlers[type(action)](action)
            except Exception as error:
                self.action_faults += 1
                fields = {"action": type(action).__name__, "error": str(error), "faults": self.action_faults}
                self.log.exception(Event("action_fault", fields))

    def _send(self, action: Send) -> None:
        assert self._plane is not None
        number = self._socket_for(action.endpoint)
        if not self._plane.send(action.datagram, action.endpoint.packed, action.endpoint.port, number):
            log_event(self.log, "warning", IO_ERROR, {"kind": "send", "to": str(action.endpoint)})

    def _socket_for(self, _: Endpoint) -> int:
        """Number of the plane's socket by which an endpoint is reached."""
        return 0

    def _note(self, note: Note) -> None:
        self.tell(note.level, note.event, note.fields)


def local_endpoint(sock: socket.socket) -> Endpoint:
    """Where a socket is bound."""
    return Endpoint.of_sockaddr(sock.getsockname())
