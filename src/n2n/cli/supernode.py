"""``n2n supernode ...``: serve communities in the foreground, look at a running supernode."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

_Json = Annotated[bool, typer.Option("--json", help="JSON; its fields are stable.")]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="A supernode: where edges find each other.")


@app.callback()
def _supernode() -> None:
    """A supernode: where edges find each other."""


@app.command()
def serve(  # noqa: PLR0917  (typer reads them by name)
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="YAML file with the keys below.")] = None,
    listen_address: Annotated[str | None, typer.Option(metavar="[IP]:PORT", help="UDP address [:7777].")] = None,
    debug: Annotated[bool | None, typer.Option("--debug/--no-debug", help="Log everything [off].")] = None,
    community_subnet: Annotated[
        str | None, typer.Option(metavar="IP", help="Base of all networks [10.128.0.0].")
    ] = None,
    community_subnet_cidr: Annotated[
        str | None, typer.Option(metavar="BITS", help="Prefix of each network [24].")
    ] = None,
    expiry_duration: Annotated[
        str | None, typer.Option(metavar="TIME", help="A silent edge is gone after [10m].")
    ] = None,
    cleanup_interval: Annotated[
        str | None, typer.Option(metavar="TIME", help="Between two looks for such [5m].")
    ] = None,
    udp_buffer_size: Annotated[str | None, typer.Option(metavar="BYTES", help="Socket buffers [2097152].")] = None,
    strict_hash_checking: Annotated[
        bool | None,
        typer.Option("--strict-hash-checking/--no-strict-hash-checking", help="Refuse false community ids [on]."),
    ] = None,
    enable_vfuze: Annotated[
        bool | None, typer.Option("--enable-vfuze/--no-enable-vfuze", help="Relay the short header [on].")
    ] = None,
    probe_port: Annotated[
        str | None, typer.Option(metavar="PORT", help="Second UDP port, for NAT tests; 0: none [auto].")
    ] = None,
    state_dir: Annotated[str | None, typer.Option(metavar="DIR", help="Holds leases and key [/var/lib/n2n].")] = None,
    metrics_listen_address: Annotated[
        str | None, typer.Option(metavar="127.0.0.1:PORT", help='Tells metrics to Prometheus; "": not [""].')
    ] = None,
    source_rate: Annotated[str | None, typer.Option(metavar="N", help="Registrations per second, one source.")] = None,
    total_rate: Annotated[str | None, typer.Option(metavar="N", help="Registrations per second, all sources.")] = None,
    max_communities: Annotated[str | None, typer.Option(metavar="N", help="Communities remembered.")] = None,
    max_edges: Annotated[str | None, typer.Option(metavar="N", help="Registered edges.")] = None,
    max_leases: Annotated[str | None, typer.Option(metavar="N", help="Addresses remembered.")] = None,
    threads: Annotated[str | None, typer.Option(metavar="N", help="Of the data plane: auto, 1 to 64 [auto].")] = None,
    udp_gso: Annotated[
        bool | None, typer.Option("--udp-gso/--no-udp-gso", help="Send trains of datagrams [on].")
    ] = None,
    udp_gro: Annotated[
        bool | None, typer.Option("--udp-gro/--no-udp-gro", help="Receive trains of datagrams [on].")
    ] = None,
    run_dir: Annotated[str | None, typer.Option(metavar="DIR", help="Holds the control socket [/run/n2n].")] = None,
    log_level: Annotated[str | None, typer.Option(metavar="LEVEL", help="debug, info, warning, error [info].")] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log more, also what is used of the kernel: log level debug.")
    ] = False,
    log_format: Annotated[str | None, typer.Option(metavar="FORMAT", help="text or json [text].")] = None,
) -> None:
    """Serve communities, in the foreground, until Ctrl-C or SIGTERM.

    Every key may also stand in the file, or in an environment variable (N2N_LISTEN_ADDRESS, ...). A flag comes before
    the environment, the environment before the file.
    """
    flags = {name: value for name, value in locals().items() if name not in ("config", "verbose")}
    if verbose and log_level is None:
        flags["log_level"] = "debug"
    from n2n.cli.foreground import run_supernode

    run_supernode(config, flags)


@app.command()
def status(as_json: _Json = False) -> None:
    """Show the supernode of this host: what it serves, and to how many."""
    from n2n.api.client import connect
    from n2n.api.instances import SUPERNODE
    from n2n.cli.output import print_json
    from n2n.cli.show import print_supernode

    with connect(SUPERNODE) as client:
        found = client.call("status")
    if as_json:
        print_json(found)
    else:
        print_supernode(found)


@app.command()
def communities(as_json: _Json = False) -> None:
    """Show the communities: network, registered edges, remembered addresses."""
    from n2n.cli.control import show_communities

    show_communities(as_json)


@app.command()
def edges(
    community: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this one.")] = None,
    as_json: _Json = False,
) -> None:
    """Show the registered edges of every community."""
    from n2n.cli.control import show_edges

    show_edges(community, as_json)


@app.command()
def kick(
    edge: Annotated[str, typer.Argument(metavar="EDGE", help="Its name, MAC address or virtual address.")],
    community: Annotated[str | None, typer.Option(metavar="NAME", help="Where, if several have such an edge.")] = None,
    release: Annotated[bool, typer.Option("--release", help="Give its address back as well.")] = False,
    as_json: _Json = False,
) -> None:
    """Drop a registered edge, as if it had left. It may come back: to keep it out takes another community's name."""
    from n2n.cli.control import kick_edge

    kick_edge(edge, community, release, as_json)


@app.command()
def reload(as_json: _Json = False) -> None:
    """Read the configuration again: put in force what drops no traffic, and say what waits for the next start."""
    from n2n.api.instances import SUPERNODE
    from n2n.cli.control import reload_daemon

    reload_daemon(SUPERNODE, as_json)


@app.command()
def down(
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait for its end.", min=0)] = 10.0,
) -> None:
    """Stop the supernode of this host; direct paths between edges stay."""
    from n2n.api.client import stop
    from n2n.api.instances import SUPERNODE

    stop(SUPERNODE, timeout)
    print("the supernode is down")
