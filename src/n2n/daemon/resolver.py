"""Finds the supernode by its name, again and again, until the name is an address."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from n2n.errors import PlatformError
from n2n.net.udp import resolve
from n2n.types import Endpoint

__all__ = ["Resolver", "reachable", "resolve_aside"]

_FIRST_DELAY: Final = 1.0
#: A name that cannot be resolved is most often a network that is down: it should not be missed when it comes back.
_LONGEST_DELAY: Final = 4.0


class _Aside(asyncio.SelectorEventLoop):
    """A loop that looks names up in its own thread: it has nothing else to do."""

    async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
        return socket.getaddrinfo(*args, **options)


async def resolve_aside(host_port: str, family: socket.AddressFamily) -> list[Endpoint]:
    """`n2n.net.resolve` in a thread that nobody waits for at the end.

    Name servers that do not answer keep a look-up busy for half a minute. The thread pools of asyncio and uvloop are
    joined when the process ends, which would make it wait that long.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Endpoint]] = loop.create_future()

    def deliver(found: list[Endpoint] | None, error: Exception | None) -> None:
        if answer.done():  # whoever asked has left
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(found or [])

    def work() -> None:
        aside = _Aside()
        found, failure = None, None
        try:
            found = aside.run_until_complete(resolve(host_port, family))
        except Exception as error:
            failure = error
        finally:
            aside.close()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(deliver, found, failure)

    threading.Thread(target=work, name="n2n-resolver", daemon=True).start()
    return await answer


Lookup = Callable[[str, socket.AddressFamily], Awaitable[list[Endpoint]]]


class Resolver:
    """Answers one question at a time, for ever.

    Where there are several supernodes, or a name has several addresses, each further question is answered by the next
    of them, so that one that does not answer is not tried without end; but a question that is asked again stays with
    the supernode, and with its address while it has that.

    Args:
        supernodes: what to look up, host:port each.
        family: of the socket that will send there.
        warn: told of each failure: the event's name and its fields.
        lookup: asks the system; tests give their own.
    """

    def __init__(
        self,
        supernodes: Sequence[str],
        family: socket.AddressFamily,
        warn: Callable[[str, dict[str, object]], None],
        lookup: Lookup = resolve_aside,
    ) -> None:
        self._supernodes = tuple(supernodes)
        self._family = family
        self._warn = warn
        self._lookup = lookup
        self.found = supernodes[0]
        """The supernode that the last answer was for."""
        self._turn = 0
        """Which supernode's turn it is, and which of its addresses'."""
        self._asked = 0
        self._given: Endpoint | None = None

    async def find(self, *, again: bool = False) -> Endpoint:
        """The next address of the supernode; waits as long as there is none.

        Args:
            again: the supernode that was found last; where it has no address any more, the next one.

        Raises:
            ConfigError: a supernode's name can never be an address.
        """
        if not again or self._given is None or (found := await self._same()) is None:
            found = await self._next()
        self._given = found
        return found

    async def _same(self) -> Endpoint | None:
        try:
            found = await self._lookup(self.found, self._family)
        except PlatformError as error:
            self._warn("resolve_failed", {"supernode": self.found, "error": str(error), "retry_in": 0.0})
            return None
        return self._given if self._given in found else _preferred(found)[0]

    async def _next(self) -> Endpoint:
        delay = _FIRST_DELAY
        while True:
            for last in (*[False] * (len(self._supernodes) - 1), True):
                name = self._supernodes[self._turn % len(self._supernodes)]
                try:
                    endpoint = self._choose(await self._lookup(name, self._family))
                except PlatformError as error:
                    retry = delay if last else 0.0
                    self._warn("resolve_failed", {"supernode": name, "error": str(error), "retry_in": retry})
                    self._next_supernode()
                else:
                    self.found = name
                    return endpoint
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY)

    def _choose(self, found: list[Endpoint]) -> Endpoint:
        choice = _preferred(found)
        endpoint = choice[self._asked % len(choice)]
        self._asked += 1
        if self._asked >= len(choice):
            self._next_supernode()
        return endpoint

    def _next_supernode(self) -> None:
        self._turn += 1
        self._asked = 0


def _preferred(found: list[Endpoint]) -> list[Endpoint]:
    """Protocol v5 is spoken over IPv4; IPv6 is for where there is nothing else."""
    return [endpoint for endpoint in found if endpoint.ip.version == 4] or found


def reachable(sock: socket.socket) -> socket.AddressFamily:
    """The kind of addresses that a socket can send to."""
    if sock.family == socket.AF_INET6 and sock.getsockname()[0] == "::":
        return socket.AF_UNSPEC
    return socket.AddressFamily(sock.family)
