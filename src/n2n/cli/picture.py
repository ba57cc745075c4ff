"""``n2n p2viz | metrics``: what the web pages show, from a running daemon, without them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["app"]

app = typer.Typer()


class Format(StrEnum):
    """What `n2n p2viz` prints."""

    DOT = "dot"
    SVG = "svg"
    HTML = "html"
    JSON = "json"


@app.command()
def p2viz(
    form: Annotated[Format, typer.Option("--format", help="dot (for Graphviz), svg, html or json.")] = Format.DOT,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write there.")] = None,
    instance: Annotated[str | None, typer.Option(metavar="NAME", help="Which edge, by its TAP device.")] = None,
) -> None:
    """Draw the community: who is there, and who reaches whom directly (green), one way (orange) or relayed (grey)."""
    from n2n.api.client import CallFailed, choose_edge, connect
    from n2n.web import drawing
    from n2n.web.graph import build_graph, how_old

    with connect(choose_edge(instance)) as client:
        status, peers = client.call("status"), client.call("peers")
        try:
            state = client.call("state")
        except CallFailed:  # no word from the supernode: what the edge knows by itself is shown
            state = None
    graph = build_graph(status, peers, state)
    note = f"{graph.community} as {status.get('name')} sees it, {how_old(graph)}"
    if form is Format.JSON:
        import json

        text = json.dumps(drawing.snapshot(graph), indent=2) + "\n"
    elif form is Format.SVG:
        text = drawing.svg(graph, note=note)
    elif form is Format.HTML:
        text = drawing.html(graph, note=note)
    else:
        text = drawing.dot(graph)
    _write(text, output)


@app.command()
def metrics(
    instance: Annotated[str | None, typer.Option(metavar="NAME", help="A TAP device, or supernode.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON; its fields are stable.")] = False,
) -> None:
    """Print what a daemon counts and knows, in Prometheus' text format.

    JSON: {"metrics": [{name, type (counter, gauge), help, samples: [{labels: {}, value}]}]}, of the same names.
    """
    from n2n.api.client import choose_edge, connect, live_instances
    from n2n.api.instances import SUPERNODE
    from n2n.cli.output import print_json
    from n2n.web.exposition import exposition, families

    name = instance
    if name is None:
        name = SUPERNODE if set(live_instances()) == {SUPERNODE} else choose_edge(None)
    with connect(name) as client:
        status: dict[str, Any] = client.call("status")
        counters = client.call("counters")
        peers = client.call("peers") if status.get("role") == "edge" else {}
    if not as_json:
        _write(exposition(status, counters, peers), None)
        return
    found = []
    for family in families(status, counters, peers):
        samples = [{"labels": dict(labels), "value": value} for labels, value in family.series]
        found.append({"name": family.name, "type": family.kind, "help": family.help, "samples": samples})
    print_json({"metrics": found})


def _write(text: str, output: Path | None) -> None:
    import sys

    raw = text.encode("utf-8", "replace")
    if output is not None:
        output.write_bytes(raw)
    else:
        sys.stdout.buffer.write(raw)
        sys.stdout.buffer.flush()
