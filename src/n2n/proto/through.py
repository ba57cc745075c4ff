"""Does a port mapping let in what comes from outside?  The question to a supernode, and its answer.

The answer comes from a port of the supernode that nothing was ever sent to, to the port that the router says it mapped:
what our own NAT would let in as an answer does not look like that.
"""

from __future__ import annotations

from n2n.errors import MalformedDatagram
from n2n.types import SUPERNODE_MAC, Endpoint, MacAddress
from n2n.wire import PROTOV_SIZE, PacketType, PeerToPing, ProtoV, SNPublicSecret, Where, build, decode

__all__ = ["ask_through", "came_through"]


def ask_through(  # noqa: PLR0917
    community: int, mac: MacAddress, token: bytes, mapped: Endpoint, sequence: int, timestamp: int
) -> bytes:
    """The question, for the supernode's main port, from the port that the mapping leads to.

    Args:
        community, mac: as in every header of this edge, which must be registered.
        token: `n2n.wire.TOKEN_SIZE` unpredictable bytes, used once.
        mapped: where the answer is to go; its address must be the one that the supernode sees us at.
        sequence, timestamp: of the header.
    """
    header = ProtoV(PacketType.SN_PUBLIC_SECRET, community, mac, SUPERNODE_MAC, sequence=sequence, timestamp=timestamp)
    return build(header, SNPublicSecret(True, n2n=Where(token, other=True, observed=mapped).pack()))


def came_through(datagram: bytes, token: bytes) -> bool:
    """Whether a datagram, from whatever endpoint, is the answer to the question with this token."""
    if token not in datagram:
        return False
    try:
        header = ProtoV.unpack(datagram)
        if header.type != PacketType.PING or header.source != SUPERNODE_MAC:
            return False
        answer = Where.unpack(decode(PeerToPing, datagram[PROTOV_SIZE:]).n2n)
    except MalformedDatagram:
        return False
    return answer.answer and answer.token == token
