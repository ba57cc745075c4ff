"""NAT-PMP and PCP over UDP, with a router whose address is known.

Each question goes out from a new port of a connected socket, so that only the router's own datagrams arrive and a
stranger has to guess the port as well. What arrives is looked at a bounded number of times.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from typing import Any, ClassVar, Final, Protocol, TypeVar

from n2n.errors import MalformedDatagram
from n2n.net.portmap import natpmp, pcp
from n2n.net.portmap.values import Cause, Mapping, Method, NotMapped, RouterStatus, Wanted
from n2n.types import Endpoint

__all__ = ["Client", "NatPmpClient", "PcpClient"]

T = TypeVar("T")

#: Seconds to wait for an answer after each sending. The RFCs double from 0.25 s (6886, 3.1) and go on for a minute; a
#: router in the same network has answered by then, or does not.
WAITS: Final = (0.25, 0.5, 1.0, 2.0)
#: Datagrams that are no answers, in one exchange, before it is given up.
_MOST_BAD: Final = 64


class Client(Protocol):
    """One method of port mapping, with one router."""

    @property
    def method(self) -> Method:
        """Which one."""
        ...

    @property
    def router(self) -> str:
        """The router's address, as text."""
        ...

    async def status(self, mapping: Mapping | None = None) -> RouterStatus:
        """Ask for the external address, and whether mappings are remembered (raises as `map`)."""
        ...

    async def map(self, wanted: Wanted) -> Mapping:
        """Make a mapping, or renew it.

        Raises:
            NotMapped: there is none.
        """
        ...

    async def unmap(self, mapping: Mapping) -> None:
        """Delete a mapping that `map` made; one that is gone already is no error (raises as `map`)."""
        ...


class _UdpClient:
    """Questions and answers on UDP port 5351 of the router.

    Args:
        router: its address.
        source: our address towards it.
        counts: counts `portmap_malformed` and `portmap_silent`.
        waits: seconds to wait after each sending.
    """

    method: ClassVar[Method]

    def __init__(
        self,
        router: IPv4Address,
        source: IPv4Address,
        counts: Counter[str] | None = None,
        *,
        port: int = natpmp.PORT,
        waits: Sequence[float] = WAITS,
    ) -> None:
        self._router = (str(router), port)
        self._source = source
        self._counts: Counter[str] = Counter() if counts is None else counts
        self._waits = waits

    @property
    def router(self) -> str:
        """The router's address, as text."""
        return self._router[0]

    async def _ask(self, request: bytes, read: Callable[[bytes], T]) -> T:
        """Send until an answer comes that `read` takes (it raises MalformedDatagram for others)."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sock:
            try:
                sock.bind((str(self._source), 0))
                sock.connect(self._router)
                bad = 0
                for wait in self._waits:
                    sock.send(request)
                    answer, bad = await self._listen(sock, read, wait, bad)
                    if answer is not None:
                        return answer
            except OSError as error:  # nobody listens there (ECONNREFUSED), or no way there
                raise self._silent(error.strerror or str(error)) from error
        if bad:
            raise NotMapped(Cause.BROKEN, f"{self.router} answered no question by {self.method}, but {bad} others")
        raise self._silent("no answer")

    async def _listen(
        self, sock: socket.socket, read: Callable[[bytes], T], wait: float, bad: int
    ) -> tuple[T | None, int]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(wait):
                while True:
                    datagram = await loop.sock_recv(sock, pcp.LARGEST + 1)
                    try:
                        return read(datagram), bad
                    except MalformedDatagram:
                        bad += 1
                        self._counts["portmap_malformed"] += 1
                    if bad >= _MOST_BAD:
                        raise NotMapped(Cause.BROKEN, f"{self.router} floods us with answers that are none")
        except TimeoutError:
            return None, bad

    def _silent(self, why: str) -> NotMapped:
        self._counts["portmap_silent"] += 1
        return NotMapped(Cause.SILENT, f"the router {self.router} does not speak {_NAMES[self.method]} ({why})")


_NAMES: Final = {"nat-pmp": "NAT-PMP", "pcp": "PCP", "upnp": "UPnP"}


class NatPmpClient(_UdpClient):
    """NAT-PMP (RFC 6886); see `_UdpClient` for the arguments."""

    method: ClassVar[Method] = "nat-pmp"

    async def status(self, mapping: Mapping | None = None) -> RouterStatus:
        """The router's external address and epoch."""
        answer = await self._ask(natpmp.external_request(), natpmp.parse_external)
        return RouterStatus(_usable(answer.external_ip), answer.epoch)

    async def map(self, wanted: Wanted) -> Mapping:
        """Make or renew a mapping; NAT-PMP may hand out another port than asked for."""
        status = await self.status()
        transport, port = wanted.transport, wanted.internal.port
        request = natpmp.map_request(transport, port, wanted.external_port, wanted.lifetime)
        answer = await self._ask(request, lambda datagram: natpmp.parse_map(datagram, transport, port))
        mapping = Mapping(
            self.method,
            transport,
            wanted.internal,
            answer.external_port,
            status.external_ip,
            answer.lifetime,
            answer.epoch,
        )
        return await _checked(self, wanted, mapping)

    async def unmap(self, mapping: Mapping) -> None:
        """Delete a mapping."""
        transport, port = mapping.transport, mapping.internal.port
        request = natpmp.map_request(transport, port, 0, 0)
        await self._ask(request, lambda datagram: natpmp.parse_map(datagram, transport, port))


class PcpClient(_UdpClient):
    """PCP (RFC 6887); see `_UdpClient` for the other arguments.

    Args:
        secret: of this host, at least 16 bytes: proves to the router that a mapping is ours (`pcp.nonce_of`).
    """

    method: ClassVar[Method] = "pcp"

    def __init__(self, router: IPv4Address, source: IPv4Address, *args: Any, secret: bytes, **more: Any) -> None:
        super().__init__(router, source, *args, **more)
        self._secret = secret

    async def status(self, mapping: Mapping | None = None) -> RouterStatus:
        """The router's epoch; PCP tells an external address with a mapping only (that of `mapping`)."""
        epoch = await self._ask(pcp.announce_request(self._source), pcp.parse_announce)
        return RouterStatus(mapping.external_ip if mapping is not None else None, epoch)

    async def map(self, wanted: Wanted) -> Mapping:
        """Make or renew a mapping; PCP may hand out another port than asked for."""
        try:
            answer = await self._map(wanted.transport, wanted.internal, wanted.external_port, wanted.lifetime)
        except NotMapped as error:
            raise await self._explained(error) from None
        external = None if answer.external_ip is None else _usable(answer.external_ip)
        mapping = Mapping(
            self.method,
            wanted.transport,
            wanted.internal,
            answer.external_port,
            external,
            answer.lifetime,
            answer.epoch,
        )
        return await _checked(self, wanted, mapping)

    async def unmap(self, mapping: Mapping) -> None:
        """Delete a mapping."""
        try:
            await self._map(mapping.transport, mapping.internal, 0, 0)
        except NotMapped as error:
            if error.cause is not Cause.FULL:  # what miniupnpd says where there is none; RFC 6887, 15, says: success
                raise

    async def _explained(self, refusal: NotMapped) -> NotMapped:
        """Routers without an address outside say that they are full; by NAT-PMP the same ones tell the truth."""
        if refusal.cause is Cause.FULL:
            request, waits = natpmp.external_request(), self._waits
            try:
                self._waits = waits[:1]
                await self._ask(request, natpmp.parse_external)
            except NotMapped as error:
                if error.cause is Cause.DOUBLE_NAT:
                    return NotMapped(Cause.DOUBLE_NAT, f"{refusal.what}; by NAT-PMP: it has no public address itself")
            finally:
                self._waits = waits
        return refusal

    async def _map(self, transport: Any, internal: Endpoint, external_port: int, lifetime: int) -> pcp.MapAnswer:
        nonce = pcp.nonce_of(self._secret, transport, internal.port)
        request = pcp.map_request(
            self._source, nonce, transport, internal.port, external_port=external_port, lifetime=lifetime
        )
        return await self._ask(request, lambda datagram: pcp.parse_map(datagram, nonce, transport, internal.port))


def _usable(ip: IPv4Address) -> IPv4Address | None:
    return None if ip.is_unspecified or ip.is_multicast or ip.is_loopback else ip


async def _checked(client: Client, wanted: Wanted, mapping: Mapping) -> Mapping:
    """Refuse what makes no sense, and give back what is not wanted."""
    if not mapping.external_port or not mapping.lifetime:
        raise NotMapped(
            Cause.BROKEN,
            f"the router {client.router} says that it mapped port {mapping.external_port} "
            f"for {mapping.lifetime} s by {_NAMES[client.method]}",
        )
    if wanted.strict and wanted.external_port not in (0, mapping.external_port):
        await client.unmap(mapping)
        raise NotMapped(
            Cause.CONFLICT,
            f"the router {client.router} offered port {mapping.external_port} in place of {wanted.external_port}",
        )
    return mapping
