"""What an edge can be told, and the names under which it counts what it saw, sent and ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Final

from n2n.errors import ConfigError
from n2n.proto.keeping import WaySettings
from n2n.proto.pacing import Pace
from n2n.proto.paths import ProbeSettings
from n2n.proto.watching import WatchSettings

__all__ = ["COUNTERS", "EdgeSettings"]

#: Bytes of a machine id (WIRE 6.1).
_MACHINE_ID_SIZE: Final = 16
#: Characters of an edge's own name; others cut longer ones as well.
_NAME_LIMIT: Final = 64
#: So that the end of an outage, whatever it was, is found within 5 s: questions are 3.6 s and a quarter apart at most.
_ASKING: Final = Pace(first=3.6, factor=1.0, cap=3.6)
_REFUSED: Final = Pace(first=10.0, factor=2.0, cap=300.0)
_LISTING: Final = Pace(first=3.0, factor=1.25, cap=30.0)
_PROBE: Final = ProbeSettings()
_WAY: Final = WaySettings()
_WATCH: Final = WatchSettings()


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """Settings of one edge in one community.  Times are in seconds.

    Args:
        name: what it calls itself, 1 to 64 characters.
        community: name of the community (surrogate escapes for bytes that are not UTF-8).
        machine_id: 16 bytes, its only credential.
        heartbeat: between two heartbeats.
        asking: pace of repeated questions while registering.
        refused: pace of new attempts after a refusal.
        listing: pace of repeated questions for the list of peers.
        list_refresh: after this long the list is asked for again, to mend what lost events left wrong.
        list_gap: least time between two lists asked for because an unknown edge pinged us.
        liveness_beats: heartbeats without a word from the supernode after which it is asked for the list, to see
            whether it is there; four such questions without an answer and it counts as lost.
        told_gap: within this time after a registration, a RetryRegisterRequest is not believed at once (it may answer a
            packet from before); a heartbeat asks again.
        answer_wait: how long an answer to a question made on demand (leases, full state) is taken.
        ping_interval: between two ping rounds.
        probe: how paths to v5 peers are probed.
        n2n: show cards and notes, and read those of others; False: be a v5 edge, to all others too.
        port_prediction: where one of two edges is behind a NAT that gives every destination another port, try many
            ports at once (:mod:`n2n.proto.birthday`).
        way: how paths to n2n peers are found and kept.
        watch: how a supernode that welcomes our card is watched.
        state_interval: between two looks at whether our view of the peers changed and the supernode must be told.
        max_peers: peers kept at most.
        address_ranges: ranges in which a virtual network may lie besides the private ones.
        known_key: the supernode's public key (PEM as on the wire) from a former run, or None.
        known_lasts: the supernode said that this key lasts.
        known_keys: the same of supernodes that have names (`EdgeCore.known_as`): key and whether it lasts.
        accept_new_key: take another key than the known one, with a warning (a v5 supernode makes a new one at every
            start); False: refuse it, with an error; None: refuse it if the known one lasts.

    Raises:
        ConfigError: a value is impossible.
    """

    name: str
    community: str
    machine_id: bytes = field(repr=False)
    heartbeat: float = 30.0
    asking: Pace = _ASKING
    refused: Pace = _REFUSED
    listing: Pace = _LISTING
    list_refresh: float = 300.0
    list_gap: float = 30.0
    liveness_beats: int = 3
    told_gap: float = 5.0
    answer_wait: float = 5.0
    ping_interval: float = 3.0
    probe: ProbeSettings = _PROBE
    n2n: bool = True
    port_prediction: bool = True
    way: WaySettings = _WAY
    watch: WatchSettings = _WATCH
    state_interval: float = 2.0
    max_peers: int = 4096
    address_ranges: tuple[IPv4Network, ...] = ()
    known_key: bytes | None = None
    known_lasts: bool = False
    known_keys: Mapping[str, tuple[bytes, bool]] = field(default_factory=dict)
    accept_new_key: bool | None = None

    def __post_init__(self) -> None:
        if len(self.machine_id) != _MACHINE_ID_SIZE:
            raise ConfigError(f"a machine id has {_MACHINE_ID_SIZE} bytes, not {len(self.machine_id)}")
        if not 1 <= len(self.name) <= _NAME_LIMIT:
            raise ConfigError(f"an edge's name has 1 to {_NAME_LIMIT} characters, not {len(self.name)}")
        if not self.community:
            raise ConfigError("the community's name is empty")
        for what in ("heartbeat", "ping_interval", "state_interval", "list_refresh"):
            if not getattr(self, what) > 0:
                raise ConfigError(f"{what} is {getattr(self, what)} s; it must be more than 0")


#: Every counter of an :class:`~n2n.proto.edge.EdgeCore`.  `sent_...` and `received` count datagrams; all others count
#: what was not acted on, by its reason.
COUNTERS: Final = (
    "received",
    "sent_key_request",
    "sent_register",
    "sent_unregister",
    "sent_heartbeat",
    "sent_list_request",
    "sent_state",
    "sent_full_state_request",
    "sent_leases_request",
    "sent_where",
    "sent_ping",
    "sent_pong",
    "sent_birthday",
    # -- whole datagrams
    "inactive",  # before the start or after the close
    "malformed",  # no header of ours, or a message that does not decode
    "data_unexpected",  # frames are the plane's
    "type_unhandled",  # not for edges, or unknown
    "stranger",  # a supernode's message from another endpoint than the supernode's
    "not_flagged",  # a supernode's message without the supernode flag
    "other_community",
    # -- answers nobody asked for, or that make no sense
    "key_unasked",
    "key_bad",
    "key_changed",
    "response_unasked",
    "response_bad",
    "list_unasked",
    "event_unknown",
    "origin_bad",
    "told_waiting",
    "told_early",
    "full_state_unasked",
    "full_state_bad",
    "leases_unasked",
    "leases_bad",
    # -- entries of peer lists and events
    "peer_malformed",
    "peer_is_self",
    "peer_bad_endpoint",
    "peer_table_full",
    "peer_unknown",
    # -- pings and pongs
    "ping_not_ours",
    "ping_bad_flag",
    "ping_too_long",
    "ping_limited",
    "from_inside",  # a ping or pong that came through the tunnel
    "pong_stranger",
    "pong_unasked",
    "pong_repeated",
    "source_limited",
    "card_bad",  # none that opens and is its bearer's
    "note_bad",  # the same
    "note_stale",  # an old one, played back or long held up
    "welcome_bad",  # what the supernode says of itself makes no sense
    "where_bad",  # nor does its word on where it sees us
    "where_unasked",
    "candidate_refused",  # an endpoint on a card that is ours, the supernode's, or in the virtual network
    # -- what we could not send
    "state_cut",
    "too_large",
    "encrypt_failed",
    "no_supernode",
)
