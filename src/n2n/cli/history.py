"""``n2n history``: what became of the paths to other edges."""

from __future__ import annotations

import re
import time
from typing import Annotated

import typer

from n2n.cli.output import ago, print_json, print_table
from n2n.errors import ConfigError

__all__ = ["app", "read_period"]

app = typer.Typer()


@app.command()
def history(
    peer: Annotated[str, typer.Argument(metavar="[PEER]", help="Name, virtual address or MAC address.")] = "",
    since: Annotated[str, typer.Option(metavar="TIME", help="How far back, such as 2d, 12h or 1d6h.")] = "2d",
    limit: Annotated[int, typer.Option(metavar="N", help="Changes at most.", min=1, max=1000)] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="JSON; its fields are stable.")] = False,
    instance: Annotated[str | None, typer.Option(metavar="NAME", help="Which edge, by its TAP device.")] = None,
) -> None:
    """Show when paths became direct or relayed, and why; the newest first."""
    from n2n.api.client import CallFailed, choose_edge, connect
    from n2n.web.text import words_for

    begin = time.time() - read_period(since)
    with connect(choose_edge(instance)) as client:
        try:
            found = client.call("history", peer=peer, since=begin, limit=limit)
        except CallFailed as error:
            if error.code != "unknown_method":
                raise
            raise ConfigError("this edge keeps no history: its state_dir is empty") from error
    if as_json:
        print_json(found)
        return
    rows = [
        (
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(change["at"])),
            f"{ago(change['at'], found['at'])} ago",
            change["name"],
            change["path"],
            words_for(change["reason"]),
            change["endpoint"],
            change["mac"],
        )
        for change in found["changes"]
    ]
    headings = ("WHEN", "AGO", "NAME", "PATH", "WHY", "ENDPOINT", "MAC")
    print_table(headings, rows, f"no path{f' to {peer}' if peer else ''} changed within {since}")


def read_period(text: str) -> float:
    """Seconds of a period such as ``2d`` or ``1d6h``; days besides what durations have.

    Raises:
        ConfigError: it has another form.

    >>> read_period("1d6h"), read_period("90s")
    (108000.0, 90.0)
    """
    from n2n.config.durations import parse_duration

    days = re.match(r"([0-9]{1,5})d", text)
    rest = text[days.end() :] if days else text
    try:
        return (int(days[1]) * 86400.0 if days else 0.0) + (parse_duration(rest) if rest or not days else 0.0)
    except ValueError:
        raise ConfigError(f"--since: {text[:64]!r} is no period: write it like 2d, 12h or 1d6h") from None
