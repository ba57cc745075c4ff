"""A daemon in the foreground: its control socket, signals, systemd, and the way out.

The control socket comes first: it holds the instance's name, so a second daemon fails before it touches anything.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from n2n.api import views
from n2n.api.control import ControlServer, Method
from n2n.api.instances import SUPERNODE, instances, socket_path
from n2n.config import EdgeConfig, SupernodeConfig
from n2n.daemon.runtime import notify_systemd, on_signals
from n2n.errors import ConfigError, N2NError

# An edge and a supernode never live in one process here: each loads only its own.
if TYPE_CHECKING:
    from n2n.daemon.edge import EdgeDaemon
    from n2n.daemon.supernode import SupernodeDaemon

__all__ = ["edge_methods", "serve_edge", "serve_supernode", "supernode_methods"]


async def serve_edge(config: EdgeConfig) -> None:
    """Run an edge until SIGTERM, SIGINT or `down`.

    Raises:
        N2NError: it cannot start, or died; the message says why and what to do.
    """

    def siblings() -> Collection[str]:
        return [name for name in instances([config.run_dir]) if name != SUPERNODE]

    from n2n.daemon.edge import EdgeDaemon

    daemon = EdgeDaemon(config, siblings=siblings)
    methods = edge_methods(daemon, config.tap_name)
    waiting = f"waiting for the supernode at {config.supernode_addr}"
    await _serve(daemon, config.tap_name, methods, waiting, lambda: f"up as {daemon.address}")


async def serve_supernode(config: SupernodeConfig) -> None:
    """Run a supernode until SIGTERM, SIGINT or `down`; raises as `serve_edge`."""
    from n2n.daemon.supernode import SupernodeDaemon

    daemon = SupernodeDaemon(config)
    methods = supernode_methods(daemon, SUPERNODE)
    await _serve(daemon, SUPERNODE, methods, None, lambda: f"serving on {daemon.local}")


def edge_methods(daemon: EdgeDaemon, instance: str) -> dict[str, Method]:
    """What an edge answers to; the fields are those of :mod:`n2n.api.views`."""

    async def status(_: Mapping[str, Any]) -> object:
        return views.edge_status(daemon, instance)

    async def peers(_: Mapping[str, Any]) -> object:
        return views.edge_peers(daemon)

    async def leases(_: Mapping[str, Any]) -> object:
        return views.edge_leases(await daemon.leases())

    async def state(_: Mapping[str, Any]) -> object:
        return views.edge_state(await daemon.full_state())

    return {"status": status, "peers": peers, "leases": leases, "state": state} | _shared(daemon)


def supernode_methods(daemon: SupernodeDaemon, instance: str) -> dict[str, Method]:
    """What a supernode answers to; the fields are those of :mod:`n2n.api.views`."""

    async def status(_: Mapping[str, Any]) -> object:
        return views.supernode_status(daemon, instance)

    async def leases(params: Mapping[str, Any]) -> object:
        community = params.get("community")
        if not isinstance(community, str | None):
            raise ConfigError("community is a name")
        return views.supernode_leases(daemon, community)

    async def state(_: Mapping[str, Any]) -> object:
        return views.supernode_state(daemon)

    return {"status": status, "leases": leases, "state": state} | _shared(daemon)


def _shared(daemon: EdgeDaemon | SupernodeDaemon) -> dict[str, Method]:
    async def counters(_: Mapping[str, Any]) -> object:
        return daemon.counters()

    async def down(_: Mapping[str, Any]) -> object:
        # After the answer is on its way.
        asyncio.get_running_loop().call_soon(daemon.request_stop)
        return {"stopping": True}

    return {"counters": counters, "down": down}


async def _serve(
    daemon: EdgeDaemon | SupernodeDaemon,
    instance: str,
    methods: dict[str, Method],
    waiting: str | None,
    up: Callable[[], str],
) -> None:
    control = ControlServer(socket_path(instance, daemon.config.run_dir), methods, daemon.listeners)
    async with contextlib.AsyncExitStack() as undo:
        undo.callback(on_signals(daemon.request_stop))
        undo.push_async_callback(control.close)
        await control.start()
        undo.push_async_callback(daemon.stop)
        await daemon.start()
        undo.callback(notify_systemd, "STOPPING=1")
        readiness = asyncio.get_running_loop().create_task(_tell_ready(daemon, waiting, up))
        undo.callback(readiness.cancel)
        await daemon.wait()


async def _tell_ready(daemon: EdgeDaemon | SupernodeDaemon, waiting: str | None, up: Callable[[], str]) -> None:
    if waiting is not None:
        notify_systemd(f"STATUS={waiting}")
    with contextlib.suppress(N2NError):
        await daemon.wait_ready()
        daemon.tell("info", "ready", {})
        notify_systemd("READY=1", f"STATUS={up()}")
