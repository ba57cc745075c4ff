"""The extension's batches for the benchmark: what comes back is counted, what does not is not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from n2n._fastpath.trial import BATCH, LARGEST, Exchange, Packets

KEY = bytes(range(32))


@pytest.mark.parametrize("header", ["vfuze", "protov"])
@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "sealed"])
@pytest.mark.parametrize(("size", "batch"), [(14, 1), (64, BATCH), (1400, 7), (LARGEST, 3)])
def test_every_frame_comes_back_whole(header: str, key: bytes | None, size: int, batch: int) -> None:
    packets = Packets(header, size, key, batch)
    times, good = packets.run(20)
    assert len(times) == 20
    assert all(time >= 0 for time in times)
    assert good == 20 * batch
    assert packets.run(0) == ([], 0)
    assert packets.backend in (("",) if key is None else ("libcrypto", "ipsec-mb"))


@pytest.mark.parametrize(
    "arguments",
    [("x", 64), ("vfuze", 13), ("vfuze", LARGEST + 1), ("vfuze", 64, b"short"), ("vfuze", 64, None, 0),
     ("vfuze", 64, None, BATCH + 1), ("vfuze", 64, KEY, 1, "tea")],
)  # fmt: skip
def test_packets_that_cannot_be_are_refused(arguments: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match=r"header|frame|batch|key|cipher"):
        Packets(*arguments)


@pytest.mark.parametrize("count", [-1, 1_000_001])
def test_runs_are_bounded(count: int) -> None:
    with pytest.raises(ValueError, match="not between"):
        Packets("vfuze", 64).run(count)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    with near, far:
        yield near, far


@pytest.mark.parametrize("batch", [1, 5, BATCH])
@pytest.mark.parametrize("is_socket", [True, False], ids=["messages", "reads"])
def test_messages_go_there_and_back(pair: tuple[socket.socket, socket.socket], batch: int, is_socket: bool) -> None:
    near, far = pair
    for one in pair:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    made = Exchange(near.fileno(), far.fileno(), 300, near_socket=is_socket, far_socket=is_socket, batch=batch)
    times, sent, received = made.run(10)
    assert (len(times), sent, received) == (10, 10 * batch, 10 * batch)


def test_what_is_not_ours_is_ignored(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    for noise in (b"x" * 64, b"short", bytes(9000)):
        near.send(noise)
        far.send(noise)
    assert Exchange(near.fileno(), far.fileno(), 64, batch=3).run(4)[1:] == (12, 12)


def test_what_does_not_come_back_is_lost_and_a_dead_path_ends_the_run() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far,
    ):
        for one in (near, far):
            one.bind(("127.0.0.1", 0))
            one.setblocking(False)
        near.connect(near.getsockname())  # what it sends never gets to `far`
        times, sent, received = Exchange(near.fileno(), far.fileno(), 64).run(1000, timeout_ms=1)
    assert (times, sent, received) == ([], 10, 0)


def test_a_broken_descriptor_is_an_error(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    made = Exchange(near.fileno(), far.fileno(), 64)
    far.close()
    with pytest.raises(BrokenPipeError):
        made.run(5)


def test_frames_are_turned_round_with_their_addresses(pair: tuple[socket.socket, socket.socket]) -> None:
    """A device that answers nothing but frames with exchanged addresses."""
    near, far = pair
    a, b, kind = bytes(range(6)), bytes(range(6, 12)), b"\x88\xb5"
    seen: list[bytes] = []
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with mine, theirs:
        mine.setblocking(False)

        def wire() -> None:
            frame = far.recv(4096)
            theirs.send(frame)
            back = theirs.recv(4096)
            seen.extend([frame, back])
            far.send(back)

        far.setblocking(True)
        thread = threading.Thread(target=wire)
        thread.start()
        made = Exchange(near.fileno(), mine.fileno(), 64, head=b + a + kind, near_offset=14, far_offset=14)
        _, sent, received = made.run(1, timeout_ms=20_000)
        thread.join()
    assert (sent, received) == (1, 1)
    assert seen[0][:14] == b + a + kind
    assert seen[1][:14] == a + b + kind
    assert seen[0][14:] == seen[1][14:]


def test_datagrams_are_turned_round_with_addresses_and_ports(pair: tuple[socket.socket, socket.socket]) -> None:
    """`near` sees payloads, `far` whole frames: as with a socket on a TAP device."""
    near, far = pair
    inner_near, outer_near = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    frames: list[bytes] = []
    head = bytes(range(12)) + b"\x08\x00" + bytes(12) + b"AAAABBBB" + b"aabb" + b"\0\0\0\0"
    assert len(head) == 42
    near.setblocking(True)
    outer_near.setblocking(True)

    def host() -> None:
        payload = outer_near.recv(4096)
        near.send(head + payload)
        frames.append(near.recv(4096))
        outer_near.send(frames[0][42:])

    with inner_near, outer_near:
        thread = threading.Thread(target=host)
        thread.start()
        made = Exchange(inner_near.fileno(), far.fileno(), 64, far_offset=42, far_socket=False)
        assert made.run(1, timeout_ms=20_000)[1:] == (1, 1)
        thread.join()
    frame = frames[0]
    assert frame[:12] == bytes(range(6, 12)) + bytes(range(6))
    assert frame[26:38] == b"BBBBAAAA" + b"bbaa"


@pytest.mark.parametrize(
    "settings",
    [{"size": 7}, {"size": 9217}, {"size": 64, "batch": 0}, {"size": 64, "batch": BATCH + 1},
     {"size": 64, "head": b"x"}, {"size": 64, "near_offset": 20, "far_offset": 10}, {"size": 64, "far_offset": 65}],
)  # fmt: skip
def test_exchanges_that_cannot_be_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"message|batch|offsets"):
        Exchange(0, 0, **settings)
