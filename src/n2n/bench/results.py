"""What a run found: rows, as CSV, as JSON, and compared with an earlier run."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from n2n.bench.stats import NOTHING, Summary, summarize
from n2n.errors import ConfigError, PlatformError

__all__ = ["COLUMNS", "LeftOut", "Measurement", "Part", "Ratio", "Results", "compare", "measurement", "read_csv"]

#: Columns of the CSV. The first eleven are those of the reference implementation's benchmark: whole numbers, times in
#: nanoseconds. The medians of the rounds have decimals.
COLUMNS: Final = (
    "Component", "PacketSize", "PacketsSent", "PacketsReceived", "MinLatency", "AvgLatency", "MedianLatency",
    "P95Latency", "P99Latency", "MaxLatency", "TotalTime",
    "PacketsPerSecond", "BitsPerSecond", "CPUPerPacket", "Variant", "Rounds", "LowestMedian", "MiddleMedian",
    "HighestMedian",
)  # fmt: skip
#: Bytes and rows of a CSV to compare with.
_MAX_FILE: Final = 4 << 20
_MAX_ROWS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Part:
    """One round of a measurement.

    Args:
        times: nanoseconds for each packet (of a batch: its time divided by its packets).
        sent: packets that left.
        received: packets that came back.
        total: nanoseconds that all of it took.
        cpu: nanoseconds of CPU time that it took (complete path: of edges and supernode); None: not known.
    """

    times: Sequence[float]
    sent: int
    received: int
    total: int
    cpu: int | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row: a component at one packet size, in one variant.

    Args:
        component: its name in the results.
        size: of a packet, in bytes.
        variant: what was done in which way.
        sent: packets that left, in all rounds.
        received: packets that came back.
        latency: of one packet there and back, in nanoseconds; packets that were lost have none. Where packets were
            handled in batches it is the time of the batch divided by its packets.
        total: nanoseconds that all rounds took.
        cpu: nanoseconds of CPU time for each packet that came back; NaN: not known.
        medians: of each round, in nanoseconds.
    """

    component: str
    size: int
    variant: str
    sent: int
    received: int
    latency: Summary
    total: int
    cpu: float = math.nan
    medians: tuple[float, ...] = ()

    @property
    def key(self) -> tuple[str, int, str]:
        """What it has in common with the same measurement of another run."""
        return self.component, self.size, self.variant

    @property
    def lost(self) -> int:
        """Packets that did not come back."""
        return self.sent - self.received

    @property
    def packets_per_second(self) -> float:
        """Packets that came back in a second of the measured time; NaN where it took none."""
        return self.received * 1e9 / self.total if self.total else math.nan

    @property
    def bits_per_second(self) -> float:
        """The same in bits of packets of this size."""
        return self.packets_per_second * self.size * 8

    @property
    def spread(self) -> Summary:
        """What is said of the medians of the rounds, in nanoseconds; without rounds of the median alone."""
        known = [value for value in self.medians if not math.isnan(value)]
        return summarize(known or ([self.latency.median] if self.latency.count else []))

    def row(self) -> list[object]:
        """Its values in the order of `COLUMNS`."""
        spread, at = self.spread, self.latency
        times = (at.min, at.mean, at.median, at.p95, at.p99, at.max)
        return [
            self.component, self.size, self.sent, self.received, *map(_whole, times), self.total,
            _whole(self.packets_per_second), _whole(self.bits_per_second), _decimal(self.cpu), self.variant,
            len(self.medians), *map(_decimal, (spread.min, spread.median, spread.max)),
        ]  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """Its values by stable names; what is not known is null."""
        spread, at = self.spread, self.latency
        return {
            "component": self.component,
            "variant": self.variant,
            "packet_size": self.size,
            "sent": self.sent,
            "received": self.received,
            "latency_ns": {name: _known(getattr(at, name)) for name in ("min", "mean", "median", "p95", "p99", "max")},
            "median_low_ns": _known(spread.min),
            "median_middle_ns": _known(spread.median),
            "median_high_ns": _known(spread.max),
            "rounds": len(self.medians),
            "total_ns": self.total,
            "packets_per_second": _known(self.packets_per_second),
            "bits_per_second": _known(self.bits_per_second),
            "cpu_ns_per_packet": _known(self.cpu),
        }


def measurement(component: str, size: int, variant: str, parts: Iterable[Part]) -> Measurement:
    """Put the rounds of one measurement together.

    >>> parts = [Part([10, 30], 2, 2, 50, cpu=40), Part([20, 20], 3, 2, 50, cpu=40)]
    >>> found = measurement("UDP Socket", 64, "single", parts)
    >>> found.latency.median, found.medians, found.lost, found.cpu
    (20.0, (20.0, 20.0), 1, 20.0)
    """
    rounds = list(parts)
    received = sum(part.received for part in rounds)
    used = [part.cpu for part in rounds if part.cpu is not None]
    return Measurement(
        component,
        size,
        variant,
        sent=sum(part.sent for part in rounds),
        received=received,
        latency=summarize(time for part in rounds for time in part.times),
        total=sum(part.total for part in rounds),
        cpu=sum(used) / received if received and len(used) == len(rounds) else math.nan,
        medians=tuple(summarize(part.times).median for part in rounds),
    )


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A component that was not measured.

    Args:
        component: its name in the results.
        error: why; its text says what is missing and what to do.
    """

    component: str
    error: Exception

    @property
    def reason(self) -> str:
        """Why, in words."""
        return str(self.error)


@dataclass(slots=True)
class Results:
    """What a run found.

    Args:
        machine: where: processor, cores, kernel, Python, version of n2n, library that seals.
        rows: the measurements, in their order.
        left_out: what could not be measured here.
        seconds: that the run took.
    """

    machine: Mapping[str, str | int]
    rows: list[Measurement] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    seconds: float = 0.0

    def write_csv(self, path: Path) -> None:
        """Write `COLUMNS` and a line for each row.

        Raises:
            PlatformError: the file cannot be written.
        """
        try:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(COLUMNS)
                writer.writerows(row.row() for row in self.rows)
        except OSError as error:
            raise PlatformError(f"{path} cannot be written: {error.strerror}. Choose another --output") from error

    def as_json(self) -> dict[str, Any]:
        """All of it, by stable names."""
        return {
            "machine": dict(self.machine),
            "seconds": round(self.seconds, 3),
            "results": [row.as_json() for row in self.rows],
            "left_out": [{"component": one.component, "reason": one.reason} for one in self.left_out],
        }


# ---- an earlier run -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ratio:
    """How a measurement of now stands to the same one of an earlier run; above 1: more than before.

    Args:
        component, size, variant: which.
        before, now: the middle one of the rounds' medians in nanoseconds; NaN: nothing came back.
        latency: now / before.
        low, high: the lowest ratio of any round of now to any of before, and the highest: where 1 is between
            them, nothing is proven.
        rate: packets per second, now / before.
    """

    component: str
    size: int
    variant: str
    before: float
    now: float
    latency: float
    low: float
    high: float
    rate: float

    def as_json(self) -> dict[str, Any]:
        """By stable names; what is not known is null."""
        return {
            "component": self.component,
            "variant": self.variant,
            "packet_size": self.size,
            "median_before_ns": _known(self.before),
            "median_now_ns": _known(self.now),
            "latency_ratio": _known(self.latency),
            "latency_ratio_low": _known(self.low),
            "latency_ratio_high": _known(self.high),
            "rate_ratio": _known(self.rate),
        }


def compare(before: Iterable[Measurement], now: Iterable[Measurement]) -> list[Ratio]:
    """Ratios of what both runs have measured, in the order of `now`.

    >>> old = measurement("UDP Socket", 64, "single", [Part([10], 1, 1, 10), Part([12], 1, 1, 10)])
    >>> new = measurement("UDP Socket", 64, "single", [Part([22], 1, 1, 20), Part([22], 1, 1, 20)])
    >>> [(ratio.latency, round(ratio.low, 2), ratio.high, ratio.rate) for ratio in compare([old], [new])]
    [(2.0, 1.83, 2.2, 0.5)]
    """
    old = {row.key: row for row in before}
    ratios = []
    for row in now:
        if (past := old.get(row.key)) is None:
            continue
        then, at = past.spread, row.spread
        ratios.append(
            Ratio(
                *row.key,
                before=then.median,
                now=at.median,
                latency=_over(at.median, then.median),
                low=_over(at.min, then.max),
                high=_over(at.max, then.min),
                rate=_over(row.packets_per_second, past.packets_per_second),
            )
        )
    return ratios


def read_csv(path: Path) -> list[Measurement]:
    """The rows of an earlier run; also of a file that has only the first eleven columns.

    Raises:
        ConfigError: it cannot be read, is no such file, or too long; the message names the line.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read(_MAX_FILE + 1)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"{path} cannot be read: {why}") from error
    if len(text) > _MAX_FILE:
        raise ConfigError(f"{path} is longer than {_MAX_FILE >> 20} MiB: it is no result of n2n bench")
    reader = csv.DictReader(text.splitlines(), strict=True)
    try:
        missing = [name for name in COLUMNS[:11] if name not in (reader.fieldnames or ())]
        if missing:
            raise ConfigError(f"{path} is no result of n2n bench: it has no column {missing[0]}")
        rows: list[Measurement] = []
        for fields in reader:
            if len(rows) >= _MAX_ROWS:
                raise ConfigError(f"{path}:{reader.line_num}: more than {_MAX_ROWS:,} rows")
            rows.append(_row_of(fields, f"{path}:{reader.line_num}"))
    except csv.Error as error:
        raise ConfigError(f"{path}:{reader.line_num}: {error}") from error
    return rows


def _row_of(fields: Mapping[str | None, Any], where: str) -> Measurement:
    def number(name: str, default: float | None = None) -> float:
        text = fields.get(name)
        if not text and default is not None:
            return default
        try:
            value = float(text or "")
        except (TypeError, ValueError):
            raise ConfigError(f"{where}: {name} {str(text)[:40]!r} is not a number") from None
        if not 0 <= value < 1e18:
            raise ConfigError(f"{where}: {name} {value:g} is not a possible value")
        return value

    sent, received, total = (int(number(name)) for name in ("PacketsSent", "PacketsReceived", "TotalTime"))
    latency = NOTHING
    if fields.get("MedianLatency"):  # empty where nothing came back
        names = ("MinLatency", "AvgLatency", "MedianLatency", "P95Latency", "P99Latency", "MaxLatency")
        latency = Summary(received, *(number(name) for name in names))
    medians = tuple(number(name, latency.median) for name in ("LowestMedian", "MiddleMedian", "HighestMedian"))
    return Measurement(
        str(fields["Component"]), int(number("PacketSize")), str(fields.get("Variant") or ""),
        sent, received, latency, total, number("CPUPerPacket", math.nan), medians,
    )  # fmt: skip


def _over(above: float, below: float) -> float:
    return above / below if below else math.nan


def _whole(value: float) -> object:
    """A whole number for the CSV; nothing where it is not known."""
    return "" if math.isnan(value) else round(value)


def _decimal(value: float) -> object:
    """The same with two decimals."""
    return "" if math.isnan(value) else f"{value:.2f}"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)
