"""Cards, notes and the other `N2N` fields: what is on the wire, what is refused, and that v5 messages do not change."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2n.crypto import PayloadCodec, key_from_passphrase
from n2n.errors import AuthenticationFailed, LocalProtocolError, MalformedDatagram
from n2n.types import Endpoint, MacAddress
from n2n.wire import (
    CANDIDATES_LIMIT,
    CARD_LIMIT,
    Candidate,
    CandidateKind,
    Card,
    HeartbeatPulse,
    Mapping,
    Note,
    NoteKind,
    PeerInfo,
    PeerInfoList,
    PeerToPing,
    RegisterRequest,
    RegisterResponse,
    SNPublicSecret,
    Welcome,
    Where,
    decode,
    encode,
    unwrap,
    usable,
    wrap,
)
from n2n.wire.encoder import descriptor_block
from n2n.wire.schema import STRUCTS

MAC, OTHER = MacAddress.parse("02:00:00:00:00:01"), MacAddress.parse("02:00:00:00:00:02")
LAN = Candidate(CandidateKind.LOCAL, Endpoint.parse("192.168.1.2:40000"))
SIX = Candidate(CandidateKind.IPV6, Endpoint.parse("[2001:db8::1]:40000"))
CODEC = PayloadCodec(key_from_passphrase("secret"))

endpoints = st.builds(Endpoint, st.ip_addresses(v=4) | st.ip_addresses(v=6), st.integers(1, 65535)).filter(usable)
candidates = st.builds(Candidate, st.sampled_from([k for k in CandidateKind if k is not CandidateKind.PEER]), endpoints)
cards = st.builds(
    Card,
    st.just(MAC),
    st.lists(candidates, max_size=CANDIDATES_LIMIT, unique=True).map(tuple),
    st.sampled_from(Mapping),
    st.integers(0, 255),
)
stamps, maybe_cards = st.integers(0, 2**64 - 1), st.none() | cards
tokens = st.just(b"") | st.binary(min_size=8, max_size=8).filter(any)
about = {"source": st.just(MAC), "dest": st.just(OTHER), "stamp": stamps, "reached": st.booleans(), "card": maybe_cards}
notes = st.builds(
    Note, kind=st.sampled_from([k for k in NoteKind if k is not NoteKind.PONG]), token=tokens, **about
) | st.builds(Note, kind=st.just(NoteKind.PONG), observed=st.none() | endpoints, **about)


@given(cards)
def test_a_card_comes_back_as_it_was(card: Card) -> None:
    assert Card.unpack(card.pack()) == card
    assert Card.unpack(card.pack() + b"of a later version") == card


@given(notes)
def test_a_note_comes_back_as_it_was_and_always_fits(note: Note) -> None:
    assert Note.unpack(note.pack()) == note
    sealed = wrap(note.pack(), CODEC.seal)
    assert len(sealed) <= CARD_LIMIT
    assert Note.unpack(unwrap(sealed, CODEC.open)) == note
    assert Note.unpack(unwrap(wrap(note.pack(), None), None)) == note


def test_the_longest_note_fits_to_the_byte() -> None:
    many = tuple(Candidate(CandidateKind.LOCAL, Endpoint.of("192.168.1.2", port)) for port in range(1, 9))
    note = Note(NoteKind.CALL, MAC, OTHER, 1, card=Card(MAC, many))
    assert len(wrap(note.pack(), CODEC.seal)) == CARD_LIMIT
    with pytest.raises(LocalProtocolError):
        Card(MAC, (*many, LAN)).pack()
    with pytest.raises(LocalProtocolError):
        wrap(bytes(CARD_LIMIT), None)
    with pytest.raises(LocalProtocolError):
        Note(NoteKind.CALL, MAC, OTHER, 1, token=b"short").pack()


@given(st.binary(max_size=300), st.sampled_from([Card.unpack, Note.unpack, Welcome.unpack, Where.unpack]))
def test_bytes_of_strangers_raise_one_thing_only(raw: bytes, read: Callable[[bytes], object]) -> None:
    for body in (raw, Card(MAC).pack()[:12] + raw, Note(NoteKind.PING, MAC, OTHER, 1).pack()[:12] + raw, b"\x01" + raw):
        try:
            read(body)
        except MalformedDatagram:
            continue


@given(notes, st.data())
def test_a_changed_byte_is_noticed_where_it_is_sealed(note: Note, data: st.DataObject) -> None:
    sealed = bytearray(wrap(note.pack(), CODEC.seal))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises((MalformedDatagram, AuthenticationFailed)):
        Note.unpack(unwrap(bytes(sealed), CODEC.open))


def test_what_is_not_sealed_is_not_believed_where_there_is_a_key() -> None:
    plain, sealed = wrap(Card(MAC).pack(), None), wrap(Card(MAC).pack(), CODEC.seal)
    with pytest.raises(MalformedDatagram):
        unwrap(plain, CODEC.open)
    with pytest.raises(MalformedDatagram):
        unwrap(sealed, None)
    with pytest.raises(AuthenticationFailed):
        unwrap(sealed, PayloadCodec(key_from_passphrase("another")).open)
    for raw in (b"", b"\x01", b"\x02\0" + bytes(40), bytes(CARD_LIMIT + 1)):
        with pytest.raises(MalformedDatagram):
            unwrap(raw, None)


def test_a_card_is_no_note_and_neither_is_a_frame() -> None:
    card, note = Card(MAC, (LAN,)), Note(NoteKind.CALL, MAC, OTHER, 1, card=Card(MAC))
    with pytest.raises(MalformedDatagram):
        Note.unpack(card.pack())
    with pytest.raises(MalformedDatagram):
        Card.unpack(note.pack())
    for body in (card.pack(), note.pack()):
        assert body[6] & 1, "read as a frame, its source is a group: no plane takes it"


def test_addresses_that_are_nobody_s_are_left_out() -> None:
    wild = ["0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1", "::", "::1", "fe80::1", "ff02::1"]
    card = Card(MAC, tuple(Candidate(CandidateKind.LOCAL, Endpoint.of(text, 1)) for text in wild))
    assert Card.unpack(card.pack()).candidates == ()
    peer = Card(MAC, (Candidate(CandidateKind.PEER, LAN.endpoint), LAN, LAN, SIX))
    assert Card.unpack(peer.pack()).candidates == (LAN, SIX)


def test_a_note_with_another_edge_s_card_is_refused() -> None:
    note = Note(NoteKind.CALL, OTHER, MAC, 1, card=Card(MAC))
    with pytest.raises(MalformedDatagram):
        Note.unpack(note.pack())


@given(st.binary(min_size=8, max_size=8), st.booleans(), st.booleans(), st.booleans(), st.none() | endpoints)
def test_where_and_its_answer(token: bytes, answer: bool, other: bool, known: bool, seen: Endpoint | None) -> None:
    where = Where(token, answer, other, known, seen)
    assert Where.unpack(where.pack()) == where
    assert len(where.pack()) == len(Where(token).pack()), "an answer is no longer than its question"
    assert Welcome.unpack(Welcome(7778).pack()) == Welcome(7778)


FURTHER = [
    RegisterRequest("mac", "name", "acme", b"sealed", n2n=b"card"),
    RegisterResponse(True, "10.0.0.1", 24, b"card"),
    HeartbeatPulse("mac", "acme", b"sealed", n2n=b"card"),
    SNPublicSecret(True, n2n=b"card"),
    PeerToPing("check", True, b"card"),
    PeerInfo(mac_addr=MAC.raw, desc="x", n2n=b"card"),
    PeerInfoList(peer_infos=(PeerInfo(desc="x"), PeerInfo(desc="y", n2n=b"card")), event_type=2),
    PeerInfoList(True, PeerInfo(n2n=b"card")),
]


@pytest.mark.parametrize("message", FURTHER, ids=lambda m: type(m).__name__)
def test_further_fields_travel_and_v5_messages_stay_as_they_were(message: object) -> None:
    payload = encode(message)
    assert decode(type(message), payload) == message
    assert b"N2N" in payload
    assert b"N2N" not in encode(type(message)())
    struct = STRUCTS[type(message)]
    assert b"N2N" not in descriptor_block(struct)
    assert b"N2N" in descriptor_block(struct, more=True)
