"""Gratuitous ARP: telling a network segment which Ethernet address an IPv4 address now has."""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import IPv4Address
from typing import Final

from n2n.errors import PlatformError
from n2n.types import BROADCAST_MAC, MacAddress

__all__ = ["FRAME_SIZE", "gratuitous_arp", "send_gratuitous_arp"]

#: Bytes of the frame: Ethernet header 14, ARP for IPv4 over Ethernet 28 (RFC 826).
FRAME_SIZE: Final = 42

_ETHERTYPE_ARP: Final = 0x0806
_ETHERTYPE_IPV4: Final = 0x0800
_HARDWARE_ETHERNET: Final = 1
_REPLY: Final = 2
_FRAME: Final = struct.Struct("!6s6sH HHBBH 6s4s6s4s")


def gratuitous_arp(mac: MacAddress, ip: IPv4Address) -> bytes:
    """Make a broadcast frame with an ARP reply that nobody asked for: `ip` is at `mac`.

    Sender and target protocol address are both `ip`, and both hardware addresses `mac` (RFC 5944, section 4.6).

    Args:
        mac: of the interface that owns the address.
        ip: the address to announce.

    Returns:
        `FRAME_SIZE` bytes, without padding and checksum.

    >>> gratuitous_arp(MacAddress.parse("0a:68:97:74:d5:44"), IPv4Address("10.171.51.1")).hex()[24:44]
    '08060001080006040002'
    """
    return _FRAME.pack(
        BROADCAST_MAC.raw,
        mac.raw,
        _ETHERTYPE_ARP,
        _HARDWARE_ETHERNET,
        _ETHERTYPE_IPV4,
        6,
        4,
        _REPLY,
        mac.raw,
        ip.packed,
        mac.raw,
        ip.packed,
    )


def send_gratuitous_arp(interface: str, mac: MacAddress, ip: IPv4Address) -> None:
    """Send `gratuitous_arp` out of a local interface.

    Out of a TAP device it comes back by the device's descriptor, and so reaches the other edges as a broadcast.

    Raises:
        PlatformError: no such interface, it is down, or CAP_NET_RAW is missing.

    >>> from n2n.net import Tap, interface_up
    >>> with Tap.open("example0") as tap:
    ...     interface_up(tap.name)
    ...     send_gratuitous_arp(tap.name, MacAddress.parse("02:00:00:00:00:01"), IPv4Address("10.0.0.1"))
    """
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
            out.bind((interface, 0))
            out.send(gratuitous_arp(mac, ip))
    except PermissionError as error:
        raise PlatformError(
            f"cannot announce {ip} on {interface}: {error.strerror}. Run as root, or give the process CAP_NET_RAW"
        ) from error
    except OSError as error:
        cause = os.strerror(error.errno).lower() if error.errno else str(error)
        raise PlatformError(
            f"cannot announce {ip} on {interface}: {cause}. Is the interface there and up? (ip link show {interface})"
        ) from error
