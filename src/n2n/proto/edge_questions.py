"""What an edge asks its supernode on somebody's demand: how all edges see each other, and who holds which address."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

from n2n.proto.edge_outbox import Outbox
from n2n.types import Instant
from n2n.wire import LeasesInfos, P2PCommunityDatas, P2PFullState, PacketType

__all__ = ["Answer", "Questions"]

_Message = TypeVar("_Message")


@dataclass(frozen=True, slots=True)
class Answer(Generic[_Message]):
    """The last answer to a question made on demand, and when it came (Unix seconds)."""

    message: _Message
    at: float


class Questions:
    """Questions that are asked once, and their last answers.

    Args:
        outbox: sends them.
        community: whose state and leases are asked for.
        wait: seconds for which an answer is taken.
    """

    def __init__(self, outbox: Outbox, community: str, wait: float) -> None:
        self._out = outbox
        self._community = community
        self._wait = wait
        self._awaited: dict[PacketType, float] = {}
        self.full_state: Answer[P2PFullState] | None = None
        self.leases: Answer[LeasesInfos] | None = None

    def ask_full_state(self, now: Instant) -> bool:
        """Ask how all edges see each other; False if an answer is awaited already."""
        empty = P2PCommunityDatas(reachables={}, unreachables={})
        return self._ask(PacketType.P2P_FULL_STATE, P2PFullState(self._community, True, empty), now)

    def ask_leases(self, now: Instant) -> bool:
        """Ask who holds which address; False if an answer is awaited already."""
        return self._ask(PacketType.LEASES_INFOS, LeasesInfos(True, self._community), now)

    def _ask(self, kind: PacketType, message: object, now: Instant) -> bool:
        if self.awaiting(kind, now):
            return False
        self._awaited[kind] = now.mono + self._wait
        return self._out.tell_supernode(kind, message, now)

    def awaiting(self, kind: PacketType, now: Instant) -> bool:
        """Whether an answer may still come."""
        return now.mono < self._awaited.get(kind, -math.inf)

    def asked(self, kind: PacketType) -> bool:
        """Whether a question of this kind is open, were it for too long."""
        return kind in self._awaited

    def take_full_state(self, message: P2PFullState, now: Instant) -> None:
        """How all edges see each other."""
        if message.is_request or message.p2p_community_datas.reachables is None:
            self._out.count("full_state_bad")
        elif self._awaited.pop(PacketType.P2P_FULL_STATE) < now.mono:
            self._out.count("full_state_unasked")
        else:
            self.full_state = Answer(message, now.wall)

    def take_leases(self, message: LeasesInfos, now: Instant) -> None:
        """Who holds which address."""
        if message.is_request:
            self._out.count("leases_bad")
        elif self._awaited.pop(PacketType.LEASES_INFOS) < now.mono:
            self._out.count("leases_unasked")
        else:
            self.leases = Answer(message, now.wall)
