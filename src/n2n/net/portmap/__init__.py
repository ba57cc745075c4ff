"""Port mappings: have the router send what arrives at one of its ports to us.

UPnP IGD through the library miniupnpc, NAT-PMP (RFC 6886) and PCP (RFC 6887) by ourselves. The parts that read and
write bytes (`natpmp`, `pcp`) do no input or output.
"""

from n2n.net.portmap.announce import Announcements
from n2n.net.portmap.clients import Client, NatPmpClient, PcpClient
from n2n.net.portmap.epoch import Epoch
from n2n.net.portmap.finder import answering, make_clients
from n2n.net.portmap.gateway import Gateway, find_gateway
from n2n.net.portmap.upnp import Entry, UpnpClient
from n2n.net.portmap.values import (
    METHODS,
    Cause,
    Mapping,
    Method,
    NotMapped,
    RouterStatus,
    Transport,
    Wanted,
    kind_of_address,
    most_telling,
)

__all__ = [
    "METHODS",
    "Announcements",
    "Cause",
    "Client",
    "Entry",
    "Epoch",
    "Gateway",
    "Mapping",
    "Method",
    "NatPmpClient",
    "NotMapped",
    "PcpClient",
    "RouterStatus",
    "Transport",
    "UpnpClient",
    "Wanted",
    "answering",
    "find_gateway",
    "kind_of_address",
    "make_clients",
    "most_telling",
]
