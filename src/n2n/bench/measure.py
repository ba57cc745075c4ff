"""How things are measured: in rounds that take turns, in batches, with the CPU time that it took."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from n2n.bench.results import Measurement, Part, measurement

__all__ = ["Exchanger", "Report", "Trial", "cpu_of", "exchange", "in_turns", "machine", "quiet"]

#: Told how many steps are done, of how many, and what is done next.
Report = Callable[[int, int, str], None]
#: Batches in one call of the extension: a call cannot be interrupted.
_CALL: Final = 500


class Exchanger(Protocol):
    """What `n2n._fastpath.trial.Exchange` does."""

    def run(self, batches: int, timeout_ms: int = 1000) -> tuple[list[int], int, int]: ...


@dataclass(frozen=True, slots=True)
class Trial:
    """One thing to measure.

    Args:
        component, size, variant: of its row.
        run: handles so many packets.
    """

    component: str
    size: int
    variant: str
    run: Callable[[int], Part]


def quiet(done: int, total: int, what: str) -> None:
    """A `Report` that says nothing."""


def in_turns(trials: Sequence[Trial], packets: int, rounds: int, report: Callable[[str], None]) -> list[Measurement]:
    """Measure each trial in as many parts as there are rounds, all of them in turn.

    Each round begins with another trial, so that none is always the first.

    Args:
        packets: for each trial, in all rounds together.
        rounds: no more than there are packets are made.
        report: told of every part before it begins.
    """
    rounds = min(rounds, packets)
    parts: dict[int, list[Part]] = {number: [] for number in range(len(trials))}
    for trial in trials:  # caches, ARP, and whatever else only the first packet meets
        trial.run(min(8, packets))
    for number in range(rounds):
        share = packets * (number + 1) // rounds - packets * number // rounds
        for place in range(len(trials)):
            which = (place + number) % len(trials)
            trial = trials[which]
            report(f"{trial.component}, {trial.size} bytes, {trial.variant}")
            parts[which].append(trial.run(share))
    return [
        measurement(trial.component, trial.size, trial.variant, parts[number]) for number, trial in enumerate(trials)
    ]


def batches(packets: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut packets into batches of `size` and a smaller last one: (how many batches, packets in each).

    >>> list(batches(150, 64)), list(batches(5, 64)), list(batches(128, 64))
    ([(2, 64), (1, 22)], [(1, 5)], [(2, 64)])
    """
    whole, rest = divmod(packets, size)
    if whole:
        yield whole, size
    if rest:
        yield 1, rest


def exchange(
    make: Callable[[int], Exchanger], batch: int, cpu: Callable[[], int | None], *, timeout_ms: int = 1000
) -> Callable[[int], Part]:
    """The `run` of a trial that sends packets there and back.

    Args:
        make: an exchanger for batches of so many packets.
        batch: packets on their way at once.
        cpu: nanoseconds of CPU time used so far; None: not known.
        timeout_ms: after which a packet is lost.
    """
    made: dict[int, Exchanger] = {}

    def run(packets: int) -> Part:
        times: list[float] = []
        sent = received = 0
        used, start = cpu(), time.perf_counter_ns()
        for count, size in batches(packets, batch):
            exchanger = made.get(size) or made.setdefault(size, make(size))
            for first in range(0, count, _CALL):
                took, out, back = exchanger.run(min(_CALL, count - first), timeout_ms)
                times += [one / size for one in took]
                sent += out
                received += back
        total, after = time.perf_counter_ns() - start, cpu()
        return Part(times, sent, received, total, after - used if None not in (used, after) else None)  # type: ignore[operator]

    return run


def cpu_of(*pids: int) -> int | None:
    """Nanoseconds of CPU time of all threads of some processes; None where the kernel does not tell (schedstat)."""
    total = 0
    try:
        for pid in pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return total


def machine() -> dict[str, str | int]:
    """What a reader must know of the place where something was measured."""
    from n2n import __version__
    from n2n._fastpath.plane import LIBCRYPTO, Aead

    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "n2n": __version__,
        "libcrypto": LIBCRYPTO,
        "cipher": Aead(bytes(32)).backend,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model"):
                return value.strip()
    except OSError:
        pass
    return platform.machine()


def shown_ns(value: float) -> str:
    """Nanoseconds for people: three digits that count, and a unit.

    >>> shown_ns(5.31), shown_ns(185.9), shown_ns(6279), shown_ns(2_500_000), shown_ns(math.nan)
    ('5.31 ns', '186 ns', '6.28 us', '2.5 ms', '-')
    """
    if math.isnan(value):
        return "-"
    for unit, scale in (("ns", 1.0), ("us", 1e3), ("ms", 1e6)):
        if value < 999.5 * scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e9:.3g} s"
