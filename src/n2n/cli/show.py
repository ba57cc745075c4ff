"""``n2n status | peers | leases | version``: look at what runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from n2n.cli.output import ago, duration, print_json, print_pairs, print_table, size

__all__ = ["app", "print_edge", "print_supernode"]

app = typer.Typer()

_Instance = Annotated[str | None, typer.Option(metavar="NAME", help="Which daemon: a TAP device, or supernode.")]
_Json = Annotated[bool, typer.Option("--json", help="JSON; its fields are stable.")]


@app.command()
def status(instance: _Instance = None, as_json: _Json = False) -> None:
    """Show every daemon of this host, or one. (With --json: {"instances": [...]}.)"""
    from n2n.api.client import NotRunning, connect, live_instances

    names = [instance] if instance is not None else sorted(live_instances())
    if not names:
        raise NotRunning("nothing of n2n is running here. Start an edge: n2n edge up --config edge.yaml")
    found = []
    for name in names:
        with connect(name) as client:
            found.append(client.call("status"))
    if as_json:
        print_json({"instances": found})
        return
    for number, entry in enumerate(found):
        if number:
            print()
        (print_supernode if entry["role"] == "supernode" else print_edge)(entry)


@app.command()
def peers(instance: _Instance = None, as_json: _Json = False) -> None:
    """Show the other edges of the community, and the way to each."""
    found = _ask(instance, "peers")
    if as_json:
        print_json(found)
        return
    headings = ("NAME", "ADDRESS", "PATH", "RTT", "SENT", "RECEIVED", "FOR", "WHY", "ENDPOINT", "MAC")
    rows = [
        (
            peer["name"],
            peer["virtual_ip"],
            _path(peer),
            duration(peer["rtt"]),
            size(peer["tx_bytes"]),
            size(peer["rx_bytes"]),
            ago(peer["since"], found["at"]),
            peer["reason"],
            peer["in_use"] or peer["endpoint"],
            peer["mac"],
        )
        for peer in found["peers"]
    ]
    print_table(headings, rows, "no other edge is registered in this community")


@app.command()
def leases(instance: _Instance = None, as_json: _Json = False) -> None:
    """Show who holds which address (an edge asks its supernode)."""
    found = _ask(instance, "leases")
    if as_json:
        print_json(found)
        return
    headings = ("COMMUNITY", "ADDRESS", "NAME", "REGISTERED", "RENEWED", "EXPIRES IN", "MAC")
    rows = [
        (
            lease["community"],
            lease["ip"],
            lease["name"],
            lease["registered"],
            ago(lease["renewed"], found["at"]),
            duration(max(lease["expires"] - found["at"], 0.0)) if lease["expires"] is not None else "-",
            lease["mac"],
        )
        for lease in found["leases"]
    ]
    print_table(headings, rows, "no address has been given out")


@app.command()
def version(as_json: _Json = False) -> None:
    """Show the version."""
    from n2n import __version__

    if as_json:
        print_json({"version": __version__})
    else:
        print(f"n2n {__version__}")


def print_edge(found: dict[str, Any]) -> None:
    """Write the status of an edge."""
    peers, traffic = found["peers"], found["traffic"]
    state = found["state"] if found["ready"] else f"{found['state']} (not ready)"
    retry = f", again in {duration(found['retry_in'])}" if found["retry_in"] is not None else ""
    print_pairs(
        [
            ("edge", found["instance"]),
            ("state", f"{state}: {found['reason']}{retry}"),
            ("name", found["name"]),
            ("community", found["community"]),
            ("address", found["address"]),
            ("mac", found["mac"]),
            ("supernode", _endpoint(found["supernode"])),
            ("its key", _print_of(found["supernode"].get("key"))),
            ("REFUSED", _refused(found["supernode"].get("refused_key"))),
            ("public", found["public"]),
            ("port mapping", _port_mapping(found.get("port_mapping"))),
            ("frames", "sealed" if found["sealed"] else "NOT SEALED: readable on the way"),
            ("peers", f"{peers['total']} ({peers['direct']} direct, {peers['relay']} relayed)"),
            ("sent", f"{traffic['tx_frames']} frames, {size(traffic['tx_bytes'])}"),
            ("received", f"{traffic['rx_frames']} frames, {size(traffic['rx_bytes'])}"),
            ("web", _web(found.get("web"))),
            ("up", duration(found["uptime"])),
        ]
    )


def _web(web: dict[str, Any] | None) -> str | None:
    """Where the pages are, or why there are none; None where nobody asked for any."""
    return (web.get("url") or web.get("problem")) if web else None


def print_supernode(found: dict[str, Any]) -> None:
    """Write the status of a supernode."""
    print_pairs(
        [
            ("supernode", found["listen"]),
            ("key", _print_of(found.get("key"))),
            ("subnet", found["subnet"]),
            ("edges", found["edges"]),
            ("leases", found["leases"]),
            ("relayed", f"{found['relayed']} datagrams"),
            ("metrics", _web(found.get("web"))),
            ("up", duration(found["uptime"])),
        ]
    )
    if found["communities"]:
        print()
    rows = [(entry["name"], entry["network"], entry["edges"], entry["leases"]) for entry in found["communities"]]
    print_table(("COMMUNITY", "NETWORK", "EDGES", "LEASES"), rows, "no community yet")


def _print_of(fingerprint: str | None) -> str | None:
    return f"SHA256:{fingerprint}" if fingerprint else None


def _path(peer: dict[str, Any]) -> str:
    """The way to a peer, and the way back where that is another."""
    if peer["one_way"]:
        return f"{peer['path']} (one way)"
    if peer["path"] == "relay" and peer["their_path"] == "direct":
        return "relay (direct from there)"
    return str(peer["path"])


def _port_mapping(found: dict[str, Any] | None) -> str | None:
    if found is None:  # an older daemon
        return None
    state = found["state"].replace("_", " ")
    if found["external"] is not None:
        state += f": {found['external']} by {found['method']}"
    told = f"{state} ({found['reason']})" if found["reason"] else state
    return f"{told}. {found['remedy']}" if found["remedy"] else told


def _refused(fingerprint: str | None) -> str | None:
    return f"another key of the supernode, SHA256:{fingerprint} (see n2n key accept)" if fingerprint else None


def _endpoint(supernode: dict[str, Any]) -> str:
    configured, endpoint = supernode["configured"], supernode["endpoint"]
    return configured if endpoint in (None, configured) else f"{configured} ({endpoint})"


def _ask(instance: str | None, method: str) -> Any:
    from n2n.api.client import choose_edge, connect
    from n2n.api.instances import SUPERNODE

    name = SUPERNODE if instance == SUPERNODE else choose_edge(instance)
    with connect(name) as client:
        return client.call(method)
