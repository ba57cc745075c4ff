"""How many edges a supernode registers per second: plays edges against a real supernode in a namespace of its own.

Every edge has a machine id and a MAC of its own and sends the request that a v5 edge sends, encrypted beforehand, so
that what is measured is the supernode: RSA decryption, the lease (committed to disk before the answer), the answer,
and the news of it to the other members.
"""

from __future__ import annotations

import hashlib
import itertools
import select
import socket
import time
from collections import deque
from dataclasses import dataclass

from n2n.crypto import PublicKey
from n2n.lab.nodes import SupernodeNode
from n2n.wire import (
    PacketType,
    ProtoV,
    RegisterRequest,
    RegisterResponse,
    SNPublicSecret,
    build,
    community_id,
    derive_mac,
    parse,
)

_PER_COMMUNITY = 50  # each registration is told to all other members, so this decides what it costs
_WINDOW = 32  # requests under way at once
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h; Python has no name for it
_LOST = 2.0  # seconds after which an answer counts as lost


@dataclass
class Registrations:
    """What was found."""

    answered: int
    refused: int
    lost: int
    seconds: float

    @property
    def per_second(self) -> float:
        return self.answered / self.seconds


def requests(public_pem: bytes, count: int) -> list[bytes]:
    """Ready-made registrations of `count` different edges."""
    key = PublicKey.parse(public_pem)
    made = []
    for number in range(count):
        community = f"bench-{number // _PER_COMMUNITY}"
        machine_id = hashlib.sha256(b"edge %d" % number).digest()[:16]
        mac = derive_mac(machine_id, community)
        header = ProtoV(PacketType.REGISTER_REQUEST, community=community_id(community), source=mac, sequence=1)
        message = RegisterRequest(str(mac), f"edge-{number}", community, key.encrypt(machine_id))
        made.append(build(header, message))
    return made


def ask_key(sock: socket.socket) -> bytes:
    """The supernode's public key."""
    sock.send(build(ProtoV(PacketType.SN_PUBLIC_SECRET), SNPublicSecret(is_request=True)))
    message = parse(sock.recv(65536)).message
    assert isinstance(message, SNPublicSecret)
    return message.pem_data


def register(sock: socket.socket, datagrams: list[bytes]) -> Registrations:
    """Send them all, never more than a window ahead of the answers."""
    found = Registrations(0, 0, 0, 0.0)
    waiting: deque[float] = deque()
    left = iter(datagrams)
    start = time.monotonic()
    while True:
        for datagram in itertools.islice(left, _WINDOW - len(waiting)):
            sock.send(datagram)
            waiting.append(time.monotonic())
        if not waiting:
            break
        if not select.select([sock], [], [], 0.1)[0]:
            while waiting and time.monotonic() - waiting[0] > _LOST:
                waiting.popleft()
                found.lost += 1
            continue
        datagram = sock.recv(65536)
        if datagram[2] != PacketType.REGISTER_RESPONSE:  # events about the other edges, which all share this socket
            continue
        message = parse(datagram).message
        assert isinstance(message, RegisterResponse)
        waiting.popleft()
        found.answered += message.is_register_ok
        found.refused += not message.is_register_ok
    found.seconds = time.monotonic() - start
    return found


def measure(supernode: SupernodeNode, count: int) -> tuple[Registrations, Registrations]:
    """Register `count` new edges, and then the same ones again."""
    with supernode.host.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        sock.settimeout(10)
        sock.connect(("127.0.0.1", 7777))
        key = ask_key(sock)
        first, again = requests(key, count), requests(key, count)  # as edges do, encrypted anew: no two are alike
        return register(sock, first), register(sock, again)
