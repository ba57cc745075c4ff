"""Gratuitous ARP, byte by byte (RFC 826, RFC 5944)."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from n2n.errors import PlatformError
from n2n.net.arp import FRAME_SIZE, gratuitous_arp, send_gratuitous_arp
from n2n.types import MacAddress

MAC = MacAddress.parse("0a:68:97:74:d5:44")
IP = IPv4Address("10.171.51.7")


def test_frame_is_an_arp_reply_to_everybody():
    frame = gratuitous_arp(MAC, IP)
    expected = (
        "ffffffffffff 0a689774d544 0806"  # to all, from us, ARP
        "0001 0800 06 04 0002"  # IPv4 over Ethernet, reply
        "0a689774d544 0aab3307"  # we have the address
        "0a689774d544 0aab3307"
    )
    assert frame == bytes.fromhex(expected.replace(" ", ""))
    assert len(frame) == FRAME_SIZE


def test_sending_out_of_no_interface_says_what_to_look_at():
    with pytest.raises(PlatformError, match=r"no such device|CAP_NET_RAW") as caught:
        send_gratuitous_arp("n2n-none", MAC, IP)
    assert str(IP) in str(caught.value)
