"""What an edge sends and says: builds datagrams, queues actions, counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from n2n.errors import LocalProtocolError, N2NError
from n2n.proto.actions import EdgeAction, Level, Note, Send
from n2n.proto.edge_settings import COUNTERS, EdgeSettings
from n2n.types import SUPERNODE_MAC, ZERO_MAC, Endpoint, Instant, MacAddress
from n2n.wire import PacketType, PeerToPing, ProtoV, SNPublicSecret, Where, build, community_id, derive_mac

__all__ = ["Outbox"]

_SENT: Final = {
    PacketType.SN_PUBLIC_SECRET: "sent_key_request",
    PacketType.REGISTER_REQUEST: "sent_register",
    PacketType.UNREGISTER_REQUEST: "sent_unregister",
    PacketType.HEARTBEAT: "sent_heartbeat",
    PacketType.PEER_LIST_REQUEST: "sent_list_request",
    PacketType.P2P_STATE: "sent_state",
    PacketType.P2P_FULL_STATE: "sent_full_state_request",
    PacketType.LEASES_INFOS: "sent_leases_request",
}


class Outbox:
    """The edge's identity in packet headers, its queue of actions and its counters.

    Args:
        settings: whose name, community and machine id are used.
        encrypt: seals bytes for the owner of a public key (PEM); raises an N2NError if that is no usable key.
        sequence: returns the next sequence number of the edge's packets.
    """

    def __init__(
        self, settings: EdgeSettings, encrypt: Callable[[bytes, bytes], bytes], sequence: Callable[[], int]
    ) -> None:
        self.mac: Final[MacAddress] = derive_mac(settings.machine_id, settings.community)
        self.community: Final[int] = community_id(settings.community)
        self.supernode: Endpoint | None = None
        """Where the supernode is, if that is known."""
        self._machine_id = settings.machine_id
        self._encrypt = encrypt
        self._sequence = sequence
        self._actions: list[EdgeAction] = []
        self._counters = dict.fromkeys(COUNTERS, 0)

    def act(self, action: EdgeAction) -> None:
        """Queue an action."""
        self._actions.append(action)

    def note(self, level: Level, event: str, **fields: object) -> None:
        """Queue a note."""
        self._actions.append(Note(level, event, fields))

    def drain(self) -> list[EdgeAction]:
        """Hand over the queue."""
        actions, self._actions = self._actions, []
        return actions

    def count(self, name: str, by: int = 1) -> None:
        """Count something; `name` is one of COUNTERS."""
        self._counters[name] += by

    def counters(self) -> dict[str, int]:
        """All counters, those at zero too."""
        return dict(self._counters)

    def sealed_machine_id(self, public_pem: bytes) -> bytes | None:
        """The machine id for the owner of this key, or None if it is none."""
        try:
            return self._encrypt(public_pem, self._machine_id)
        except N2NError:
            self.count("encrypt_failed")
            return None

    def tell_supernode(self, kind: PacketType, message: object, now: Instant) -> bool:
        """Send a message to the supernode, if there is one and it fits; returns whether it was queued."""
        if self.supernode is None:
            self.count("no_supernode")
            return False
        if not self._send(kind, ZERO_MAC, message, self.supernode, now):
            return False
        self.count(_SENT[kind])
        return True

    def ask_key(self, now: Instant) -> None:
        """Ask the supernode for its key."""
        self.tell_supernode(PacketType.SN_PUBLIC_SECRET, SNPublicSecret(is_request=True), now)

    def ask_where(self, token: bytes, probe: Endpoint | None, now: Instant) -> None:
        """Ask the supernode where it sees us: at its main port, or by a ping to its probe port."""
        question = Where(token).pack()
        to = probe or self.supernode
        if to is None:
            self.count("no_supernode")
        elif probe is None:
            sent = self._send(PacketType.SN_PUBLIC_SECRET, ZERO_MAC, SNPublicSecret(True, n2n=question), to, now)
            self.count("sent_where", int(sent))
        else:
            # The mark of a pong takes two bytes, and no answer is longer than its question.
            ping = PeerToPing(token.hex(), n2n=question + bytes(2))
            self.count("sent_where", int(self._send(PacketType.PING, SUPERNODE_MAC, ping, to, now)))

    def ping(self, peer: MacAddress, payload: bytes, endpoint: Endpoint, times: int, now: Instant) -> None:
        """Send a ping, already encoded, so many times in a row."""
        for _ in range(times):
            if self._send(PacketType.PING, peer, payload, endpoint, now):
                self.count("sent_ping")

    def datagram(self, peer: MacAddress, payload: bytes, now: Instant) -> bytes:
        """A ping as it is sent, for whoever sends it."""
        return build(self._header(PacketType.PING, peer, now), payload)

    def pong(self, peer: MacAddress, payload: bytes, endpoint: Endpoint, now: Instant) -> None:
        """Send a pong, already encoded."""
        if self._send(PacketType.PING, peer, payload, endpoint, now):
            self.count("sent_pong")

    def _send(self, kind: PacketType, dest: MacAddress, message: object, endpoint: Endpoint, now: Instant) -> bool:
        try:
            datagram = build(self._header(kind, dest, now), message)
        except LocalProtocolError:
            self.count("too_large")
            return False
        self._actions.append(Send(datagram, endpoint))
        return True

    def _header(self, kind: PacketType, dest: MacAddress, now: Instant) -> ProtoV:
        return ProtoV(
            kind,
            community=self.community,
            source=self.mac,
            dest=dest,
            sequence=self._sequence(),
            timestamp=int(now.wall),
        )
