"""``n2n bench PEER``: what the way to another edge is worth, for people."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from n2n.bench.ways import Flood, Stretch, Way
from n2n.cli.bench import Progress
from n2n.cli.output import print_json, print_table

if TYPE_CHECKING:
    from n2n.bench.peer import PeerResults

__all__ = ["run_bench_peer"]

#: CPU seconds below which a thread is not worth a line: two ticks of the kernel's clock.
_WORTH = 0.02


def run_bench_peer(
    peer: str, *, instance: str | None = None, seconds: float = 3.0, rate: float = 1000.0, as_json: bool = False
) -> None:
    """Measure the way to a member and show it.

    Args:
        peer, instance, seconds, rate: as `n2n.bench.peer.PeerOptions` takes them.
        as_json: a document on standard output in place of tables.

    Raises:
        N2NError: as `n2n.bench.peer.run_peer` does.
    """
    from n2n.bench.peer import PeerOptions, run_peer

    progress = Progress(sys.stderr)
    try:
        found = run_peer(PeerOptions(peer=peer, instance=instance, seconds=seconds, rate=rate), progress.report)
    finally:
        progress.end()
    if as_json:
        print_json(found.as_json())
    else:
        _print(found)


def _print(found: PeerResults) -> None:
    from n2n.bench.measure import shown_ns

    name = "".join(char if char.isprintable() else "?" for char in str(found.peer["name"]))
    print(f"{name}, {found.peer['virtual_ip']}; times are of a datagram there and back")
    headings = ("WAY", "PATH", "LOST", "MEDIAN", "P95", "P99", "MAX", "JITTER", "UP MBIT/S", "DOWN MBIT/S")
    rows: list[tuple[object, ...]] = []
    if found.why:
        outer = found.outer
        about = ("outer", f"{outer.count} probes", None, shown_ns(outer.median), None, None, shown_ns(outer.max))
        rows.append((*about, None, None, None))
    for way in found.ways:
        at = way.latency
        times = (shown_ns(value) for value in (at.median, at.p95, at.p99, at.max, way.jitter))
        rows.append((way.name, way.path, f"{way.loss:.1f} %", *times, *(_mbit(one) for one in (way.up, way.down))))
    print_table(headings, rows, "")
    if found.why:
        print(f"\nouter: not measured, but for the edges' own probes: {found.why}")
    for way in found.ways:
        for direction, one in (("up", way.up), ("down", way.down)):
            if isinstance(one, Flood):
                print(f"\n{way.name}, {direction}: {_about(one)}", end="")
    print()
    print("\nwhere the CPU time goes, seconds for a gigabyte")
    print_table(
        ("WAY", "DIRECTION", "EDGE", "THREAD", "USER", "KERNEL"),
        [row for way in found.ways for row in _cpu_rows(way)],
        "too little to tell",
    )


def _cpu_rows(way: Way) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for direction, stretch in (("up", way.up), ("down", way.down)):
        for end, threads in stretch.cpu.items():
            for thread, used in threads.items():
                user, system = used.get("user", 0.0), used.get("system", 0.0)
                if user + system >= _WORTH:
                    rows.append((way.name, direction, end, thread, *(_share(stretch, one) for one in (user, system))))
    return rows


def _share(stretch: Stretch, seconds: float) -> str:
    return f"{seconds * 1e9 / stretch.bytes:.2f}" if stretch.bytes else "-"


def _mbit(stretch: Stretch) -> str:
    rate = stretch.bits_per_second / 1e6
    least = ">= " if isinstance(stretch, Flood) and stretch.at_least else ""
    return "-" if math.isnan(rate) else f"{least}{rate:,.0f}"


def _about(flood: Flood) -> str:
    limits = {
        "path": "the path takes no more",
        "sender": "at least; the sender's host cannot send more",
        "receiver": "at least; the receiver's socket buffer overflowed",
        "rate": "at least; no more was agreed (--rate)",
        "credit": "at least; a peer sends no more bytes than came to it",
        "load": "at least; no more was tried",
    }
    sent = f"{flood.sent} datagrams in {flood.seconds:.1f} s, {flood.loss:.1f} % lost"
    return f"{sent}; {limits[flood.limit]}"
