"""One run: every component that is wanted, and what it has to say."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final

from n2n.bench.measure import Report, Trial, in_turns, machine, quiet
from n2n.bench.options import COMPONENTS, Options
from n2n.bench.results import LeftOut, Results
from n2n.errors import PlatformError

__all__ = ["run"]

#: Packets of each measurement where the options name none: some tenths of a second for each.
_ITERATIONS: Final = {"protocol": 128_000, "udp": 10_000, "tap": 10_000, "path": 2_000}
#: Measurements at each size.
_VARIANTS: Final = {"protocol": 4, "udp": 2, "tap": 2, "path": 8}


def run(options: Options | None = None, report: Report = quiet) -> Results:
    """Measure.

    A component that this process has no rights for is left out, with the reason (`Results.left_out`).

    Args:
        options: what to measure; None: everything.
        report: told of every step, and of how many there are.

    Returns:
        A row for each component, packet size and variant.

    Raises:
        ConfigError: the address of the supernode has another form.
        NotReady: the network of the complete path did not come up in time.
        PlatformError: something of the system failed in the middle.

    >>> from n2n.bench import Options, run
    >>> results = run(Options(components=("protocol",), iterations=640, packet_sizes=(64,)))
    >>> for row in results.rows:
    ...     print(row.component, row.size, row.variant, row.sent, row.received)
    Protocol Serialization 64 VFuze, plain 640 640
    Protocol Serialization 64 VFuze, sealed 640 640
    Protocol Serialization 64 ProtoV, plain 640 640
    Protocol Serialization 64 ProtoV, sealed 640 640
    >>> at = results.rows[0].latency  # nanoseconds
    >>> at.count, at.min <= at.median <= at.p95 <= at.p99 <= at.max
    (80, True)
    """
    options = options or Options()
    start = time.monotonic()
    results = Results(machine())
    steps = _Steps(options, report)
    for name in options.wanted():
        count = options.iterations or _ITERATIONS[name]
        try:
            with _trials(name, options, steps.tell) as groups:
                for trials in groups:
                    results.rows += in_turns(trials, count, options.rounds, steps.step)
        except PermissionError as error:
            results.left_out.append(LeftOut(COMPONENTS[name], error))
        except PlatformError as error:
            if any(row.component == COMPONENTS[name] for row in results.rows):
                raise
            results.left_out.append(LeftOut(COMPONENTS[name], error))
        steps.finish(name)
    results.seconds = time.monotonic() - start
    report(steps.total, steps.total, "done")
    return results


class _Steps:
    """Counts what is done."""

    def __init__(self, options: Options, report: Report) -> None:
        self._report = report
        self._options = options
        self._done = 0
        self._until = 0
        self.total = sum(self._of(name) for name in options.wanted())

    def _of(self, name: str) -> int:
        options = self._options
        variants = 4 if name == "path" and options.supernode else _VARIANTS[name]
        return variants * len(options.packet_sizes) * min(options.rounds, options.iterations or options.rounds)

    def tell(self, what: str) -> None:
        """Something that takes time, but measures nothing."""
        self._report(self._done, self.total, what)

    def step(self, what: str) -> None:
        """The next part."""
        self._report(self._done, self.total, what)
        self._done += 1

    def finish(self, name: str) -> None:
        """All parts of a component are done, or left out."""
        self._until += self._of(name)
        self._done = self._until


@contextlib.contextmanager
def _trials(name: str, options: Options, tell: Callable[[str], None]) -> Iterator[Iterator[list[Trial]]]:
    """The trials of one component, in groups."""
    from n2n.bench import local, path, tapdev, through

    sizes = options.packet_sizes
    if name == "path" and options.supernode:
        with through.through(options.supernode, options.community, sizes, tell) as groups:
            yield groups
    elif name == "path":
        with path.path(sizes, tell, options.community) as groups:
            yield groups
    else:
        one = {"protocol": local.protocol, "udp": local.udp, "tap": tapdev.tap}[name]
        with one(sizes) as trials:
            yield iter([trials])
