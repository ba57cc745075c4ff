"""The supernode as a process: what is kept, who decrypts, and how the plane is told."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from n2n.config import SupernodeConfig
from n2n.crypto import SupernodeKey, encrypt
from n2n.daemon.supernode import GroupNumbers, SupernodeDaemon
from n2n.errors import PlatformError, StoreError
from n2n.net import open_udp
from n2n.proto.actions import Decrypt, DropMember, LeaseRecord, PutMember, SaveLease, Send
from n2n.store import MemoryStore
from n2n.types import Endpoint, MacAddress
from n2n.wire import (
    PacketType,
    ProtoV,
    RegisterRequest,
    SNPublicSecret,
    Where,
    build,
    community_id,
    derive_mac,
    parse,
)
from tests.unit.daemon_fakes import FakePlane, until

HERE = Endpoint.parse("192.0.2.1:1")
MAC = MacAddress.parse("02:00:00:00:00:01")


@functools.cache
def key() -> SupernodeKey:
    return SupernodeKey.generate()


def make(planes: list[FakePlane], **more: Any) -> SupernodeDaemon:
    def plane(*args: Any, **settings: Any) -> FakePlane:
        planes.append(FakePlane(*args, **settings))
        return planes[-1]

    store = more.pop("store", None)
    about: dict[str, Any] = {"listen_address": "127.0.0.1:0", "state_dir": None}
    return SupernodeDaemon(SupernodeConfig(**(about | more)), key=key(), store=store, plane_factory=plane)


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(main(), 20)

    asyncio.run(bounded())


def record(number: int) -> LeaseRecord:
    return LeaseRecord("acme", MAC, IPv4Address(f"10.0.0.{number}"), bytes(32), "x", 1e12, 0.0)


def test_group_numbers_stay_small() -> None:
    numbers = GroupNumbers()
    for group in range(100_000):
        assert numbers.put(group, "member") == 0
        assert numbers.drop(group, "member") == 0
    assert numbers.put(1, "a") == numbers.put(1, "b")
    assert numbers.put(2, "a") != numbers.put(1, "b")
    numbers.drop(1, "a")
    assert numbers.put(3, "a") == 2, "a community with a member keeps its number"
    assert numbers.drop(99, "a") is None


def test_the_plane_is_told_of_members() -> None:
    async def main() -> None:
        planes: list[FakePlane] = []
        async with make(planes, max_edges=77, enable_vfuze=False) as daemon:
            assert planes[0].role == "supernode"
            assert planes[0].settings["max_peers"] == 77
            assert planes[0].settings["vfuze"] is False
            daemon._execute([PutMember(5, 123456, MAC, HERE), DropMember(5, 123456, MAC), DropMember(5, 9, MAC)])
            calls = [call for call in planes[0].calls if call[0] != "add_socket"]
            assert calls == [("put_member", 5, 0, MAC.raw, HERE.packed, 1), ("drop_member", 5, 0, MAC.raw)]
            assert daemon.ready

    run(main)


def test_decryptions_are_answered_from_threads() -> None:
    async def main() -> None:
        async with make([]) as daemon:
            assert daemon._drive is not None
            answers: list[tuple[int, bytes | None]] = []
            daemon._drive.core.decrypted = lambda *answer: answers.append(answer[:2])  # type: ignore[method-assign]
            sealed = encrypt(key().public_pem(), b"machine id")
            daemon._execute([Decrypt(1, sealed), Decrypt(2, bytes(256)), Decrypt(3, b"short")])
            await until(lambda: len(answers) == 3)
            assert sorted(answers) == [(1, b"machine id"), (2, None), (3, None)]

    run(main)


def free_pair() -> int:
    """A UDP port that is free, and so is the one after it."""
    while True:
        with open_udp("127.0.0.1:0") as first, contextlib.suppress(PlatformError):
            port = int(first.getsockname()[1])
            if port < 65535:
                open_udp(f"127.0.0.1:{port + 1}").close()
                return port


@pytest.mark.parametrize("listen", ["127.0.0.1", ""])
def test_the_second_port_tells_where_an_edge_is_seen(listen: str) -> None:
    port = free_pair()
    question = build(ProtoV(PacketType.SN_PUBLIC_SECRET), SNPublicSecret(True, n2n=Where(b"12345678").pack()))

    async def main() -> None:
        with open_udp("127.0.0.1:0") as sock:
            async with make([], listen_address=f"{listen}:{port}"):
                sock.sendto(question, ("127.0.0.1", port + 1))
                answer = await asyncio.get_running_loop().sock_recv(sock, 2000)
                assert Where.unpack(parse(answer).message.n2n).observed == Endpoint.of_sockaddr(sock.getsockname())
            open_udp(f"127.0.0.1:{port + 1}").close()  # given back

    run(main)


def test_a_second_port_that_is_taken_is_left_out_unless_it_was_asked_for() -> None:
    async def main() -> None:
        port = free_pair()
        with open_udp(f"127.0.0.1:{port + 1}"):
            daemon = make([], listen_address=f"127.0.0.1:{port}")
            told: list[str] = []
            daemon.listeners.add(lambda event: told.append(str(event["event"])))
            async with daemon:
                assert "no_probe_port" in told
            with pytest.raises(PlatformError, match="in use"):
                await make([], listen_address=f"127.0.0.1:{port}", probe_port=port + 1).start()
        async with make([], listen_address=f"127.0.0.1:{port}", probe_port=0):
            open_udp(f"127.0.0.1:{port + 1}").close()  # it is not ours

    run(main)


@pytest.mark.parametrize("bits", [1024, 3072, 4096])
def test_a_key_of_another_size_works(bits: int) -> None:
    own = SupernodeKey(rsa.generate_private_key(public_exponent=65537, key_size=bits))
    machine_id = bytes(range(16))
    mac = derive_mac(machine_id, "acme")
    sealed = encrypt(own.public_pem(), machine_id)
    request = RegisterRequest(str(mac), "x", "acme", sealed)
    datagram = build(ProtoV(PacketType.REGISTER_REQUEST, community_id("acme"), mac), request)

    async def main() -> None:
        daemon = make([])
        daemon._key = own
        async with daemon:
            assert daemon._drive is not None
            daemon._drive.call(daemon._drive.core.receive, datagram, HERE)
            await until(lambda: daemon._drive.core.counters()["now_members"] == 1)

    run(main)


def test_decryptions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("n2n.daemon.supernode._MAX_DECRYPTIONS", 2)

    async def main() -> None:
        async with make([]) as daemon:
            daemon._execute([Decrypt(token, bytes(256)) for token in range(5)])
            assert daemon.counters()["daemon_decryptions_dropped"] == 3
            await until(lambda: daemon._decryptions == 0)

    run(main)


def test_a_lease_is_saved_before_it_is_told() -> None:
    async def main() -> None:
        planes: list[FakePlane] = []
        store = MemoryStore()
        async with make(planes, store=store) as daemon:
            assert daemon._commits is not None
            sent_when_saved: list[int] = []
            save = store.save

            def spy(batch: Any) -> None:
                sent_when_saved.append(len(planes[0].sent))
                save(batch)

            store.save = spy  # type: ignore[method-assign]
            daemon._commits.submit([SaveLease(record(1)), Send(b"answer", HERE)])
            await until(lambda: planes[0].sent)
            assert sent_when_saved == [0]
            assert store.load_leases() == [record(1)]

    run(main)


def test_a_full_disk_is_said_and_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        planes: list[FakePlane] = []
        store = MemoryStore()

        def full(batch: Any) -> None:
            raise StoreError("cannot save: the disk is full")

        store.save = full  # type: ignore[method-assign]
        async with make(planes, store=store) as daemon:
            assert daemon._commits is not None
            daemon._commits.submit([SaveLease(record(1)), Send(b"answer", HERE)])
            await until(lambda: daemon.counters()["daemon_store_failures"])
            assert planes[0].sent == []
            store.save = lambda batch: None  # type: ignore[method-assign]

    with caplog.at_level(logging.ERROR):
        run(main)
    assert "the disk is full" in caplog.text


def test_leases_and_key_outlive_the_supernode(tmp_path: Path) -> None:
    async def main() -> None:
        pems = []
        for start in range(2):
            config = SupernodeConfig(listen_address="127.0.0.1:0", state_dir=tmp_path / "state")
            daemon = SupernodeDaemon(config, plane_factory=FakePlane)
            async with daemon:
                assert daemon._commits is not None
                assert daemon._key is not None
                assert daemon._store is not None
                pems.append(daemon._key.public_pem())
                assert daemon._store.load_leases() == [record(1)][:start]
                daemon._commits.submit([SaveLease(record(1))])
        assert pems[0] == pems[1]

    run(main)


def test_a_taken_port_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        async with make([]) as first:
            config = SupernodeConfig(listen_address=str(first.local), state_dir=tmp_path)
            with pytest.raises(PlatformError, match="already in use"):
                await SupernodeDaemon(config, plane_factory=FakePlane).start()
        # The state directory is free again.
        config = SupernodeConfig(listen_address="127.0.0.1:0", state_dir=tmp_path)
        async with SupernodeDaemon(config, plane_factory=FakePlane):
            pass

    run(main)


def test_a_state_directory_in_use(tmp_path: Path) -> None:
    async def main() -> None:
        config = SupernodeConfig(listen_address="127.0.0.1:0", state_dir=tmp_path)
        async with SupernodeDaemon(config, plane_factory=FakePlane):
            with pytest.raises(StoreError, match="in use"):
                await SupernodeDaemon(config, plane_factory=FakePlane).start()

    run(main)


@pytest.mark.parametrize(("threads", "sockets", "further"), [(0, 8, 7), (1, 8, 7), (2, 2, 0)])
def test_one_thread_has_several_queues_so_that_a_flood_fills_one(threads: int, sockets: int, further: int) -> None:
    async def main() -> None:
        planes: list[FakePlane] = []
        async with make(planes, threads=threads) as daemon:
            added = [call[1] for call in planes[0].calls if call[0] == "add_socket"]
            assert len(added) == len(set(added)) == further
            assert len(daemon._socks) == sockets
            assert len({one.getsockname() for one in daemon._socks}) == 1

    run(main)
