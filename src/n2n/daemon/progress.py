"""How far an edge's start has got, in words."""

from __future__ import annotations

from n2n.daemon.drive import instant
from n2n.proto.edge import EdgeCore, EdgeState
from n2n.types import Endpoint

__all__ = ["progress"]


def progress(core: EdgeCore | None, supernode: Endpoint | None, name: str, tap: str) -> str:
    """For who waits until the edge is ready.

    Args:
        core: None before the start.
        supernode: where it is; None before its name is resolved.
        name: of the supernode, as it was configured.
        tap: name of the TAP device.
    """
    if core is None:
        return "it has not been started"
    where = supernode or name
    match core.state:
        case EdgeState.RESOLVING:
            return f"the name in supernode_addr {name} is not resolved yet"
        case EdgeState.KEY:
            return f"no answer from the supernode at {where} yet. Does it run, and does UDP get there and back?"
        case EdgeState.REGISTERING:
            return f"the supernode at {where} gave its key, but does not answer the registration yet"
        case EdgeState.REFUSED if core.trust.refused is not None:
            return (
                f"the supernode at {where} has another key than before. If that is right, accept it: "
                "n2n key accept; if nobody changed it, somebody is between you and the supernode"
            )
        case EdgeState.REFUSED:
            return f"the supernode at {where} refused: {core.registration(instant()).reason}; see its log"
        case EdgeState.REGISTERED:
            return f"registered; {tap} is being configured"
        case state:
            return f"it is {state.value}"
