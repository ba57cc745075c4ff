"""Several planes as one: each with its own thread, UDP socket and TAP queue.

The kernel spreads the work: SO_REUSEPORT gives all datagrams of one endpoint to one socket, a
multi-queue TAP gives all frames of one flow to one queue.  So nothing is shared between the threads on
the way of a packet, and nothing overtakes within a flow.  Every plane has all tables: commands go to each.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from n2n._fastpath.plane import Plane

__all__ = ["PlaneGroup"]


class PlaneGroup:
    """Looks like one `Plane`.

    Args:
        role: "edge" or "supernode".
        udp_fds: one socket per thread, bound to one address with SO_REUSEPORT.
        tap_fds: edge: as many queues of one TAP.
        settings: for every plane alike, as `Plane` takes them.

    Raises:
        ValueError, OSError: as `Plane` does; or the numbers of descriptors differ.
    """

    def __init__(self, role: str, udp_fds: Sequence[int], *, tap_fds: Sequence[int] = (), **settings: Any) -> None:
        if not udp_fds or (role == "edge" and len(tap_fds) != len(udp_fds)):
            raise ValueError(f"{len(udp_fds)} sockets do not go with {len(tap_fds)} TAP queues")
        self._lock = threading.RLock()  # held by who gives a command: all planes carry them out in one order
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            taps = tap_fds or [-1] * len(udp_fds)
            self.planes = [
                Plane(role, fd, tap_fd=tap, event_fd=self.event_fd, **settings)
                for fd, tap in zip(udp_fds, taps, strict=True)
            ]
        except BaseException:
            os.close(self.event_fd)
            raise

    def __del__(self) -> None:
        if hasattr(self, "planes"):
            self.planes.clear()  # they ring this descriptor
            os.close(self.event_fd)

    def run(self) -> None:
        """Move packets in as many threads as there are planes (the caller's is one) until `stop()`.

        Raises:
            OSError: what ended one of them; the others were stopped then.
        """
        faults: list[BaseException] = []

        def work(plane: Plane) -> None:
            try:
                plane.run()
            except BaseException as error:
                faults.append(error)
                self.stop()

        threads = [
            threading.Thread(target=work, args=(plane,), name=f"plane-{n}") for n, plane in enumerate(self.planes)
        ]
        for thread in threads[1:]:
            thread.start()
        work(self.planes[0])
        for thread in threads[1:]:
            thread.join()
        if faults:
            raise faults[0]

    def step(self, timeout_ms: int = 0) -> int:
        """One round of each, one after the other."""
        return sum(plane.step(timeout_ms if n == 0 else 0) for n, plane in enumerate(self.planes))

    def stop(self) -> None:
        """Make `run()` return."""
        for plane in self.planes:
            plane.stop()

    def _each(self, command: Callable[..., None], *args: Any) -> None:
        with self._lock:
            for plane in self.planes:
                command(plane, *args)

    def set_supernode(self, ip: bytes, port: int) -> None:
        """As `Plane.set_supernode`."""
        self._each(Plane.set_supernode, ip, port)

    def add_socket(self, fd: int) -> int:
        """As `Plane.add_socket`: the first plane receives from it, and all send by it."""
        with self._lock:
            number = self.planes[0].add_socket(fd)
            for plane in self.planes[1:]:
                plane.add_socket(fd, listen=False)  # the numbers agree: all get and lose the same sockets in one order
            return number

    def drop_socket(self, number: int) -> None:
        """As `Plane.drop_socket`."""
        self._each(Plane.drop_socket, number)

    def put_peer(self, mac: bytes, ip: bytes, port: int, direct: bool, socket: int = 0) -> None:
        """As `Plane.put_peer`."""
        self._each(Plane.put_peer, mac, ip, port, direct, socket)

    def drop_peer(self, mac: bytes) -> None:
        """As `Plane.drop_peer`."""
        self._each(Plane.drop_peer, mac)

    def peer_mtu(self, mac: bytes, mtu: int) -> None:
        """As `Plane.peer_mtu`."""
        self._each(Plane.peer_mtu, mac, mtu)

    def allow_source(self, mac: bytes, ip: bytes, port: int) -> None:
        """As `Plane.allow_source`."""
        self._each(Plane.allow_source, mac, ip, port)

    def put_member(self, header_id: int, group: int, mac: bytes, ip: bytes, port: int) -> None:
        """As `Plane.put_member`."""
        self._each(Plane.put_member, header_id, group, mac, ip, port)

    def drop_member(self, header_id: int, group: int, mac: bytes) -> None:
        """As `Plane.drop_member`."""
        self._each(Plane.drop_member, header_id, group, mac)

    def load_open(self, mac: bytes, token: bytes, seconds: float, budget: int) -> None:
        """As `Plane.load_open`; each thread has the budget, and one sender's datagrams all come to one thread."""
        self._each(Plane.load_open, mac, token, seconds, budget)

    def load_close(self) -> None:
        """As `Plane.load_close`."""
        self._each(Plane.load_close)

    def load_look(self) -> dict[str, int]:
        """As `Plane.load_look`, from all."""
        found = [plane.load_look() for plane in self.planes]
        sums = {name: sum(one[name] for one in found) for name in ("datagrams", "bytes")}
        first = min((one["first_ns"] for one in found if one["first_ns"]), default=0)
        return {**sums, "first_ns": first, "last_ns": max(one["last_ns"] for one in found)}

    def load_arrivals(self) -> dict[int, int]:
        """As `Plane.load_arrivals`, from all."""
        found: dict[int, int] = {}
        for plane in self.planes:
            found |= plane.load_arrivals()
        return found

    def load_send(
        self, datagram: bytes, ip: bytes, port: int, socket: int, **how: Any
    ) -> tuple[int, int, int, list[int]]:
        """As `Plane.load_send`."""
        return self.planes[0].load_send(datagram, ip, port, socket, **how)

    def receive(self, limit: int = 64) -> list[tuple[bytes, bytes, int]]:
        """As `Plane.receive`, from all; in order for each source."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.event_fd)  # before looking: what comes later rings again
        out: list[tuple[bytes, bytes, int]] = []
        for plane in self.planes:
            out += plane.take(limit - len(out))
        if len(out) >= limit:  # there may be more
            os.eventfd_write(self.event_fd, 1)
        return out

    def send(self, datagram: bytes, ip: bytes, port: int, socket: int = 0) -> bool:
        """As `Plane.send`."""
        return self.planes[0].send(datagram, ip, port, socket)

    def next_sequence(self) -> int:
        """As `Plane.next_sequence`; each plane counts its own packets (nobody compares these numbers)."""
        return self.planes[0].next_sequence()

    def counters(self) -> dict[str, int]:
        """As `Plane.counters`, added up."""
        sums = self.planes[0].counters()
        for plane in self.planes[1:]:
            for name, value in plane.counters().items():
                sums[name] += value
        return sums

    def features(self) -> dict[str, bool | int | str]:
        """As `Plane.features`, with the number of threads."""
        return {**self.planes[0].features(), "threads": len(self.planes)}

    def peer_counters(self, name: bytes | tuple[int, int, bytes]) -> dict[str, int] | None:
        """As `Plane.peer_counters`, added up (times: the latest)."""
        found = [counters for plane in self.planes if (counters := plane.peer_counters(name)) is not None]
        if not found:
            return None
        sums = {key: sum(one[key] for one in found) for key in found[0]}
        for when in ("last_rx_ns", "rx_direct_ns"):
            sums[when] = max(one[when] for one in found)
        return sums
