"""How often an edge asks its supernode whether it is there (:mod:`n2n.proto.edge_watch` does it)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WatchSettings"]


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How a supernode is watched.  Times in seconds.

    A supernode that ends is noticed `idle` + `misses` x `late` seconds later at most: 4.5, so that an edge that has
    nothing to send is asking for it, and for its name, before 5 s are over.

    Args:
        idle: between two questions while no frames go by way of it.
        busy: the same while they do.
        busy_for: frames count as going for so long after a notice of them.
        late: a question that is not answered is followed by another one after this time.
        misses: unanswered questions in a row after which it counts as lost.
        probes: questions to its second port without an answer after which that is taken for unreachable.
        hurry: while frames wait for it, a lost supernode is asked for, and its name resolved, as often.
        plain: a v5 supernode is watched, too.
        plain_late: the same as `late` for a v5 supernode, but a quarter of a heartbeat where that is less: it is asked
            once in a heartbeat, and is to be noticed, and left for another one, within two.
    """

    idle: float = 3.0
    busy: float = 1.0
    busy_for: float = 2.5
    late: float = 0.5
    misses: int = 3
    probes: int = 3
    hurry: float = 2.0
    plain: bool = True
    plain_late: float = 3.0
