"""RSA as protocol v5 uses it: edges encrypt their machine id to a supernode's key.

OAEP with SHA-256, in MGF1 as well, and an empty label.  On the wire a public key is a
SubjectPublicKeyInfo under the PEM label ``RSA PUBLIC KEY``, which elsewhere names another structure
(PKCS #1): libraries that go by the label refuse it.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from n2n.errors import AuthenticationFailed, ConfigError, LocalProtocolError, MalformedDatagram

__all__ = ["KEY_BITS", "PublicKey", "SupernodeKey", "encrypt"]

#: Bits of the keys that supernodes make.
KEY_BITS: Final = 2048
_EXPONENT: Final = 65537
#: Sizes that are taken from others.  Smaller ones protect nothing; larger ones only cost time.
_MIN_BITS: Final = 1024
_MAX_BITS: Final = 8192
#: Go's limit, and a bound on the work of one encryption.
_MAX_EXPONENT: Final = 2**31 - 1
#: A key of 8192 bits is 1.5 kB of PEM.
_MAX_PEM: Final = 4096

_PEM: Final = re.compile(
    rb"-----BEGIN (RSA PUBLIC KEY|PUBLIC KEY)-----[ \t]*\r?\n([A-Za-z0-9+/=\r\n]*)-----END \1-----"
)


def _oaep() -> padding.OAEP:
    return padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)


class PublicKey:
    """A supernode's public key, as an edge got it.

    >>> key = SupernodeKey.generate()
    >>> len(PublicKey.parse(key.public_pem()).encrypt(b"machine id"))
    256
    """

    __slots__ = ("_key",)

    def __init__(self, key: rsa.RSAPublicKey) -> None:
        self._key = key

    @classmethod
    def parse(cls, pem: bytes) -> PublicKey:
        """Read a key off the wire, with v5's label or the usual one (``PUBLIC KEY``).

        The structure that v5's label means elsewhere (PKCS #1) is taken as well: it is as good a key.

        Raises:
            MalformedDatagram: it is anything but an RSA key of 1024 to 8192 bits.
        """
        found = _PEM.search(pem) if len(pem) <= _MAX_PEM else None
        if found is None:
            raise MalformedDatagram(f"a public key of {len(pem)} bytes that is not PEM")
        try:
            key = serialization.load_der_public_key(base64.b64decode(found[2].translate(None, b"\r\n"), validate=True))
        except (ValueError, binascii.Error, UnsupportedAlgorithm) as error:
            raise MalformedDatagram(f"a public key that cannot be read: {error}") from None
        if not isinstance(key, rsa.RSAPublicKey):
            raise MalformedDatagram("a public key that is not RSA")
        if not _MIN_BITS <= key.key_size <= _MAX_BITS:
            raise MalformedDatagram(f"a public key of {key.key_size} bits, not {_MIN_BITS} to {_MAX_BITS}")
        numbers = key.public_numbers()
        if not 3 <= numbers.e <= _MAX_EXPONENT or not numbers.e & 1 or not numbers.n & 1:
            raise MalformedDatagram("a public key that is even, or whose exponent is not odd, 3 to 2^31 - 1")
        return cls(key)

    @property
    def bits(self) -> int:
        """Size of the modulus in bits."""
        return self._key.key_size

    def encrypt(self, data: bytes) -> bytes:
        """Encrypt, differently every time.  A key of 2048 bits takes 190 bytes and gives 256.

        Raises:
            LocalProtocolError: `data` is too long for the key.
            MalformedDatagram: the key turns out to be none after all.
        """
        room = (self.bits + 7) // 8 - 66  # two SHA-256 and two bytes (RFC 8017, 7.1.1)
        if len(data) > room:
            raise LocalProtocolError(f"{len(data)} bytes are too many for a key of {self.bits} bits (at most {room})")
        try:
            return self._key.encrypt(data, _oaep())
        except ValueError as error:
            raise MalformedDatagram(f"a public key that does not encrypt: {error}") from None


def encrypt(public_pem: bytes, data: bytes) -> bytes:
    """Encrypt for the owner of a public key.

    Args:
        public_pem: the key as it came off the wire.
        data: at most 190 bytes for a key of 2048 bits.

    Raises:
        MalformedDatagram: the key is none (see `PublicKey.parse`).
        LocalProtocolError: `data` is too long for the key.

    >>> key = SupernodeKey.generate()
    >>> key.decrypt(encrypt(key.public_pem(), b"machine id"))
    b'machine id'
    """
    return PublicKey.parse(public_pem).encrypt(data)


class SupernodeKey:
    """A supernode's key pair.  RSA takes about a millisecond: decrypt off the event loop.

    >>> key = SupernodeKey.generate()
    >>> SupernodeKey.load(key.dump()).public_pem() == key.public_pem()
    True
    """

    __slots__ = ("_key", "_pem")

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self._key = key
        pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        self._pem = pem.replace(b" PUBLIC KEY-----", b" RSA PUBLIC KEY-----")

    @classmethod
    def generate(cls) -> SupernodeKey:
        """A new key of 2048 bits (takes a moment: some 100 ms)."""
        return cls(rsa.generate_private_key(public_exponent=_EXPONENT, key_size=KEY_BITS))

    @classmethod
    def load(cls, pem: bytes) -> SupernodeKey:
        """Read what `dump` gave.

        Raises:
            ConfigError: it is not an unencrypted RSA key in PKCS #8 PEM of 1024 to 8192 bits.
        """
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigError(f"not a private key in unencrypted PKCS #8 PEM: {error}") from None
        if not isinstance(key, rsa.RSAPrivateKey) or not _MIN_BITS <= key.key_size <= _MAX_BITS:
            raise ConfigError(f"not an RSA private key of {_MIN_BITS} to {_MAX_BITS} bits")
        return cls(key)

    @property
    def size(self) -> int:
        """Bytes of the modulus, and of every ciphertext for this key (256 for 2048 bits)."""
        return (self._key.key_size + 7) // 8

    def dump(self) -> bytes:
        """The private key as unencrypted PKCS #8 PEM: keep it in a file of mode 0600."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def public_pem(self) -> bytes:
        """The public key as protocol v5 sends it, under the label ``RSA PUBLIC KEY`` (459 bytes)."""
        return self._pem

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Undo `encrypt`.

        Raises:
            AuthenticationFailed: it was encrypted for another key, or altered, or is no ciphertext.
        """
        try:
            return self._key.decrypt(ciphertext, _oaep())
        except ValueError:
            raise AuthenticationFailed(f"{len(ciphertext)} bytes that this key does not decrypt") from None
