"""``n2n upnp ...``: port mappings at the router, by hand. (An edge makes its own: see the key `port_mapping`.)"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from n2n.cli.exits import USAGE, tell_warning
from n2n.cli.output import duration, print_json, print_table
from n2n.errors import ConfigError

if TYPE_CHECKING:
    from n2n.net.portmap import Client, Gateway, Method, NotMapped, Transport

__all__ = ["app"]

#: Longest lifetime that UPnP IGD:2 knows (WANIPConnection:2, 2.3.19), in seconds; routers may grant less.
_WEEK: Final = 604800

app = typer.Typer(rich_markup_mode=None, help="Port mappings at the router: UPnP, NAT-PMP, PCP.")

_External = Annotated[int | None, typer.Option(metavar="PORT", min=1, max=65535, help="The router's port.")]
_Internal = Annotated[int | None, typer.Option(metavar="PORT", min=1, max=65535, help="This host's [the same].")]
_Protocol = Annotated[str, typer.Option(metavar="NAME", help="udp or tcp.")]
_How = Annotated[str, typer.Option(metavar="METHOD", help="auto (what answers), upnp, nat-pmp or pcp.")]
_Json = Annotated[bool, typer.Option("--json", help="JSON; its fields are stable.")]


@app.callback(invoke_without_command=True)
def upnp(  # noqa: PLR0917  (typer reads them by name)
    ctx: typer.Context,
    external_port: _External = None,
    internal_port: _Internal = None,
    protocol: _Protocol = "udp",
    lifetime: Annotated[str, typer.Option(metavar="TIME", help="Asked for, such as 2h; at most 168h.")] = "168h",
    method: _How = "auto",
    as_json: _Json = False,
) -> None:
    """Have the router send what arrives at one of its ports to this host: make a mapping, or renew it.

    By UPnP, NAT-PMP or PCP, what answers first in this order. JSON: {method, router, protocol, internal, external,
    external_ip, external_port, lifetime, address (public, private, carrier-grade, unusable, unknown), warning}.
    """
    if ctx.invoked_subcommand is not None:
        return
    outer, inner = external_port or internal_port, internal_port or external_port
    if outer is None or inner is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(USAGE)
    seconds = _seconds(lifetime)
    result = asyncio.run(_add(outer, inner, _transport(protocol), seconds, _methods(method)))
    if as_json:
        print_json(result)
        return
    span = f"for {duration(result['lifetime'])}" if result["lifetime"] else "until it is deleted"
    where = result["external"] or f"port {result['external_port']}"
    print(f"{where} ({result['protocol']}) leads to {result['internal']} {span}, by {result['method']}")
    if result["warning"]:
        tell_warning(result["warning"])


@app.command(name="list")
def list_(as_json: _Json = False) -> None:
    """Show every mapping in the router's table, of all hosts. Only UPnP can.

    JSON: {router, mappings: [{protocol, external_port, internal_host, internal_port, label, enabled, lifetime,
    remote_host}]}.
    """
    router, entries = asyncio.run(_list())
    if as_json:
        print_json({"router": router, "mappings": entries})
        return
    headings = ("PROTOCOL", "PORT", "LEADS TO", "LABEL", "LEFT", "IN FORCE", "ONLY FROM")
    rows = [
        (
            entry["protocol"],
            entry["external_port"],
            f"{entry['internal_host']}:{entry['internal_port']}",
            entry["label"],
            duration(entry["lifetime"]) if entry["lifetime"] else "always",
            entry["enabled"],
            entry["remote_host"] or None,
        )
        for entry in entries
    ]
    print_table(headings, rows, f"the router {router} has no mappings")


@app.command()
def delete(
    external_port: _External = None,
    internal_port: _Internal = None,
    protocol: _Protocol = "udp",
    method: _How = "auto",
    as_json: _Json = False,
) -> None:
    """Delete a mapping to this host. NAT-PMP and PCP know it by this host's port, UPnP by the router's.

    JSON: {method, router, protocol, external_port, internal_port, deleted}.
    """
    outer, inner = external_port or internal_port, internal_port or external_port
    if outer is None or inner is None:
        raise ConfigError("which one? Give --external-port (see n2n upnp list)")
    result = asyncio.run(_delete(outer, inner, _transport(protocol), _methods(method)))
    if as_json:
        print_json(result)
    else:
        print(f"port {outer} ({result['protocol']}) of the router {result['router']} is no longer mapped to this host")


@app.command(name="external-ip")
def external_ip(method: _How = "auto", as_json: _Json = False) -> None:
    """Show the router's address on its other side. PCP cannot tell it without a mapping.

    JSON: {method, router, external_ip, address (public, private, carrier-grade, unusable), warning}.
    """
    result = asyncio.run(_external_ip(_methods(method)))
    if as_json:
        print_json(result)
        return
    print(result["external_ip"])
    if result["warning"]:
        tell_warning(result["warning"])


# ---- what is asked for --------------------------------------------------------------------------


def _transport(word: str) -> Transport:
    match word.strip().lower():
        case "udp":
            return "udp"
        case "tcp":
            return "tcp"
    raise ConfigError(f"--protocol {word!r} is neither udp nor tcp")


def _methods(word: str) -> tuple[Method, ...]:
    from n2n.net.portmap import METHODS

    found = tuple(method for method in METHODS if word.strip().lower() in ("auto", method))
    if not found:
        raise ConfigError(f"--method {word!r} is none of: auto, {', '.join(METHODS)}")
    return found


def _seconds(text: str) -> int:
    from n2n.config.durations import parse_duration

    try:
        seconds = round(parse_duration(text))
    except ValueError as error:
        raise ConfigError(f"--lifetime: {error}") from None
    if not 1 <= seconds <= _WEEK:
        raise ConfigError(f"--lifetime {text} is not between 1s and 168h")
    return seconds


# ---- what is done -------------------------------------------------------------------------------


def _clients(methods: Sequence[Method], *, making: bool) -> tuple[Gateway, list[Client]]:
    from n2n.identity import load_machine_id
    from n2n.net.portmap import find_gateway, make_clients

    gateway = find_gateway()
    # Only PCP's mappings need a secret, and only those who make or delete any.
    secret = load_machine_id() if making and "pcp" in methods else bytes(16)
    return gateway, make_clients(gateway, secret, methods=methods)


async def _add(
    outer: int, inner: int, transport: Transport, lifetime: int, methods: Sequence[Method]
) -> dict[str, Any]:
    from n2n.net.portmap import NotMapped, Wanted, answering, most_telling
    from n2n.types import Endpoint

    gateway, clients = _clients(methods, making=True)
    wanted = Wanted(transport, Endpoint(gateway.source, inner), outer, lifetime, strict=True)
    refusals = []
    async with contextlib.aclosing(answering(clients)) as answers:
        async for client, status in answers:
            try:
                if isinstance(status, NotMapped):
                    raise status
                mapping = await client.map(wanted)
            except NotMapped as error:
                refusals.append(error)
                continue
            return {
                "method": client.method,
                "router": client.router,
                "protocol": transport,
                "internal": str(mapping.internal),
                "external": None if mapping.external is None else str(mapping.external),
                "external_port": mapping.external_port,
                "lifetime": mapping.lifetime,
            } | _address(mapping.external_ip)
    raise most_telling(refusals)


async def _list() -> tuple[str, list[dict[str, Any]]]:
    from n2n.net.portmap import UpnpClient, find_gateway

    client = UpnpClient(find_gateway().source)
    entries = await client.entries()
    return client.router, [
        {
            "protocol": entry.transport,
            "external_port": entry.external_port,
            "internal_host": entry.internal_host,
            "internal_port": entry.internal_port,
            "label": entry.label,
            "enabled": entry.enabled,
            "lifetime": entry.lifetime,
            "remote_host": entry.remote_host,
        }
        for entry in entries
    ]


async def _delete(outer: int, inner: int, transport: Transport, methods: Sequence[Method]) -> dict[str, Any]:
    from n2n.net.portmap import Mapping, NotMapped, UpnpClient, answering, most_telling
    from n2n.types import Endpoint

    gateway, clients = _clients(methods, making=True)
    refusals = []
    async with contextlib.aclosing(answering(clients)) as answers:
        async for client, status in answers:
            if isinstance(status, NotMapped):
                refusals.append(status)
                continue
            if isinstance(client, UpnpClient):
                inner = await client.must_have(outer, transport, gateway.source)
            mapping = Mapping(client.method, transport, Endpoint(gateway.source, inner), outer, None, 0, None)
            await client.unmap(mapping)
            return {
                "method": client.method,
                "router": client.router,
                "protocol": transport,
                "external_port": outer,
                "internal_port": inner,
                "deleted": True,
            }
    raise most_telling(refusals)


async def _external_ip(methods: Sequence[Method]) -> dict[str, Any]:
    from n2n.net.portmap import Cause, NotMapped, answering, most_telling

    refusals = []
    async with contextlib.aclosing(answering(_clients(methods, making=False)[1])) as answers:
        async for client, status in answers:
            if isinstance(status, NotMapped):
                refusals.append(status)
            elif status.external_ip is not None:
                return {"method": client.method, "router": client.router} | _address(status.external_ip)
            else:
                refusals.append(_no_address(client))
    raise most_telling(refusals or [NotMapped(Cause.SILENT, "no router answers")])


def _no_address(client: Client) -> NotMapped:
    from n2n.net.portmap import Cause, NotMapped

    if client.method == "pcp":
        return NotMapped(Cause.NOT_OFFERED, "PCP tells the external address with a mapping only")
    return NotMapped(Cause.DOUBLE_NAT, f"the router {client.router} has no public address")


def _address(ip: Any) -> dict[str, Any]:
    from n2n.net.portmap import Cause, kind_of_address

    kind = "unknown" if ip is None else kind_of_address(ip)
    warning = None
    if ip is not None and kind != "public":
        warning = f"the router's own address {ip} is no public one ({kind}). {Cause.DOUBLE_NAT.value}"
    return {"external_ip": None if ip is None else str(ip), "address": kind, "warning": warning}
