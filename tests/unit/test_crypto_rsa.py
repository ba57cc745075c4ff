"""The supernode's key: recorded keys and ciphertexts, and public keys that must be refused."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from n2n.crypto import PublicKey, SupernodeKey, encrypt
from n2n.errors import AuthenticationFailed, ConfigError, LocalProtocolError, MalformedDatagram

SPKI = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture(scope="module")
def key() -> SupernodeKey:
    return SupernodeKey.generate()


def public_pem_of(private) -> bytes:
    """Any key's public half as ordinary PEM."""
    return private.public_key().public_bytes(*SPKI)


def rsa_pem(modulus: int, exponent: int) -> bytes:
    """SubjectPublicKeyInfo of an RSA key that may be nonsense, put together by hand."""

    def tlv(tag: int, body: bytes) -> bytes:
        size = len(body)
        if size < 128:
            head = bytes([size])
        else:
            raw = size.to_bytes((size.bit_length() + 7) // 8, "big")
            head = bytes([0x80 | len(raw)]) + raw
        return bytes([tag]) + head + body

    def integer(value: int) -> bytes:
        return tlv(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))

    algorithm = tlv(0x30, bytes.fromhex("06092a864886f70d010101 0500"))
    der = tlv(0x30, algorithm + tlv(3, b"\0" + tlv(0x30, integer(modulus) + integer(exponent))))
    return b"-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(der) + b"-----END PUBLIC KEY-----\n"


def test_vectors(vectors):
    for case in vectors("rsa_oaep")["vectors"]:
        ours = SupernodeKey.load(case["private_pkcs8_pem"].encode())
        public = case["public_pem"].encode()
        assert ours.public_pem() == public
        assert SupernodeKey.load(ours.dump()).public_pem() == public
        assert PublicKey.parse(public).bits == case["bits"]
        for message in case["messages"]:
            assert ours.decrypt(bytes.fromhex(message["ciphertext"])).hex() == message["plaintext"]
        longest = bytes(case["max_plaintext"])
        assert ours.decrypt(encrypt(public, longest)) == longest
        assert case["191_refused"]
        with pytest.raises(LocalProtocolError, match="191 bytes"):
            encrypt(public, bytes(191))


def test_a_new_key_is_as_the_protocol_has_it(key):
    pem = key.public_pem()
    assert len(pem) == 459
    assert pem.startswith(b"-----BEGIN RSA PUBLIC KEY-----\n")
    assert pem.endswith(b"\n-----END RSA PUBLIC KEY-----\n")
    assert max(map(len, pem.splitlines())) == 64
    assert PublicKey.parse(pem).bits == 2048
    assert key.dump().startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert SupernodeKey.generate().public_pem() != pem


def test_encryption_differs_every_time(key):
    one, two = (encrypt(key.public_pem(), b"id") for _ in range(2))
    assert one != two
    assert len(one) == len(two) == 256


def test_the_usual_label_and_line_ends_are_taken_too(key):
    usual = key.public_pem().replace(b"RSA PUBLIC", b"PUBLIC")
    for pem in (usual, usual.replace(b"\n", b"\r\n"), usual.rstrip(), b"junk\n" + usual + b"junk"):
        assert key.decrypt(encrypt(pem, b"id")) == b"id"


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 5000])
def test_junk_does_not_decrypt(key, size):
    with pytest.raises(AuthenticationFailed, match=f"{size} bytes"):
        key.decrypt(bytes(size))


def test_altered_or_for_another_key_does_not_decrypt(key):
    sealed = bytearray(encrypt(key.public_pem(), b"id"))
    sealed[100] ^= 1
    with pytest.raises(AuthenticationFailed):
        key.decrypt(bytes(sealed))
    with pytest.raises(AuthenticationFailed):
        key.decrypt(encrypt(SupernodeKey.generate().public_pem(), b"id"))


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"no key",
        b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\nA\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\n=AAA\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END RSA PUBLIC KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\n" + b"A" * 60000 + b"\n-----END PUBLIC KEY-----\n",
        public_pem_of(ed25519.Ed25519PrivateKey.generate()),
        public_pem_of(ec.generate_private_key(ec.SECP256R1())),
        rsa_pem(2**511 + 9, 65537),
        rsa_pem(2**1022 + 9, 65537),
        rsa_pem(2**8192 + 9, 65537),
        rsa_pem(2**2047 + 9, 2**31 + 1),
        rsa_pem(2**2047 + 9, 2**2046 + 1),
        rsa_pem(2**2047 + 9, 1),
        rsa_pem(2**2047 + 9, 0),
        rsa_pem(2**2047 + 9, 65536),
        rsa_pem(0, 65537),
        rsa_pem(2**2047, 65537),
    ],
    ids=range(20),
)
def test_public_keys_that_are_refused(pem):
    with pytest.raises(MalformedDatagram, match="public key"):
        encrypt(pem, b"id")


def test_pkcs1_under_v5s_label_is_taken_too():
    """The label means PKCS #1 elsewhere; a supernode that writes that has a good key all the same."""
    private = rsa.generate_private_key(65537, 2048)
    pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1)
    ours = SupernodeKey(private)
    assert ours.public_pem() != pem
    assert ours.decrypt(encrypt(pem, b"id")) == b"id"


@given(st.data())
def test_altered_keys_raise_nothing_else(key, data):
    pem = bytearray(key.public_pem())
    for _ in range(data.draw(st.integers(1, 3))):
        pem[data.draw(st.integers(0, len(pem) - 1))] = data.draw(st.integers(0, 255))
    try:
        sealed = encrypt(bytes(pem), b"id")
    except MalformedDatagram:
        return
    assert len(sealed) >= 128


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"",
        lambda: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        lambda: ed25519.Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        lambda: rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        ),
    ],
    ids=["empty", "junk", "ed25519", "encrypted"],
)
def test_private_keys_that_are_refused(make):
    with pytest.raises(ConfigError, match="private key"):
        SupernodeKey.load(make())
