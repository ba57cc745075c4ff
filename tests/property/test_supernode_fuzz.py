"""Whatever is sent to a supernode, in whatever order: it answers or not, and its tables stay right."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from n2n.proto.actions import Send
from n2n.proto.answers import _info_size, _infos_size, full_state, leases_answer
from n2n.proto.limits import Rate
from n2n.proto.sn_settings import SupernodeSettings
from n2n.types import Endpoint
from n2n.wire import (
    MAX_DATAGRAM,
    GoTime,
    HeartbeatPulse,
    LeasesInfos,
    P2PFullState,
    PacketType,
    Peer,
    PeerInfo,
    PeerInfoList,
    PeerListRequest,
    PeerP2PInfos,
    ProtoV,
    RegisterRequest,
    SNPublicSecret,
    UDPAddr,
    UnregisterRequest,
    build,
    encode,
    name_of,
)
from tests.sim.supernode_rig import Party, Rig

#: Communities and how many edges want to join: more than fit the network of the first, more communities than there
#: is room for, and two names with one id.
WISHES = {"acme": 8, "c1": 3, "xytsgnxfrs": 2, "xytsgtkexe": 2, "caf\udcff": 1, "": 2}
COUNT = sum(WISHES.values())
SMALL = SupernodeSettings(
    prefix=29,
    expiry=90,
    cleanup_interval=30,
    max_communities=4,
    max_members=12,
    max_leases=20,
    max_pending=4,
    max_sources=5,
    max_state_bytes=3000,
    member_rate=Rate(2, 5),
    source_rate=Rate(20, 60),
    key_rate=Rate(5, 20),
    strict_hash_checking=False,
)

text = st.one_of(st.text(max_size=300), st.binary(max_size=300).map(name_of))
blobs = st.one_of(st.binary(max_size=300), st.binary(min_size=256, max_size=256))
udp_addrs = st.builds(
    UDPAddr, ip=st.binary(max_size=20), port=st.integers(-(2**63), 2**63 - 1), zone=st.text(max_size=5)
)
addresses = st.one_of(st.just(b""), st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=30))
infos = st.builds(
    PeerInfo,
    virtual_ip=addresses,
    mac_addr=st.one_of(st.binary(min_size=6, max_size=6), st.binary(max_size=8)),
    pub_socket=st.none() | udp_addrs,
    community=text,
    desc=text,
)
times = st.none() | st.builds(
    GoTime, unix=st.integers(0, 2**40), nsec=st.integers(0, 999_999_999), offset=st.sampled_from([0, 3600, None, 90])
)
peers = st.builds(
    Peer,
    infos=infos,
    p2p_status=st.integers(0, 255),
    is_full_duplex=st.booleans(),
    p2p_check_id=text,
    updated_at=times,
)
states = st.builds(PeerP2PInfos, from_=st.none() | peers, to=st.lists(peers, max_size=4).map(tuple))
good_peers = st.builds(Peer, infos=st.builds(PeerInfo, mac_addr=st.just(b"123456"), pub_socket=udp_addrs, desc=text))
messages: dict[int, st.SearchStrategy[Any]] = {
    PacketType.SN_PUBLIC_SECRET: st.builds(SNPublicSecret, st.booleans(), st.binary(max_size=50)),
    PacketType.REGISTER_REQUEST: st.builds(RegisterRequest, text, text, text, blobs, blobs),
    PacketType.HEARTBEAT: st.builds(HeartbeatPulse, text, text, blobs),
    PacketType.UNREGISTER_REQUEST: st.builds(UnregisterRequest, text, text, blobs),
    PacketType.PEER_LIST_REQUEST: st.builds(PeerListRequest, text),
    PacketType.P2P_STATE: states,
    PacketType.P2P_FULL_STATE: st.builds(P2PFullState, text, st.booleans()),
    PacketType.LEASES_INFOS: st.builds(LeasesInfos, st.booleans(), text, st.none()),
    PacketType.PEER_INFO: st.builds(PeerInfoList),
}
endpoints = st.builds(
    Endpoint.of, st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1"]), st.integers(0, 65535)
)


numbers = st.integers(0, COUNT - 1)


class Traffic(RuleBasedStateMachine):
    """Edges that come, stay, move and go; strangers with junk; time, crashes, and slow decryptions."""

    @initialize()
    def begin(self) -> None:
        self.rig = Rig(SMALL)
        self.seen: list[bytes] = []
        self.parties = [Party(self.rig, n, name) for name, count in WISHES.items() for n in range(count)]
        for number, party in enumerate(self.parties):
            party.port = 10_000 + number
            if number % 2:
                self.feed(party.register_datagram(), party.endpoint)

    def feed(self, datagram: bytes, source: Endpoint) -> None:
        self.seen = [*self.seen[-20:], datagram]
        for answer, _ in self.rig.feed(datagram, source):
            assert len(answer) <= MAX_DATAGRAM

    @rule(number=numbers, port=st.sampled_from([0, 1, 2]), foreign=st.sampled_from([None, None, None, 5, 6]))
    def register(self, number: int, port: int, foreign: int | None) -> None:
        party = self.parties[number]
        party.port = 10_000 + number % 15 + 1000 * port
        party.header_id = foreign
        self.feed(party.register_datagram(), party.endpoint)

    @rule(number=numbers, kind=st.sampled_from(["heartbeat", "unregister"]), move=st.booleans())
    def speak(self, number: int, kind: str, move: bool) -> None:
        party = self.parties[number]
        party.port += 1000 * move
        self.feed(getattr(party, f"{kind}_datagram")(), party.endpoint)

    @rule(number=numbers)
    def register_as_before(self, number: int) -> None:
        party = self.parties[number]
        self.feed(party.register_datagram(), party.endpoint)

    @rule(number=numbers, data=st.data())
    def ask(self, number: int, data: st.DataObject) -> None:
        party = self.parties[number]
        kind = data.draw(st.sampled_from(sorted(messages)))
        for _ in range(data.draw(st.sampled_from([1, 1, 1, 8]))):
            self.feed(build(party.header(kind), data.draw(messages[kind])), party.endpoint)

    @rule(number=numbers, good=st.lists(good_peers, max_size=3).map(tuple))
    def tell_state(self, number: int, good: tuple[Peer, ...]) -> None:
        party = self.parties[number]
        self.feed(build(party.header(PacketType.P2P_STATE), PeerP2PInfos(None, good)), party.endpoint)

    @rule(number=numbers, kind=st.integers(0, 255), payload=st.binary(max_size=64), source=endpoints)
    def junk(self, number: int, kind: int, payload: bytes, source: Endpoint) -> None:
        self.feed(self.parties[number].header(kind).pack() + payload, source)

    @rule(source=endpoints, at=st.integers(0, 20), cut=st.integers(0, 600), tail=st.binary(max_size=3))
    def replay(self, source: Endpoint, at: int, cut: int, tail: bytes) -> None:
        if self.seen:
            self.feed(self.seen[at % len(self.seen)][: cut or None] + tail, source)

    @rule(seconds=st.sampled_from([0.5, 20.0, 100.0, 700.0, 90_000.0]))
    def wait(self, seconds: float) -> None:
        self.rig.pass_time(seconds)

    @rule()
    def crash(self) -> None:
        self.rig.start()

    @rule(number=numbers, release=st.booleans())
    def operate(self, number: int, release: bool) -> None:
        party = self.parties[number]
        (self.rig.core.release if release else self.rig.core.kick)(party.community, party.mac, self.rig.now)
        self.rig.settle()

    @rule(answer=st.booleans())
    def decrypt_slowly(self, answer: bool) -> None:
        if answer:
            for action in self.rig.decrypts[-6:]:
                self.rig.core.decrypted(action.token, self.rig.decrypt(action.ciphertext), self.rig.now)
            self.rig.settle()
        self.rig.decrypting = answer

    @invariant()
    def no_address_is_given_twice(self) -> None:
        if not hasattr(self, "rig"):
            return
        core = self.rig.core
        for community in core.communities():
            leases = core.leases(community.name)
            assert len({record.ip for record in leases}) == len(leases)
            assert {(record.ip in community.network) for record in leases} <= {True}
            hosts = {record.ip for record in leases} - {community.network[0], community.network[-1]}
            assert len(hosts) == len(leases)
            held = {record.mac: record.ip for record in leases}
            assert all(held.get(member.mac) == member.virtual_ip for member in core.members(community.name))

    @invariant()
    def no_two_communities_share_a_network(self) -> None:
        if not hasattr(self, "rig"):
            return
        networks = [community.network for community in self.rig.core.communities()]
        assert not any(a.overlaps(b) for n, a in enumerate(networks) for b in networks[n + 1 :])

    @invariant()
    def what_is_saved_is_what_is_held(self) -> None:
        if not hasattr(self, "rig"):
            return
        core = self.rig.core
        held = {(r.community, r.mac): r for view in core.communities() for r in core.leases(view.name)}
        assert self.rig.leases == held
        assert self.rig.networks == {view.name: view.network for view in core.communities()}

    @invariant()
    def tables_are_bounded(self) -> None:
        if not hasattr(self, "rig"):
            return
        counters = self.rig.core.counters()
        assert counters["now_communities"] <= SMALL.max_communities
        assert counters["now_members"] <= SMALL.max_members
        assert counters["now_leases"] <= SMALL.max_leases
        assert counters["now_pending"] <= SMALL.max_pending
        assert 0 <= counters["now_state_bytes"] <= SMALL.max_state_bytes
        state = self.rig.core._state
        assert len(state.strangers) <= SMALL.max_sources
        assert max(map(len, (state.sources, state.key_sources, state.founders))) <= SMALL.max_sources
        for community in state.registry.communities.values():
            assert set(community.members) <= set(community.records)
            assert set(community.records) <= {record.mac for record in self.rig.core.leases(community.name)}
        assert counters["now_state_bytes"] == sum(len(m.state or b"") for m in state.registry.members())

    @invariant()
    def the_plane_knows_exactly_the_registered_edges(self) -> None:
        if not hasattr(self, "rig"):
            return
        core, relay = self.rig.core, self.rig.relay
        expected = {
            (member.header_id, member.mac.raw): (community.group, member.endpoint)
            for community in core.communities()
            for member in core.members(community.name)
        }
        assert {key: (put.group, put.endpoint) for key, put in relay.members.items()} == expected
        # Whoever has an endpoint to itself is found there.
        counts = Counter(endpoint for _, endpoint in expected.values())
        assert set(relay.at) == set(counts)

    @invariant()
    def nothing_waits_that_no_timer_looks_at(self) -> None:
        if hasattr(self, "rig"):
            due = self.rig.core.next_timer()
            assert due is not None
            if self.rig.core._state.waiting:
                assert due <= self.rig.mono + 1.0


Traffic.TestCase.settings = settings(max_examples=40, stateful_step_count=60, deadline=None)
TestTraffic = Traffic.TestCase


@given(datagram=st.binary(max_size=200), source=endpoints)
@settings(max_examples=200, deadline=None)
def test_any_bytes_at_all_do_no_harm(datagram: bytes, source: Endpoint) -> None:
    rig = Rig(SMALL)
    for start in (b"", b"\x05", b"\x05\x40\x01", b"\x05\x40\xfb"):
        rig.core.receive(start + datagram, source, rig.now)
        for action in rig.core.drain():
            assert not isinstance(action, Send) or action.endpoint == source


@given(kind=st.sampled_from(sorted(messages)), data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_message_with_any_flaw_does_no_harm(kind: int, data: st.DataObject) -> None:
    rig = Rig(SMALL)
    party = Party(rig, 1)
    party.register()
    raw = build(party.header(kind), data.draw(messages[kind]))
    at = data.draw(st.integers(30, len(raw) - 1))
    flip = data.draw(st.integers(0, 255))
    for datagram in (raw, raw[:at], raw[:at] + bytes([flip]) + raw[at + 1 :], raw + bytes([flip])):
        rig.feed(datagram, party.endpoint)
    request = build(party.header(PacketType.P2P_FULL_STATE), P2PFullState("acme", is_request=True))
    answers = rig.feed(request, party.endpoint)
    assert len(answers) == 1 or not rig.core.members("acme")


@given(info=infos, more=st.lists(peers, max_size=3))
@settings(max_examples=200, deadline=None)
def test_sizes_are_estimated_from_above_and_not_far(info: PeerInfo, more: list[Peer]) -> None:
    one = len(encode(PeerInfoList(peer_infos=(info,)))) - len(encode(PeerInfoList(peer_infos=())))
    assert one - 4 <= _info_size(info) <= one + 40
    state = PeerP2PInfos(None, tuple(more))
    value = len(encode(state)) - len(encode(PeerP2PInfos()))
    assert value <= _infos_size(state) <= value + 40 + 80 * len(more)


@given(states_=st.lists(states, min_size=1, max_size=6), header=st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_full_states_and_leases_can_always_be_sent(states_: list[PeerP2PInfos], header: int) -> None:
    rig = Rig(SupernodeSettings(member_rate=Rate(1e6, 1e6)))
    for number, state in enumerate(states_):
        party = Party(rig, number)
        party.register(edge_desc="é" * 200)
        party.say(PacketType.P2P_STATE, state)
    community = rig.core._state.registry.communities["acme"]
    assert len(build(ProtoV(PacketType.P2P_FULL_STATE, header), full_state(community).payload)) <= MAX_DATAGRAM
    cut = leases_answer(community, rig.core.leases("acme"), rig.now)
    assert cut.left_out == 0
