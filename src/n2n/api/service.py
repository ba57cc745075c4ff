"""A daemon in the foreground: its control socket, signals, systemd, and the way out.

The control socket comes first: it holds the instance's name, so a second daemon fails before it touches anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from n2n.api import views
from n2n.api.benchmark import bench_methods
from n2n.api.control import ControlServer, Method
from n2n.api.instances import SUPERNODE, instances, socket_path
from n2n.api.pages import WebPages
from n2n.api.past import keep_history
from n2n.config import EdgeConfig, Loaded, SupernodeConfig
from n2n.daemon.live import reconfigure
from n2n.daemon.logs import level_in_force, set_level
from n2n.daemon.runtime import RECENT, notify_systemd, on_signals, watchdog_period
from n2n.daemon.trips import measure
from n2n.errors import ConfigError, N2NError
from n2n.proto.edge import EdgeCore
from n2n.types import MacAddress
from n2n.wire import clean_name, key_fingerprint

# An edge and a supernode never live in one process here: each loads only its own.
if TYPE_CHECKING:
    from n2n.daemon.edge import EdgeDaemon
    from n2n.daemon.supernode import SupernodeDaemon

__all__ = ["Load", "edge_methods", "serve_edge", "serve_supernode", "supernode_methods"]

#: Reads a daemon's configuration again, from wherever it came.
Load: TypeAlias = Callable[[], Loaded[Any]]


async def serve_edge(config: EdgeConfig, load: Load | None = None) -> None:
    """Run an edge until SIGTERM, SIGINT or `down`.

    Args:
        config: its settings.
        load: reads them again, for `reload` and SIGHUP; None: it cannot.

    Raises:
        N2NError: it cannot start, or died; the message says why and what to do.
    """

    def siblings() -> Collection[str]:
        return [name for name in instances([config.run_dir]) if name != SUPERNODE]

    from n2n.daemon.edge import EdgeDaemon

    daemon = EdgeDaemon(config, siblings=siblings)
    methods = edge_methods(daemon, config.tap_name)
    waiting = f"waiting for the supernode at {config.supernode_addr}"
    up = lambda: f"up as {daemon.address}"  # noqa: E731
    await _serve(daemon, config.tap_name, methods, waiting=waiting, up=up, load=load)


async def serve_supernode(config: SupernodeConfig, load: Load | None = None) -> None:
    """Run a supernode until SIGTERM, SIGINT or `down`; arguments and errors as of `serve_edge`."""
    from n2n.daemon.supernode import SupernodeDaemon

    daemon = SupernodeDaemon(config)
    methods = supernode_methods(daemon, SUPERNODE)
    up = lambda: f"serving on {daemon.local}"  # noqa: E731
    await _serve(daemon, SUPERNODE, methods, waiting=None, up=up, load=load)


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

    async def accept_key(params: Mapping[str, Any]) -> object:
        refused = daemon.core.trust.refused if daemon.core is not None else None
        if refused is None:
            raise ConfigError("no key of the supernode was refused: there is nothing to accept")
        if params.get("fingerprint") != key_fingerprint(refused):
            raise ConfigError(f"the key that was refused is {key_fingerprint(refused)}: give that fingerprint")
        daemon.call(EdgeCore.accept_key)
        return {"accepted": key_fingerprint(refused)}

    async def names(_: Mapping[str, Any]) -> object:
        return views.edge_names(daemon)

    async def ping(params: Mapping[str, Any]) -> object:
        try:
            mac = MacAddress.parse(str(params.get("mac")))
        except ValueError as error:
            raise ConfigError(str(error)) from None
        return (await measure(daemon, mac))._asdict()

    own = {"status": status, "peers": peers, "leases": leases, "state": state, "names": names, "accept_key": accept_key}
    return own | {"ping": ping} | bench_methods(daemon) | _shared(daemon)


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

    async def kick(params: Mapping[str, Any]) -> object:
        community, mac, release = params.get("community"), params.get("mac"), params.get("release", False)
        if not isinstance(community, str) or not isinstance(mac, str) or not isinstance(release, bool):
            raise ConfigError("kick needs a community, a mac, and perhaps release: true")
        try:
            address = MacAddress.parse(mac)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        return {"kicked": daemon.kick(_name_of(daemon, community), address, release=release)}

    return {"status": status, "leases": leases, "state": state, "kick": kick} | _shared(daemon)


def _name_of(daemon: SupernodeDaemon, shown: str) -> str:
    """The name of the community that people see as `shown` (long names are cut, invisible characters left out)."""
    names = [view.name for view in daemon.core.communities()] if daemon.core is not None else []
    alike = [name for name in names if clean_name(name) == shown]
    return alike[0] if shown not in names and len(alike) == 1 else shown


def _shared(daemon: EdgeDaemon | SupernodeDaemon) -> dict[str, Method]:
    async def counters(_: Mapping[str, Any]) -> object:
        return daemon.counters()

    async def down(_: Mapping[str, Any]) -> object:
        # After the answer is on its way.
        asyncio.get_running_loop().call_soon(daemon.request_stop)
        return {"stopping": True}

    async def log_level(params: Mapping[str, Any]) -> object:
        wanted = params.get("level")
        if not isinstance(wanted, str | None):
            raise ConfigError("level is one of: debug, info, warning, error")
        if wanted is not None:
            set_level(wanted)
            daemon.tell("info", "log_level", {"level": wanted})
        return {"level": level_in_force()}

    async def recent(params: Mapping[str, Any]) -> object:
        count = params.get("count", RECENT)
        if not isinstance(count, int) or not 0 <= count <= RECENT:
            raise ConfigError(f"count is a number of events, 0 to {RECENT}")
        return {"events": daemon.listeners.recent(count)}

    return {"counters": counters, "down": down, "log_level": log_level, "recent": recent}


async def _reload(daemon: EdgeDaemon | SupernodeDaemon, load: Load | None) -> dict[str, Any]:
    """Read the configuration again and put in force what can be; the result of `reload`."""
    if load is None:
        raise ConfigError(f"this {daemon.role} was not started from a configuration that can be read again")
    notify_systemd("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
    try:
        loaded = await asyncio.to_thread(load)
        changes = reconfigure(daemon, loaded.config)
    finally:
        if daemon.ready:
            notify_systemd("READY=1")
    return {"changes": [change._asdict() for change in changes], "warnings": list(loaded.warnings)}


async def _reload_quietly(daemon: EdgeDaemon | SupernodeDaemon, load: Load | None) -> None:
    """Reload because of a signal: nobody waits for an answer, so a mistake goes to the log."""
    try:
        await _reload(daemon, load)
    except N2NError as error:
        daemon.tell("error", "reload_failed", {"error": str(error)})


async def _keep_watchdog(period: float) -> None:
    """Tell systemd that the loop turns; one that hangs tells nothing, and systemd starts the daemon anew."""
    while True:
        notify_systemd("WATCHDOG=1")
        await asyncio.sleep(period)


async def _serve(
    daemon: EdgeDaemon | SupernodeDaemon,
    instance: str,
    methods: dict[str, Method],
    *,
    waiting: str | None,
    up: Callable[[], str],
    load: Load | None,
) -> None:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()  # the loop itself holds tasks only weakly

    def spawn(coroutine: Coroutine[Any, Any, None]) -> None:
        task = loop.create_task(coroutine)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def reload(_: Mapping[str, Any]) -> object:
        return await _reload(daemon, load)

    methods = methods | {"reload": reload}
    control = ControlServer(socket_path(instance, daemon.config.run_dir), methods, daemon.listeners)
    history = keep_history(daemon, instance, methods)
    pages = WebPages(daemon, methods)
    async with contextlib.AsyncExitStack() as undo:
        undo.callback(on_signals(daemon.request_stop, lambda: spawn(_reload_quietly(daemon, load))))
        undo.push_async_callback(control.close)
        await control.start()
        if history is not None:
            undo.push_async_callback(history.close)
        undo.push_async_callback(daemon.stop)
        await daemon.start()
        undo.push_async_callback(pages.close)
        await pages.start()
        undo.callback(notify_systemd, "STOPPING=1")
        spawn(_tell_ready(daemon, waiting, up))
        period = watchdog_period()
        if period is not None:
            spawn(_keep_watchdog(period))
        undo.callback(lambda: [task.cancel() for task in tuple(tasks)])
        await daemon.wait()


async def _tell_ready(daemon: EdgeDaemon | SupernodeDaemon, waiting: str | None, up: Callable[[], str]) -> None:
    if waiting is not None:
        notify_systemd(f"STATUS={waiting}")
    with contextlib.suppress(N2NError):
        await daemon.wait_ready()
        daemon.tell("info", "ready", {})
        notify_systemd("READY=1", f"STATUS={up()}")
