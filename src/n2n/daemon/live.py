"""A changed configuration of a daemon that runs: what drops no traffic is put in force, the rest is told.

A key is live if its daemon lists it (`Daemon.live_keys`), or if it concerns the log.  Every other key takes effect at
the next start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from n2n.config import EdgeConfig, SupernodeConfig
from n2n.config.model import kinds_of
from n2n.config.mtu import USUAL_MTU
from n2n.daemon.base import Daemon
from n2n.daemon.logs import setup_logging
from n2n.errors import ConfigError, N2NError
from n2n.net import configure
from n2n.proto.edge import EdgeCore

if TYPE_CHECKING:
    from n2n.daemon.edge import EdgeDaemon

__all__ = ["Change", "edge_keys", "reconfigure"]

_LOG_KEYS: Final = ("log_level", "log_format", "debug")
_RESTART: Final = "takes effect at the next start"


class Change(NamedTuple):
    """One key whose value differs from the one in force."""

    key: str
    before: str
    after: str
    """As in a file; secrets are masked."""
    applied: bool
    why: str
    """Why it was not applied; empty if it was."""


def edge_keys(edge: EdgeDaemon) -> dict[str, Callable[[Any], object]]:
    """The live keys of an edge, besides those of every daemon."""

    def set_rule(rule: bool | None) -> None:
        if edge.core is not None:
            edge.core.trust.accept_new = rule

    def set_mtu(mtu: int) -> None:
        first = mtu or USUAL_MTU
        configure(edge.tap_name, mtu=first, up=False)
        edge.mtu_configured(first)

    keys: dict[str, Callable[[Any], object]] = {
        "heartbeat_interval": lambda seconds: edge.call(EdgeCore.set_heartbeat, seconds),
        "accept_new_key": set_rule,
        "hosts_file": edge.hosts.use,
        "allow_bench": edge.measured.allow,
    }
    return keys | {"tap_mtu": set_mtu} if edge.own_tap else keys


def reconfigure(daemon: Any, config: EdgeConfig | SupernodeConfig) -> list[Change]:
    """Put in force what can be; `daemon.config` then says what is.

    Args:
        daemon: an edge or a supernode that has been started.
        config: of the same kind, read again.

    Raises:
        ConfigError: it is another kind of daemon's.
    """
    if type(config) is not type(daemon.config):
        raise ConfigError(f"this is the configuration of another kind of daemon than {daemon.role}")
    changes = [
        _change(daemon, config, key, kind.show)
        for key, (kind, _) in kinds_of(type(config)).items()
        if getattr(config, key) != getattr(daemon.config, key)
    ]
    applied = {change.key: getattr(config, change.key) for change in changes if change.applied}
    if applied:
        daemon.config = replace(daemon.config, **applied)
    if applied.keys() & set(_LOG_KEYS):
        setup_logging(daemon.config.log_format, daemon.config.log_level)
    _tell(daemon, changes)
    return changes


def _change(daemon: Daemon, config: Any, key: str, show: Any) -> Change:
    before, after = show(getattr(daemon.config, key)), show(getattr(config, key))  # type: ignore[attr-defined]
    if before == after:  # two secrets
        after = f"{after} (another)"
    apply = daemon.live_keys().get(key)
    if key in _LOG_KEYS:
        return Change(key, before, after, True, "")
    if apply is None:
        return Change(key, before, after, False, _RESTART)
    try:
        apply(getattr(config, key))
    except N2NError as error:
        return Change(key, before, after, False, str(error))
    return Change(key, before, after, True, "")


def _tell(daemon: Daemon, changes: list[Change]) -> None:
    applied = ", ".join(change.key for change in changes if change.applied)
    waiting = ", ".join(change.key for change in changes if not change.applied)
    daemon.tell("warning" if waiting else "info", "reloaded", {"applied": applied, "not_applied": waiting})
