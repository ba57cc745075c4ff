"""Where do you see me?  A supernode's answers, from the port that was asked or from its other one.

The same question to two ports tells an edge whether its NAT keeps one public endpoint for all destinations, and an
answer from a port that was never asked tells what its NAT lets in.  The answer is as long as the question, so that
nobody gains by asking in somebody else's name.
"""

from __future__ import annotations

from typing import Final

from n2n.errors import LocalProtocolError, MalformedDatagram
from n2n.proto.actions import SendProbe
from n2n.proto.answers import own
from n2n.proto.limits import source_key
from n2n.proto.sn_state import SupernodeState
from n2n.types import SUPERNODE_MAC, Endpoint, Instant
from n2n.wire import (
    PROTOV_SIZE,
    PacketType,
    PeerToPing,
    ProtoV,
    SNPublicSecret,
    Where,
    build,
    decode,
)

__all__ = ["Whereabouts"]

#: Longest payload that is looked at: questions are padded to find how large packets get here; 9000 is the largest MTU.
_LIMIT: Final = 9000


class Whereabouts:
    """Answers questions of this kind.

    Args:
        state: what all duties of the supernode share.
    """

    def __init__(self, state: SupernodeState) -> None:
        self._state = state

    def asked(self, header: ProtoV, n2n: bytes, size: int, source: Endpoint, now: Instant) -> None:
        """A key request of `size` bytes with an `N2N` field came to the main port.

        Raises:
            MalformedDatagram: the field is no such question.
        """
        question = Where.unpack(n2n)
        if question.answer:
            self._state.count("not_a_request")
            return
        if question.other and question.observed is not None:
            self._through(header, question, question.observed, size, source, now)
            return
        answer = SNPublicSecret(n2n=self._answer(header, question, source, question.other).pack())
        datagram = own(PacketType.SN_PUBLIC_SECRET, 0, now, answer)
        self._send(datagram, source, size, probe=question.other)

    def _through(  # noqa: PLR0917
        self, header: ProtoV, question: Where, mapped: Endpoint, size: int, source: Endpoint, now: Instant
    ) -> None:
        """Answer to another port of the asker, from a port that it never sent to (see :mod:`n2n.proto.through`)."""
        state = self._state
        answer = self._answer(header, question, source, True)
        if not answer.known or mapped.ip != source.ip:
            state.count("wheres_refused")
        elif not state.settings.probe_port:
            state.count("wheres_no_port")
        elif self._fits(pong := self._pong(header, "", answer.pack(), now), size):
            state.count("wheres_sent")
            state.out.append(SendProbe(pong, mapped, fresh=True))

    def receive(self, datagram: bytes, source: Endpoint, now: Instant) -> None:
        """A datagram came to the probe port.  Never raises for what is in it."""
        state = self._state
        if source.port == 0:
            state.count("unsendable_source")
            return
        if not state.where_sources.take(source_key(source), now.mono) or not state.key_total.take(now.mono):
            state.count("keys_limited")
            return
        try:
            self._probed(datagram, source, now)
        except (MalformedDatagram, LocalProtocolError):
            state.count("malformed")

    def _probed(self, datagram: bytes, source: Endpoint, now: Instant) -> None:
        if len(datagram) > PROTOV_SIZE + _LIMIT:
            self._state.count("oversized")
            return
        header = ProtoV.unpack(datagram)
        payload = datagram[PROTOV_SIZE:]
        if header.type == PacketType.SN_PUBLIC_SECRET:
            question = Where.unpack(decode(SNPublicSecret, payload).n2n)
            check_id = None
        elif header.type == PacketType.PING:
            ping = decode(PeerToPing, payload)
            question, check_id = Where.unpack(ping.n2n), ping.check_id
        else:
            self._state.count("unhandled_type")
            return
        if question.answer:
            self._state.count("not_a_request")
            return
        packed = self._answer(header, question, source, not question.other).pack()
        if check_id is None:
            reply = own(PacketType.SN_PUBLIC_SECRET, 0, now, SNPublicSecret(n2n=packed))
        else:
            reply = self._pong(header, check_id, packed, now)
        self._send(reply, source, len(datagram), probe=not question.other)

    @staticmethod
    def _pong(header: ProtoV, check_id: str, packed: bytes, now: Instant) -> bytes:
        """The data plane of an edge passes pongs on from whatever endpoint they come.

        It is without the supernode's flag, which an edge believes from the main port only.
        """
        back = ProtoV(PacketType.PING, header.community, SUPERNODE_MAC, header.source, timestamp=int(now.wall))
        return build(back, PeerToPing(check_id, is_pong=True, n2n=packed))

    def _answer(self, header: ProtoV, question: Where, source: Endpoint, from_probe: bool) -> Where:
        member = self._state.registry.find(header.community, header.source)
        known = member is not None and member.endpoint == source
        return Where(question.token, answer=True, other=from_probe, known=known, observed=source)

    def _fits(self, answer: bytes, size: int) -> bool:
        """Whether an answer is no longer than its question: one made by hand can describe less than ours do."""
        if len(answer) > size:
            self._state.count("wheres_short")
        return len(answer) <= size

    def _send(self, datagram: bytes, endpoint: Endpoint, size: int, *, probe: bool) -> None:
        state = self._state
        if not self._fits(datagram, size):
            return
        if probe and not state.settings.probe_port:
            state.count("wheres_no_port")
            return
        state.count("wheres_sent")
        if probe:
            state.out.append(SendProbe(datagram, endpoint))
        else:
            state.send(datagram, endpoint)
