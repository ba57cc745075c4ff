"""`n2n.Edge` and `n2n.Supernode`: daemons inside a Python program.

They are the same as what ``n2n edge up`` and ``n2n supernode serve`` run, without control socket, signals and log
set-up: those belong to the program around them.
"""

from __future__ import annotations

from typing import Any, TypeVar

from n2n.config import EdgeConfig, SupernodeConfig
from n2n.crypto import SupernodeKey
from n2n.daemon.edge import EdgeDaemon, TapLike
from n2n.daemon.supernode import SupernodeDaemon
from n2n.errors import ConfigError
from n2n.store import LeaseStore

__all__ = ["Edge", "Supernode"]

C = TypeVar("C", EdgeConfig, SupernodeConfig)


class Supernode(SupernodeDaemon):
    """A supernode: where edges of a community register, get their addresses, and are relayed.

    An async context manager: it serves inside the block.

    Args:
        config: its settings; or give them as keyword arguments, by the names of the configuration file, durations in
            seconds (``listen_address=":7777", expiry_duration=90.0``).
        store: where leases are kept, see `n2n.store`; None: SQLite in ``state_dir`` (whose None is: nowhere).
        key: its RSA key; None: the one in ``state_dir``.
        settings: keys of the configuration file.

    Raises:
        ConfigError: a setting is unknown or impossible. (`start` raises N2NError where something cannot be had.)

    >>> import asyncio
    >>> async def example():
    ...     async with n2n.Supernode(listen_address="127.0.0.1:0", state_dir=None) as supernode:
    ...         await supernode.wait_ready(timeout=5)
    ...         return supernode.local.port > 0, supernode.counters()["core_registers"]
    >>> asyncio.run(example())
    (True, 0)
    """

    def __init__(
        self,
        config: SupernodeConfig | None = None,
        *,
        store: LeaseStore | None = None,
        key: SupernodeKey | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(_config(SupernodeConfig, config, settings), store=store, key=key)


class Edge(EdgeDaemon):
    """An edge: one TAP device in one community.

    An async context manager: the edge is up inside the block, and says goodbye to the supernode at its end.

    Args:
        config: its settings; or give them as keyword arguments, by the names of the configuration file, durations in
            seconds (``community="acme", supernode_addr="vpn.example.org:7777", heartbeat_interval=10.0``).
        tap: something else than a TAP device of this host: an object with `fd`, `name` and `close()` on whose
            descriptor a read gives one Ethernet frame and a write takes one. No rights are needed then, and the host's
            network is not touched. None: the device ``tap_name`` is made and configured (CAP_NET_ADMIN).
        machine_id: 16 bytes, the edge's identity; None: the user account's.
        settings: keys of the configuration file; nothing is kept on disk unless ``state_dir`` is among them.

    Raises:
        ConfigError: a setting is unknown or impossible. (`start` raises N2NError where something cannot be had.)

    Here the "device" is one end of a socket pair, and the program holds the other:

    >>> import asyncio, socket
    >>> async def example():
    ...     ours, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    ...     with ours:
    ...         async with n2n.Supernode(listen_address="127.0.0.1:0", state_dir=None) as supernode:
    ...             edge = n2n.Edge(
    ...                 community="acme",
    ...                 supernode_addr=str(supernode.local),
    ...                 tap=n2n.net.Tap(device.detach(), "example0"),
    ...                 machine_id=bytes(range(16)),
    ...             )
    ...             async with edge:
    ...                 await edge.wait_ready(timeout=10)
    ...                 return str(edge.address), edge.peers(), edge.counters()["core_sent_register"]
    >>> asyncio.run(example())
    ('10.171.51.1/24', (), 1)
    """

    def __init__(
        self,
        config: EdgeConfig | None = None,
        *,
        tap: TapLike | None = None,
        machine_id: bytes | None = None,
        **settings: Any,
    ) -> None:
        if config is None:
            settings.setdefault("state_dir", None)
        super().__init__(_config(EdgeConfig, config, settings), tap=tap, machine_id=machine_id)


def _config(kind: type[C], config: C | None, settings: dict[str, Any]) -> C:
    if config is None:
        try:
            return kind(**settings)
        except TypeError as error:  # unknown or missing keys
            raise ConfigError(str(error).removeprefix(f"{kind.__name__}.__init__() ")) from None
    if settings:
        raise ConfigError(f"give a configuration or keyword arguments ({', '.join(settings)}), not both")
    return config
