"""The edge's port mapping: found, made, renewed, watched, made again, removed; and told as what it is.

All of it happens beside the edge, which never waits for it. A mapping that a router says it made is `unproven` until a
packet from outside has come through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address
from typing import Final

from n2n.errors import N2NError
from n2n.net.portmap import (
    METHODS,
    Announcements,
    Cause,
    Client,
    Epoch,
    Gateway,
    Mapping,
    Method,
    NotMapped,
    Wanted,
    answering,
    find_gateway,
    kind_of_address,
    make_clients,
    most_telling,
)
from n2n.types import Endpoint

__all__ = ["PortMapState", "PortMapTimes", "PortMapView", "PortMapper"]

#: Checks in a row that may stay without an answer before the router counts as gone.
_MOST_SILENT: Final = 3


class PortMapState(Enum):
    """How far a port mapping has got."""

    OFF = "off"
    SEARCHING = "searching"
    NOT_NEEDED = "not_needed"
    NONE = "none"
    """No router makes mappings."""
    REFUSED = "refused"
    DOUBLE_NAT = "double_nat"
    """A mapping, perhaps, but of a router that is not the last one before the internet."""
    UNPROVEN = "unproven"
    WORKING = "working"


@dataclass(frozen=True, slots=True)
class PortMapTimes:
    """Durations in seconds.

    Args:
        lifetime: asked for; it is renewed at half of what is granted (RFC 6886, 3.3).
        check: between two looks whether the router still has the mapping.
        retry: until the next attempt after a failure; doubles.
        longest_retry: bounds that.
        again: least time between losing a mapping and making it again.
        prove: until a packet from outside is asked for again, while none came through; doubles.
        longest_prove: bounds that.
        farewell: how long the end waits for the router.
    """

    lifetime: int = 3600
    check: float = 60.0
    retry: float = 30.0
    longest_retry: float = 900.0
    again: float = 1.0
    prove: float = 1.0
    longest_prove: float = 600.0
    farewell: float = 2.0


@dataclass(frozen=True, slots=True)
class PortMapView:
    """What is known of the port mapping, for people and programs.

    Args:
        state: how far it has got.
        reason: why, in words.
        remedy: what to do about it; empty where nothing is to be done.
        method, router, internal, external, lifetime: of the mapping; None where there is none.
        expires: Unix seconds at which it ends unless it is renewed; None: never, or none.
    """

    state: PortMapState
    reason: str = ""
    remedy: str = ""
    method: Method | None = None
    router: str | None = None
    internal: Endpoint | None = None
    external: Endpoint | None = None
    lifetime: int | None = None
    expires: float | None = None


class PortMapper:
    """Keeps one UDP port mapping.

    Args:
        mode: auto, off, or the one method to use.
        local: where the UDP socket is bound.
        secret: of this host, at least 16 bytes (see `n2n.net.portmap.PcpClient`).
        tell: takes events: level, name, fields.
        seen_as: our own endpoint as the supernode sees it, or None while it is unknown.
        changed: told the mapped endpoint whenever it changes, None when it is gone.
        find, make: look for the router, and make clients; tests give their own.
    """

    def __init__(
        self,
        mode: str,
        local: Endpoint,
        secret: bytes,
        *,
        tell: Callable[[str, str, MappingOf[str, object]], None],
        seen_as: Callable[[], Endpoint | None],
        changed: Callable[[Endpoint | None], None] = lambda _: None,
        times: PortMapTimes = PortMapTimes(),
        find: Callable[[IPv4Address | None, IPv4Address | None], Gateway] = find_gateway,
        make: Callable[[Gateway, bytes, Counter[str], Sequence[Method]], list[Client]] = make_clients,
    ) -> None:
        names = ("malformed", "silent", "lost", "faults", "asked")
        self.counts: Counter[str] = Counter({f"portmap_{name}": 0 for name in names})
        self._methods: tuple[Method, ...] = tuple(one for one in METHODS if mode in ("auto", one))
        self._local = local
        self._secret = secret
        self._tell = tell
        self._changed = changed
        self.prove: Callable[[Endpoint, Endpoint], None] = lambda mapped, supernode: None
        """Asks a supernode to send a packet to the mapped endpoint; `proven` is called when it came."""
        self._seen_as = seen_as
        self._times = times
        self._find = find
        self._make = make
        self._gateway: Gateway | None = None
        self._towards: Endpoint | None = None
        self._nudge = asyncio.Event()
        self._held: tuple[Client, Mapping] | None = None
        self._renewed = 0.0
        self._proven = False
        self._port = 0
        self._view = PortMapView(PortMapState.SEARCHING if self._methods else PortMapState.OFF)
        if self._methods and (why := _useless(local)):
            self._methods = ()
            self._view = PortMapView(PortMapState.OFF, why)

    @property
    def view(self) -> PortMapView:
        """How it stands."""
        return self._view

    # ---- what others tell it -----------------------------------------------------------------

    def supernode_at(self, endpoint: Endpoint) -> None:
        """Where the supernode is: the router on the way there is the one to ask. Nothing begins before this."""
        before, self._towards = self._towards, endpoint
        if before is None or before.ip != endpoint.ip:
            self._nudge.set()

    def network_changed(self) -> None:
        """This host's addresses or routes changed: look again at once."""
        self._nudge.set()

    def proven(self, endpoint: Endpoint) -> None:
        """A packet came in that only the mapping can have let through; no effect where `endpoint` is another by now."""
        if self._held is not None and endpoint == self._view.external and not self._proven:
            self._proven = True
            self._judge()

    # ---- life --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Make a mapping and keep it, for ever; returns at once where that is switched off."""
        delay = self._times.retry
        while self._methods:
            while self._towards is None:
                await self._wait(None)
                self._nudge.clear()
            self._nudge.clear()
            try:
                if await self._establish():
                    delay = self._times.retry
                    await self._listen_and_keep()
                    await asyncio.sleep(self._times.again)
                    continue
            except NotMapped as error:
                self._failed(error.cause, error.what)
            except (N2NError, OSError) as error:
                self._failed(Cause.NO_GATEWAY, str(error))
            except Exception as error:  # a bug of ours or of a library's costs the mapping, not the edge
                self.counts["portmap_faults"] += 1
                self._held = None
                self._failed(Cause.BROKEN, f"{type(error).__name__}: {error} (a bug: please report it)")
            await self._wait(delay)
            delay = min(delay * 2, self._times.longest_retry)

    async def close(self) -> None:
        """Have the router remove the mapping; waits no longer than `farewell`."""
        held, self._held = self._held, None
        if held is not None:
            client, mapping = held
            with contextlib.suppress(NotMapped, OSError, TimeoutError):
                async with asyncio.timeout(self._times.farewell):
                    await client.unmap(mapping)

    async def _wait(self, seconds: float | None) -> bool:
        """Wait, but no longer than until something changes; True if it did."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._nudge.wait()
        return self._nudge.is_set()

    # ---- make --------------------------------------------------------------------------------

    async def _establish(self) -> bool:
        """Make a mapping by the first method that can; False where none is needed.

        Raises:
            NotMapped: there is none; the most telling of the reasons.
        """
        if self._towards is not None and self._towards.ip.is_loopback:
            self._set(PortMapView(PortMapState.NOT_NEEDED, "the supernode is on this host"))
            return False
        gateway = self._gateway = await self._route()
        if kind_of_address(gateway.source) == "public":
            self._set(PortMapView(PortMapState.NOT_NEEDED, f"this host's own address {gateway.source} is public"))
            return False
        internal = Endpoint(gateway.source, self._local.port)
        wanted = Wanted("udp", internal, self._port or internal.port, self._times.lifetime)
        refusals: list[NotMapped] = []
        clients = self._make(gateway, self._secret, self.counts, self._methods)
        async with contextlib.aclosing(answering(clients)) as answers:
            async for client, status in answers:
                try:
                    if isinstance(status, NotMapped):
                        raise status
                    await self._take(client, wanted)
                except NotMapped as error:
                    refusals.append(error)
                else:
                    return True
        raise most_telling(refusals)

    async def _route(self) -> Gateway:
        towards = self._towards.ip if self._towards is not None else None
        bound = self._local.ip if isinstance(self._local.ip, IPv4Address) and int(self._local.ip) else None
        return await asyncio.to_thread(self._find, towards if isinstance(towards, IPv4Address) else None, bound)

    async def _take(self, client: Client, wanted: Wanted) -> None:
        """Make or renew the mapping, and note it. It is noted before, too, so that it is removed whatever happens."""
        if self._held is None:
            guess = Mapping(client.method, "udp", wanted.internal, wanted.external_port, None, 0, None)
            self._held = client, guess
            try:
                mapping = await client.map(wanted)
            except NotMapped:
                self._held = None
                raise
        else:
            mapping = await client.map(wanted)
            self._proven = self._proven and mapping.external == self._held[1].external
        self._held = client, mapping
        self._port = mapping.external_port
        self._renewed = time.monotonic()
        self._judge()

    # ---- keep --------------------------------------------------------------------------------

    async def _listen_and_keep(self) -> None:
        assert self._gateway is not None
        ears = Announcements(self._gateway.router, self._gateway.source, self._nudge.set)
        try:
            await self._keep()
        finally:
            ears.close()

    async def _keep(self) -> None:
        """Renew the mapping and look after it; returns when it is lost, or has to be looked for again."""
        assert self._held is not None
        mapping = self._held[1]
        epoch, silent = Epoch(), 0
        epoch.restarted(mapping.epoch, time.monotonic())
        check_at = time.monotonic() + self._times.check
        renew_at = _renewal(mapping, self._renewed)
        gap = self._times.prove
        prove_at = time.monotonic()
        while True:
            if self._proven:  # should that end, it is asked for again at once
                gap, prove_at = self._times.prove, time.monotonic()
            elif time.monotonic() >= prove_at:
                self._ask_for_proof()
                prove_at = time.monotonic() + gap
                gap = min(gap * 2, self._times.longest_prove)
            next_at = min(renew_at, check_at, check_at if self._proven else prove_at)
            nudged = await self._wait(max(next_at - time.monotonic(), 0.0))
            self._judge()
            if nudged:
                self._nudge.clear()
                if not await self._same_way():
                    await self._leave_elsewhere()
                    return
            renewing = time.monotonic() >= renew_at
            if not (nudged or renewing or time.monotonic() >= check_at):
                continue
            try:
                lost = await (self._renew(epoch) if renewing else self._check(epoch))
                silent = 0
            except NotMapped as error:
                silent += 1
                lost = error.what if silent >= _MOST_SILENT or self._overdue() else ""
            if lost:
                self._lose(lost)
                return
            check_at = time.monotonic() + self._times.check
            if renewing:
                renew_at = self._next_renewal(silent)

    def _ask_for_proof(self) -> None:
        if self._view.external is not None and self._towards is not None:
            self.counts["portmap_asked"] += 1
            self.prove(self._view.external, self._towards)

    def _overdue(self) -> bool:
        """Whether the mapping has ended because it could not be renewed."""
        assert self._held is not None
        lifetime = self._held[1].lifetime
        return lifetime > 0 and self._renewed + lifetime <= time.monotonic()

    def _next_renewal(self, failures: int) -> float:
        """After a success at half of the time, after a failure at half of what is left (RFC 6887, 11.2.1)."""
        assert self._held is not None
        mapping = self._held[1]
        if not failures:
            return _renewal(mapping, self._renewed)
        now = time.monotonic()
        return now + max((self._renewed + mapping.lifetime - now) / 2, 1.0)

    async def _same_way(self) -> bool:
        """Whether the router that has our mapping is still the one on our way."""
        with contextlib.suppress(N2NError):
            return await self._route() == self._gateway
        return False

    async def _renew(self, epoch: Epoch) -> str:
        """Renew; returns what was lost: nothing, since this makes it again as well."""
        assert self._held is not None
        client, before = self._held
        wanted = Wanted("udp", before.internal, before.external_port, self._times.lifetime)
        await self._take(client, wanted)
        if epoch.restarted(self._held[1].epoch, time.monotonic()):
            self._proven = False
            self._judge()
        return ""

    async def _check(self, epoch: Epoch) -> str:
        """Look after the mapping; returns what was lost, or nothing."""
        assert self._held is not None
        client, mapping = self._held
        status = await client.status(mapping)
        if epoch.restarted(status.epoch, time.monotonic()):
            return "the router was restarted"
        if status.present is False:
            return "the router no longer has the mapping"
        if status.external_ip != mapping.external_ip:
            return f"the router's address changed from {mapping.external_ip} to {status.external_ip}"
        return ""

    def _lose(self, why: str) -> None:
        """Forget the mapping: it is gone at the router."""
        self.counts["portmap_lost"] += 1
        self._held = None
        self._proven = False
        self._set(PortMapView(PortMapState.SEARCHING, why))

    async def _leave_elsewhere(self) -> None:
        """The router or our address is another now: delete the mapping, if the router can still be asked."""
        await self.close()
        self._proven = False
        self._set(PortMapView(PortMapState.SEARCHING, "the network changed"))

    # ---- tell --------------------------------------------------------------------------------

    def _judge(self) -> None:
        """Say what the mapping is worth, from what is known now."""
        if self._held is None:
            return
        client, mapping = self._held
        seen = self._seen_as()
        seen_ip = seen.ip if seen is not None and isinstance(seen.ip, IPv4Address) else None
        ip = mapping.external_ip or (seen_ip if seen_ip is not None and kind_of_address(seen_ip) == "public" else None)
        view = PortMapView(
            PortMapState.UNPROVEN,
            "the router says so; no packet from outside has come through it yet",
            "",
            client.method,
            client.router,
            mapping.internal,
            None if ip is None else Endpoint(ip, mapping.external_port),
            mapping.lifetime,
            time.time() + self._renewed - time.monotonic() + mapping.lifetime if mapping.lifetime else None,
        )
        if self._proven:
            view = replace(view, state=PortMapState.WORKING, reason="a packet from outside came through it")
        elif doubt := _doubt(ip, seen_ip):
            view = replace(view, state=PortMapState.DOUBLE_NAT, reason=doubt, remedy=Cause.DOUBLE_NAT.value)
        self._set(view)

    def _failed(self, cause: Cause, what: str) -> None:
        self._set(PortMapView(_STATES.get(cause, PortMapState.REFUSED), what, cause.value))

    def _set(self, view: PortMapView) -> None:
        before, self._view = self._view, view
        if view.external != before.external:
            self._changed(view.external)
        if (view.state, view.reason, view.external) != (before.state, before.reason, before.external):
            bad = view.state in (PortMapState.REFUSED, PortMapState.DOUBLE_NAT)
            fields = {"state": view.state.value, "method": view.method, "router": view.router}
            fields |= {"external": None if view.external is None else str(view.external), "reason": view.reason}
            fields |= {"remedy": view.remedy}
            self._tell(
                "warning" if bad else "info",
                "port_mapping",
                {name: value for name, value in fields.items() if value},
            )


_STATES: Final = {
    Cause.NO_GATEWAY: PortMapState.NONE,
    Cause.SILENT: PortMapState.NONE,
    Cause.NOT_INSTALLED: PortMapState.NONE,
    Cause.DOUBLE_NAT: PortMapState.DOUBLE_NAT,
}


def _useless(local: Endpoint) -> str:
    """Why no mapping can lead to an edge that is bound to `local`; empty where one can."""
    if local.ip.is_loopback:
        return "the edge is bound to this host's loopback"
    if not isinstance(local.ip, IPv4Address) and not local.ip.is_unspecified:
        return "the edge is bound to an IPv6 address, which needs none"
    return ""


def _renewal(mapping: Mapping, since: float) -> float:
    """When to renew: after half of the time (RFC 6886, 3.3); what never ends is only looked after."""
    return since + mapping.lifetime / 2 if mapping.lifetime else float("inf")


def _doubt(ip: IPv4Address | None, seen: IPv4Address | None) -> str:
    """Why a mapping at `ip` does not reach the internet, as far as one can tell; or nothing."""
    if ip is None:
        return ""
    if (kind := kind_of_address(ip)) != "public":
        return f"the router's own address {ip} is no public one ({kind})"
    if seen is not None and kind_of_address(seen) == "public" and seen != ip:
        return f"the router says that its address is {ip}, but the supernode sees {seen}"
    return ""
