"""Which methods a router answers, asked for all at once, and told in the order of preference."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import NamedTuple

from n2n.net.portmap.clients import Client, NatPmpClient, PcpClient
from n2n.net.portmap.gateway import Gateway
from n2n.net.portmap.upnp import UpnpClient
from n2n.net.portmap.values import METHODS, Method, NotMapped, RouterStatus

__all__ = ["Answered", "answering", "make_clients"]


class Answered(NamedTuple):
    """What one method's client was told."""

    client: Client
    status: RouterStatus | NotMapped


def make_clients(
    gateway: Gateway, secret: bytes, counts: Counter[str] | None = None, methods: Sequence[Method] = METHODS
) -> list[Client]:
    """A client for each method.

    Args:
        secret: of this host, at least 16 bytes (see `PcpClient`).
        counts: shared by all.
    """
    router, source = gateway.router, gateway.source
    makers: dict[Method, Callable[[], Client]] = {
        "upnp": lambda: UpnpClient(source, counts),
        "nat-pmp": lambda: NatPmpClient(router, source, counts),
        "pcp": lambda: PcpClient(router, source, counts, secret=secret),
    }
    return [makers[method]() for method in methods]


async def answering(clients: Sequence[Client]) -> AsyncGenerator[Answered]:
    """Ask all at once, and tell of each in the order of `clients`, as soon as that is known."""
    tasks = [asyncio.ensure_future(_ask(client)) for client in clients]
    try:
        for client, task in zip(clients, tasks, strict=True):
            yield Answered(client, await task)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ask(client: Client) -> RouterStatus | NotMapped:
    try:
        return await client.status()
    except NotMapped as error:
        return error
