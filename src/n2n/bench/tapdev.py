"""A TAP device: a program's datagram comes out of the device as a frame, is turned round, and comes back.

That is what an edge's frames go through on their host, without the edge. The device is made in a network namespace of
its own, so that the host's network is not touched.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Interface
from typing import Final

from n2n._fastpath.trial import BATCH, Exchange
from n2n.bench.local import AT_ONCE, SINGLE, udp_socket
from n2n.bench.measure import Report, Trial, exchange, in_turns, quiet
from n2n.bench.options import COMPONENTS, Options
from n2n.bench.results import Measurement

__all__ = ["HEADERS", "tap", "taptest"]

#: Bytes of Ethernet (14), IPv4 (20) and UDP (8) before a datagram's payload.
HEADERS: Final = 42
_HERE: Final = IPv4Interface("198.18.0.1/30")  # a range that RFC 2544 keeps for tests
_THERE: Final = "198.18.0.2"
_THERE_MAC: Final = "02:00:00:00:00:02"
_PORT: Final = 9


@contextlib.contextmanager
def tap(sizes: Sequence[int], *, name: str = "n2n_bench") -> Iterator[list[Trial]]:
    """The trials; needs root.

    Raises:
        PermissionError, PlatformError: there are no rights, or no TAP device; the message says what to do.
    """
    from n2n.lab.topology import Lab
    from n2n.net import Tap, configure

    with Lab() as lab, contextlib.ExitStack() as stack:
        host = lab.host("tap")
        with host.entered():
            device = stack.enter_context(Tap.open(name))
            configure(device.name, address=_HERE, mtu=max(1500, *sizes))
            host.namespace.ip("neigh", "add", _THERE, "lladdr", _THERE_MAC, "dev", device.name, "nud", "permanent")
            sock = stack.enter_context(udp_socket(str(_HERE.ip)))
            sock.connect((_THERE, _PORT))

        def trial(size: int, variant: str, batch: int) -> Trial:
            def make(count: int) -> Exchange:
                return Exchange(
                    sock.fileno(), device.fd, size - HEADERS, far_offset=HEADERS, far_socket=False, batch=count
                )

            return Trial(COMPONENTS["tap"], size, variant, exchange(make, batch, time.thread_time_ns))

        yield [trial(size, name, batch) for size in sizes for name, batch in ((SINGLE, 1), (AT_ONCE, BATCH))]


def taptest(
    iterations: int = 5000, size: int = 1024, *, name: str = "n2n_bench", report: Report = quiet
) -> Measurement:
    """Round trips of single frames through a real TAP device.

    Args:
        iterations: how many, 1 to 1,000,000.
        size: of the Ethernet frame, 64 to 9000 bytes.
        name: of the device, in a network namespace of its own.
        report: told how far it is.

    Raises:
        ConfigError: a number is impossible.
        PermissionError, PlatformError: there are no rights, or no TAP device; the message says what to do.
    """
    options = Options(components=("tap",), iterations=iterations, packet_sizes=(size,))
    done = 0

    def step(what: str) -> None:
        nonlocal done
        report(done, options.rounds, what)
        done += 1

    with tap(options.packet_sizes, name=name) as trials:
        single = [trial for trial in trials if trial.variant == SINGLE]
        return in_turns(single, iterations, options.rounds, step)[0]
