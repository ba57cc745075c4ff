"""``n2n lab up | status | shell | down | nat-matrix``: whole networks behind real NATs, in namespaces."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Final

import typer

from n2n.cli.exits import FAILED, OK
from n2n.cli.output import duration, print_json, print_pairs, print_table
from n2n.lab.cli import View, app, end_on_signals

__all__ = ["app"]

_KINDS: Final = "full, addr, port, symmetric, open, carrier, blocked"
_Json = Annotated[bool, typer.Option("--json", help="JSON; its fields are stable. Progress goes to stderr.")]


@app.command()
def up(
    edges: Annotated[int | None, typer.Option(help="How many (default: one for each kind, at least 2).", min=1)] = None,
    nat: Annotated[str, typer.Option(metavar="KIND,...", help=f"What they are behind, in turn: {_KINDS}.")] = "port",
    plain: Annotated[bool, typer.Option("--plain", help="Without a passphrase: frames travel readable.")] = False,
    mtu: Annotated[int, typer.Option(help="Of every link.", min=1280, max=9216)] = 1500,
    as_json: _Json = False,
) -> None:
    """Make a supernode and edges behind NAT routers, and leave them standing. Needs root."""
    from n2n.lab import standing

    options = standing.UpOptions.of(edges, _words(nat), plain=plain, mtu=mtu)
    view = View(sys.stderr if as_json else sys.stdout)
    end_on_signals()
    found = standing.up(options, view.line)
    if as_json:
        print_json(found)
        return
    first = found["edges"][0]["name"]
    view.end("It stands until: n2n lab down", good=True)
    print(f"\nLook at it:  n2n lab status\nGo into it:  n2n lab shell {first}  (or: n2n lab shell {first} n2n peers)")


@app.command()
def status(as_json: _Json = False) -> None:
    """Show the network that stands: hosts, addresses, and who reaches whom how."""
    from n2n.lab import standing

    found = standing.status()
    if as_json:
        print_json(found)
        return
    supernode = found["supernode"]
    print_pairs(
        [
            ("namespaces", ", ".join(f"{found['tag']}-{host}" for host in found["hosts"])),
            ("files", found["folder"]),
            ("supernode", f"{supernode['name']}, {supernode['address']}{_dead(supernode)}"),
            ("frames", "sealed" if found["sealed"] else "NOT SEALED: readable on the way"),
        ]
    )
    print()
    headings = ("EDGE", "ADDRESS", "BEHIND", "ROUTER", "HOST", "PUBLIC", "PEERS")
    rows = [
        (
            edge["name"] + _dead(edge),
            edge["address"],
            edge["kind"],
            edge["router"],
            edge["underlay"],
            edge["public"],
            ", ".join(_way(peer) for peer in edge["peers"]),
        )
        for edge in found["edges"]
    ]
    print_table(headings, rows, "no edge")
    print("\nA shell in a host: n2n lab shell NAME. Its edge: n2n lab shell NAME n2n peers. The end: n2n lab down")


@app.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def shell(
    name: Annotated[str, typer.Argument(help="A host: sn, an edge, or a router (see n2n lab status).")],
    command: Annotated[
        list[str] | None, typer.Argument(help="A program and its arguments, instead of a shell.")
    ] = None,
) -> None:
    """Open a shell in a host of the network that stands, or run a command there. Needs root."""
    from n2n.lab import standing

    standing.shell(name, command or [])


@app.command()
def down() -> None:
    """Take the network that stands away, with all that ran in it. Needs root."""
    from n2n.lab import standing

    print(f"removed: {', '.join(standing.down())}")


@app.command("nat-matrix")
def nat_matrix(
    rounds: Annotated[int, typer.Option(help="For each pair.", min=1, max=1000)] = 1,
    pairs: Annotated[str | None, typer.Option(metavar="KIND:KIND,...", help="Only these (default: all).")] = None,
    wait: Annotated[
        float, typer.Option(help="Seconds that a pair has to become direct, once both are registered.", min=1, max=600)
    ] = 10.0,
    jobs: Annotated[int, typer.Option(help="Pairs at the same time.", min=1, max=32)] = 4,
    as_json: _Json = False,
) -> None:
    """Let edges behind every pair of NATs meet, and print which go direct and how soon. Needs root.

    The exit code is 1 where a pair did not come to the path that its NATs allow.
    """
    from n2n.lab import matrix

    chosen = matrix.ALL_PAIRS if pairs is None else matrix.Pair.parse(pairs)
    view = View(sys.stderr)
    end_on_signals()
    done = [0]

    def report(outcome: matrix.Outcome) -> None:
        done[0] += 1
        view.line(f"{done[0]} of {len(chosen)}", f"{outcome.pair}  {outcome.path} {outcome}")

    outcomes = matrix.run(matrix.MatrixOptions(chosen, rounds, wait, jobs), report)
    good = all(outcome.ok for outcome in outcomes)
    if as_json:
        about: dict[str, Any] = {"ok": good, "rounds": rounds, "wait": wait, "jobs": jobs}
        print_json({**about, "pairs": [outcome.about() for outcome in outcomes]})
    else:
        heading, *rows = matrix.table(outcomes)
        print_table(heading, rows, "")
        print(
            "\nMedian seconds from the registration of both edges until both are direct; else what carried the frames. "
            f"They had {wait:g} s for it (at most 5 s where their NATs do not allow it)."
        )
        for outcome in outcomes:
            if not outcome.ok:
                words = "; ".join((outcome.faults + outcome.missed)[:1])
                print(f"! {outcome.pair}: {outcome.path}, expected {matrix.expected(outcome.pair)}. {words}".rstrip())
    raise typer.Exit(OK if good else FAILED)


def _words(text: str) -> list[str]:
    return [word for word in (part.strip() for part in text.split(",")) if word]


def _dead(about: dict[str, Any]) -> str:
    return "" if about["running"] else " (does not run)"


def _way(peer: dict[str, Any]) -> str:
    """ "e2 direct 1.2 ms" """
    time = f" {duration(peer['rtt'])}" if peer["path"] == "direct" and peer["rtt"] is not None else ""
    return f"{peer['name']} {peer['path']}{time}"
