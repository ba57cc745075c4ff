"""``n2n edge ...``: bring an edge up in the foreground, take one down."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="An edge: this host in one community.")


@app.callback()
def _edge() -> None:
    """An edge: this host in one community."""


@app.command()
def up(  # noqa: PLR0917  (typer reads them by name)
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="YAML file with the keys below.")] = None,
    community: Annotated[str | None, typer.Option(metavar="NAME", help="Network to join.")] = None,
    supernode_addr: Annotated[str | None, typer.Option(metavar="HOST:PORT,...", help="Where to register.")] = None,
    edge_id: Annotated[str | None, typer.Option(metavar="NAME", help="What it calls itself [host name].")] = None,
    local_port: Annotated[str | None, typer.Option(metavar="PORT", help="UDP port; 0: any [0].")] = None,
    bind: Annotated[
        str | None, typer.Option(metavar="IP|IFACE", help="Address or interface to send from [any].")
    ] = None,
    port_mapping: Annotated[
        str | None, typer.Option(metavar="METHOD", help="At the router: auto, off, upnp, nat-pmp, pcp [auto].")
    ] = None,
    enable_vfuze: Annotated[
        bool | None, typer.Option("--enable-vfuze/--no-enable-vfuze", help="Short header for unicast [on].")
    ] = None,
    tap_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="TAP device and instance name [n2n_tap0].")
    ] = None,
    tap_mtu: Annotated[
        str | None, typer.Option(metavar="BYTES", help="Of the TAP device, at most; or auto [1420].")
    ] = None,
    heartbeat_interval: Annotated[str | None, typer.Option(metavar="TIME", help="Between signs of life [30s].")] = None,
    udp_buffer_size: Annotated[str | None, typer.Option(metavar="BYTES", help="Socket buffers [8388608].")] = None,
    encryption_passphrase: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Seals frames; others can see it here: better in a file.")
    ] = None,
    encryption_passphrase_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Holds the passphrase; - asks for it.")
    ] = None,
    compress_payload: Annotated[
        bool | None, typer.Option("--compress-payload/--no-compress-payload", help="zstd; all edges alike [off].")
    ] = None,
    bridge: Annotated[
        bool | None, typer.Option("--bridge/--no-bridge", help="Let bridged hosts' frames pass [off].")
    ] = None,
    port_prediction: Annotated[
        bool | None, typer.Option("--port-prediction/--no-port-prediction", help="Try many ports of a NAT [on].")
    ] = None,
    allow_bench: Annotated[
        bool | None, typer.Option("--allow-bench/--no-allow-bench", help="Let members measure the way here [off].")
    ] = None,
    threads: Annotated[str | None, typer.Option(metavar="N", help="Of the data plane: auto, 1 to 64 [auto].")] = None,
    cipher: Annotated[str | None, typer.Option(metavar="LIBRARY", help="auto, libcrypto or ipsec-mb [auto].")] = None,
    tap_offload: Annotated[
        bool | None, typer.Option("--tap-offload/--no-tap-offload", help="Super-frames from the kernel [on].")
    ] = None,
    tap_coalesce: Annotated[
        bool | None, typer.Option("--tap-coalesce/--no-tap-coalesce", help="Super-frames to the kernel [on].")
    ] = None,
    tap_uso: Annotated[bool | None, typer.Option("--tap-uso/--no-tap-uso", help="Super-frames of UDP [on].")] = None,
    udp_gso: Annotated[
        bool | None, typer.Option("--udp-gso/--no-udp-gso", help="Send trains of datagrams [on].")
    ] = None,
    udp_gro: Annotated[
        bool | None, typer.Option("--udp-gro/--no-udp-gro", help="Receive trains of datagrams [on].")
    ] = None,
    machine_id_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="The edge's identity [~/.n2n-go/machine-id].")
    ] = None,
    api_listen_address: Annotated[
        str | None, typer.Option(metavar="IP:PORT", help='Serves web pages; "": none [127.0.0.1:7778].')
    ] = None,
    api_token: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Needed to see them; others can see it here: better in a file.")
    ] = None,
    state_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Remembers the supernode's key [~/.local/state/n2n].")
    ] = None,
    accept_new_key: Annotated[
        str | None, typer.Option(metavar="RULE", help="Another key of the supernode: true, false, auto [auto].")
    ] = None,
    hosts_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Keep the members' names in it, such as /etc/hosts [none].")
    ] = None,
    run_dir: Annotated[str | None, typer.Option(metavar="DIR", help="Holds the control socket [/run/n2n].")] = None,
    log_level: Annotated[str | None, typer.Option(metavar="LEVEL", help="debug, info, warning, error [info].")] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log more, also what is used of the kernel: log level debug.")
    ] = False,
    log_format: Annotated[str | None, typer.Option(metavar="FORMAT", help="text or json [text].")] = None,
) -> None:
    """Join a community, in the foreground, until Ctrl-C, SIGTERM or `n2n edge down`.

    Every key may also stand in the file, or in an environment variable (N2N_COMMUNITY, ...). A flag comes before the
    environment, the environment before the file.
    """
    flags = {name: value for name, value in locals().items() if name not in ("config", "verbose")}
    if verbose and log_level is None:
        flags["log_level"] = "debug"
    from n2n.cli.foreground import run_edge

    run_edge(config, flags)


@app.command()
def down(
    instance: Annotated[str | None, typer.Option(metavar="NAME", help="Which edge, by its TAP device.")] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait for its end.", min=0)] = 10.0,
) -> None:
    """Stop a running edge: it says goodbye to the supernode and takes its TAP device away."""
    from n2n.api.client import choose_edge, stop

    name = choose_edge(instance)
    stop(name, timeout)
    print(f"edge {name} is down")


@app.command()
def reload(
    instance: Annotated[str | None, typer.Option(metavar="NAME", help="Which edge, by its TAP device.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON; its fields are stable.")] = False,
) -> None:
    """Read the configuration again: put in force what drops no traffic, and say what waits for the next start."""
    from n2n.api.client import choose_edge
    from n2n.cli.control import reload_daemon

    reload_daemon(choose_edge(instance), as_json)
