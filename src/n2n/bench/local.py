"""What needs no rights: headers and seals, and UDP sockets of this host."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence

from n2n._fastpath.trial import BATCH, Exchange, Packets
from n2n.bench.measure import Trial, batches, exchange
from n2n.bench.options import COMPONENTS
from n2n.bench.results import Part

__all__ = ["AT_ONCE", "SINGLE", "protocol", "udp"]

#: Variants: each packet waits for the one before, or as many as the data plane handles at once are on their way.
SINGLE = "one at a time"
AT_ONCE = f"{BATCH} at once"
#: A round of few packets is still cut into so many batches, for percentiles to mean something.
_LEAST_BATCHES = 16
_BUFFER = 4 << 20


@contextlib.contextmanager
def protocol(sizes: Sequence[int]) -> Iterator[list[Trial]]:
    """A frame gets its header (and seal), and loses both: in batches, as in the data plane."""
    yield [
        Trial(
            COMPONENTS["protocol"], size, f"{name}, {'sealed' if key else 'plain'}", _Serializer(header, size, key).run
        )
        for size in sizes
        for header, name in (("vfuze", "VFuze"), ("protov", "ProtoV"))
        for key in (None, bytes(range(32)))
    ]


class _Serializer:
    """Runs `Packets` of one kind."""

    def __init__(self, header: str, size: int, key: bytes | None) -> None:
        self._about = header, size, key
        self._made: dict[int, Packets] = {}

    def _packets(self, batch: int) -> Packets:
        if batch not in self._made:
            self._made[batch] = Packets(*self._about, batch)
        return self._made[batch]

    def run(self, packets: int) -> Part:
        """Handle so many packets."""
        times: list[float] = []
        received = 0
        makers = [
            (self._packets(size), count, size)
            for count, size in batches(packets, max(1, min(BATCH, packets // _LEAST_BATCHES)))
        ]
        used, start = time.thread_time_ns(), time.perf_counter_ns()
        for made, count, size in makers:
            took, good = made.run(count)
            times += [one / size for one in took]
            received += good
        total, used = time.perf_counter_ns() - start, time.thread_time_ns() - used
        return Part(times, packets, received, total, used)


@contextlib.contextmanager
def udp(sizes: Sequence[int]) -> Iterator[list[Trial]]:
    """Datagrams from one socket of this host to another and back, through the loopback device."""
    with udp_socket("127.0.0.1") as near, udp_socket("127.0.0.1") as far:
        near.connect(far.getsockname())
        far.connect(near.getsockname())

        def trial(size: int, variant: str, batch: int) -> Trial:
            def make(count: int) -> Exchange:
                return Exchange(near.fileno(), far.fileno(), size, batch=count)

            return Trial(COMPONENTS["udp"], size, variant, exchange(make, batch, time.thread_time_ns))

        yield [trial(size, name, batch) for size in sizes for name, batch in ((SINGLE, 1), (AT_ONCE, BATCH))]


def udp_socket(address: str, port: int = 0) -> socket.socket:
    """A UDP socket with room for a batch, bound to an IPv4 address."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            made.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        made.bind((address, port))
    except BaseException:
        made.close()
        raise
    return made
