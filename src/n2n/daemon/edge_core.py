"""An edge's core, made of its configuration."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from n2n.config import EdgeConfig
from n2n.crypto import PayloadCodec, encrypt
from n2n.proto.edge import EdgeCore, EdgeSettings
from n2n.proto.watching import WatchSettings

if TYPE_CHECKING:
    from n2n.store import KnownKey

__all__ = ["make_core"]


def make_core(
    config: EdgeConfig,
    machine_id: bytes,
    known: Mapping[str, KnownKey],
    sequence: Callable[[], int],
    key: bytes | None,
) -> EdgeCore:
    """The core of an edge.

    Args:
        config: the edge's settings.
        machine_id: its credential, 16 bytes.
        known: the keys of supernodes from former runs, by the supernodes' addresses as they are configured.
        sequence: returns the next sequence number.
        key: the community's, 32 bytes, or None.
    """
    notes = PayloadCodec(key)  # as frames are sealed, but never compressed
    settings = EdgeSettings(
        name=config.edge_id,
        community=config.community,
        machine_id=machine_id,
        heartbeat=config.heartbeat_interval,
        port_prediction=config.port_prediction,
        known_keys={address: (one.public_pem, one.lasts) for address, one in known.items()},
        accept_new_key=config.accept_new_key,
        watch=_watching(config.heartbeat_interval),
    )
    core = EdgeCore(
        settings,
        encrypt=encrypt,
        sequence=sequence,
        token=lambda: secrets.token_hex(8),
        jitter=secrets.SystemRandom().random,
        sealing=None if key is None else (notes.seal, notes.open),
    )
    core.trust.switch(config.supernodes[0])  # it is the first to be asked for
    return core


def _watching(heartbeat: float) -> WatchSettings:
    """A supernode that dies is noticed within two heartbeats, and within half a minute."""
    usual = WatchSettings()
    return WatchSettings(idle=min(usual.idle, heartbeat), busy=min(usual.busy, heartbeat / 4))
