"""Whatever arrives at an edge, from wherever: nothing is raised, nothing senseless is done, everything is counted."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from n2n.proto import actions
from n2n.proto.actions import AllowSource, Configure, DropPeer, KeepKey, PutPeer, Resolve, Send, SetSupernode
from n2n.proto.edge import EdgeState
from n2n.types import SUPERNODE_MAC, Endpoint, MacAddress
from n2n.wire import (
    Candidate,
    CandidateKind,
    Card,
    LeasesInfos,
    Mapping,
    Note,
    NoteKind,
    P2PCommunityDatas,
    P2PFullState,
    PacketType,
    PeerInfoList,
    PeerToPing,
    ProtoV,
    RegisterResponse,
    SNPublicSecret,
    build,
    encode,
    wrap,
)
from tests.unit.edge_driver import KEY, SUPERNODE, Driver, endpoint_of, peer_info

LIMIT = 8
PRIVATE = [IPv4Network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")]
STAGES = ("idle", "resolving", "key", "registering", "refused", "registered", "direct", "told", "asked", "closed")
STRANGER = Endpoint.parse("203.0.113.66:6666")
A = peer_info(1)

wild = st.one_of(st.just(b""), st.binary(max_size=300))
cards = st.builds(
    Card,
    st.sampled_from([MacAddress(A.mac_addr), MacAddress(bytes(6))]),
    st.lists(
        st.builds(
            Candidate, st.sampled_from(CandidateKind), st.builds(Endpoint, st.ip_addresses(), st.integers(0, 65535))
        ),
        max_size=8,
    ).map(tuple),
    st.sampled_from(Mapping),
    st.integers(0, 255),
)
notes = st.builds(
    Note,
    st.sampled_from(NoteKind),
    st.just(MacAddress(A.mac_addr)),
    st.sampled_from([Driver().core.mac, MacAddress(A.mac_addr)]),
    st.integers(0, 2**64 - 1),
    st.none() | st.just(STRANGER),
    st.booleans(),
    st.none() | cards,
    st.sampled_from([b"", b"12345678"]),
)
fields = st.one_of(
    wild, cards.map(lambda card: wrap(card.pack(), None)), notes.map(lambda note: wrap(note.pack(), None))
)
peers = st.builds(
    peer_info,
    st.integers(1, 40),
    port=st.sampled_from([0, 1, 5000, 65535, 65536, -1]),
    ip=st.sampled_from([b"", bytes(4), b"\xff" * 4, b"\xc0\0\2\1", bytes(16), SUPERNODE.packed]),
    mac_addr=st.one_of(st.just(A.mac_addr), st.binary(max_size=8), st.binary(min_size=6, max_size=6)),
    virtual_ip=st.sampled_from([b"", b"\x0a\1\0\1", bytes(16)]),
    desc=st.text(max_size=80),
    n2n=fields,
)
messages = st.one_of(
    st.builds(SNPublicSecret, st.booleans(), st.sampled_from([b"", KEY, b"junk", b"key" * 3000]), fields),
    st.builds(
        RegisterResponse,
        st.booleans(),
        st.one_of(
            st.ip_addresses(v=4).map(str), st.sampled_from(["10.1.2.3", "10.1.2.9", "1.2.3.4"]), st.text(max_size=20)
        ),
        st.integers(-2, 40),
        fields,
    ),
    st.builds(PeerInfoList, st.booleans(), peers, st.lists(peers, max_size=20).map(tuple), st.integers(0, 4)),
    st.builds(PeerToPing, st.one_of(st.text(max_size=50), st.just("x" * 2000)), st.booleans(), fields),
    st.builds(
        P2PFullState, st.just("acme"), st.booleans(), st.sampled_from([P2PCommunityDatas(), P2PCommunityDatas({}, {})])
    ),
    st.builds(LeasesInfos, st.booleans(), st.just("acme"), st.sampled_from([None, {}])),
    st.just(b""),
)
KINDS = {
    SNPublicSecret: PacketType.SN_PUBLIC_SECRET,
    RegisterResponse: PacketType.REGISTER_RESPONSE,
    PeerInfoList: PacketType.PEER_INFO,
    PeerToPing: PacketType.PING,
    P2PFullState: PacketType.P2P_FULL_STATE,
    LeasesInfos: PacketType.LEASES_INFOS,
    bytes: PacketType.RETRY_REGISTER,
}


@st.composite
def datagrams(draw: st.DrawFn) -> bytes:
    """Mostly what nearly passes: right headers, real messages, a few bytes wrong."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    message = draw(messages)
    own = draw(st.sampled_from(["own", "zero", "other"]))
    kind = draw(st.one_of(st.just(KINDS[type(message)]), st.sampled_from(PacketType), st.integers(0, 255)))
    header = ProtoV(
        kind,
        community=draw(st.sampled_from([0, 1, Driver().core.community_id])),
        source=draw(
            st.sampled_from([SUPERNODE_MAC, MacAddress(A.mac_addr), MacAddress(bytes(6)), MacAddress(b"\xff" * 6)])
        ),
        dest={"own": Driver().core.mac, "zero": MacAddress(bytes(6)), "other": MacAddress(A.mac_addr)}[own],
        flags=draw(st.sampled_from([0, 2, 255])),
    )
    payload = message if isinstance(message, bytes) else encode(message)
    datagram = bytearray(build(header, payload))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        datagram[draw(st.integers(0, len(datagram) - 1))] = draw(st.integers(0, 255))
    end = draw(st.one_of(st.just(len(datagram)), st.integers(0, len(datagram))))
    return bytes(datagram[:end])


steps = st.lists(
    st.tuples(
        st.one_of(datagrams(), st.just(None)),
        st.sampled_from([SUPERNODE, endpoint_of(A), STRANGER]),
        st.sampled_from([0.0, 0.1, 3.0, 100.0]),
    ),
    max_size=12,
)


def brought_to(stage: str) -> Driver:
    """An edge at some stage of its life."""
    driver = Driver(max_peers=LIMIT)
    core = driver.core
    if stage == "idle":
        return driver
    if stage in ("registered", "direct", "told", "asked", "closed"):
        driver.register(A)
    else:
        core.start(driver.now)
        if stage != "resolving":
            core.set_supernode(SUPERNODE, driver.now)
        if stage in ("registering", "refused"):
            driver.say_key()
        if stage == "refused":
            driver.say(PacketType.REGISTER_RESPONSE, RegisterResponse(False))
    driver.run_until(6.0)
    if stage == "direct":
        driver.pong(A, driver.last_check_id(A))
    if stage == "told":
        driver.say(PacketType.RETRY_REGISTER, community=0)
    if stage == "asked":
        assert core.ask_full_state(driver.now)
        assert core.ask_leases(driver.now)
        assert core.ask_peers(driver.now)
    if stage == "closed":
        core.close(driver.now)
    driver.collect()
    return driver


def check_actions(done: list[Any], driver: Driver) -> None:
    for action in done:
        match action:
            case Configure(ip, prefix):
                network = IPv4Network(f"{ip}/{prefix}", strict=False)
                assert any(network.subnet_of(p) for p in PRIVATE)
                assert 8 <= prefix <= 30
                assert ip not in (network.network_address, network.broadcast_address)
            case Send(datagram, endpoint):
                assert 30 <= len(datagram) <= 65507
                assert endpoint.port
                assert ProtoV.unpack(datagram).source == driver.core.mac
            case PutPeer(mac, endpoint, _) | AllowSource(mac, endpoint):
                assert not mac.is_multicast
                assert not mac.is_zero
                assert mac != driver.core.mac
                assert endpoint.port
                assert not endpoint.ip.is_unspecified
            case KeepKey(key, _):
                assert key == driver.core.trust.key
                assert len(key) <= 4096
            case _:
                assert isinstance(action, (actions.Note, DropPeer, Resolve, SetSupernode))


@given(stage=st.sampled_from(STAGES), what=steps)
@example(stage="registered", what=[(b"", SUPERNODE, 0.0)])
@settings(max_examples=400, deadline=None)
def test_nothing_that_arrives_does_harm(stage: str, what: list[tuple[bytes | None, Endpoint, float]]) -> None:
    driver = brought_to(stage)
    fed = 0
    before = driver.core.counters()["received"] + driver.core.counters()["inactive"]
    for datagram, source, seconds in what:
        driver.run_for(seconds)
        if datagram is None:
            continue
        fed += 1
        known = {view.mac for view in driver.core.peers()}
        driver.core.receive(datagram, source, driver.now)
        done = driver.collect()
        check_actions(done, driver)
        sends = [a for a in done if isinstance(a, Send)]
        # A peer may be answered by two ways, and pinged; the supernode can make us call every peer.
        assert len(sends) <= (2 + LIMIT if source == SUPERNODE else 3), "one datagram in, many out"
        if source == STRANGER:
            assert {view.mac for view in driver.core.peers()} == known
            assert all(isinstance(a, (Send, AllowSource, actions.Note)) for a in done)
            assert sum(len(s.datagram) for s in sends) <= len(datagram) + 200
            assert len(sends) <= 1
        assert len(driver.core.peers()) <= LIMIT
    counters = driver.core.counters()
    assert counters["received"] + counters["inactive"] == before + fed
    assert (driver.core.next_timer() is None) == (driver.core.state in (EdgeState.IDLE, EdgeState.CLOSED))


@given(datagram=datagrams())
@settings(max_examples=300, deadline=None)
def test_a_stranger_s_datagram_changes_no_state(datagram: bytes) -> None:
    driver = brought_to("registered")
    before = driver.core.peers(), driver.core.state, driver.core.address, driver.core.trust.key
    driver.core.receive(datagram, STRANGER, driver.now)
    driver.collect()
    assert (driver.core.peers(), driver.core.state, driver.core.address, driver.core.trust.key) == before


@given(datagram=datagrams(), source=st.sampled_from([SUPERNODE, endpoint_of(A), STRANGER]))
@settings(max_examples=300, deadline=None)
def test_what_is_not_acted_on_is_counted(datagram: bytes, source: Endpoint) -> None:
    driver = brought_to("registered")
    counters, notes = driver.core.counters(), len(driver.actions)
    views = driver.core.peers(), driver.core.reflexive
    driver.core.receive(datagram, source, driver.now)
    driver.collect()
    after = driver.core.counters()
    changed = {name for name in after if after[name] != counters[name]}
    acted = len(driver.actions) > notes or (driver.core.peers(), driver.core.reflexive) != views
    assert "received" in changed
    assert acted or len(changed) > 1 or _is_empty_event(datagram)


def _is_empty_event(datagram: bytes) -> bool:
    """An event about nobody is valid and does nothing; so is news of a peer with nothing new."""
    return datagram[2] == PacketType.PEER_INFO
