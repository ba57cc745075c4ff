"""What the host offers: extension, TAP devices, rights, kernel features, cipher, buffers."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from n2n.doctor.findings import Check, Finding, Subject, failed, ok, warning
from n2n.errors import TapError
from n2n.net import Tap, open_udp, socket_buffers

__all__ = ["CHECKS"]

_TUN: Final = Path("/dev/net/tun")
#: Bit of CAP_NET_ADMIN in a capability mask (linux/capability.h).
_NET_ADMIN: Final = 12
# linux/udp.h; Python's socket module has no names for them.
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_SEGMENT: Final = 1200
#: A guess at how short a passphrase is guessed offline: 20 characters of words, more of nonsense.
_SHORT: Final = 20
_GRANT: Final = "Run as root, or give the process CAP_NET_ADMIN (n2n service install does)"


def extension(_: Subject) -> Iterator[Finding]:
    """Is the compiled data plane there, and does it load?"""
    try:
        from n2n._fastpath.plane import LIBCRYPTO
    except ImportError as error:
        yield failed("extension", str(error), "Install the wheel for this Python, or build it: pip install .")
        return
    yield ok("extension", f"the data plane is compiled, with {LIBCRYPTO}")


def tun(subject: Subject) -> Iterator[Finding]:
    """Can TAP devices be opened?"""
    if subject.role != "edge":
        return
    try:
        os.close(os.open(_TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        remedy = {
            errno.ENOENT: f"Load the driver (modprobe tun); in a container pass the device through (--device {_TUN})",
            errno.ENODEV: "Load the driver: modprobe tun (and for good: echo tun > /etc/modules-load.d/tun.conf)",
        }.get(error.errno or 0, f"{_GRANT}; see ls -l {_TUN}")
        yield failed("tun", f"{_TUN}: {(error.strerror or str(error)).lower()}", remedy)
        return
    yield ok("tun", f"{_TUN} opens")


def rights(subject: Subject) -> Iterator[Finding]:
    """May this process make network devices?"""
    if subject.role != "edge":
        return
    if has_net_admin():
        yield ok("rights", "CAP_NET_ADMIN: TAP devices and addresses can be made")
    elif subject.itself is not None:
        yield ok("rights", "this user may not make TAP devices, but the edge runs")
    else:
        yield failed("rights", "this process has no CAP_NET_ADMIN: it cannot make a TAP device", _GRANT)


def has_net_admin() -> bool:
    """Whether CAP_NET_ADMIN is in force for this process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _NET_ADMIN & 1)
    return False


def tap_features(subject: Subject) -> Iterator[Finding]:
    """What TAP devices of this kernel can do, tried on one of another name."""
    if subject.role != "edge" or not has_net_admin():
        return
    name = f"n2n_dr{secrets.token_hex(3)}"
    try:
        with Tap.open(name, vnet_hdr=True) as tap:
            got = tap.offload(uso=True)
    except TapError as error:
        yield warning("tap_offload", str(error), "Without virtio headers frames cross the kernel one by one: slower")
        return
    yield _offload(got)
    try:
        with Tap.open(f"{name}q", multi_queue=True):
            pass
    except TapError as error:
        yield warning("tap_queues", str(error), "Leave threads at auto or 1")
        return
    yield ok("tap_queues", "TAP devices can have several queues")


def _offload(got: frozenset[str]) -> Finding:
    missing = [name for name in ("csum", "tso", "uso") if name not in got]
    if not missing:
        return ok("tap_offload", "virtio headers, with super-frames of TCP and UDP (TSO, USO)")
    if missing == ["uso"]:
        what = "virtio headers, with super-frames of TCP (TSO) but not of UDP (USO)"
        return warning("tap_offload", what, "Bulk UDP is slower; kernels from 6.2 on can")
    what = f"TAP devices of this kernel do not offer: {', '.join(missing)}"
    return warning("tap_offload", what, "Frames cross the kernel one by one, which is slower; use a newer kernel")


def udp_features(_: Subject) -> Iterator[Finding]:
    """Trains of datagrams in one system call."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        for name, option, value in (("udp_segment", _UDP_SEGMENT, _SEGMENT), ("udp_gro", _UDP_GRO, 1)):
            try:
                sock.setsockopt(socket.SOL_UDP, option, value)
            except OSError:
                yield warning(
                    name, f"this kernel has no {name.upper()}", "Each datagram costs a system call: use Linux 5.0 on"
                )
            else:
                yield ok(name, f"{name.upper()}: trains of datagrams in one system call")


def cipher(subject: Subject) -> Iterator[Finding]:
    """Which library would seal here."""
    if subject.role != "edge":
        return
    from n2n._fastpath.plane import Aead

    wanted = subject.edge.cipher if subject.edge is not None else "auto"
    try:
        chosen = Aead(bytes(32), wanted).backend
    except (OSError, ValueError) as error:
        yield failed("cipher", f"cipher {wanted}: {error}", "Set cipher: auto, or install the library")
        return
    yield ok("cipher", f"AES-256-GCM by {chosen}" + (", the fastest here" if wanted == "auto" else ", as configured"))
    if subject.edge is not None:
        yield _passphrase(subject.edge.encryption_passphrase)


def _passphrase(text: str | None) -> Finding:
    make = "n2n key passphrase makes one; every edge of the community needs the same"
    if not text:
        return warning("passphrase", "there is none: frames travel readable and anybody can forge them", make)
    if len(text) < _SHORT:
        what = f"it has {len(text)} characters: who records a frame can try guesses very fast"
        return warning("passphrase", what, make)
    return ok("passphrase", "frames are sealed")


def buffers(subject: Subject) -> Iterator[Finding]:
    """How much the UDP socket may queue."""
    default = 8 * 1024 * 1024 if subject.role == "edge" else 2 * 1024 * 1024
    asked = subject.config.udp_buffer_size if subject.config is not None else default
    with contextlib.closing(open_udp("127.0.0.1:0", buffer_size=asked)) as sock:
        got = socket_buffers(sock)
    least = min(got.receive, got.send)
    if least >= asked:
        yield ok("buffers", f"the UDP socket may queue {asked} bytes in each direction")
        return
    remedy = f"sysctl -w net.core.rmem_max={asked} net.core.wmem_max={asked} (for good: in /etc/sysctl.d/n2n.conf)"
    what = f"udp_buffer_size is {asked}, but the system allows {least} bytes without CAP_NET_ADMIN: bursts are lost"
    yield warning("buffers", what, remedy)


def files(subject: Subject) -> Iterator[Finding]:
    """Can the daemon keep what it has to keep?"""
    if subject.config is None or subject.itself is not None:
        return
    wanted = {"run_dir": subject.config.run_dir, "state_dir": getattr(subject.config, "state_dir", None)}
    if subject.edge is not None:
        wanted["machine_id_file"] = subject.edge.machine_id_file.parent
    for key, path in wanted.items():
        if path is None:
            continue
        there = next(each for each in (path, *path.parents) if each.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            remedy = f"Run as root, make it writable for this user, or choose another {key}"
            yield failed("files", f"{key} {path} cannot be written", remedy)
        else:
            yield ok("files", f"{key} {path} " + ("can be written" if there == path else "can be made"))


CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("extension", extension),
    ("tun", tun),
    ("rights", rights),
    ("tap_offload", tap_features),
    ("udp_features", udp_features),
    ("cipher", cipher),
    ("buffers", buffers),
    ("files", files),
)
