"""``n2n names``: the members of a community by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from n2n.cli.output import print_json, print_table
from n2n.errors import PlatformError

__all__ = ["app"]

app = typer.Typer()


@app.command()
def names(
    instance: Annotated[str | None, typer.Option(metavar="NAME", help="Which edge, by its TAP device.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON; its fields are stable.")] = False,
    as_hosts: Annotated[bool, typer.Option("--hosts", help="Lines for a file like /etc/hosts.")] = False,
    tidy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Take out of FILE what edges left there that no longer run.")
    ] = None,
) -> None:
    """Show what the members may be called: NAME.COMMUNITY.n2n. Two with one name have none.

    With `hosts_file` in its configuration an edge keeps these names in /etc/hosts while it runs.
    """
    from n2n.api.client import choose_edge, connect

    if tidy is not None:
        _tidy(tidy)
        return
    with connect(choose_edge(instance)) as client:
        found = client.call("names")
    if as_json:
        print_json(found)
    elif as_hosts:
        for entry in found["names"]:
            if entry["hostname"] is not None:
                print(f"{entry['address']} {entry['hostname']}")
    else:
        rows = [
            (f"{entry['name']} (this edge)" if entry["self"] else entry["name"], entry["address"], entry["hostname"])
            for entry in found["names"]
        ]
        print_table(("NAME", "ADDRESS", "HOST NAME"), rows, "no name is known yet")


def _tidy(path: Path) -> None:
    from n2n.api.client import live_instances
    from n2n.net.hosts import owners, put_lines

    try:
        dead = sorted(owners(path) - set(live_instances()))
        for owner in dead:
            put_lines(path, owner, ())
    except OSError as error:
        raise PlatformError(f"{path} cannot be tidied: {(error.strerror or str(error)).lower()}") from error
    print(f"took out what was left of {', '.join(dead)}" if dead else f"{path} holds nothing of edges that do not run")
