"""Nothing is allocated per packet: every allocation of a plane's thread is counted, whoever makes it.

The planes run in a process of their own, whose malloc is replaced by a counting one (`SOURCE`).
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WARM_UP, ROUNDS = 5, 250  # rounds; each moves some 40 packets of every kind
# Counts the allocations of one thread; glibc only.
SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static int watched;
static unsigned long count;
static __thread int self __attribute__((tls_model("initial-exec")));

/* Count the thread `tid` from now on, from 0. */
void allocations_watch(int tid)
{
    __atomic_store_n(&count, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&watched, tid, __ATOMIC_SEQ_CST);
}

unsigned long allocations(void) { return __atomic_load_n(&count, __ATOMIC_SEQ_CST); }

static void note(void)
{
    int tid = __atomic_load_n(&watched, __ATOMIC_RELAXED);
    if (!tid)
        return;
    if (!self)
        self = (int)syscall(SYS_gettid);
    if (self == tid)
        __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED);
}

void *malloc(size_t n) { note(); return __libc_malloc(n); }
void *calloc(size_t n, size_t m) { note(); return __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { note(); return __libc_realloc(p, n); }
void *memalign(size_t a, size_t n) { note(); return __libc_memalign(a, n); }
void *aligned_alloc(size_t a, size_t n) { note(); return __libc_memalign(a, n); }
int posix_memalign(void **p, size_t a, size_t n)
{
    note();
    *p = __libc_memalign(a, n);
    return *p ? 0 : ENOMEM;
}
"""
KINDS = ["relay", "edge plain", "edge sealed", "edge compressed", "edge super-frames"]


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    library = tmp_path_factory.mktemp("allocations") / "allocations.so"
    compiler = os.environ.get("CC", "cc").split()
    try:
        subprocess.run(
            [*compiler, "-shared", "-fPIC", "-O1", "-o", str(library), "-x", "c", "-"],
            input=SOURCE, check=True, capture_output=True, text=True,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip(f"there is no C compiler ({compiler[0]})")
    if "san.so" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("a sanitizer has replaced malloc already")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    result = subprocess.run(
        [sys.executable, str(Path(__file__).resolve())],
        env={**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": paths, "N2N_ALLOCATIONS": str(library)},
        check=False, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    counts: dict[str, dict[str, int]] = json.loads(result.stdout)
    return counts


def test_the_counter_counts(counted: dict[str, dict[str, int]]) -> None:
    assert counted["control"] == {"packets": 0, "allocations": 7}


@pytest.mark.parametrize("kind", KINDS)
def test_no_packet_costs_an_allocation(counted: dict[str, dict[str, int]], kind: str) -> None:
    assert counted[kind]["packets"] >= 10_000
    assert counted[kind]["allocations"] == 0


# ---- in the process with the counting malloc ----------------------------------------------------


class Counter:
    """What `SOURCE` exports."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(os.environ["N2N_ALLOCATIONS"])
        self.library.allocations.restype = ctypes.c_ulong
        self.library.malloc.restype = ctypes.c_void_p
        self.library.malloc.argtypes = [ctypes.c_size_t]

    def watch(self, tid: int) -> None:
        self.library.allocations_watch(tid)

    def count(self) -> int:
        return int(self.library.allocations())

    def try_it(self) -> dict[str, int]:
        seen = 0
        for _ in range(7):
            self.watch(threading.get_native_id())
            before = self.count()
            self.library.malloc(5000)
            seen += self.count() > before
            self.watch(0)
        return {"packets": 0, "allocations": seen}


def measure(counter: Counter, plane: object, one_round: Callable[[], int]) -> dict[str, int]:
    """Run a plane in a thread, feed it, and count what that thread allocates after it is warm.

    `one_round` sends packets and returns how many the plane counts for them.
    """

    def seen() -> int:
        counters = plane.counters()  # type: ignore[attr-defined]
        return int(counters["udp_rx"] + counters["tap_rx"])

    thread = threading.Thread(target=plane.run)  # type: ignore[attr-defined]
    thread.start()
    packets = wanted = 0
    for number in range(WARM_UP + ROUNDS):
        if number == WARM_UP:
            assert thread.native_id is not None
            counter.watch(thread.native_id)
            packets = wanted
        wanted += one_round()
        deadline = time.monotonic() + 20
        while seen() < wanted:
            assert time.monotonic() < deadline, f"{seen()} packets of {wanted}"
            time.sleep(0.0002)
    result = {"packets": wanted - packets, "allocations": counter.count()}
    counter.watch(0)
    plane.stop()  # type: ignore[attr-defined]
    thread.join()
    return result


def relay(counter: Counter) -> dict[str, int]:
    from n2n._fastpath.plane import pack_protov, pack_vfuze
    from tests.unit.plane_bench import IP, RelayPlane, Wire, close_all

    a, b = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
    plane, wires = RelayPlane(), [Wire(), Wire()]
    for mac, wire in zip((a, b), wires, strict=True):
        plane.plane.put_member(7, 0, mac, IP, wire.port)
    packets = [pack_vfuze(b) + bytes(900), pack_protov(4, 7, a, b) + bytes(900), pack_protov(4, 7, a, b"\xff" * 6)]
    packets += [
        pack_protov(8, 7, a, b),
        pack_vfuze(b"\x02other"),
        pack_protov(4, 9, a, b),
        b"junk",
        pack_protov(3, 7, a, b),
    ]

    def one_round() -> int:
        for packet in packets * 5:
            wires[0].send(packet, plane.port)
        for number in range(3):  # commands, too: their memory is taken once
            plane.plane.put_member(7, 0, bytes([2, 0, 0, 0, 1, number]), IP, 9)
            plane.plane.drop_member(7, 0, bytes([2, 0, 0, 0, 1, number]))
        plane.plane.receive(1000)
        for wire in wires:
            drain(wire.sock)
        return len(packets) * 5

    result = measure(counter, plane.plane, one_round)
    close_all()
    return result


def drain(sock: object) -> None:
    try:
        while True:
            sock.recv(65535)  # type: ignore[attr-defined]
    except BlockingIOError:
        pass


def edge(counter: Counter, key: bytes | None, compress: bool, vnet: bool) -> dict[str, int]:
    from n2n._fastpath.plane import Aead, Zstd, pack_protov, pack_vfuze
    from tests.property.packets import Packet
    from tests.unit.plane_bench import IP, EdgePlane, Wire, close_all

    me, peer_mac = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
    plane, peer, supernode = EdgePlane(me, key=key, compress=compress, vnet_hdr=vnet), Wire(), Wire()
    plane.plane.set_supernode(IP, supernode.port)
    plane.plane.put_peer(peer_mac, IP, peer.port, True)

    def sealed(frame: bytes) -> bytes:
        payload = Zstd().compress(frame) if compress else frame
        return Aead(key).seal(payload) if key else payload

    packet = Packet(me, peer_mac, os.urandom(2000))
    inbound = [pack_vfuze(me) + sealed(frame) for frame in packet.cut(400)]
    inbound += [pack_protov(4, 77, peer_mac, me) + sealed(me + peer_mac + b"\x08\x06" + bytes(800))]
    inbound += [
        inbound[0][:-1] + b"?",
        pack_vfuze(me) + bytes(200),
        pack_vfuze(me),
        b"junk",
        pack_protov(8, 77, peer_mac, me),
    ]
    head = bytes(10) if vnet else b""
    outbound = [head + dest + me + b"\x08\x00" + os.urandom(600) for dest in (peer_mac, b"\xff" * 6, b"\x02other")]
    if vnet:
        outbound.append(Packet(peer_mac, me, bytes(20_000)).super_frame(1200))

    def one_round() -> int:
        for datagram in inbound * 4:
            peer.send(datagram, plane.port)
        for frame in outbound * 4:
            plane.tap.send(frame)
        plane.plane.receive(1000)
        for sock in (plane.tap, peer.sock, supernode.sock):
            drain(sock)
        return len(inbound) * 4 + len(outbound) * 4

    result = measure(counter, plane.plane, one_round)
    close_all()
    return result


def main() -> None:
    counter = Counter()
    key = bytes(range(32))
    out = {"control": counter.try_it(), "relay": relay(counter)}
    out |= {
        "edge plain": edge(counter, None, False, False),
        "edge sealed": edge(counter, key, False, False),
        "edge compressed": edge(counter, key, True, False),
        "edge super-frames": edge(counter, key, False, True),
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
