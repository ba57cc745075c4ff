"""What must not pass: other communities' frames, and frames sealed with another passphrase."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from n2n.lab.namespaces import wait_until
from n2n.lab.nodes import EdgeNode
from n2n.lab.traffic import ping

from .frames import BROADCAST, Tapped, marked_frame
from .networks import PATIENCE, Network, apart, network, wait_paths


@pytest.fixture(scope="module", params=["direct", "relay"])
def net(request: pytest.FixtureRequest) -> Iterator[Network]:
    with network("abcd") as found:
        if request.param == "relay":
            apart(*(found.host(name) for name in "abcd"))
        yield found


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["net"])


def test_two_communities_never_see_each_others_frames(net: Network, path: str) -> None:
    red = [net.edge(name, name=f"red-{name}", community="red") for name in "ab"]
    blue = [net.edge(name, name=f"blue-{name}", community="blue") for name in "cd"]
    net.up(*red, *blue)
    try:
        for pair in (red, blue):
            wait_paths(path, *pair)
        networks = {edge.status()["address"].rpartition(".")[0] for edge in red + blue}
        assert len(networks) == 2, "two communities never share a subnet"
        assert {peer["name"] for peer in red[0].peers()} == {"red-b"}
        assert {peer["name"] for peer in blue[0].peers()} == {"blue-d"}
        check_frames(red, blue)
        check_frames(blue, red)
    finally:
        for edge in red + blue:
            edge.stop()


def check_frames(ours: list[EdgeNode], theirs: list[EdgeNode]) -> None:
    """Frames of `ours` to everybody, to a peer and to a MAC of `theirs`: all our peer's, none theirs."""
    with Tapped(ours[0]) as sender, Tapped(ours[1]) as peer, Tapped(theirs[0]) as first, Tapped(theirs[1]) as second:
        sent = [
            marked_frame(dest, sender.mac) for dest in (BROADCAST, peer.mac, first.mac, second.mac) for _ in range(20)
        ]
        last = marked_frame(BROADCAST, sender.mac)
        for frame in [*sent, last]:
            sender.send(frame)
        assert peer.sees(last), "the frames went out"
        own = marked_frame(BROADCAST, first.mac)  # what arrives after our frames would have
        first.send(own)
        strangers = 0
        for frame in second.frames(5):
            strangers += any(frame.startswith(one) for one in [*sent, last])
            if frame.startswith(own):
                break
        else:
            pytest.fail("the other community does not carry its own frames")
        strangers += sum(any(frame.startswith(one) for one in [*sent, last]) for frame in first.frames(0.3))
        assert strangers == 0


def test_another_passphrase_is_counted_and_nothing_is_delivered(net: Network, path: str) -> None:
    a = net.edge("a", name="right", community="locked", passphrase="the right one")
    b = net.edge("b", name="wrong", community="locked", passphrase="another one")
    c = net.edge("c", name="bare", community="locked")
    net.up(a, b, c)
    try:
        wait_paths(path, a, b, c)
        with Tapped(a) as sender, Tapped(b) as wrong, Tapped(c) as bare:
            frames = [marked_frame(dest, sender.mac) for dest in (BROADCAST, wrong.mac, bare.mac) for _ in range(10)]
            before = {edge.name: refused(edge) for edge in (b, c)}
            for frame in frames:
                sender.send(frame)
            for edge in (b, c):
                wait_until(f"{edge.name} counts", lambda edge=edge: refused(edge) - before[edge.name] >= 20, PATIENCE)
            for tap in (wrong, bare):
                assert not tap.sees(lambda frame: frame[6:12] == sender.mac, timeout=0.3)
        assert ping(a.host, b.address, count=2, interval=0.1).received == 0
        assert ping(b.host, a.address, count=2, interval=0.1).received == 0
    finally:
        for edge in (a, b, c):
            edge.stop()


def refused(edge: EdgeNode) -> int:
    """Datagrams that did not open, or opened to something that is no frame of a member."""
    counters = edge.counters()
    reasons = ("unsealed", "zstd", "spoofed", "destination", "frame_short", "frame_long")
    return sum(counters[f"plane_drop_{why}"] for why in reasons)
