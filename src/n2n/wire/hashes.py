"""What follows from a community's name: its id, the MAC addresses in it, its virtual network.

A name is any sequence of bytes on the wire and a `str` here, in which a byte that is not UTF-8
stands as a surrogate escape (PEP 383): nothing is lost in either direction.
"""

from __future__ import annotations

import hashlib
import unicodedata
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from n2n.errors import LocalProtocolError
from n2n.types import MacAddress

__all__ = ["clean_name", "community_id", "derive_mac", "key_fingerprint", "name_bytes", "name_of", "virtual_network"]

_FNV_BASIS: Final = 2166136261
_FNV_PRIME: Final = 16777619
_MASK32: Final = 0xFFFFFFFF
_MASK64: Final = 0xFFFFFFFFFFFFFFFF
_REPLACEMENT: Final = 0xFFFD

# Start of the four words of the MAC derivation (WIRE 6.2): the fixed key, and the key XOR two
# constants; and what is appended to its input, the number 12345.
_MAC_A: Final = int.from_bytes(bytes.fromhex("d31e48fa90fe4b4c"), "little")
_MAC_B: Final = int.from_bytes(bytes.fromhex("9dafd5d7a1b12e8a"), "little")
_MAC_C: Final = _MAC_A ^ 0x736F6D6570736575
_MAC_D: Final = _MAC_B ^ 0x646F72616E646F6D
_MAC_TAIL: Final = (12345).to_bytes(8, "little")

#: Longest name that is shown or stored, in characters.
NAME_LIMIT: Final = 64
#: Unicode categories that a displayed name may not hold: controls, invisible format characters
#: (bidirectional overrides among them), surrogates, line and paragraph separators.
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def name_bytes(name: str) -> bytes:
    """The bytes of a name on the wire.

    Raises:
        LocalProtocolError: `name` holds a surrogate that stands for no byte.

    >>> name_bytes("caf\\u00e9\\udcff")
    b'caf\\xc3\\xa9\\xff'
    """
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"the name {name!r} cannot be written as bytes: {error.reason}") from None


def name_of(raw: bytes) -> str:
    """The name that these bytes are; the inverse of :func:`name_bytes`.

    >>> name_of(b"caf\\xc3\\xa9\\xff")
    'café\\udcff'
    """
    return raw.decode("utf-8", "surrogateescape")


def clean_name(text: str) -> str:
    """A name from a stranger, fit to be shown and stored: at most 64 characters, none invisible.

    Bytes that are not UTF-8 become U+FFFD.  Only for free text (what an edge calls itself); the name
    of a community is a key and stays as it is.

    >>> clean_name("lap\\x1b[31mtop\\n\\udcff")
    'lap[31mtop\\ufffd'
    """
    kept: list[str] = []
    for char in text:
        if "\udc80" <= char <= "\udcff":
            kept.append(chr(_REPLACEMENT))
        elif unicodedata.category(char) not in _HIDDEN:
            kept.append(char)
        if len(kept) == NAME_LIMIT:
            break
    return "".join(kept)


def community_id(name: str) -> int:
    """The 32-bit id of a community in packet headers.

    FNV-1a over the *code points* of the name (for ASCII that is over its bytes).  Every byte that
    is not UTF-8 counts as one U+FFFD.  Two names may share an id.

    >>> hex(community_id("acme"))
    '0x45fd71af'
    """
    value = _FNV_BASIS if name else 0  # the empty name has id 0, not the basis
    for char in name_of(name_bytes(name)):
        code = ord(char)
        if 0xDC80 <= code <= 0xDCFF:
            code = _REPLACEMENT
        value = ((value ^ code) * _FNV_PRIME) & _MASK32
    return value


def derive_mac(machine_id: bytes, community: str) -> MacAddress:
    """The MAC address that the owner of a machine id has in a community.

    Args:
        machine_id: 16 bytes; other lengths are hashed as well, since a supernode may be sent them.
        community: name of the community.

    >>> derive_mac(bytes.fromhex("54a2d2dd401e4cc744c5157149f61bad"), "acme")
    MacAddress('0a:68:97:74:d5:44')
    """
    a, b, c, d = _MAC_A, _MAC_B, _MAC_C, _MAC_D
    # One mixing round per byte of input and a last one without input: XOR with 0 changes nothing.
    for byte in machine_id + name_bytes(community) + _MAC_TAIL + b"\0":
        d ^= byte
        a = (a + b) & _MASK64
        c = (c + d) & _MASK64
        b = b << 13 & _MASK64 | b >> 51
        d = d << 15 & _MASK64 | d >> 49
        a ^= d
        c ^= b
        b = (b + c) & _MASK64
        d = (d + a) & _MASK64
        c = c << 5 & _MASK64 | c >> 59
        a = a << 10 & _MASK64 | a >> 54
        d ^= b
        c ^= a
    low = bytearray(((a ^ b ^ c ^ d) & 0xFFFFFFFFFFFF).to_bytes(6, "little"))
    low[0] = low[0] & 0xFE | 0x02  # unicast, locally administered (IEEE 802)
    return MacAddress(bytes(low))


def virtual_network(name: str, base: IPv4Address, prefix: int) -> IPv4Network:
    """The network from which a community's virtual addresses are taken.

    Args:
        name: name of the community.
        base: start of the block, by default 10.128.0.0 at a supernode.
        prefix: prefix length of one community's network, 0 to 32.

    Raises:
        LocalProtocolError: `prefix` is out of range.

    >>> virtual_network("acme", IPv4Address("10.128.0.0"), 24)
    IPv4Network('10.171.51.0/24')
    """
    if not 0 <= prefix <= 32:
        raise LocalProtocolError(f"a prefix length is between 0 and 32, not {prefix}")
    offset = int.from_bytes(hashlib.sha256(name_bytes(name)).digest()[:4], "big") & 0x00FFFFFF
    mask = _MASK32 << (32 - prefix) & _MASK32
    return IPv4Network(((int(base) | offset) & mask, prefix))


def key_fingerprint(public_pem: bytes) -> str:
    """SHA-256 of a public key as it travels (its PEM text), in 64 hexadecimal digits: for people to compare.

    >>> key_fingerprint(b"")[:16]
    'e3b0c44298fc1c14'
    """
    return hashlib.sha256(public_pem).hexdigest()
