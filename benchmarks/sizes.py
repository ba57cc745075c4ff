"""Throughput over packet size: inner IP packets of 64 to 9,000 bytes, offloads on and off.

    sudo .venv/bin/python benchmarks/sizes.py [--rounds 5] [--seconds 2] [--sizes 64,512,1420,9000]

UDP between two sealed edges, direct, as fast as the sender can. The TAP devices have an MTU of 9000 and the network
below one of 9200, so that no packet is fragmented. "trains": the sending program uses UDP_SEGMENT and the receiving one
UDP_GRO, as QUIC libraries do; all others send and receive single datagrams. veth: no tunnel.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import loads
from ablation import OFF
from harness import Results, Run, parser, short
from networks import Tunnel, n2n, veth

from n2n.bench.plot import Panel, Series
from n2n.errors import N2NError
from n2n.lab.namespaces import need_rights

SIZES = (64, 128, 256, 512, 1024, 1420, 2048, 4096, 9000)
HEADERS = 28  # IPv4 and UDP
INNER, UNDERLAY = 9000, 9200
LARGEST = 65507  # payload of one send, and so of a train
MOST = 64  # datagrams in a train, on every kernel that has trains
Network = Callable[[], AbstractContextManager[Tunnel]]
ON: Network = partial(n2n, tap_mtu=INNER, underlay_mtu=UNDERLAY)
VARIANTS: dict[str, tuple[Network, bool]] = {
    "offloads on": (ON, False),
    "offloads on, trains": (ON, True),
    "offloads off": (partial(n2n, tap_mtu=INNER, underlay_mtu=UNDERLAY, **OFF), False),  # type: ignore[arg-type]
    "veth": (partial(veth, mtu=UNDERLAY), False),
}
COLOURS = {"offloads on": 0, "offloads off": 1, "offloads on, trains": 2, "veth": 5}


def flow_of(size: int, trains: bool) -> loads.Flow:
    """What fills inner IP packets of `size` bytes."""
    payload = size - HEADERS
    return loads.Flow(payload, train=min(MOST, LARGEST // payload) if trains else 1, gro=trains)


def measure(tunnel: Tunnel, seconds: float, program: str, size: int, trains: bool) -> dict[str, tuple[float, str]]:
    before = tunnel.cpu()[0]
    found = loads.bulk(tunnel.a, tunnel.b, tunnel.address, seconds, program, flow_of(size, trains))
    values = {
        "throughput": (found.received * size * 8 / 1e6, "Mbit/s"),
        "received": (found.received / 1e3, "1,000/s"),
        "lost": (found.loss, "%"),
    }
    if tunnel.edges and found.received:
        values["CPU edges"] = ((tunnel.cpu()[0] - before) / (found.received * seconds) * 1e6, "us per packet")
    return values


def overview(results: Results, names: list[str]) -> str:
    """Markdown: one row per size, medians with lowest to highest."""
    head = [f"{name}, {unit}" for name in names for unit in ("Mbit/s", "1,000 packets/s")]
    lines = [f"| inner IP packet, bytes | {' | '.join(head)} |", "| ---: |" + " ---: |" * len(head)]
    for size in results.xs("throughput"):
        cells = []
        for name in names:
            for kind in ("throughput", "received"):
                point = results.point(kind, name, size)
                known = point.median == point.median
                cells.append(f"{short(point.median)} ({short(point.low)}-{short(point.high)})" if known else "-")
        lines.append(f"| {size:,.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def panels(results: Results, names: list[str]) -> list[Panel]:
    def series(kind: str, chosen: list[str]) -> list[Series]:
        return [
            Series(name, [results.point(kind, name, x) for x in results.xs(kind)], COLOURS[name]) for name in chosen
        ]

    size = "inner IP packet, bytes"
    ours = [name for name in names if name != "veth"]
    single = [name for name in names if name != "offloads on, trains"]
    wanted = [
        Panel("Throughput, single datagrams", size, "Mbit/s", series=series("throughput", single), log_x=True),
        Panel("Packets, single datagrams", size, "1,000 packets/s", series=series("received", single), log_x=True),
        Panel(
            "Throughput, n2n",
            size,
            "Mbit/s",
            series=series("throughput", ours),
            log_x=True,
        ),
        Panel(
            "CPU time of both edges",
            size,
            "microseconds per packet",
            series=series("CPU edges", ours),
            log_x=True,
        ),
    ]
    return [panel for panel in wanted if panel.series]


def main() -> None:
    options = parser(__doc__, rounds=5, seconds=2, minutes=45)
    options.add_argument("--sizes", default=",".join(map(str, SIZES)), help="of inner IP packets, with commas between")
    options.add_argument("--variants", default=";".join(VARIANTS), help="which, with semicolons between (all)")
    run = Run("sizes", options.parse_args())
    need_rights("ping")
    sizes = [int(word) for word in run.options.sizes.split(",")]
    if not all(HEADERS < size <= INNER for size in sizes):
        options.error(f"sizes are {HEADERS + 1} to {INNER}")
    names = run.options.variants.split(";")
    if set(names) - set(VARIANTS):
        options.error(f"the variants are: {'; '.join(VARIANTS)}")
    try:
        with loads.compiled() as program:
            for name in run.turns(names):
                network, trains = VARIANTS[name]
                try:
                    with network() as tunnel:
                        for size in sizes:
                            action = partial(measure, tunnel, run.options.seconds, program, size, trains)
                            run.measure(f"{size} bytes", name, action, size)
                except N2NError as error:
                    run.fault(f"{name}, round {run.round}: {str(error)[:400]}")
    except N2NError as error:
        sys.exit(f"sizes: {error}")
    run.finish("Packet sizes", panels(run.results, names), overview(run.results, names))


if __name__ == "__main__":
    main()
