"""Frames sealed and compressed, against recorded payloads and an independent AES-GCM."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from n2n._fastpath.plane import Aead
from n2n.crypto import FRAME_LIMIT, SEAL_OVERHEAD, PayloadCodec, key_from_passphrase
from n2n.errors import AuthenticationFailed, LocalProtocolError, MalformedDatagram, PlatformError, ProtocolError

KEY = key_from_passphrase("secret")


def oracle(key: bytes, sealed: bytes) -> bytes:
    """What the `cryptography` package opens: it shares no code with the extension."""
    return AESGCM(key).decrypt(sealed[:12], sealed[12:], None)


def test_key_is_the_hash_of_the_passphrase():
    assert key_from_passphrase("pässword") == hashlib.sha256("pässword".encode()).digest()
    assert key_from_passphrase("\udcff") == hashlib.sha256(b"\xff").digest()
    with pytest.raises(LocalProtocolError, match="passphrase"):
        key_from_passphrase("\ud800")


def test_aesgcm_vectors(vectors):
    for case in vectors("aesgcm")["vectors"]:
        key = key_from_passphrase(case["passphrase"])
        plaintext, sealed = bytes.fromhex(case["plaintext"]), bytes.fromhex(case["sealed"])
        assert Aead(key).seal(plaintext, bytes.fromhex(case["nonce"])) == sealed
        codec = PayloadCodec(key)
        assert codec.open(sealed) == plaintext
        again = codec.seal(plaintext)
        assert len(again) == len(plaintext) + SEAL_OVERHEAD
        assert again != sealed
        assert oracle(key, again) == plaintext


def test_aesgcm_refused(vectors):
    cases = vectors("aesgcm")["refused"]
    raised = set()
    for case in cases:
        sealed = bytes.fromhex(case["sealed"])
        with pytest.raises(ProtocolError) as error:
            PayloadCodec(key_from_passphrase(case["passphrase"])).open(sealed)
        assert error.type is (AuthenticationFailed if len(sealed) >= SEAL_OVERHEAD else MalformedDatagram), case["why"]
        raised.add(error.type)
    assert len(cases) == 24
    assert AuthenticationFailed in raised


def test_zstd_vectors(vectors):
    cases = vectors("zstd")["vectors"]
    sealed = 0
    plain = PayloadCodec(None, compress=True)
    for case in cases:
        frame = bytes.fromhex(case["plaintext"])
        assert plain.open(bytes.fromhex(case["zstd"])) == frame, case["kind"]
        assert plain.open(plain.seal(frame)) == frame
        if "passphrase" in case:
            codec = PayloadCodec(key_from_passphrase(case["passphrase"]), compress=True)
            assert codec.open(bytes.fromhex(case["zstd_then_sealed"])) == frame
            # Compressed first, sealed last: what the seal encloses is a zstd frame (or nothing).
            inner = oracle(key_from_passphrase(case["passphrase"]), codec.seal(frame))
            assert inner[:4] == (b"\x28\xb5\x2f\xfd" if frame else b"")
            assert plain.open(inner) == frame
            sealed += 1
    assert sealed >= 10


def test_zstd_of_others(vectors):
    cases = vectors("zstd")["foreign"]
    assert {case["accepted"] for case in cases} == {True, False}
    codec = PayloadCodec(None, compress=True)
    for case in cases:
        if case["accepted"]:
            assert codec.open(bytes.fromhex(case["zstd"])).hex() == case["plaintext"], case["what"]
        else:
            with pytest.raises(MalformedDatagram):
                codec.open(bytes.fromhex(case["zstd"]))


def test_compressed_payloads_have_a_checksum():
    codec = PayloadCodec(None, compress=True)
    payload = bytearray(codec.seal(bytes(range(256)) * 4))
    payload[-1] ^= 1
    with pytest.raises(MalformedDatagram):
        codec.open(bytes(payload))


@pytest.mark.parametrize("key", [None, KEY])
def test_bombs_do_not_unfold(key):
    big = PayloadCodec(key, compress=True, frame_limit=10**6)
    payload = big.seal(bytes(10**6))
    assert len(payload) < 2000
    with pytest.raises(MalformedDatagram, match="9018"):
        PayloadCodec(key, compress=True).open(payload)
    assert len(big.open(payload)) == 10**6


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("compress", [False, True])
def test_the_largest_frame_fits(key, compress):
    codec = PayloadCodec(key, compress)
    frame = bytes(FRAME_LIMIT)
    assert codec.open(codec.seal(frame)) == frame
    with pytest.raises(MalformedDatagram):
        codec.open(codec.seal(frame + b"x"))


def test_without_settings_the_frame_is_the_payload():
    codec = PayloadCodec(None)
    assert codec.seal(b"frame") == codec.open(b"frame") == b"frame"
    assert codec.open(b"") == b""


def test_a_sealed_community_takes_no_plaintext():
    codec = PayloadCodec(KEY)
    for size in range(200):
        with pytest.raises(ProtocolError):
            codec.open(bytes(size))


@given(st.binary(max_size=300), st.data())
def test_no_bit_of_a_sealed_payload_may_change(frame, data):
    codec = PayloadCodec(KEY)
    payload = bytearray(codec.seal(frame))
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(AuthenticationFailed):
        codec.open(bytes(payload))


@given(st.binary(max_size=300), st.booleans(), st.booleans())
def test_open_undoes_seal(frame, sealed, compress):
    codec = PayloadCodec(KEY if sealed else None, compress)
    assert codec.open(codec.seal(frame)) == frame


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda junk: b"\x28\xb5\x2f\xfd" + junk))
def test_junk_raises_nothing_else(junk):
    for key in (None, KEY):
        try:
            PayloadCodec(key, compress=True).open(junk)
        except (AuthenticationFailed, MalformedDatagram):
            continue


def test_nonces_differ_within_and_across_codecs():
    payloads = [PayloadCodec(KEY).seal(b"") for _ in range(100)]
    codec = PayloadCodec(KEY)
    payloads += [codec.seal(b"") for _ in range(100)]
    assert len({payload[:12] for payload in payloads}) == 200


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_keys_of_another_size_are_refused(size):
    with pytest.raises(LocalProtocolError, match=f"not {size}"):
        PayloadCodec(bytes(size))


def test_missing_libzstd_is_named(monkeypatch):
    monkeypatch.setattr("n2n.crypto.payload.plane.zstd_available", lambda: False)
    PayloadCodec(KEY)
    with pytest.raises(PlatformError, match="apt-get install libzstd1"):
        PayloadCodec(KEY, compress=True)
