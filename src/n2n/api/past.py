"""The path history of an edge, as its control socket and its pages tell it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from n2n.api.control import Method
from n2n.config import EdgeConfig
from n2n.daemon.history import History
from n2n.errors import ConfigError

if TYPE_CHECKING:
    from n2n.daemon.edge import EdgeDaemon
    from n2n.daemon.supernode import SupernodeDaemon

__all__ = ["keep_history"]

_MOST: Final = 1000
#: Unix seconds beyond which (or before minus which) nobody asks; NaN is none.
_LAST: Final = 1e12


def keep_history(daemon: EdgeDaemon | SupernodeDaemon, instance: str, methods: dict[str, Method]) -> History | None:
    """Keep the path history of an edge in its state directory, and answer to `history`.

    Args:
        daemon: whose.
        instance: its name; each has a file of its own.
        methods: get one more, and more counters.

    Returns:
        What must be closed at the end; None for a supernode, and where nothing is kept.
    """
    config = daemon.config
    if not isinstance(config, EdgeConfig) or config.state_dir is None:
        return None
    history = History(daemon, config.state_dir / f"history-{instance}.sqlite")
    counters = methods["counters"]

    async def find(params: Mapping[str, Any]) -> object:
        peer, since, limit = params.get("peer", ""), params.get("since", 0.0), params.get("limit", 100)
        numbers = isinstance(since, int | float) and abs(since) < _LAST and isinstance(limit, int)
        if not isinstance(peer, str) or not numbers:
            raise ConfigError("peer is a name, a MAC address or a virtual address, since Unix seconds, limit a number")
        wanted = _mac_of(daemon, peer)
        changes = await history.find(wanted, float(since), max(1, min(limit, _MOST)))
        return {"at": time.time(), "peer": peer, "changes": [asdict(change) for change in changes]}

    async def counters_with(params: Mapping[str, Any]) -> object:
        found = await counters(params)
        return {**(found if isinstance(found, Mapping) else {}), **history.counters()}

    methods |= {"history": find, "counters": counters_with}
    return history


def _mac_of(daemon: EdgeDaemon | SupernodeDaemon, peer: str) -> str:
    """The MAC address of a peer that is named by its virtual address; else `peer` (a MAC address in small letters)."""
    from n2n.daemon.edge import EdgeDaemon

    for view in daemon.peers() if isinstance(daemon, EdgeDaemon) else ():
        if peer == str(view.virtual_ip):
            return str(view.mac)
    return peer.lower() if peer.count(":") == 5 else peer
