"""Loads: what measures the path outside of the tunnel, as the data plane counts, answers, refuses and sends it."""

from __future__ import annotations

import select
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from n2n._fastpath.group import PlaneGroup
from n2n._fastpath.plane import Plane, pack_protov
from tests.unit.plane_bench import IP, EdgePlane, Wire, close_all

ME, PEER, OTHER = (bytes([2, 0, 0, 0, 0, n]) for n in (1, 2, 3))
TOKEN = b"12345678"
LOAD, QUESTION, ANSWER = 1, 2, 3
ANSWERS_PER_SECOND = 1000
SEEN = 4096


def load(
    number: int, kind: int = LOAD, token: bytes = TOKEN, size: int = 100, source: bytes = PEER, dest: bytes = ME
) -> bytes:
    body = b"n2n load" + bytes([kind]) + token + struct.pack(">I", number)
    return (pack_protov(8, 77, source, dest) + body).ljust(size, b"\xaa")[:size]


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    close_all()


class Pair:
    """A plane and a peer of it that is played by hand."""

    def __init__(self, direct: bool = True) -> None:
        self.edge, self.peer, self.stranger = EdgePlane(ME), Wire(), Wire()
        self.plane = self.edge.plane
        self.plane.put_peer(PEER, IP, self.peer.port, direct)

    def open(self, seconds: float = 60, budget: int = 1 << 30) -> None:
        self.plane.load_open(PEER, TOKEN, seconds, budget)

    def come(self, *datagrams: bytes, wire: Wire | None = None) -> None:
        for datagram in datagrams:
            (wire or self.peer).send(datagram, self.edge.port)
        while self.plane.step(20):
            pass

    def taken(self) -> int:
        return int(self.plane.counters()["load_rx"])


@pytest.fixture
def pair() -> Pair:
    return Pair()


# ---- in -----------------------------------------------------------------------------------------


def test_loads_are_counted_once_each_and_python_sees_none(pair: Pair) -> None:
    pair.open()
    assert pair.plane.load_look() == {"datagrams": 0, "bytes": 0, "first_ns": 0, "last_ns": 0}
    before = time.monotonic_ns()
    pair.come(*(load(number) for number in (0, 1, 3, 3, 2, 70_000, 2**32 - 1, 2**32 - 2, 70_000)))
    found = pair.plane.load_look()
    assert (found["datagrams"], found["bytes"]) == (7, 700), "doubles and what is far behind are not counted"
    assert before < found["first_ns"] <= found["last_ns"] < time.monotonic_ns()
    assert pair.edge.dropped() == {"drop_load": 2}
    assert pair.taken() == 7
    assert pair.plane.receive() == []
    assert pair.peer.take() == [], "a load is not answered"


def test_numbers_may_come_late_but_not_for_ever(pair: Pair) -> None:
    pair.open()
    pair.come(load(SEEN), load(1), load(0), load(SEEN + 1), load(1))
    assert pair.plane.load_look()["datagrams"] == 3
    assert pair.edge.dropped() == {"drop_load": 2}


def test_another_window_begins_at_nothing(pair: Pair) -> None:
    pair.open()
    pair.come(load(5))
    pair.plane.load_open(PEER, b"another!", 60, 1 << 20)
    assert pair.plane.load_look()["datagrams"] == 0
    pair.come(load(5), load(5, token=b"another!"))
    assert pair.plane.load_look()["datagrams"] == 1
    assert pair.edge.dropped() == {"drop_load": 1}
    pair.plane.load_close()
    assert pair.plane.load_look()["datagrams"] == 1, "what was counted is still told"
    pair.come(load(6, token=b"another!"))
    assert pair.plane.load_look()["datagrams"] == 1


def test_a_question_comes_back_as_an_answer_of_its_own_size(pair: Pair) -> None:
    pair.open()
    pair.come(load(7, QUESTION, size=51), load(8, QUESTION, size=1400))
    back = pair.peer.take()
    assert back == [load(number, ANSWER, source=ME, dest=PEER, size=size) for number, size in ((7, 51), (8, 1400))]
    assert pair.plane.counters()["load_answered"] == 2
    assert pair.plane.load_look()["datagrams"] == 0


def test_questions_are_answered_on_a_direct_path_only() -> None:
    pair = Pair(direct=False)
    pair.open()
    pair.come(load(0, QUESTION))
    assert pair.peer.take() == []
    assert pair.edge.dropped() == {"drop_load": 1}


def test_questions_are_answered_at_a_bounded_rate(pair: Pair) -> None:
    pair.open()
    begin, asked = time.monotonic(), 0
    while pair.plane.counters()["drop_load"] == 0 and time.monotonic() < begin + 30:
        for _ in range(50):
            pair.peer.send(load(asked, QUESTION, size=51), pair.edge.port)
            asked += 1
        while pair.plane.step(0):
            pass
    seconds = time.monotonic() - begin
    counted = pair.plane.counters()
    assert counted["drop_load"] > 0, "more were asked than may be answered"
    assert counted["load_answered"] <= (seconds + 2) * ANSWERS_PER_SECOND
    assert counted["load_answered"] + counted["drop_load"] == asked


def test_the_times_of_answers_are_noted_once(pair: Pair) -> None:
    pair.open()
    before = time.monotonic_ns()
    pair.come(load(3, ANSWER), load(4095, ANSWER))
    first = pair.plane.load_arrivals()
    assert set(first) == {3, 4095}
    assert all(before < at < time.monotonic_ns() for at in first.values())
    pair.come(load(3, ANSWER), load(4096, ANSWER), load(2**32 - 1, ANSWER))
    assert pair.plane.load_arrivals() == first
    assert pair.edge.dropped() == {"drop_load": 3}


HOSTILE = {
    "another token": load(0, token=b"12345679"),
    "no such kind": load(0, kind=4),
    "kind 0": load(0, kind=0),
    "for somebody else": load(0, dest=OTHER),
    "in another's name": load(0, source=OTHER),
    "in our name": load(0, source=ME),
    "no number": load(0, size=50),
    "no token": load(0, size=40),
    "the mark alone": load(0, size=38),
}


@pytest.mark.parametrize("kind", [LOAD, QUESTION, ANSWER])
@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_not_as_agreed_is_dropped(pair: Pair, name: str, kind: int) -> None:
    datagram = bytearray(HOSTILE[name])
    if len(datagram) > 38 and datagram[38] == LOAD:
        datagram[38] = kind
    pair.open()
    pair.come(bytes(datagram))
    assert pair.edge.dropped() == {"drop_load": 1}
    assert (pair.taken(), pair.plane.load_arrivals(), pair.plane.receive()) == (0, {}, [])
    assert pair.peer.take() == []


@pytest.mark.parametrize("kind", [LOAD, QUESTION, ANSWER])
def test_strangers_and_times_without_a_session_get_nothing(pair: Pair, kind: int) -> None:
    pair.come(load(0, kind))  # before any
    pair.open()
    pair.come(load(1, kind), wire=pair.stranger)
    pair.plane.set_supernode(IP, pair.stranger.port)
    pair.come(load(2, kind), wire=pair.stranger)  # relayed
    pair.plane.load_close()
    pair.come(load(3, kind))
    pair.open(seconds=0)
    time.sleep(0.05)  # the plane's clock is coarse
    pair.come(load(4, kind))
    assert pair.edge.dropped() == {"drop_load": 5}
    assert (pair.taken(), pair.plane.load_arrivals(), pair.plane.receive()) == (0, {}, [])
    assert pair.peer.take() == []
    assert pair.stranger.take() == []


@pytest.mark.parametrize("source", [PEER, OTHER], ids=["in its name", "in his own"])
def test_another_peer_has_no_part_in_it(pair: Pair, source: bytes) -> None:
    other = Wire()
    pair.plane.put_peer(OTHER, IP, other.port, True)
    pair.open()
    pair.come(*(load(kind, kind, source=source) for kind in (LOAD, QUESTION, ANSWER)), wire=other)
    assert pair.edge.dropped() == {"drop_load": 3}
    assert other.take() == []


def test_a_window_ends_by_itself(pair: Pair) -> None:
    pair.open(seconds=0.3)
    until = time.monotonic() + 0.4  # the plane's clock is coarse
    while time.monotonic() < until:
        time.sleep(0.01)
    pair.come(load(0), load(1, QUESTION))
    assert pair.edge.dropped() == {"drop_load": 2}


def test_more_than_was_agreed_is_not_counted(pair: Pair) -> None:
    pair.open(budget=450)
    pair.come(*(load(number) for number in range(9)))
    assert pair.plane.load_look()["bytes"] == 400
    assert pair.edge.dropped() == {"drop_load": 5}


def test_longer_than_any_ping_is_dropped_as_such(pair: Pair) -> None:
    pair.open()
    pair.come(load(0, size=9216), load(1, size=9217))
    assert pair.plane.load_look()["bytes"] == 9216
    assert pair.edge.dropped() == {"drop_control_long": 1}


def test_who_takes_the_place_of_a_peer_does_not_inherit_its_window(pair: Pair) -> None:
    pair.open()
    pair.plane.drop_peer(PEER)
    pair.come(load(0))
    pair.plane.put_peer(OTHER, IP, pair.peer.port, True)  # gets the slot
    pair.come(load(1), load(2, source=OTHER))
    assert pair.edge.dropped() == {"drop_load": 3}


def test_windows_that_make_no_sense_are_refused(pair: Pair) -> None:
    with pytest.raises(ValueError, match="no peer"):
        pair.plane.load_open(OTHER, TOKEN, 1, 1)
    for token, seconds in ((b"1234567", 1.0), (TOKEN, -1.0), (TOKEN, 3601.0), (TOKEN, float("nan"))):
        with pytest.raises(ValueError, match="a token has 8 bytes"):
            pair.plane.load_open(PEER, token, seconds, 1)
    pair.plane.load_close()
    assert pair.plane.load_arrivals() == {}


# ---- out ----------------------------------------------------------------------------------------


def sent(plane: Any, wire: Wire, size: int = 200, **how: Any) -> tuple[int, int, int, list[int]]:
    given = {"first": 0, "count": 10, "rate": 1e9, "seconds": 1.0, **how}
    found: tuple[int, int, int, list[int]] = plane.load_send(load(0, size=size), IP, wire.port, 0, **given)
    return found


@pytest.mark.parametrize("gso", [True, False])
def test_loads_leave_numbered_and_as_they_are(gso: bool) -> None:
    edge, wire = EdgePlane(ME, gso=gso), Wire()
    assert sent(edge.plane, wire, first=5, count=150)[:2] == (150, 150)
    assert wire.take() == [load(number, size=200) for number in range(5, 155)]
    assert edge.plane.counters()["load_tx"] == 150
    left, tried, ns, noted = sent(edge.plane, wire, count=3, note=True)
    assert (left, tried) == (3, 3)
    assert ns > 0
    assert time.monotonic_ns() > noted[2] > noted[1] > noted[0] > 0


def test_the_rate_and_the_time_are_kept_to(pair: Pair) -> None:
    left, _, ns, _ = sent(pair.plane, pair.peer, count=40, rate=200 * 400)
    assert left == 40 or ns >= 1e9, "all, unless this machine had other things to do for a second"
    assert ns >= 39 / 400 * 1e9
    left, _, ns, _ = sent(pair.plane, pair.peer, count=1 << 30, rate=200 * 1000, seconds=0.05)
    assert 1 <= left <= 51
    assert ns >= 50e6


def test_a_load_gives_the_interpreter_free(pair: Pair) -> None:
    over = threading.Event()

    def work() -> None:
        sent(pair.plane, pair.peer, count=1 << 30, rate=2e5, seconds=1.0)
        over.set()

    thread = threading.Thread(target=work)
    thread.start()
    turns = 0
    while not over.is_set():
        turns += 1
        time.sleep(0.001)
    thread.join()
    assert turns > 3


def test_loads_that_make_no_sense_are_refused(pair: Pair) -> None:
    for wrong in ({"size": 50}, {"size": 9217}):
        with pytest.raises(ValueError, match="51 to 9216"):
            sent(pair.plane, pair.peer, **wrong)
    for what in (
        {"rate": 0.0}, {"rate": -1.0}, {"rate": float("nan")}, {"seconds": 1.1}, {"seconds": float("nan")},
        {"first": 2**32 - 1, "count": 2}, {"count": 4097, "note": True},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="not what they can be"):
            sent(pair.plane, pair.peer, **what)
    with pytest.raises(ValueError, match="no socket 3"):
        pair.plane.load_send(load(0), IP, 9, 3, first=0, count=1, rate=1e6, seconds=1)
    assert pair.plane.load_send(load(0), bytes(15) + b"\1", 9, 0, first=0, count=1, rate=1e6, seconds=1)[0] == 0
    assert pair.edge.dropped() == {"drop_no_route": 1}


def test_two_planes_measure_each_other() -> None:
    a, b = EdgePlane(ME), EdgePlane(PEER)
    a.plane.put_peer(PEER, IP, b.port, True)
    b.plane.put_peer(ME, IP, a.port, True)
    threads = [threading.Thread(target=edge.plane.run) for edge in (a, b)]
    for thread in threads:
        thread.start()
    try:
        a.plane.load_open(PEER, TOKEN, 60, 1 << 30)
        b.plane.load_open(ME, TOKEN, 60, 1 << 30)
        question = load(0, QUESTION, source=ME, dest=PEER)
        at = a.plane.load_send(question, IP, b.port, 0, first=0, count=40, rate=1e5, seconds=1, note=True)[3]
        until = time.monotonic() + 30
        while len(a.plane.load_arrivals()) < len(at) and time.monotonic() < until:
            time.sleep(0.01)
        assert all(came > at[number] for number, came in a.plane.load_arrivals().items())
        left = a.plane.load_send(load(0, source=ME, dest=PEER), IP, b.port, 0, first=0, count=99, rate=1e6, seconds=1)[
            0
        ]
        while b.plane.load_look()["datagrams"] < left and time.monotonic() < until:
            time.sleep(0.01)
        assert b.plane.load_look()["datagrams"] == left
        assert a.plane.counters()["load_rx"] == len(at) > 0
    finally:
        for edge, thread in zip((a, b), threads, strict=True):
            edge.plane.stop()
            thread.join()


def test_a_group_counts_and_sends_as_one() -> None:
    import socket

    socks, ends = [], []
    for number in range(2):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", socks[0].getsockname()[1] if number else 0))
        sock.setblocking(False)
        socks.append(sock)
        ends += socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    group = PlaneGroup(
        "edge", [one.fileno() for one in socks], tap_fds=[ends[0].fileno(), ends[2].fileno()], mac=ME, community=77
    )
    peer = Wire()
    try:
        group.put_peer(PEER, IP, peer.port, True)
        group.load_open(PEER, TOKEN, 60, 1 << 20)
        for number in range(3):
            peer.send(load(number), socks[0].getsockname()[1])
        peer.send(load(9, ANSWER), socks[0].getsockname()[1])
        while select.select(socks, [], [], 0.1)[0]:
            group.step(20)
        found = group.load_look()
        assert (found["datagrams"], found["bytes"]) == (3, 300)
        assert 0 < found["first_ns"] <= found["last_ns"]
        assert set(group.load_arrivals()) == {9}
        assert sent(group, peer, count=4)[0] == 4
        group.load_close()
        assert isinstance(group.planes[0], Plane)
    finally:
        del group
        for one in (*socks, *ends):
            one.close()
