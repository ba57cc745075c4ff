"""What each technique is worth: every one switched off in turn, all others on.

    sudo .venv/bin/python benchmarks/ablation.py [--rounds 5] [--seconds 3] [--variants all-on,no-coalesce]

Two sealed edges, direct. TCP with one stream and the CPU time of both edges for one GB of it; 64-byte datagrams, one by
one, as fast as the sender can; 1,392-byte datagrams in trains (UDP_SEGMENT), which is where tap_uso counts.
"""

from __future__ import annotations

from functools import partial

import loads
from harness import Results, Run, parser, ratio, short
from networks import Tunnel, n2n

from n2n._fastpath.plane import Aead
from n2n.bench.plot import GREY, Bar, Panel
from n2n.errors import N2NError
from n2n.lab.namespaces import need_rights

Found = dict[str, tuple[float, str]]
SMALL = loads.Flow(64, gro=False)  # as most programs receive
TRAIN = loads.Flow(1392, train=40)
BASE = "all on"
OFF: dict[str, object] = {
    "tap_offload": False,
    "tap_coalesce": False,
    "tap_uso": False,
    "udp_gso": False,
    "udp_gro": False,
}
VARIANTS: dict[str, dict[str, object]] = {
    BASE: {},
    **{f"no {key}": {key: value} for key, value in OFF.items()},
    "no udp_gso and no udp_gro": {"udp_gso": False, "udp_gro": False},
    "cipher libcrypto": {"cipher": "libcrypto"},
    "cipher ipsec-mb": {"cipher": "ipsec-mb"},
    "threads 2": {"threads": 2},
    "all off": OFF,
}


def missing_cipher(name: str) -> str:
    """Why a cipher's library cannot be had here; "" where it can."""
    try:
        Aead(bytes(32), name)
    except (ValueError, OSError) as error:
        return str(error) or name
    return ""


def measure_tcp(tunnel: Tunnel, seconds: float) -> Found:
    before = tunnel.cpu()[0]
    result = loads.tcp(tunnel.a, tunnel.b, tunnel.address, seconds)
    spent = tunnel.cpu()[0] - before
    return {"TCP": (result.bits_per_second / 1e6, "Mbit/s"), "CPU edges": (spent / (result.bytes / 1e9), "s/GB")}


def measure_small(tunnel: Tunnel, seconds: float, program: str) -> Found:
    result = loads.bulk(tunnel.a, tunnel.b, tunnel.address, seconds, program, SMALL)
    return {"UDP 64": (result.received, "1/s"), "UDP 64 lost": (result.loss, "%")}


def measure_trains(tunnel: Tunnel, seconds: float, program: str) -> Found:
    result = loads.bulk(tunnel.a, tunnel.b, tunnel.address, seconds, program, TRAIN)
    return {"UDP trains": (result.bits / 1e6, "Mbit/s"), "UDP trains lost": (result.loss, "%")}


def measure_variant(run: Run, name: str, program: str) -> None:
    seconds = run.options.seconds
    with n2n(**VARIANTS[name]) as tunnel:  # type: ignore[arg-type]
        run.measure("TCP", name, partial(measure_tcp, tunnel, seconds))
        run.measure("UDP 64", name, partial(measure_small, tunnel, seconds, program))
        run.measure("UDP trains", name, partial(measure_trains, tunnel, seconds, program))


def overview(results: Results, names: list[str]) -> str:
    """Markdown: one row per variant, each value with its share of the one with everything on."""
    measures = {"TCP": "Mbit/s", "CPU edges": "s/GB", "UDP 64": "1/s", "UDP 64 lost": "%", "UDP trains": "Mbit/s"}
    lines = ["| variant | " + " | ".join(f"{name}, {unit}" for name, unit in measures.items()) + " |"]
    lines.append("| --- |" + " ---: |" * len(measures))
    for name in names:
        cells = []
        for measure, unit in measures.items():
            point, share = results.point(measure, name), ratio(results, measure, name, BASE)
            against = f", x{share.median:.2f}" if name != BASE and share.median == share.median and unit != "%" else ""
            known = point.median == point.median
            cells.append(f"{short(point.median)} ({short(point.low)}-{short(point.high)}){against}" if known else "-")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def panels(results: Results, names: list[str]) -> list[Panel]:
    wanted = [
        ("TCP", "TCP, one stream", "Mbit/s (more is better)"),
        ("CPU edges", "CPU time of both edges", "seconds per GB (less is better)"),
        ("UDP 64", "UDP, 64 bytes, one by one", "datagrams received per second (more is better)"),
        ("UDP trains", "UDP, 1,392 bytes, in trains", "Mbit/s received (more is better)"),
    ]
    return [
        Panel(
            title, axis, bars=[Bar(name, results.point(measure, name), 0 if name == BASE else GREY) for name in names]
        )
        for measure, title, axis in wanted
    ]


def main() -> None:
    options = parser(__doc__, rounds=5, seconds=3, minutes=45)
    options.add_argument("--variants", default=",".join(VARIANTS), help="which, with commas between (all)")
    options.epilog = f"variants: {'; '.join(VARIANTS)}"
    run = Run("ablation", options.parse_args())
    need_rights("iperf3", "ping")
    names = [name for name in run.options.variants.split(",") if name]
    if unknown := [name for name in names if name not in VARIANTS]:
        options.error(f"unknown: {', '.join(unknown)}; there are: {', '.join(VARIANTS)}")
    for name in list(names):
        if name.startswith("cipher") and (words := missing_cipher(name.split()[1])):
            run.fault(f"{name} is left out: {words}")
            names.remove(name)
    with loads.compiled() as program:
        for name in run.turns(names):
            try:
                measure_variant(run, name, program)
            except N2NError as error:
                run.fault(f"{name}, round {run.round}: {str(error)[:400]}")
    run.finish("Each technique switched off in turn", panels(run.results, names), overview(run.results, names))


if __name__ == "__main__":
    main()
