"""Has a packet from outside come through the port mapping?  Asks the supernode to send one."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from n2n.daemon.drive import PlaneLike
from n2n.proto.through import ask_through, came_through
from n2n.types import Endpoint, MacAddress
from n2n.wire import TOKEN_SIZE

__all__ = ["PortProof"]


class PortProof:
    """One open question at a time.

    Args:
        plane: sends the question from the edge's own socket, the one that the mapping leads to.
        community: id of the community in headers.
        mac: the edge's.
        proven: called with the mapped endpoint when its answer has come.
    """

    def __init__(self, plane: PlaneLike, community: int, mac: MacAddress, proven: Callable[[Endpoint], None]) -> None:
        self._plane = plane
        self._community = community
        self._mac = mac
        self._proven = proven
        self._token = b""
        self._mapped: Endpoint | None = None

    def ask(self, mapped: Endpoint, supernode: Endpoint) -> None:
        """Ask for a packet to `mapped`."""
        self._token, self._mapped = secrets.token_bytes(TOKEN_SIZE), mapped
        sequence, now = self._plane.next_sequence(), int(time.time()) & 0xFFFFFFFF
        question = ask_through(self._community, self._mac, self._token, mapped, sequence, now)
        self._plane.send(question, supernode.packed, supernode.port)

    def take(self, datagram: bytes) -> bool:
        """Look at a control datagram before the core does; True if it was the answer."""
        if not self._token or self._mapped is None or not came_through(datagram, self._token):
            return False
        self._token = b""
        self._proven(self._mapped)
        return True
