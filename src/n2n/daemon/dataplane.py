"""The descriptors of a data plane: as many sockets and TAP queues as it has threads, with what the kernel offers."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from n2n.daemon.drive import PlaneLike
from n2n.errors import PlatformError, TapError
from n2n.net import Tap

__all__ = ["PlaneFactory", "TapLike", "add_queues", "compiled_plane", "open_queues", "socket_count", "thread_count"]

#: Sockets of a supernode with one thread.  The kernel gives all datagrams of one sender to one of them, so that a flood
#: fills one receive buffer, and whoever's datagrams come by the others does not notice.
_QUEUES: Final = 8


class PlaneFactory(Protocol):
    """Makes a data plane of so many sockets (and, for an edge, TAP descriptors): as `Plane` and `PlaneGroup` do."""

    def __call__(
        self, role: str, udp_fds: Sequence[int], *, tap_fds: Sequence[int] = ..., **settings: Any
    ) -> PlaneLike: ...


class TapLike(Protocol):
    """What stands for a TAP device: a descriptor that takes and gives one Ethernet frame per write and read."""

    @property
    def fd(self) -> int: ...
    @property
    def name(self) -> str: ...
    def close(self) -> None: ...


def compiled_plane(role: str, udp_fds: Sequence[int], *, tap_fds: Sequence[int] = (), **settings: Any) -> PlaneLike:
    """The extension's plane, or a group of them where there are several sockets.

    Raises:
        PlatformError: it cannot start; the message says why.
    """
    from n2n._fastpath.group import PlaneGroup
    from n2n._fastpath.plane import Plane

    try:
        if len(udp_fds) > 1:
            return PlaneGroup(role, udp_fds, tap_fds=tap_fds, **settings)
        return Plane(role, udp_fds[0], tap_fd=tap_fds[0] if tap_fds else -1, **settings)
    except (OSError, ValueError) as error:
        raise PlatformError(f"the data plane cannot start: {error}") from error


def thread_count(asked: int) -> int:
    """How many threads the data plane gets; 0 ("auto") is one.

    One was the fastest wherever it was measured so far (docs/PERFORMANCE.md): a second thread competes with the
    programs whose packets it carries.
    """
    return asked or 1


def socket_count(threads: int) -> int:
    """How many sockets a supernode receives from: one for each thread, several for one."""
    return threads if threads > 1 else _QUEUES


def add_queues(plane: PlaneLike, sockets: Sequence[socket.socket], threads: int) -> None:
    """Let a plane of `threads` threads receive from the rest of `sockets`, too."""
    for one in sockets[threads:]:
        plane.add_socket(one.fileno())


def open_queues(name: str, count: int, *, offload: bool, uso: bool, warn: Callable[[str], None]) -> list[Tap]:
    """Open a TAP device with `count` queues.

    Args:
        name: of the device.
        count: at least 1.
        offload: with virtio headers and super-frames, if this kernel can; else without.
        uso: super-frames of UDP, too.
        warn: told what was left out, and why.

    Raises:
        TapError: the device could not be had.
    """
    queues: list[Tap] = []
    try:
        for _ in range(count):
            wanted = queues[0].name if queues else name
            queues.append(_open_queue(wanted, multi_queue=count > 1, offload=offload, uso=uso, warn=warn))
            offload = queues[0].vnet_hdr
    except BaseException:
        for queue in queues:
            queue.close()
        raise
    return queues


def _open_queue(name: str, *, multi_queue: bool, offload: bool, uso: bool, warn: Callable[[str], None]) -> Tap:
    if not offload:
        return Tap.open(name, multi_queue=multi_queue)
    try:
        tap = Tap.open(name, vnet_hdr=True, multi_queue=multi_queue)
    except TapError as error:
        # EINVAL: an existing, persistent device that was made without them (or a kernel before 2.6.27).
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno != 22:
            raise
        tap = Tap.open(name, multi_queue=multi_queue)
        warn(f"TAP {name} takes no virtio headers: no super-frames ({error})")
        return tap
    got = tap.offload(uso=uso)
    missing = ({"csum", "tso", "uso"} if uso else {"csum", "tso"}) - got
    if missing:
        warn(f"this kernel's TAP devices do not offer: {', '.join(sorted(missing))}")
    return tap
