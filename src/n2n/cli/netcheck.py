"""``n2n netcheck``: what network this host is in, and what that means for direct paths."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n2n.cli.exits import NOT_READY, OK
from n2n.cli.output import duration, print_json, print_pairs
from n2n.errors import ConfigError

if TYPE_CHECKING:
    from n2n.netcheck import Report

__all__ = ["app"]

app = typer.Typer()


@app.command()
def netcheck(
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="An edge's: its supernode is asked.")] = None,
    supernode: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Ask this one.")] = None,
    instance: Annotated[str | None, typer.Option(metavar="NAME", help="Ask the one of this edge, which runs.")] = None,
    probe_port: Annotated[
        int | None, typer.Option(metavar="PORT", min=1, max=65535, help="The supernode's second port [the next].")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON; its fields are stable.")] = False,
) -> None:
    """Look at this host's network: NAT, UDP, port mappings, double NAT, MTU. Takes 5 to 15 seconds, changes nothing.

    Without options the supernode of the edge that runs is asked. Ends with 4 where the supernode does not answer. JSON:
    {at, verdict, remedies, udp, supernode {configured, endpoint, kind (n2n, v5), rtt, probe_port, problem}, nat {kind,
    mapping, filtering, local, public, port_preserved, unknown}, router {address, external_ip, double_nat, methods:
    [{name, answers, external_ip, said, remedy}]}, mtu {known, found, exact}, ipv6, edges: [{instance, port_mapping}]}.
    """
    from n2n.netcheck import check

    target, bind, taps, edges = _target(config, supernode, instance)
    report = asyncio.run(check(target, bind=bind, probe_port=probe_port, ignore=taps))
    told = _told(report, edges)
    if as_json:
        print_json(told)
    else:
        _print(told)
    raise typer.Exit(OK if told["udp"] else NOT_READY)


def _target(
    config: Path | None, supernode: str | None, instance: str | None
) -> tuple[str, str, tuple[str, ...], list[dict[str, Any]]]:
    """Whom to ask, from which address, which interfaces are TAPs, and what running edges say of their mappings."""
    from n2n.config import load_edge
    from n2n.doctor.network import statuses

    running = {name: status for name, status in statuses().items() if status.get("role") == "edge"}
    taps = tuple(str(status["tap"]) for status in running.values())
    edges = [{"instance": name, "port_mapping": status.get("port_mapping")} for name, status in running.items()]
    if sum(one is not None for one in (config, supernode, instance)) > 1:
        raise ConfigError("--config, --supernode, --instance: give one of them")
    if supernode is not None:
        return supernode, "", taps, edges
    if config is not None or (instance is None and not running and "N2N_SUPERNODE_ADDR" in os.environ):
        loaded = load_edge(config).config
        return loaded.supernodes[0], loaded.bind, taps, edges
    if instance is None and len(running) == 1:
        (instance,) = running
    if instance not in running:
        known = f" Running edges: {', '.join(sorted(running))}" if running else ""
        raise ConfigError(f"which supernode? Give --supernode HOST:PORT, --config FILE or --instance NAME.{known}")
    told = running[instance]["supernode"]
    return str(told["endpoint"] or told["configured"]), "", taps, edges


def _told(report: Report, edges: list[dict[str, Any]]) -> dict[str, Any]:
    nat, mtu = report.nat, report.mtu
    return {
        "at": time.time(),
        "verdict": _verdict(report),
        "remedies": _remedies(report),
        "udp": report.kind is not None,
        "supernode": {
            "configured": report.configured,
            "endpoint": _text(report.endpoint),
            "kind": report.kind,
            "rtt": report.rtt,
            "probe_port": report.probe_port,
            "problem": report.problem or None,
        },
        "nat": None
        if nat is None
        else {
            "kind": nat.kind,
            "mapping": nat.mapping.value,
            "filtering": nat.filtering.value,
            "local": _text(report.local),
            "public": _text(report.public),
            "port_preserved": nat.port_preserved,
            "unknown": list(nat.unknown),
        },
        "router": {
            "address": report.router,
            "external_ip": _text(report.external_ip),
            "double_nat": report.double_nat or None,
            "methods": [
                {
                    "name": method.name,
                    "answers": method.answers,
                    "external_ip": _text(method.external_ip),
                    "said": method.said,
                    "remedy": method.remedy,
                }
                for method in report.methods
            ],
        },
        "mtu": None if mtu is None else {"known": mtu.known, "found": mtu.found, "exact": mtu.exact},
        "ipv6": report.ipv6,
        "edges": edges,
    }


def _verdict(report: Report) -> str:
    """One sentence."""
    from n2n.netcheck.verdicts import Filtering, Mapping

    if report.problem:
        return report.problem
    nat = report.nat
    if nat is None or nat.mapping is Mapping.UNKNOWN:
        return "UDP passes; the NAT is of unknown kind"
    if nat.mapping is Mapping.NONE and nat.filtering is not Filtering.STRICT:
        return "UDP passes and there is no NAT: direct paths with everybody"
    maps = any(method.answers and not method.said for method in report.methods)
    if maps and not report.double_nat:
        return f"behind {nat.kind}, but the router maps ports: direct paths with nearly everybody"
    if nat.mapping is Mapping.DIFFERENT:
        return f"behind {nat.kind}: direct paths with open and full-cone peers, with others by luck (port prediction)"
    return f"behind {nat.kind}: direct paths with all but symmetric NATs, and with those by luck (port prediction)"


def _remedies(report: Report) -> list[str]:
    from n2n.net.portmap import Cause
    from n2n.netcheck.verdicts import Mapping

    found = [report.remedy] if report.remedy else []
    if report.double_nat:
        found.append(Cause.DOUBLE_NAT.value)
    behind = report.nat is not None and report.nat.mapping not in (Mapping.NONE, Mapping.UNKNOWN)
    if behind and not any(method.answers for method in report.methods):
        found.append(Cause.SILENT.value)
    found += [method.remedy for method in report.methods if method.answers and method.remedy]
    if report.kind == "v5":
        found.append("For more, ask a supernode of n2n: one of v5 does not tell where it sees us")
    return list(dict.fromkeys(found))


def _print(told: dict[str, Any]) -> None:
    supernode, nat, router, mtu = told["supernode"], told["nat"], told["router"], told["mtu"]
    where = supernode["endpoint"]
    answers = f"answers after {duration(supernode['rtt'])}" if told["udp"] else "does not answer"
    pairs: list[tuple[str, object]] = [
        ("verdict", told["verdict"]),
        ("udp", "passes" if told["udp"] else "no answer"),
        ("supernode", f"{supernode['configured']}{f' ({where})' if where else ''} {answers}"),
    ]
    if nat is not None:
        preserved = {True: ", port kept", False: ", port changed", None: ""}[nat["port_preserved"]]
        pairs += [
            ("nat", nat["kind"]),
            ("mapping", nat["mapping"]),
            ("filtering", nat["filtering"]),
            ("endpoint", f"{nat['local']} is seen as {nat['public']}{preserved}" if nat["public"] else None),
        ]
    if mtu is not None:
        found = "unknown" if mtu["found"] is None else f"{mtu['found']} bytes{'' if mtu['exact'] else ' or more'}"
        pairs.append(("mtu", f"{found} (the kernel believes in {mtu['known']})"))
    pairs.append(("router", router["address"] or "none on the way by IPv4"))
    for method in router["methods"]:
        outside = f", external address {method['external_ip']}" if method["external_ip"] else ""
        pairs.append((method["name"], method["said"] or f"answers{outside}"))
    pairs += [
        ("double nat", router["double_nat"] or ("no sign of it" if router["external_ip"] else None)),
        ("ipv6", ", ".join(told["ipv6"]) or "no global address"),
    ]
    for edge in told["edges"]:
        mapping = edge["port_mapping"] or {}
        state = str(mapping.get("state", "unknown")).replace("_", " ")
        pairs.append((edge["instance"], f"port mapping {state} {mapping.get('external') or ''}".rstrip()))
    print_pairs(pairs)
    for text in nat["unknown"] if nat is not None else ():
        print(f"not known: {text}")
    for text in told["remedies"]:
        print(f"to do: {text}")


def _text(value: object | None) -> str | None:
    return None if value is None else str(value)
