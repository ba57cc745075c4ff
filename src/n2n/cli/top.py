"""``n2n top``: the peers of an edge, refreshed in place."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from n2n.cli.output import ago, duration, size

__all__ = ["app", "screen"]

app = typer.Typer()

_CLEAR_LINE: Final = "\x1b[K"
_HOME: Final = "\x1b[H"
_BELOW: Final = "\x1b[J"
#: The other screen of the terminal, so that what stood there comes back; without cursor.
_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_COLOURS: Final = {"direct": "\x1b[32m", "one way": "\x1b[33m", "relay": "\x1b[90m"}
_PLAIN: Final = "\x1b[0m"
_WIDTHS: Final = (22, 15, 8, 9, 12, 12, 9)
_TOLD: Final = ("mac", "name", "virtual_ip", "path", "one_way", "rtt", "since")
_HEADINGS: Final = ("NAME", "ADDRESS", "PATH", "RTT", "SENT/S", "RECEIVED/S", "FOR")


@app.command()
def top(
    instance: Annotated[str | None, typer.Option(metavar="NAME", help="Which edge, by its TAP device.")] = None,
    interval: Annotated[float, typer.Option(metavar="SECONDS", help="Between two looks.", min=0.1)] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one picture, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line and look.")] = False,
) -> None:
    """Show paths, round-trip times and traffic of all peers as they change, the busiest first; Ctrl-C ends it.

    Where the output is no terminal it is one picture, as with --once. A JSON line: {at, peers: [{mac, name, virtual_ip,
    path (direct, relay), one_way, rtt, sent_rate, received_rate (bytes per second), since}]}, until Ctrl-C.
    """
    import os
    import shutil

    from n2n.api.client import choose_edge, connect

    name = choose_edge(instance)
    if as_json:
        _print_lines(name, interval, once)
        return
    live = sys.stdout.isatty() and not once
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    before: Mapping[str, Any] = {}
    with connect(name) as client:
        if once or not live:
            before = client.call("peers")
            time.sleep(min(interval, 1.0))
            print("\n".join(screen(client.call("status"), client.call("peers"), before, 1000, colour=colour)))
            return
        sys.stdout.write(_ENTER)
        try:
            while True:
                status, peers = client.call("status"), client.call("peers")
                columns, rows = shutil.get_terminal_size()
                lines = screen(status, peers, before, rows - 1, colour=colour, columns=columns)
                sys.stdout.write(_HOME + "".join(f"{line}{_CLEAR_LINE}\r\n" for line in lines) + _BELOW)
                sys.stdout.flush()
                before = peers
                time.sleep(interval)
        finally:
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()


def screen(
    status: Mapping[str, Any],
    peers: Mapping[str, Any],
    before: Mapping[str, Any],
    rows: int,
    *,
    colour: bool,
    columns: int = 120,
) -> list[str]:
    """One picture, as lines.

    Args:
        status: the edge's answer.
        peers: its answer.
        before: its former answer to `peers`, for rates; may be empty.
        rows: lines at most.
        colour: with colours.
        columns: characters of a line at most.
    """
    rated = _rated(peers, before)
    entries = [entry for _, entry in rated]
    direct = sum(entry.get("path") == "direct" for entry in entries)
    lines = [
        f"{_clean(status.get('community'))}: {_clean(status.get('name'))} {_clean(status.get('address') or '-')}"
        f"   {status.get('state')}   up {duration(status.get('uptime'))}",
        f"{len(entries)} peers, {direct} direct, {len(entries) - direct} relayed",
        "",
        _line(_HEADINGS),
    ]
    lines = [line[:columns] for line in lines]
    room = max(rows - len(lines), 0)
    for rates, entry in rated[: room if len(rated) <= room else max(room - 1, 0)]:
        lines.append(_peer(entry, rates, float(peers.get("at") or 0), columns, colour=colour))
    if len(rated) > room:
        lines.append(f"and {len(rated) - max(room - 1, 0)} more"[:columns])
    return lines[:rows]


def _print_lines(name: str, interval: float, once: bool) -> None:
    """Print what the screen would show, for programs."""
    import json

    from n2n.api.client import connect

    with connect(name) as client:
        before = client.call("peers")
        while True:
            time.sleep(min(interval, 1.0) if once else interval)
            peers = client.call("peers")
            told = [
                {key: entry.get(key) for key in _TOLD} | {"sent_rate": sent, "received_rate": received}
                for (sent, received), entry in _rated(peers, before)
            ]
            print(json.dumps({"at": peers.get("at"), "peers": told}), flush=True)
            if once:
                return
            before = peers


def _rated(peers: Mapping[str, Any], before: Mapping[str, Any]) -> list[tuple[tuple[float, float], Mapping[str, Any]]]:
    """Peers with their rates since `before`, the busiest first."""
    entries = [entry for entry in peers.get("peers", []) if isinstance(entry, Mapping)]
    former = {entry.get("mac"): entry for entry in before.get("peers", []) if isinstance(entry, Mapping)}
    passed = float(peers.get("at") or 0) - float(before.get("at") or 0) if before else 0.0
    rated = [(_rates(entry, former.get(entry.get("mac")), passed), entry) for entry in entries]
    return sorted(rated, key=lambda pair: (-sum(pair[0]), str(pair[1].get("name"))))


def _rates(entry: Mapping[str, Any], former: Mapping[str, Any] | None, passed: float) -> tuple[float, float]:
    if former is None or passed <= 0:
        return 0.0, 0.0
    sent, received = (max((entry.get(k) or 0) - (former.get(k) or 0), 0) / passed for k in ("tx_bytes", "rx_bytes"))
    return sent, received


def _peer(entry: Mapping[str, Any], rates: tuple[float, float], now: float, columns: int, *, colour: bool) -> str:
    path = "one way" if entry.get("one_way") else str(entry.get("path") or "-")
    cells = (
        _clean(entry.get("name") or entry.get("mac") or "-"),
        _clean(entry.get("virtual_ip") or "-"),
        path,
        duration(entry.get("rtt")),
        *(size(int(rate)) if rate >= 1 else "-" for rate in rates),
        ago(entry.get("since"), now),
    )
    line = _line(cells)[:columns]
    if not colour:
        return line
    start = _WIDTHS[0] + _WIDTHS[1] + 4
    word = line[start : start + _WIDTHS[2]]
    return f"{line[:start]}{_COLOURS.get(path, '')}{word}{_PLAIN}{line[start + _WIDTHS[2] :]}"


def _line(cells: tuple[str, ...]) -> str:
    return "  ".join(f"{cell[:width]:<{width}}" for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


def _clean(value: object) -> str:
    """A name is not ours: nothing in it may move the cursor."""
    return "".join(char if char.isprintable() else "?" for char in str(value))
