"""What all measurements share: waiting for a quiet machine, counting foreign CPU time, medians, CSV, Markdown, plots.

A shared machine varies by a third between hours. So variants take turns within every round, the order moves on from
round to round, a measurement starts only when the machine is idle, and is repeated once where somebody else took CPU
time meanwhile. Numbers of one run can be compared with each other, not with those of another.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import re
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from n2n.bench.plot import Panel, Point, picture
from n2n.errors import N2NError

T = TypeVar("T")

TICKS = os.sysconf("SC_CLK_TCK")
QUIET = 0.15  # cores that others may use when a measurement starts
FOREIGN = 0.12  # cores that others may use while it runs; above, it is repeated
PATIENCE = 20.0  # seconds to wait for a quiet machine before measuring all the same
_KERNEL_THREAD = 0x200000  # PF_KTHREAD of linux/sched.h, field 9 of /proc/PID/stat
NAN = float("nan")


# ---- CPU time of others --------------------------------------------------------------------------


@dataclass(frozen=True)
class Usage:
    """One process: its parent, its CPU seconds with those of children it has waited for, whether the kernel's own."""

    parent: int
    seconds: float
    kernel: bool


def parse_stat(line: str) -> Usage:
    """One line of /proc/PID/stat."""
    fields = line.rpartition(")")[2].split()
    return Usage(int(fields[1]), sum(map(int, fields[11:15])) / TICKS, bool(int(fields[6]) & _KERNEL_THREAD))


def processes() -> dict[int, Usage]:
    """All that can be seen."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                found[int(name)] = parse_stat(Path(f"/proc/{name}/stat").read_text())
            except (OSError, ValueError, IndexError):
                continue  # it has just ended
    return found


def foreign_seconds(usages: Mapping[int, Usage], root: int) -> float:
    """CPU seconds of all but the descendants of `root` and the kernel's threads, which work for whoever sends."""

    def ours(pid: int) -> bool:
        for _ in range(64):
            if pid == root:
                return True
            if pid not in usages:
                return False
            pid = usages[pid].parent
        return False

    return sum(usage.seconds for pid, usage in usages.items() if not usage.kernel and not ours(pid))


def machine_seconds() -> tuple[float, float]:
    """Seconds that all cores were busy, and that the hypervisor took away, since the start."""
    with Path("/proc/stat").open() as file:
        fields = [int(word) / TICKS for word in file.readline().split()[1:]]
    return fields[0] + fields[1] + fields[2] + fields[5] + fields[6], fields[7]


class Watch:
    """Counts over a stretch of time (a with block) how many cores others used."""

    cores = NAN

    def __enter__(self) -> Watch:
        self._start = self._now()
        return self

    def __exit__(self, *exc: object) -> None:
        seconds, foreign, stolen = (now - then for now, then in zip(self._now(), self._start, strict=True))
        self.cores = (max(0.0, foreign) + stolen) / max(seconds, 1e-3)

    @staticmethod
    def _now() -> tuple[float, float, float]:
        return time.monotonic(), foreign_seconds(processes(), os.getpid()), machine_seconds()[1]


def wait_quiet(patience: float = PATIENCE) -> bool:
    """Wait until the machine is idle; False where it never was within `patience` seconds."""
    until = time.monotonic() + patience
    while True:
        busy, start = machine_seconds()[0], time.monotonic()
        time.sleep(0.4)
        if (machine_seconds()[0] - busy) / (time.monotonic() - start) < QUIET:
            return True
        if time.monotonic() > until:
            return False


# ---- values --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Value:
    """One measured value; `foreign` is how many cores others used meanwhile, `x` the size or number it was taken at."""

    measure: str
    variant: str
    round: int
    value: float
    unit: str
    foreign: float = NAN
    x: float = NAN


@dataclass
class Results:
    """All values of a run, in the order in which they came."""

    values: list[Value] = field(default_factory=list)

    def add(self, measure: str, variant: str, value: float, unit: str) -> None:
        """A value that is the same in every round."""
        self.values.append(Value(measure, variant, 1, value, unit))

    def of(self, measure: str, variant: str, x: float = NAN) -> list[float]:
        """The rounds of one measure (and x, where it has one), without those that failed."""
        return [
            one.value
            for one in self.values
            if (one.measure, one.variant) == (measure, variant) and one.value == one.value and (x != x or one.x == x)
        ]

    def by_round(self, measure: str, variant: str, x: float = NAN) -> dict[int, float]:
        """The same by round."""
        return {
            one.round: one.value
            for one in self.values
            if (one.measure, one.variant) == (measure, variant) and (x != x or one.x == x)
        }

    def point(self, measure: str, variant: str, x: float = NAN) -> Point:
        """Median and spread; not-a-number where there is no value."""
        return spread(self.of(measure, variant, x), 0.0 if x != x else x)

    def variants(self, measure: str) -> list[str]:
        """Those that have values of `measure`, in order."""
        return list(dict.fromkeys(one.variant for one in self.values if one.measure == measure))

    def xs(self, measure: str) -> list[float]:
        """The positions at which `measure` was taken."""
        return sorted({one.x for one in self.values if one.measure == measure and one.x == one.x})

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["measure", "variant", "x", "round", "value", "unit", "foreign_cores"])
            for one in self.values:
                x = "" if one.x != one.x else f"{one.x:g}"
                foreign = "" if one.foreign != one.foreign else f"{one.foreign:.2f}"
                writer.writerow([one.measure, one.variant, x, one.round, f"{one.value:.6g}", one.unit, foreign])

    def table(self) -> str:
        """Markdown: one row per measure, variant and x."""
        keys = dict.fromkeys((one.measure, one.variant, "" if one.x != one.x else f"{one.x:g}") for one in self.values)
        with_x = any(x for _, _, x in keys)
        lines = [
            f"| measure | variant |{' at |' if with_x else ''} median | lowest | highest | unit | rounds | foreign |",
            f"| --- | --- |{' ---: |' if with_x else ''} ---: | ---: | ---: | --- | ---: | ---: |",
        ]
        for measure, variant, x in sorted(keys, key=lambda key: list(dict.fromkeys(k[0] for k in keys)).index(key[0])):
            at = float(x) if x else NAN
            rows = [one for one in self.values if (one.measure, one.variant) == (measure, variant)]
            rows = [one for one in rows if not x or one.x == at]
            found = spread([one.value for one in rows if one.value == one.value])
            foreign = max((one.foreign for one in rows if one.foreign == one.foreign), default=0.0)
            numbers = " | ".join(short(value) for value in (found.median, found.low, found.high))
            place = f" {x} |" if with_x else ""
            lines.append(f"| {measure} | {variant} |{place} {numbers} | {rows[0].unit} | {len(rows)} | {foreign:.2f} |")
        return "\n".join(lines)


def short(value: float) -> str:
    """Four digits that count, without an exponent."""
    if value != value:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def spread(values: Sequence[float], x: float = 0.0) -> Point:
    """Median, lowest and highest."""
    if not values:
        return Point(NAN, NAN, NAN, x)
    return Point(statistics.median(values), min(values), max(values), x)


def ratio(results: Results, measure: str, one: str, other: str, other_measure: str | None = None) -> Point:
    """`one` over `other`: of the medians, with the lowest and the highest of any single round."""
    above, below = results.by_round(measure, one), results.by_round(other_measure or measure, other)
    rounds = [above[n] / below[n] for n in above if below.get(n) and above[n] == above[n] and below[n] == below[n]]
    if not rounds:
        return Point(NAN, NAN, NAN)
    middle = results.point(measure, one).median / results.point(other_measure or measure, other).median
    return Point(middle, min(rounds), max(rounds))


# ---- a run ---------------------------------------------------------------------------------------


def parser(words: str | None, *, rounds: int, seconds: float, minutes: float) -> argparse.ArgumentParser:
    """The options that all have."""
    made = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds, help=f"each takes every variant once ({rounds})")
    made.add_argument("--seconds", type=float, default=seconds, help=f"of each measurement ({seconds:g})")
    made.add_argument(
        "--minutes", type=float, default=minutes, help=f"nothing new is started after these ({minutes:g})"
    )
    made.add_argument("--output", type=Path, default=Path("artefacts/performance"), help="folder of CSV and SVG")
    return made


def machine() -> str:
    """What it was measured on."""
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return f"{found[1] if found else platform.machine()}, {os.cpu_count()} cores, kernel {platform.release()}"


class Run:
    """One run of a script: its options, its values and its end.

    Args:
        name: of the files.
        options: of :func:`parser`.
        how: what the picture's note says of the way of measuring; without it, of rounds, and of what is drawn.
    """

    def __init__(self, name: str, options: argparse.Namespace, how: str = "") -> None:
        self.name = name
        self.options = options
        self._how = how or f"{options.rounds} round(s) of {options.seconds:g} s"
        self._drawn = "" if how else ". Bar or point: median; whisker: lowest to highest round"
        self.results = Results()
        self.faults: list[str] = []
        self.round = 0
        self._end = time.monotonic() + options.minutes * 60
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that with blocks clean up

    def turns(self, variants: Sequence[T]) -> Iterator[T]:
        """Every variant, in every round, each round starting with the next; ends early at the time limit."""
        for number in range(1, self.options.rounds + 1):
            self.round = number
            first = (self.round - 1) % max(len(variants), 1)
            for variant in [*variants[first:], *variants[:first]]:
                if time.monotonic() > self._end:
                    self.fault(f"stopped in round {self.round}: {self.options.minutes:g} minutes are over")
                    return
                yield variant
            self.results.write(self.options.output / f"{self.name}.csv")

    def measure(
        self, what: str, variant: str, action: Callable[[], Mapping[str, tuple[float, str]]], x: float = NAN
    ) -> None:
        """Carry out `action` on a quiet machine and keep its values (by measure: value, unit); a fault is noted.

        Where others took CPU time meanwhile it is carried out again, and the quieter of the two counts.
        """
        best: tuple[float, Mapping[str, tuple[float, str]]] | None = None
        for _ in range(2):
            wait_quiet()
            try:
                with Watch() as watch:
                    found = action()
            except (N2NError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
                self.fault(f"{variant}, {what}, round {self.round}: {type(error).__name__}: {str(error)[:300]}")
                continue
            if best is None or watch.cores < best[0]:
                best = watch.cores, found
            if watch.cores <= FOREIGN:
                break
        if best is not None:
            self.keep(variant, best[1], best[0], x)

    def keep(self, variant: str, found: Mapping[str, tuple[float, str]], foreign: float = NAN, x: float = NAN) -> None:
        """Keep values and show them."""
        for measure, (value, unit) in found.items():
            self.results.values.append(Value(measure, variant, self.round, value, unit, foreign, x))
        words = ", ".join(f"{measure} {short(value)} {unit}" for measure, (value, unit) in found.items())
        at = "" if x != x else f" at {x:g}"
        noise = "" if foreign != foreign else f" (foreign {foreign:.2f})"
        print(f"  {self.round} {variant}{at}: {words}{noise}", file=sys.stderr, flush=True)

    def fault(self, words: str) -> None:
        """Note what went wrong; the run goes on."""
        self.faults.append(words)
        print(f"  ! {words}", file=sys.stderr, flush=True)

    def finish(self, title: str, panels: Sequence[Panel], words: str = "") -> None:
        """Write CSV and SVG, print `words` (a table of the caller's; without one, the table of everything)."""
        folder: Path = self.options.output
        self.results.write(folder / f"{self.name}.csv")
        command = shlex.join(["python", *(word for word in (os.path.relpath(sys.argv[0]), *sys.argv[1:]))])
        where = f"{machine()}; {time.strftime('%Y-%m-%d')}; {self._how}"
        note = f"{where}{self._drawn}.\n{command}"
        if panels:
            (folder / f"{self.name}.svg").write_text(picture(title, note, panels))
        faults = "\n".join(f"- {fault}" for fault in self.faults)
        text = f"## {title}\n\n{where}\n\n    {command}\n\n{words or self.results.table()}\n"
        print(text + (f"\nWhat went wrong:\n\n{faults}\n" if faults else ""))
