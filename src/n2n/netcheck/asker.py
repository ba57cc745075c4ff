"""Questions to a supernode's two ports: where do you see me?

Blocking; a run takes a few seconds, so a program with an event loop puts it into a thread. Every answer must come from
the supernode's address and repeat a token that nobody else knows; what does not is passed over, a bounded number of
times.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import time
from dataclasses import dataclass
from typing import Final, Self

from n2n.errors import MalformedDatagram
from n2n.net import bind_to
from n2n.types import SUPERNODE_MAC, ZERO_MAC, Endpoint
from n2n.wire import TOKEN_SIZE, PacketType, ProtoV, SNPublicSecret, Where, build, parse

__all__ = ["Asker", "Reply"]

#: Tries of one question, and seconds to wait after each.
TRIES: Final = 3
WAIT: Final = 0.5
_LARGEST: Final = 65535
#: Datagrams that are no answers, in one question, before it is given up.
_MOST_BAD: Final = 256
# linux/in.h, in6.h: Python has no names for them.
_IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE, _IP_RECVERR, _IP_MTU = 10, 3, 11, 14
_IPV6_MTU_DISCOVER, _IPV6_RECVERR, _IPV6_MTU = 23, 25, 24


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer.

    Args:
        observed: from where the question came, as the supernode saw it; None: the supernode does not tell (it is v5).
        port: of the supernode, from which the answer came.
        seconds: between question and answer.
    """

    observed: Endpoint | None
    port: int
    seconds: float


class Asker:
    """One UDP socket from which a supernode is asked.

    A context manager.

    Args:
        supernode: its main endpoint.
        bind: our address, if that is fixed.

    Raises:
        PlatformError: there is no such address here.
    """

    def __init__(self, supernode: Endpoint, bind: str = "", *, tries: int = TRIES, wait: float = WAIT) -> None:
        self._supernode = supernode
        self._tries, self._wait = tries, wait
        self.error = ""
        """What the network said to a question, such as "connection refused"; empty: nothing."""
        v4 = supernode.ip.version == 4
        self._sock = socket.socket(socket.AF_INET if v4 else socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._ip = socket.IPPROTO_IP if v4 else socket.IPPROTO_IPV6
        self._v4 = v4
        try:
            if bind:
                bind_to(self._sock, bind)
            if not self._sock.getsockname()[1]:
                self._sock.bind(("", 0))
        except BaseException:
            self._sock.close()
            raise
        self._sock.setsockopt(self._ip, _IP_RECVERR if v4 else _IPV6_RECVERR, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    @property
    def local(self) -> Endpoint | None:
        """The endpoint that datagrams to the supernode leave from; None where no way leads there."""
        with (
            socket.socket(self._sock.family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe,
            contextlib.suppress(OSError),
        ):
            bound = self._sock.getsockname()
            probe.bind((bound[0], 0))
            probe.connect((str(self._supernode.ip), self._supernode.port))
            return Endpoint.of(probe.getsockname()[0], bound[1])
        return None

    def known_mtu(self) -> int | None:
        """Largest packet to the supernode as far as the kernel knows, in bytes; None where no way leads there."""
        with (
            socket.socket(self._sock.family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe,
            contextlib.suppress(OSError),
        ):
            probe.connect((str(self._supernode.ip), self._supernode.port))
            return probe.getsockopt(self._ip, _IP_MTU if self._v4 else _IPV6_MTU)
        return None

    def never_fragment(self) -> None:
        """Send whole packets only, as large as asked, whatever the kernel believes of the path."""
        option = _IP_MTU_DISCOVER if self._v4 else _IPV6_MTU_DISCOVER
        self._sock.setsockopt(self._ip, option, _IP_PMTUDISC_PROBE)

    def ask(self, port: int = 0, *, other: bool = False, packet: int = 0) -> Reply | None:
        """Ask where the supernode sees this socket.

        Args:
            port: the supernode's; 0: its main one.
            other: let it answer from its other port.
            packet: make the question an IP packet of this many bytes; 0: as short as it is.

        Returns:
            None where no answer comes, or the question is too long for the interface.
        """
        token = secrets.token_bytes(TOKEN_SIZE)
        question = self._question(Where(token, other=other), packet)
        target = (str(self._supernode.ip), port or self._supernode.port)
        for _ in range(self._tries):
            start = time.monotonic()
            try:
                self._sock.sendto(question, target)
                reply = self._await(token, start)
            except OSError as error:
                self.error = os.strerror(error.errno or 0).lower()
                if error.errno == errno.EMSGSIZE:
                    return None
                time.sleep(min(self._wait, 0.1))  # the network's word, by ICMP: perhaps of the question before
                continue
            if reply is not None:
                self.error = ""
                return reply
        return None

    def _question(self, where: Where, packet: int) -> bytes:
        header = ProtoV(PacketType.SN_PUBLIC_SECRET, source=ZERO_MAC, dest=SUPERNODE_MAC)
        plain = build(header, SNPublicSecret(True, n2n=where.pack()))
        missing = packet - (28 if self._v4 else 48) - len(plain)
        if missing <= 0:
            return plain
        # The padding has a length of its own in front, of one to three bytes: take off what is too much.
        padded = build(header, SNPublicSecret(True, bytes(missing), where.pack()))
        excess = len(padded) - len(plain) - missing
        return build(header, SNPublicSecret(True, bytes(max(missing - excess, 1)), where.pack()))

    def _await(self, token: bytes, start: float) -> Reply | None:
        for _ in range(_MOST_BAD):
            left = start + self._wait - time.monotonic()
            if left <= 0:
                return None
            self._sock.settimeout(left)
            try:
                datagram, sender = self._sock.recvfrom(_LARGEST)
            except TimeoutError:
                return None
            source = Endpoint.of_sockaddr(sender)
            if source.ip != self._supernode.ip:
                continue
            try:
                message = parse(datagram).message
                if not isinstance(message, SNPublicSecret):
                    continue
                answer = Where.unpack(message.n2n) if message.n2n else None
            except MalformedDatagram:
                continue
            seconds = time.monotonic() - start
            if answer is None and message.pem_data and not message.is_request:
                return Reply(None, source.port, seconds)
            if answer is not None and answer.answer and answer.token == token:
                return Reply(answer.observed, source.port, seconds)
        return None
