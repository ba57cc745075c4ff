"""What stands in the `N2N` fields, which protocol v5 does not have: cards, notes, and a supernode's words.

A **card** tells where an edge may be reached: it travels in registrations and heartbeats to the supernode, and in
PeerInfo from there to the other edges.  A **note** travels in pings and pongs.  Both are wrapped: a version byte, flags
(bit 0: sealed), then the body, sealed with the community's key where there is one.  Numbers are big-endian; what
stands behind the fields that are known is ignored, so that later versions can say more.
"""

from __future__ import annotations

import struct as packing
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from n2n.errors import LocalProtocolError, MalformedDatagram
from n2n.types import Endpoint, MacAddress

__all__ = [
    "CANDIDATES_LIMIT",
    "CARD_LIMIT",
    "TOKEN_SIZE",
    "Candidate",
    "CandidateKind",
    "Card",
    "Mapping",
    "Note",
    "NoteKind",
    "Welcome",
    "Where",
    "unwrap",
    "usable",
    "wrap",
]

#: Bytes of the longest `N2N` field that is looked at, kept or sent.
CARD_LIMIT: Final = 256
#: Candidates on one card.
CANDIDATES_LIMIT: Final = 8
#: Bytes that make the answer to a `Where` recognisable.
TOKEN_SIZE: Final = 8
_VERSION: Final = 1
_SEALED: Final = 1
#: Sealed bodies start with this.  Frames are sealed with the same key, so neither must pass for the other: read as a
#: frame, this has a group address as its source, which no plane takes; and no kernel sends such a frame.
_CARD_MARK: Final = bytes(6) + b"\xffCARD\x01"
_NOTE_MARK: Final = bytes(6) + b"\xffNOTE\x01"
_MAC: Final = 6
_ENDPOINT: Final = packing.Struct(">16sH")
_CARD_HEAD: Final = packing.Struct(">6sBBB")
_CANDIDATE: Final = packing.Struct(">B16sH")
_NOTE_HEAD: Final = packing.Struct(">B6s6sQB16sHB")
_MAPPED: Final = bytes(10) + b"\xff\xff"
_REACHED: Final = 1
_WHERE: Final = packing.Struct(f">BB{TOKEN_SIZE}s16sH")
_WELCOME: Final = packing.Struct(">BH")
_KEY_LASTS: Final = 1
_OTHER, _KNOWN, _ANSWER = 1, 2, 4


class Mapping(IntEnum):
    """How the NAT of an edge gives out public endpoints."""

    UNKNOWN = 0
    OPEN = 1
    """There is none: its public address is its own."""
    EASY = 2
    """One public endpoint for all destinations (endpoint-independent)."""
    HARD = 3
    """Another one for each destination (endpoint-dependent, "symmetric")."""


class CandidateKind(IntEnum):
    """Where an endpoint of an edge comes from."""

    LOCAL = 1
    """An IPv4 address of its host."""
    MAPPED = 2
    """A port mapping that its router made (UPnP, NAT-PMP, PCP)."""
    IPV6 = 3
    """A global IPv6 address of its host."""
    REFLEXIVE = 4
    """Where a supernode sees it."""
    PEER = 5
    """Where a ping of it came from; never on a card."""


class NoteKind(IntEnum):
    """What a ping or pong with a note means."""

    CALL = 1
    """By way of the supernode: "find a path to me, I am looking for one to you"."""
    ANSWER = 2
    """The pong to a call."""
    PING = 3
    PONG = 4
    BIRTHDAY = 5
    """A ping from or for one of many sockets, to meet by chance (see :mod:`n2n.proto.birthday`)."""


class Candidate(NamedTuple):
    """An endpoint at which an edge may be reached."""

    kind: CandidateKind
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Card:
    """Where an edge may be reached.

    Args:
        mac: whose card it is.
        candidates: at most `CANDIDATES_LIMIT`, best first; the one that the supernode sees is told in PeerInfo.
        mapping: of its NAT.
        capabilities: bit 0: it answers birthday pings (`BIRTHDAYS`); the others are 0.
    """

    BIRTHDAYS = 1

    mac: MacAddress
    candidates: tuple[Candidate, ...] = ()
    mapping: Mapping = Mapping.UNKNOWN
    capabilities: int = 0

    def pack(self) -> bytes:
        """Its body.

        Raises:
            LocalProtocolError: there are too many candidates.
        """
        if len(self.candidates) > CANDIDATES_LIMIT:
            raise LocalProtocolError(f"{len(self.candidates)} candidates; a card has at most {CANDIDATES_LIMIT}")
        head = _CARD_HEAD.pack(self.mac.raw, self.capabilities & 0xFF, self.mapping, len(self.candidates))
        return _CARD_MARK + head + b"".join(
            _CANDIDATE.pack(kind, _wide(endpoint), endpoint.port) for kind, endpoint in self.candidates
        )  # fmt: skip

    @classmethod
    def unpack(cls, body: bytes) -> Card:
        """From its body; candidates of unknown kinds and those that are nobody's address are left out.

        Raises:
            MalformedDatagram: it is none, is cut, or has too many candidates.
        """
        if not body.startswith(_CARD_MARK) or len(body) < len(_CARD_MARK) + _CARD_HEAD.size:
            raise MalformedDatagram(f"a card of {len(body)} bytes that is none")
        raw, capabilities, mapping, count = _CARD_HEAD.unpack_from(body, len(_CARD_MARK))
        start = len(_CARD_MARK) + _CARD_HEAD.size
        if count > CANDIDATES_LIMIT or len(body) < start + count * _CANDIDATE.size:
            raise MalformedDatagram(f"a card with {count} candidates in {len(body)} bytes")
        candidates = []
        for number in range(count):
            kind, ip, port = _CANDIDATE.unpack_from(body, start + number * _CANDIDATE.size)
            if kind in _TOLD and port and usable(endpoint := Endpoint.of_packed(ip, port)):
                candidates.append(Candidate(CandidateKind(kind), endpoint))
        known = Mapping(mapping) if mapping in tuple(Mapping) else Mapping.UNKNOWN
        return cls(MacAddress(raw), tuple(dict.fromkeys(candidates)), known, capabilities)


_TOLD: Final = frozenset({CandidateKind.LOCAL, CandidateKind.MAPPED, CandidateKind.IPV6, CandidateKind.REFLEXIVE})


@dataclass(frozen=True, slots=True)
class Note:
    """What n2n says in a ping or pong.

    Args:
        kind: what it means.
        source: who says it.
        dest: to whom.
        stamp: the sender's clock, Unix microseconds: a note is not taken twice, nor long after it was sent.
        observed: in a PONG, the endpoint from which the ping came that is answered.
        token: in the others (`TOKEN_SIZE` bytes; empty: none).  A CALL or an ANSWER tells the receiver a secret, and a
            PING or BIRTHDAY repeats the one that the receiver told: that proves, where nothing is sealed, that its
            sender is who gets what the supernode relays to that edge.
        reached: the sender's frames go straight to `dest`.
        card: the sender's card.
    """

    kind: NoteKind
    source: MacAddress
    dest: MacAddress
    stamp: int
    observed: Endpoint | None = None
    reached: bool = False
    card: Card | None = None
    token: bytes = b""

    def pack(self) -> bytes:
        """Its body.

        Raises:
            LocalProtocolError: the token has another length.
        """
        seen = self.observed if self.kind is NoteKind.PONG else None
        if len(self.token) not in (0, TOKEN_SIZE):
            raise LocalProtocolError(f"a token of {len(self.token)} bytes; it has {TOKEN_SIZE}")
        head = _NOTE_HEAD.pack(
            self.kind,
            self.source.raw,
            self.dest.raw,
            self.stamp & 0xFFFFFFFFFFFFFFFF,
            _REACHED if self.reached else 0,
            self.token.ljust(16, b"\0") if seen is None else _wide(seen),
            0 if seen is None else seen.port,
            0 if self.card is None else 1,
        )
        return _NOTE_MARK + head + (self.card.pack() if self.card is not None else b"")

    @classmethod
    def unpack(cls, body: bytes) -> Note:
        """From its body.

        Raises:
            MalformedDatagram: it is none, is cut, is of an unknown kind, or its card is another edge's.
        """
        if not body.startswith(_NOTE_MARK) or len(body) < len(_NOTE_MARK) + _NOTE_HEAD.size:
            raise MalformedDatagram(f"a note of {len(body)} bytes that is none")
        kind, source, dest, stamp, flags, ip, port, with_card = _NOTE_HEAD.unpack_from(body, len(_NOTE_MARK))
        if kind not in tuple(NoteKind):
            raise MalformedDatagram(f"a note of kind {kind}")
        card = Card.unpack(body[len(_NOTE_MARK) + _NOTE_HEAD.size :]) if with_card else None
        if card is not None and card.mac.raw != source:
            raise MalformedDatagram("a note with another edge's card")
        pong = kind == NoteKind.PONG
        return cls(
            NoteKind(kind),
            MacAddress(source),
            MacAddress(dest),
            stamp,
            Endpoint.of_packed(ip, port) if pong and port else None,
            bool(flags & _REACHED),
            card,
            b"" if pong or not any(ip[:TOKEN_SIZE]) else ip[:TOKEN_SIZE],
        )


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a supernode tells an edge that showed a card, in RegisterResponse.

    Args:
        probe_port: UDP port of the same address at which it answers `Where` as well; 0: none.
        key_lasts: it keeps its key: another one later is another's.
    """

    probe_port: int = 0
    key_lasts: bool = False

    def pack(self) -> bytes:
        """As it is sent."""
        return _WELCOME.pack(_VERSION, self.probe_port) + bytes((_KEY_LASTS if self.key_lasts else 0,))

    @classmethod
    def unpack(cls, raw: bytes) -> Welcome:
        """As it came.

        Raises:
            MalformedDatagram: it is of another version, or cut.
        """
        if len(raw) < _WELCOME.size or raw[0] != _VERSION:
            raise MalformedDatagram(f"a supernode's welcome of {len(raw)} bytes that is none")
        flags = raw[_WELCOME.size] if len(raw) > _WELCOME.size else 0
        return cls(_WELCOME.unpack_from(raw)[1], bool(flags & _KEY_LASTS))


@dataclass(frozen=True, slots=True)
class Where:
    """The question where a supernode sees the asker, and the answer.

    It stands in a key request and its answer, or in a ping to the probe port and its pong.

    Args:
        token: of the asker's choice, `TOKEN_SIZE` bytes; the answer repeats it.
        answer: it is one.
        other: question: answer from your other port; answer: this one does.
        known: the supernode knows the asker as a registered edge at this endpoint.
        observed: where the question came from.
    """

    token: bytes
    answer: bool = False
    other: bool = False
    known: bool = False
    observed: Endpoint | None = None

    def pack(self) -> bytes:
        """As it is sent; question and answer have the same length, so that nobody gains by asking in another's name."""
        flags = (_OTHER if self.other else 0) | (_KNOWN if self.known else 0) | (_ANSWER if self.answer else 0)
        seen = self.observed
        ip, port = (bytes(16), 0) if seen is None else (_wide(seen), seen.port)
        return _WHERE.pack(_VERSION, flags, self.token, ip, port)

    @classmethod
    def unpack(cls, raw: bytes) -> Where:
        """As it came.

        Raises:
            MalformedDatagram: it is of another version, or cut.
        """
        if not _WHERE.size <= len(raw) <= CARD_LIMIT or raw[0] != _VERSION:
            raise MalformedDatagram(f"a question for the own endpoint of {len(raw)} bytes that is none")
        _, flags, token, ip, port = _WHERE.unpack_from(raw)
        observed = Endpoint.of_packed(ip, port) if port else None
        return cls(token, bool(flags & _ANSWER), bool(flags & _OTHER), bool(flags & _KNOWN), observed)


def wrap(body: bytes, seal: Callable[[bytes], bytes] | None) -> bytes:
    """A body as it travels, sealed if `seal` is given.

    Raises:
        LocalProtocolError: it is longer than `CARD_LIMIT`.

    >>> wrap(b"body", None)
    b'\\x01\\x00body'
    """
    raw = bytes((_VERSION, 0)) + body if seal is None else bytes((_VERSION, _SEALED)) + seal(body)
    if len(raw) > CARD_LIMIT:
        raise LocalProtocolError(f"{len(raw)} bytes in an N2N field; at most {CARD_LIMIT} are taken")
    return raw


def unwrap(raw: bytes, unseal: Callable[[bytes], bytes] | None) -> bytes:
    """The body of what came; where there is a key, what is not sealed with it is not believed.

    Raises:
        MalformedDatagram: too long, cut, of another version, or sealed where nothing is (or the other way round).
        AuthenticationFailed: from `unseal`: sealed with another key, or altered.

    >>> unwrap(b"\\x01\\x00body", None)
    b'body'
    """
    if not 2 <= len(raw) <= CARD_LIMIT or raw[0] != _VERSION:
        raise MalformedDatagram(f"an N2N field of {len(raw)} bytes that is none of ours")
    if raw[1] != (0 if unseal is None else _SEALED):
        raise MalformedDatagram("an N2N field that is sealed where the community is not, or the other way round")
    return raw[2:] if unseal is None else unseal(raw[2:])


def usable(endpoint: Endpoint) -> bool:
    """Whether an edge at another host can be reached there: no unspecified, group, loopback or IPv6 link-local address.

    >>> usable(Endpoint.parse("127.0.0.1:7777")), usable(Endpoint.parse("192.168.1.2:7777"))
    (False, True)
    """
    ip = endpoint.ip
    if ip.is_unspecified or ip.is_multicast or ip.is_loopback or endpoint.port == 0:
        return False
    if isinstance(ip, IPv6Address):
        return not ip.is_link_local  # means nothing without the interface
    return ip != IPv4Address("255.255.255.255")


def _wide(endpoint: Endpoint) -> bytes:
    """16 bytes of address."""
    ip = endpoint.packed
    return ip if len(ip) == 16 else _MAPPED + ip
