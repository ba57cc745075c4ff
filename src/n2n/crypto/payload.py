"""The transforms of a frame on its way into and out of a datagram, for users of this library.

The data plane does the same in place and in C; here it is one call per frame.  Settings are not
negotiated and not marked in the packet: all edges of a community must be configured alike.
"""

from __future__ import annotations

import hashlib
from typing import Final

from n2n._fastpath import plane
from n2n.errors import AuthenticationFailed, LocalProtocolError, MalformedDatagram, PlatformError

__all__ = ["FRAME_LIMIT", "KEY_SIZE", "SEAL_OVERHEAD", "PayloadCodec", "key_from_passphrase"]

#: Bytes of a community's key (AES-256).
KEY_SIZE: Final = 32
#: Bytes that sealing adds: a nonce of 12 and a tag of 16.
SEAL_OVERHEAD: Final = 28
#: Bytes of the largest frame that is unpacked: a jumbo frame of 9000 with its Ethernet header and a VLAN tag.
FRAME_LIMIT: Final = 9018


def key_from_passphrase(text: str) -> bytes:
    """The key that a community's passphrase stands for: its SHA-256, 32 bytes, as protocol v5 has it.

    There is no salt and no stretching: a guessable passphrase is a guessable key.

    Args:
        text: the passphrase; a byte that is not UTF-8 is a surrogate escape.

    Raises:
        LocalProtocolError: `text` holds a surrogate that stands for no byte.

    >>> key_from_passphrase("secret").hex()[:16]
    '2bb80d537b1da3e3'
    """
    try:
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"the passphrase cannot be written as bytes: {error.reason}") from None


class PayloadCodec:
    """Compresses and seals frames, opens and decompresses payloads; for one thread at a time.

    Args:
        key: 32 bytes, see `key_from_passphrase`; None to leave frames readable.
        compress: whether the community uses zstd.
        frame_limit: bytes of the largest frame that `open` gives, whatever a payload decompresses to.

    Raises:
        LocalProtocolError: the key has another length.
        PlatformError: compression is asked for and libzstd is not installed.

    >>> codec = PayloadCodec(key_from_passphrase("secret"), compress=True)
    >>> payload = codec.seal(b"frame" * 100)
    >>> len(payload) < 100, codec.open(payload) == b"frame" * 100
    (True, True)
    """

    __slots__ = ("_aead", "_limit", "_zstd")

    def __init__(self, key: bytes | None, compress: bool = False, *, frame_limit: int = FRAME_LIMIT) -> None:
        if key is not None and len(key) != KEY_SIZE:
            raise LocalProtocolError(f"a key has {KEY_SIZE} bytes, not {len(key)}")
        if compress and not plane.zstd_available():
            raise PlatformError("compression needs libzstd.so.1, which is not here: apt-get install libzstd1")
        self._aead = None if key is None else plane.Aead(key)
        self._zstd = plane.Zstd() if compress else None
        self._limit = frame_limit

    def seal(self, frame: bytes) -> bytes:
        """The payload of a data packet for a frame: compressed, then encrypted under a new nonce.

        Both add bytes to what does not compress: 28 for the seal, some 15 for zstd.
        """
        if self._zstd is not None:
            frame = self._zstd.compress(frame)
        return frame if self._aead is None else self._aead.seal(frame)

    def open(self, payload: bytes) -> bytes:
        """The frame in a payload.

        Raises:
            AuthenticationFailed: it was sealed with another key, or altered, or not sealed.
            MalformedDatagram: it is too short for a seal, does not decompress, or to more than the limit.
        """
        if self._aead is not None:
            if len(payload) < SEAL_OVERHEAD:
                raise MalformedDatagram(f"a sealed payload has at least {SEAL_OVERHEAD} bytes, not {len(payload)}")
            try:
                payload = self._aead.open(payload)
            except ValueError:
                raise AuthenticationFailed("a payload that does not open: another key, or altered on the way") from None
        if self._zstd is not None:
            try:
                payload = self._zstd.decompress(payload, self._limit)
            except ValueError:
                raise MalformedDatagram(f"a payload that does not decompress to {self._limit} bytes or fewer") from None
        if len(payload) > self._limit:
            raise MalformedDatagram(f"a frame of {len(payload)} bytes where at most {self._limit} are taken")
        return payload
