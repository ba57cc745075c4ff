"""One look at everything: the supernode's answers, the router, the path."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final

from n2n.errors import N2NError
from n2n.net import resolve, surroundings
from n2n.net.portmap import Cause, NotMapped, answering, find_gateway, make_clients
from n2n.netcheck.asker import Asker, Reply
from n2n.netcheck.verdicts import Nat, Seen, double_nat, judge
from n2n.types import Endpoint

__all__ = ["Method", "PathMtu", "Report", "check"]

#: Bytes of the smallest packet that every IPv6 path takes (RFC 8200, 5); IPv4 paths are looked for from here, too.
_SMALLEST: Final = 1280
#: Tries of one size, and seconds to wait after each: most of the sizes tried are too large, and wait in vain.
_PLAIN_TRIES: Final = 2
_PROBE_WAIT: Final = 0.4
#: Bytes of the largest packet that a supernode's second port answers (jumbo frames).
_LARGEST: Final = 9000


@dataclass(frozen=True, slots=True)
class Method:
    """What one port-mapping protocol said.

    Args:
        name: upnp, nat-pmp or pcp.
        answers: a router answered.
        external_ip: the address that it has outside; None: it did not tell.
        said: what it complained of, or why nothing was heard; empty where all is well.
        remedy: what to do about that.
    """

    name: str
    answers: bool
    external_ip: IPv4Address | None
    said: str
    remedy: str


@dataclass(frozen=True, slots=True)
class PathMtu:
    """Largest packet that gets to the supernode whole.

    Args:
        known: what the kernel believes, in bytes.
        found: what got there; None: nothing of a size that tells anything.
        exact: the next larger packet did not get there; otherwise there may be room for more.
    """

    known: int | None
    found: int | None
    exact: bool


@dataclass(slots=True)
class Report:
    """What was found.  Fields that could not be filled are None."""

    configured: str
    endpoint: Endpoint | None = None
    problem: str = ""
    """Why nothing came from the supernode; empty where something did."""
    remedy: str = ""
    kind: str | None = None
    """n2n, or v5: it answers, but does not tell where it sees us."""
    rtt: float | None = None
    probe_port: int | None = None
    local: Endpoint | None = None
    public: Endpoint | None = None
    nat: Nat | None = None
    mtu: PathMtu | None = None
    router: str | None = None
    methods: list[Method] = field(default_factory=list)
    external_ip: IPv4Address | None = None
    double_nat: str = ""
    ipv6: list[str] = field(default_factory=list)


async def check(
    supernode: str, *, bind: str = "", probe_port: int | None = None, ignore: tuple[str, ...] = ()
) -> Report:
    """Look at the network; takes some 5 to 15 seconds, the longer the less answers.

    Args:
        supernode: ``host:port``.
        bind: address of this host to ask from; empty: the kernel chooses.
        probe_port: the supernode's second port; None: found out, or the next one.
        ignore: interfaces whose addresses are not the host's (TAP devices).
    """
    report = Report(supernode)
    try:
        found = await resolve(supernode, socket.AF_UNSPEC)
        report.endpoint = next((one for one in found if one.ip.version == 4), found[0])
    except N2NError as error:
        report.problem = str(error)
        report.remedy = "Check the name of the supernode, and the name service (getent hosts NAME)"
    router = asyncio.get_running_loop().create_task(_router(report, bind))
    if report.endpoint is not None:
        await asyncio.to_thread(_ask, report, report.endpoint, bind, probe_port)
    await router
    target = report.endpoint.ip if report.endpoint is not None else None
    around = await asyncio.to_thread(surroundings, target, ignore=ignore)
    report.ipv6 = [str(ip) for ip in around.addresses if ip.version == 6 and ip.is_global]
    report.double_nat = report.double_nat or double_nat(report.external_ip, report.public)
    return report


# ---- the supernode ------------------------------------------------------------------------------


def _ask(report: Report, supernode: Endpoint, bind: str, probe_port: int | None) -> None:
    try:
        with Asker(supernode, bind) as first:
            main = first.ask()
            report.local = first.local
            if main is None:
                _unanswered(report, first.error)
                return
            report.rtt = main.seconds
            report.kind = "v5" if main.observed is None else "n2n"
            if main.observed is None:
                report.nat = judge(Seen(report.local, None, None, None))
                return
            report.public = main.observed
            # Another socket asks first for an answer from the port that it never asked: its NAT knows nothing of it.
            with Asker(supernode, bind) as fresh:
                unasked = fresh.ask(other=True)
            port = unasked.port if unasked is not None else probe_port or supernode.port + 1
            second = first.ask(port) if port <= 65535 else None
            report.probe_port = port if second is not None or unasked is not None else None
            report.nat = judge(_seen(report, main, second, unasked))
            if report.probe_port is not None:
                report.mtu = _measure(supernode, bind, report.probe_port)
    except OSError as error:
        report.problem = f"cannot ask the supernode: {error.strerror or error}"


def _seen(report: Report, main: Reply, second: Reply | None, unasked: Reply | None) -> Seen:
    answered = True if unasked is not None else None if second is None else False
    return Seen(report.local, main.observed, second.observed if second is not None else None, answered)


def _unanswered(report: Report, error: str) -> None:
    if error == "connection refused":
        report.problem = f"UDP gets to {report.endpoint}, but no supernode runs there"
        report.remedy = "Start it (n2n supernode serve), or correct the port"
    elif error:
        report.problem = f"the network says of {report.endpoint}: {error}"
        report.remedy = "See ip route, and the firewalls of this host and of the router"
    else:
        report.problem = f"no answer from {report.endpoint}: UDP is blocked on the way, or no supernode runs there"
        report.remedy = (
            "Try from another network. If it works there, this one blocks UDP: have it let UDP through to that port. "
            "If not: does the supernode run, and is its UDP port open (n2n doctor supernode there)?"
        )


def _measure(supernode: Endpoint, bind: str, port: int) -> PathMtu:
    """Find the largest packet that is answered, between 1280 bytes and what the interface takes."""
    with Asker(supernode, bind, tries=_PLAIN_TRIES, wait=_PROBE_WAIT) as asker:
        known = asker.known_mtu()
        asker.never_fragment()
        low, high = 0, min(known or 1500, _LARGEST)
        if asker.ask(port, packet=high) is not None:
            return PathMtu(known, high, exact=False)
        if high <= _SMALLEST or asker.ask(port, packet=_SMALLEST) is None:
            low, high = 576, min(high, _SMALLEST)
            if asker.ask(port, packet=low) is None:
                return PathMtu(known, None, exact=False)
        else:
            low = _SMALLEST
        while high - low > 1:  # `low` got there, `high` did not
            middle = (low + high) // 2
            if asker.ask(port, packet=middle) is not None:
                low = middle
            else:
                high = middle
        return PathMtu(known, low, exact=True)


# ---- the router ---------------------------------------------------------------------------------


async def _router(report: Report, bind: str) -> None:
    towards = report.endpoint.ip if report.endpoint is not None else None
    try:
        source = IPv4Address(bind) if bind and bind.replace(".", "").isdigit() else None
        gateway = await asyncio.to_thread(find_gateway, towards if isinstance(towards, IPv4Address) else None, source)
    except N2NError:
        return
    report.router = str(gateway.router)
    async for client, status in answering(make_clients(gateway, bytes(16))):
        if not isinstance(status, NotMapped):
            report.methods.append(Method(client.method, True, status.external_ip, "", ""))
            report.external_ip = report.external_ip or status.external_ip
            if status.external_ip is None and client.method == "upnp":
                report.double_nat = f"the router {client.router} has no public address outside"
            continue
        answers = status.cause not in (Cause.SILENT, Cause.NOT_INSTALLED)
        report.methods.append(Method(client.method, answers, None, status.what, status.cause.value))
        if status.cause is Cause.DOUBLE_NAT:
            report.double_nat = f"the router {client.router} has no public address outside"
