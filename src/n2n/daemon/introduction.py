"""What an edge says of itself when it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from n2n.daemon.edge import EdgeDaemon

__all__ = ["NOT_SEALED", "introduction"]

#: The warning of an edge without a passphrase.
NOT_SEALED: Final = (
    "NO PASSPHRASE: frames travel readable and unprotected. The supernode and everybody on the way can "
    "read and change them, and whoever knows the community's name can join. "
    "Set encryption_passphrase at every edge"
)


def introduction(edge: EdgeDaemon) -> dict[str, object]:
    """The fields of the event `starting`."""
    config = edge.config
    return {
        "name": config.edge_id,
        "community": config.community,
        "mac": str(edge.mac),
        "tap": edge.tap_name,
        "listen": str(edge.local),
        "supernode": config.supernode_addr,
        "vfuze": config.enable_vfuze,
        "sealed": bool(config.encryption_passphrase),
        "compressed": config.compress_payload,
    }
