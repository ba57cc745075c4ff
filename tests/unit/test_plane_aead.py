"""AES-256-GCM in the extension, with every library that this machine has, against `cryptography`."""

from __future__ import annotations

import platform
import random
import socket
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from n2n._fastpath.plane import Aead, Plane, Zstd


def backends() -> list[str]:
    out = ["auto", "libcrypto"]
    try:
        Aead(bytes(32), "ipsec-mb")
    except OSError:
        return out
    return [*out, "ipsec-mb"]


@pytest.mark.parametrize("backend", backends())
def test_every_size_seals_as_the_oracle_does_and_opens_again(backend: str) -> None:
    rng = random.Random(11)
    key = rng.randbytes(32)
    ours, oracle = Aead(key, backend), AESGCM(key)
    if backend != "auto":
        assert ours.backend == backend
    for size in [*range(70), *(rng.randrange(70, 9100) for _ in range(60)), 65535]:
        data, nonce = rng.randbytes(size), rng.randbytes(12)
        sealed = ours.seal(data, nonce)
        assert sealed == nonce + oracle.encrypt(nonce, data, None)
        assert ours.open(sealed) == data


@pytest.mark.parametrize("backend", backends())
def test_one_changed_bit_anywhere_does_not_open(backend: str) -> None:
    aead = Aead(bytes(range(32)), backend)
    sealed = aead.seal(b"some forty bytes of what was a frame once")
    for bit in range(len(sealed) * 8):
        bad = bytearray(sealed)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="does not open"):
            aead.open(bytes(bad))
    for size in range(len(sealed)):
        with pytest.raises(ValueError, match="does not open"):
            aead.open(sealed[:size])
    assert aead.open(sealed).startswith(b"some forty")


@pytest.mark.parametrize("backend", backends())
def test_nonces_of_many_contexts_under_one_key_never_meet(backend: str) -> None:
    seen = set()
    for _ in range(50):
        aead = Aead(bytes(32), backend)
        seen.update(aead.seal(b"")[:12] for _ in range(100))
    assert len(seen) == 5000


def test_sizes_beyond_a_c_int_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 1 GiB"):
        Zstd().decompress(Zstd().compress(b"x"), 2**64 - 1)
    with pytest.raises(ValueError, match="more than 1 GiB"):
        Aead(bytes(32)).seal(bytes(2**30 + 1))


def test_impossible_keys_and_libraries_are_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Aead(b"short")
    with pytest.raises(ValueError, match="none of auto"):
        Aead(bytes(32), "rot13")
    with pytest.raises(ValueError, match="12 bytes"):
        Aead(bytes(32)).seal(b"", b"short")


def test_the_wide_checksum_is_used_where_the_kernel_says_the_processor_has_it() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    wanted = platform.machine() == "x86_64" and "avx2" in flags
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        assert Plane("supernode", udp.fileno()).features()["avx2_checksum"] is wanted
