"""Cryptography of protocol v5: payloads of frames (AES-256-GCM, zstd) and the supernode's RSA key."""

from __future__ import annotations

from n2n.crypto.payload import FRAME_LIMIT, KEY_SIZE, SEAL_OVERHEAD, PayloadCodec, key_from_passphrase
from n2n.crypto.rsa import KEY_BITS, PublicKey, SupernodeKey, encrypt

__all__ = [
    "FRAME_LIMIT",
    "KEY_BITS",
    "KEY_SIZE",
    "SEAL_OVERHEAD",
    "PayloadCodec",
    "PublicKey",
    "SupernodeKey",
    "encrypt",
    "key_from_passphrase",
]
