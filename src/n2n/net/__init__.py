"""The kernel's side of the network: TAP devices, links and addresses, UDP sockets, ARP.

>>> from n2n.net import gratuitous_arp
>>> from n2n.types import MacAddress
>>> from ipaddress import IPv4Address
>>> len(gratuitous_arp(MacAddress.parse("0a:68:97:74:d5:44"), IPv4Address("10.171.51.1")))
42
"""

from n2n.net.arp import gratuitous_arp, send_gratuitous_arp
from n2n.net.df import let_fragment, send_whole
from n2n.net.link import (
    LinkInfo,
    configure,
    interface_down,
    interface_up,
    link_info,
    remove_address,
    routes_clashing,
)
from n2n.net.surroundings import Surroundings, Way, surroundings
from n2n.net.tap import Tap
from n2n.net.udp import SocketBuffers, bind_to, open_udp, open_udp_group, resolve, set_buffers, socket_buffers
from n2n.net.watch import ClockJumps, NetworkEvents

__all__ = [
    "ClockJumps",
    "LinkInfo",
    "NetworkEvents",
    "SocketBuffers",
    "Surroundings",
    "Tap",
    "Way",
    "bind_to",
    "configure",
    "gratuitous_arp",
    "interface_down",
    "interface_up",
    "let_fragment",
    "link_info",
    "open_udp",
    "open_udp_group",
    "remove_address",
    "resolve",
    "routes_clashing",
    "send_gratuitous_arp",
    "send_whole",
    "set_buffers",
    "socket_buffers",
    "surroundings",
]
