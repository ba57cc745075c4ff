"""UPnP IGD through the library miniupnpc, which blocks: every call runs in a thread of its own.

Nothing of the library is imported before it is used. What a router says through it is bounded by the library (texts of
some 80 bytes) and checked here; whatever it raises becomes a NotMapped.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, ClassVar, Final, TypeVar
from urllib.parse import urlsplit

from n2n.net.portmap.values import Cause, Mapping, Method, NotMapped, RouterStatus, Transport, Wanted
from n2n.types import Endpoint
from n2n.wire.hashes import clean_name

__all__ = ["Entry", "UpnpClient"]

T = TypeVar("T")

#: Milliseconds to wait for answers to each search. The library waits no shorter than this (minissdpc.c).
_SEARCH: Final = 1000
#: Seconds until a call counts as hung: a search is seven waits of a second, any other call a few HTTP exchanges.
_PATIENCE: Final = 15.0
#: Entries of a router's table that are read at most.
_MOST_ENTRIES: Final = 512
#: Other external ports that are tried where the one that we would like is another's.
_OTHER_PORTS: Final = 4
_LABEL: Final = "n2n"
#: What the library says (upnperrors.c), by its meaning; the numbers are those of WANIPConnection.
_MEANINGS: Final = {
    "Action not authorized": Cause.REFUSED,  # 606
    "Human Intervention Required": Cause.REFUSED,  # 604
    "ConflictInMappingEntry": Cause.CONFLICT,  # 718
    "ConflictWithOtherMechanisms": Cause.CONFLICT,  # 729
    "NoPortMapsAvailable": Cause.FULL,  # 728
    "Out of Memory": Cause.FULL,  # 603
}
_ONLY_PERMANENT: Final = "OnlyPermanentLeasesSupported"  # 725
_ONLY_SAME_PORT: Final = "SamePortValuesRequired"  # 724
_GONE: Final = ("NoSuchEntryInArray", "NoSuchEntry")  # 714, 704
_LONGEST_TEXT: Final = 80


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a router's table.

    Args:
        transport: udp or tcp.
        external_port: the router's port.
        internal_host, internal_port: where it leads.
        label: what whoever made it called it; shown, never trusted.
        enabled: it is in force.
        lifetime: seconds left; 0: until it is deleted.
        remote_host: whose packets it is for; empty: everybody's.
    """

    transport: str
    external_port: int
    internal_host: str
    internal_port: int
    label: str
    enabled: bool
    lifetime: int
    remote_host: str


def _library() -> Any:
    try:
        import miniupnpc
    except ImportError as error:
        raise NotMapped(Cause.NOT_INSTALLED, "UPnP needs the Python package miniupnpc, which is missing") from error
    return miniupnpc


class UpnpClient:
    """UPnP IGD, with the router that answers first.

    Args:
        source: our address: the search goes out by its interface.
        counts: counts `portmap_malformed` and `portmap_silent`.
        library: what to use in place of miniupnpc.
        patience: seconds until a call counts as hung.
    """

    method: ClassVar[Method] = "upnp"

    def __init__(
        self,
        source: IPv4Address,
        counts: Counter[str] | None = None,
        *,
        library: Callable[[], Any] = _library,
        patience: float = _PATIENCE,
    ) -> None:
        self._source = source
        self._counts: Counter[str] = Counter() if counts is None else counts
        self._library = library
        self._patience = patience
        self._igd: Any = None
        self._router = ""
        self._shows_entries = True
        self._busy = threading.Lock()

    @property
    def router(self) -> str:
        """Address of the router that answered; empty before that."""
        return self._router

    async def status(self, mapping: Mapping | None = None) -> RouterStatus:
        """The router's external address and uptime, and whether it still has `mapping`."""
        return await self._call(lambda: self._status(mapping))

    async def map(self, wanted: Wanted) -> Mapping:
        """Make or renew a mapping."""
        return await self._call(lambda: self._map(wanted))

    async def unmap(self, mapping: Mapping) -> None:
        """Delete a mapping, unless it is another host's by now."""
        await self._call(lambda: self._unmap(mapping))

    async def entries(self) -> list[Entry]:
        """The router's table, of all hosts, at most 512 entries.

        Raises:
            NotMapped: no router answers.
        """
        return await self._call(self._entries)

    async def must_have(self, external_port: int, transport: Transport, host: IPv4Address) -> int:
        """The port of `host` that a mapping leads to.

        Raises:
            NotMapped: there is no such mapping, or it leads to another host.
        """
        holder = await self._call(lambda: self._holder(self._found(), external_port, transport))
        if holder is None:
            what = f"the router {self._router} has no mapping of port {external_port} ({transport})"
            raise NotMapped(Cause.NO_MAPPING, what)
        if holder[0] != str(host):
            what = f"port {external_port} ({transport}) of the router {self._router} leads to {holder[0]}, not to us"
            raise NotMapped(Cause.NO_MAPPING, what)
        return holder[1]

    # ---- the thread --------------------------------------------------------------------------

    async def _call(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread that nobody waits for at the end of the process."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def deliver(result: T | None, error: Exception | None) -> None:
            if answer.done():  # whoever asked has left
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            result: T | None = None
            failure: Exception | None = None
            if self._busy.acquire(timeout=self._patience):  # a call whose asker has left may still be under way
                try:
                    result = work()
                except Exception as error:
                    failure = error
                finally:
                    self._busy.release()
            else:
                failure = NotMapped(Cause.SILENT, "a former question to the router by UPnP still hangs")
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(deliver, result, failure)

        threading.Thread(target=run, name="n2n-upnp", daemon=True).start()
        try:
            return await asyncio.wait_for(answer, self._patience)
        except TimeoutError:
            self._counts["portmap_silent"] += 1
            raise NotMapped(Cause.SILENT, f"no answer by UPnP within {self._patience:g} s") from None

    # ---- what runs in it ---------------------------------------------------------------------

    def _found(self) -> Any:
        """The router, searched for if need be."""
        if self._igd is not None:
            return self._igd
        igd = self._library().UPnP(multicastif=str(self._source), discoverdelay=_SEARCH)
        try:
            igd.discover()
            url = str(igd.selectigd())
        except Exception as error:
            self._counts["portmap_silent"] += 1
            # Where nothing answered the library may say "Success": nothing failed.
            why = "" if str(error) in ("", "Success") else f" ({_text(error)})"
            raise NotMapped(Cause.SILENT, f"no router answers by UPnP{why}") from error
        self._router = _text(urlsplit(url).hostname or "")
        self._igd = igd
        return igd

    def _status(self, mapping: Mapping | None) -> RouterStatus:
        igd = self._found()
        present = None
        if mapping is not None and self._shows_entries:
            holder = self._holder(igd, mapping.external_port, mapping.transport)
            present = holder == _key(mapping.internal)
        return RouterStatus(self._external(igd), self._uptime(igd), present)

    def _map(self, wanted: Wanted) -> Mapping:
        igd = self._found()
        refusal: NotMapped | None = None
        for port in _ports(wanted):
            holder = self._holder(igd, port, wanted.transport)
            if holder not in (None, _key(wanted.internal)):
                refusal = NotMapped(Cause.CONFLICT, f"port {port} of the router leads to {holder and holder[0]}")
                continue
            try:
                self._add(igd, wanted, port)
            except NotMapped as error:
                refusal = error
                if error.cause is not Cause.CONFLICT:
                    break
                continue
            return self._made(igd, wanted, port)
        assert refusal is not None
        raise self._explained(igd, refusal)

    def _add(self, igd: Any, wanted: Wanted, port: int) -> None:
        transport, host, inner = wanted.transport.upper(), str(wanted.internal.ip), wanted.internal.port
        for lifetime in (wanted.lifetime, 0):
            try:
                igd.addportmapping(port, transport, host, inner, _LABEL, "", lifetime)
            except Exception as error:
                said = _text(error)
                if said == _ONLY_PERMANENT and lifetime:
                    continue  # it is deleted at the end, and renewed as others are
                if said == _ONLY_SAME_PORT:
                    raise NotMapped(Cause.CONFLICT, f"the router maps port {inner} to the same port only") from error
                cause = _MEANINGS.get(said, Cause.REFUSED)
                raise NotMapped(cause, f"the router {self._router} refused by UPnP: {said}") from error
            return

    def _made(self, igd: Any, wanted: Wanted, port: int) -> Mapping:
        """Look whether the router's table has what the router said yes to."""
        found = self._entry(igd, port, wanted.transport)
        if found is not None and (found[0], found[1]) != _key(wanted.internal):
            raise NotMapped(
                Cause.BROKEN, f"the router {self._router} said yes by UPnP, but port {port} leads elsewhere"
            )
        self._shows_entries = found is not None  # not all do; then only a packet from outside proves anything
        lifetime = max(int(found[4]), 0) if found is not None else wanted.lifetime
        return Mapping(
            self.method, wanted.transport, wanted.internal, port, self._external(igd), lifetime, self._uptime(igd)
        )

    def _explained(self, igd: Any, refusal: NotMapped) -> NotMapped:
        """A router without an address outside refuses everything, and says anything."""
        if refusal.cause is Cause.REFUSED and self._external(igd) is None:
            return NotMapped(Cause.DOUBLE_NAT, f"{refusal.what}; it has no public address itself")
        return refusal

    def _unmap(self, mapping: Mapping) -> None:
        igd = self._found()
        if self._holder(igd, mapping.external_port, mapping.transport) not in (None, _key(mapping.internal)):
            raise NotMapped(Cause.REFUSED, f"port {mapping.external_port} of the router is another host's")
        try:
            igd.deleteportmapping(mapping.external_port, mapping.transport.upper(), "")
        except Exception as error:
            if _text(error) not in _GONE:
                said = _text(error)
                raise NotMapped(_MEANINGS.get(said, Cause.REFUSED), f"the router refused by UPnP: {said}") from error

    def _entries(self) -> list[Entry]:
        igd = self._found()
        found: list[Entry] = []
        for index in range(_MOST_ENTRIES):
            try:
                line = igd.getgenericportmapping(index)
            except Exception:
                self._counts["portmap_malformed"] += 1  # a text that is not UTF-8: the others can be read
                continue
            if line is None:
                break
            port, transport, (host, inner), label, enabled, remote, lifetime = line
            transport = str(transport).lower()
            texts = (_text(host), _text(label), _text(remote))
            found.append(
                Entry(
                    transport if transport in ("udp", "tcp") else _text(transport),
                    int(port),
                    texts[0],
                    int(inner),
                    texts[1],
                    str(enabled) == "1",
                    int(lifetime),
                    texts[2],
                )
            )
        return found

    def _entry(self, igd: Any, port: int, transport: Transport) -> Any:
        try:
            return igd.getspecificportmapping(port, transport.upper())
        except Exception:
            self._counts["portmap_malformed"] += 1
            return None

    def _holder(self, igd: Any, port: int, transport: Transport) -> tuple[str, int] | None:
        found = self._entry(igd, port, transport)
        return None if found is None else (_text(found[0]), int(found[1]))

    def _external(self, igd: Any) -> IPv4Address | None:
        try:
            ip = IPv4Address(str(igd.externalipaddress()))
        except Exception:  # an empty text where it has none, or an error
            return None
        return None if ip.is_unspecified or ip.is_multicast or ip.is_loopback else ip

    def _uptime(self, igd: Any) -> int | None:
        try:
            return int(igd.statusinfo()[1])
        except Exception:
            return None


def _key(internal: Endpoint) -> tuple[str, int]:
    return str(internal.ip), internal.port


def _ports(wanted: Wanted) -> list[int]:
    """External ports to try: the one that we would like first."""
    others = [1024 + secrets.randbelow(64512) for _ in range(_OTHER_PORTS)]
    if wanted.strict and wanted.external_port:
        return [wanted.external_port]
    return [wanted.external_port, *others] if wanted.external_port else others


def _text(value: object) -> str:
    """What a router or the library said, fit to be shown."""
    return clean_name(str(value))[:_LONGEST_TEXT]
