"""Tells the other edges who has an address now: a gratuitous ARP reply that leaves as any broadcast frame."""

from __future__ import annotations

import time
from ipaddress import IPv4Address

from n2n.crypto import PayloadCodec
from n2n.net import gratuitous_arp
from n2n.types import BROADCAST_MAC, MacAddress
from n2n.wire import PacketType, ProtoV, community_id

__all__ = ["announcement"]


def announcement(community: str, mac: MacAddress, ip: IPv4Address, sequence: int, codec: PayloadCodec) -> bytes:
    """The datagram for the supernode.

    Args:
        community: its name.
        mac: who has the address.
        ip: the address.
        sequence: of the header.
        codec: seals the frame.

    Raises:
        N2NError: the frame cannot be sealed or compressed here.
    """
    header = ProtoV(
        PacketType.DATA,
        community=community_id(community),
        source=mac,
        dest=BROADCAST_MAC,
        sequence=sequence,
        timestamp=int(time.time()) & 0xFFFFFFFF,
    )
    return header.pack() + codec.seal(gratuitous_arp(mac, ip))
