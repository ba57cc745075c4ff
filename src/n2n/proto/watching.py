"""How often an edge asks its supernode whether it is there (:mod:`n2n.proto.edge_watch` does it)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WatchSettings"]


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How a supernode is watched.  Times in seconds.

    Args:
        idle: between two questions while no frames go by way of it.
        busy: the same while they do, and while an answer is late.
        busy_for: frames count as going for so long after a notice of them.
        misses: unanswered questions in a row after which it counts as lost.
        probes: unanswered questions to its second port after which that is taken for unreachable.
        hurry: while frames wait for it, a lost supernode is asked for, and its name resolved, as often.
    """

    idle: float = 4.0
    busy: float = 1.0
    busy_for: float = 2.5
    misses: int = 3
    probes: int = 3
    hurry: float = 2.0
