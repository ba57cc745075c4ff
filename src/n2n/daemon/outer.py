"""Loads outside of the tunnel: an edge's part in what ``n2n bench PEER`` measures of the bare path to a peer.

They leave by the socket of the peer's frames, for the endpoint of its frames, so they take its path through the same
NATs; what a load is, and what becomes of one that comes, says ``_fastpath/load.pxd``. Sent are none but to a peer whose
path is direct, that is: proven by answers from there, and as long as it is; taken are those of one peer, with a token,
for a while, up to a number of bytes.
"""

from __future__ import annotations

import os
import resource
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from n2n.errors import ConfigError, NotReady
from n2n.net.udp import receive_drops
from n2n.types import Endpoint, MacAddress
from n2n.wire import PacketType, ProtoV

if TYPE_CHECKING:
    from n2n.daemon.measured import Carrier

__all__ = ["LARGEST", "MAX_SENDING", "SMALLEST", "Loads"]

#: Bytes of a load's datagram, as the data plane takes them.
SMALLEST: Final = 64
LARGEST: Final = 9216
#: Seconds of one sending.
MAX_SENDING: Final = 10.0
#: Seconds sent before somebody looks whether that is to go on.
_CHUNK: Final = 0.05
#: Questions whose answers can be told apart.
_QUESTIONS: Final = 4096
_MARK: Final = b"n2n load"
_LOAD, _QUESTION = 1, 2


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be sent."""

    endpoint: Endpoint
    datagram: bytes
    count: int
    rate: float
    seconds: float
    questions: bool


@dataclass(slots=True)
class _Sent:
    """What one sending has come to."""

    datagrams: int = 0
    bytes: int = 0
    ns: int = 0
    user: float = 0.0
    system: float = 0.0
    why: str = ""


class Loads:
    """Between this edge and one peer, for one measurement. All methods are for the event loop's thread.

    Args:
        carrier: the edge.
        peer: its address.
        way: the endpoint of its direct path; None where there is none.
        rate: most bytes in a second, each way.
    """

    def __init__(self, carrier: Carrier, peer: MacAddress, way: Callable[[], Endpoint | None], rate: float) -> None:
        self._carrier = carrier
        self._peer = peer
        self._way = way
        self._rate = rate
        self._token = bytes(8)
        self._opened = False
        self._earlier = 0  # bytes received in windows before the present one
        self._poured = 0
        self._overflows = 0
        self._sent = _Sent()
        self._sent_at: dict[int, int] = {}
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    @property
    def sending(self) -> bool:
        """True while loads leave."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def credit(self) -> int:
        """Bytes that came from the peer and were not sent back yet."""
        return self._earlier + self._counted()["bytes"] - self._poured

    def open(self, seconds: float, token: bytes | None = None) -> bytes:
        """Take the peer's loads for so long; what was counted before is not told any more.

        Args:
            token: that they bear; None: a new one.

        Returns:
            The token.

        Raises:
            NotReady: the path is not direct, loads are being sent, or the peer is gone.
        """
        self._ready()
        self._token = secrets.token_bytes(8) if token is None else token
        plane = self._carrier.plane
        earlier = self._counted()["bytes"]
        try:
            plane.load_open(self._peer.raw, self._token, seconds, int(self._rate * seconds))
        except ValueError as error:
            raise NotReady(f"no load is taken: {error}") from None
        self._earlier += earlier
        self._opened = True
        self._overflows = self._dropped()
        self._sent, self._sent_at = _Sent(), {}
        return self._token

    def send(self, *, size: int, rate: float, seconds: float, questions: bool = False, most: int | None = None) -> None:
        """Begin to send, in a thread of its own; `look` tells when that has ended.

        Args:
            size: bytes of a datagram, `SMALLEST` to `LARGEST`.
            rate: bytes in a second.
            seconds: more than 0, at most `MAX_SENDING`.
            questions: which the peer answers, in place of loads; 4096 at most.
            most: bytes to send; None: what the rate and the time allow.

        Raises:
            ConfigError: a value is out of bounds.
            NotReady: the path is not direct, or loads are being sent already.
        """
        if not SMALLEST <= size <= LARGEST or not 0 < seconds <= MAX_SENDING or not 0 < rate <= self._rate:
            raise ConfigError(f"a load of {size} bytes, {rate:g} bytes/s and {seconds:g} s is out of bounds")
        endpoint = self._ready()
        bound = rate * seconds if most is None else min(rate * seconds, most)
        count = min(int(bound / size), _QUESTIONS if questions else 0xFFFFFFFF)
        head = ProtoV(PacketType.PING, self._carrier.community, self._carrier.mac, self._peer).pack()
        kind = _QUESTION if questions else _LOAD
        datagram = head + _MARK + bytes([kind]) + self._token + bytes(4)
        datagram += os.urandom(size - len(datagram))  # nothing that compresses
        self._stop = threading.Event()
        self._sent = _Sent()
        order = _Order(endpoint, datagram, count, rate, seconds, questions)
        work = (order, self._stop, self._sent)
        self._thread = threading.Thread(target=self._pour, args=work, name="n2n-load", daemon=True)
        self._thread.start()

    def look(self) -> dict[str, Any]:
        """What left and what came, since `open`: sending, sent, sent_bytes, sent_ns, cpu (seconds of the sending
        thread, when it has ended: {user, system}), why (it ended early), datagrams, bytes, span_ns (from the first to
        the last), overflows (of this host's receive buffers), credit."""
        found, sent = self._counted(), self._sent
        return {
            "sending": self.sending,
            "sent": sent.datagrams,
            "sent_bytes": sent.bytes,
            "sent_ns": sent.ns,
            "cpu": {"user": round(sent.user, 3), "system": round(sent.system, 3)},
            "why": sent.why,
            "datagrams": found["datagrams"],
            "bytes": found["bytes"],
            "span_ns": found["last_ns"] - found["first_ns"],
            "overflows": self._dropped() - self._overflows,
            "credit": self.credit,
        }

    def trips(self) -> list[int]:
        """Nanoseconds of each question that was answered, there and back, in the order in which they went."""
        came = self._carrier.plane.load_arrivals()
        sent = tuple(self._sent_at.items())
        return [came[number] - at for number, at in sent if at and came.get(number, 0) > at]

    def close(self, wait: float = 0.0) -> None:
        """Send and take no more.

        Args:
            wait: seconds for what is being sent; it ends by itself within some 50 ms.
        """
        self._stop.set()
        self._carrier.plane.load_close()
        if wait and self._thread is not None:
            self._thread.join(wait)

    def _counted(self) -> dict[str, int]:
        """What the plane counted in our window: before the first one it tells of somebody else's."""
        if not self._opened:
            return {"datagrams": 0, "bytes": 0, "first_ns": 0, "last_ns": 0}
        return self._carrier.plane.load_look()

    def _dropped(self) -> int:
        return sum(map(receive_drops, self._carrier.sockets))

    def _ready(self) -> Endpoint:
        if self.sending:
            raise NotReady("loads are being sent already")
        endpoint = self._way()
        if endpoint is None:
            raise NotReady("the path is not direct: only a direct one carries loads outside of the tunnel")
        return endpoint

    def _pour(self, order: _Order, stop: threading.Event, sent: _Sent) -> None:
        carrier, number, end = self._carrier, 0, time.monotonic() + order.seconds
        to = order.endpoint
        while number < order.count and not stop.is_set() and (left := end - time.monotonic()) > 0:
            if self._way() != to:
                sent.why = "the path has changed"
                break
            try:
                some, tried, ns, noted = carrier.plane.load_send(
                    order.datagram,
                    to.packed,
                    to.port,
                    carrier.socket_for(to),
                    first=number,
                    count=order.count - number,
                    rate=order.rate,
                    seconds=min(left, _CHUNK),
                    note=order.questions,
                )
            except (OSError, ValueError) as error:  # no descriptors; or the socket has just been given back
                sent.why = str(error)
                break
            if order.questions:
                self._sent_at |= {number + place: at for place, at in enumerate(noted)}
            number += tried
            sent.datagrams += some
            sent.bytes += some * len(order.datagram)
            sent.ns += ns
            self._poured += some * len(order.datagram)
        used = resource.getrusage(resource.RUSAGE_THREAD)
        sent.user, sent.system = used.ru_utime, used.ru_stime
