"""TCP, TLS, UDP and echoes between two hosts, through sockets of the test process that live in their namespaces.

Both ends are threads of this process: no program has to be started, and what arrives is compared with what was sent.
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import socket
import ssl
import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from n2n.lab.topology import Host

from .packets import internet_checksum

#: Seconds that something may stand still; nothing waits this long unless it is lost.
STANDSTILL = 20.0
MEGABYTE = 1 << 20
_SO_RCVBUFFORCE = 33
_UDP_SEGMENT = 103


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@cache
def noise(seed: int, size: int = MEGABYTE) -> bytes:
    """Bytes that neither repeat nor compress."""
    return hashlib.shake_128(b"noise %d" % seed).digest(size)


# ---- TCP -----------------------------------------------------------------------------------------


@contextmanager
def connection(near: Host, far: Host, address: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection from `near` to `address` of `far`: both of its ends."""
    with ExitStack() as stack:
        with far.entered():
            server = stack.enter_context(socket.create_server((address, 0), family=family_of(address)))
        with near.entered():
            here = stack.enter_context(socket.socket(family_of(address)))
        for sock in (server, here):
            sock.settimeout(STANDSTILL)
        here.connect(server.getsockname()[:2])
        there = stack.enter_context(server.accept()[0])
        there.settimeout(STANDSTILL)
        yield here, there


def _pour(sock: socket.socket, size: int, write: int, seed: int) -> str:
    """Send `size` bytes in writes of `write`; returns their SHA-256."""
    digest = hashlib.sha256()
    for number in range(size // write):
        block = noise(seed + number % 3, write)
        sock.sendall(block)
        digest.update(block)
    return digest.hexdigest()


def _drain(sock: socket.socket, size: int) -> str:
    """Read so many bytes; returns their SHA-256."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(MEGABYTE))
    while size > 0 and (got := sock.recv_into(buffer[:size])):
        digest.update(buffer[:got])
        size -= got
    return digest.hexdigest()


def both_ways(near: Host, far: Host, address: str, size: int = 4 * MEGABYTE, write: int = MEGABYTE) -> bool:
    """As NFS writes: big writes in both directions of one connection at once. True if all of it arrives as it was."""
    with connection(near, far, address) as ends, ThreadPoolExecutor(4) as threads:
        sent = [threads.submit(_pour, end, size, write, 10 * n) for n, end in enumerate(ends)]
        got = [threads.submit(_drain, end, size) for end in reversed(ends)]
        return [one.result() for one in sent] == [one.result() for one in got]


# ---- TLS -----------------------------------------------------------------------------------------


def certificate(folder: Path, *addresses: str) -> Path:
    """A file with a key and a certificate for these addresses, signed by itself, good for this hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "n2n test")])
    names = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + made.public_bytes(serialization.Encoding.PEM)
    path = folder / "certificate.pem"
    path.write_bytes(pem)
    return path


def download(
    client: Host, server: Host, address: str, folder: Path, size: int = 5 * MEGABYTE, names: Iterable[str] = ()
) -> bool:
    """Fetch `size` bytes by TLS, the certificate verified. True if what arrives is what was served.

    Args:
        names: further addresses in the certificate, to make it long.
    """
    pem = certificate(folder, address, *names)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(pem)
    ours = ssl.create_default_context(cafile=pem)

    def serve(plain: socket.socket) -> str:
        with theirs.wrap_socket(plain, server_side=True) as sock:
            assert sock.recv(100) == b"GET it"
            digest = _pour(sock, size, MEGABYTE, 100)
            assert sock.recv(100) == b"thanks"
            return digest

    with connection(client, server, address) as (here, there), ThreadPoolExecutor(1) as threads:
        served = threads.submit(serve, there)
        with ours.wrap_socket(here, server_hostname=address) as sock:
            sock.sendall(b"GET it")
            got = _drain(sock, size)
            sock.sendall(b"thanks")
        return got == served.result()


# ---- UDP -----------------------------------------------------------------------------------------


@contextmanager
def datagrams(near: Host, far: Host, address: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A UDP socket of `near` that is connected to one of `far`: both."""
    with ExitStack() as stack:
        with far.entered():
            there = stack.enter_context(socket.socket(family_of(address), socket.SOCK_DGRAM))
        with near.entered():
            here = stack.enter_context(socket.socket(family_of(address), socket.SOCK_DGRAM))
        there.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 * MEGABYTE)
        there.settimeout(5)
        there.bind((address, 0))
        here.connect(there.getsockname()[:2])
        yield here, there


def super_datagrams(near: Host, far: Host, address: str, count: int = 12, segment: int = 1200) -> list[int]:
    """Send `count` super-frames (UDP_SEGMENT), one after the other. The numbers of those that did not arrive as the
    datagrams that they stand for, in order and whole."""
    broken = []
    with datagrams(near, far, address) as (here, there):
        here.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, segment)
        for number in range(count):
            whole = noise(1000 + number, 65_000)[: segment * (2 + number * 4) + 1 + 97 * number]
            here.send(whole)
            wanted = [whole[at : at + segment] for at in range(0, len(whole), segment)]
            if _received(there, len(wanted)) != wanted:
                broken.append(number)
    return broken


def _received(sock: socket.socket, count: int) -> list[bytes]:
    got: list[bytes] = []
    try:
        while len(got) < count:
            got.append(sock.recv(65536))
    except TimeoutError:
        pass
    return got


# ---- echoes --------------------------------------------------------------------------------------


def echo_sizes(host: Host, target: str, sizes: Iterable[int]) -> list[int]:
    """ICMP echoes with payloads of these sizes, IPv4 or IPv6. The sizes whose answer did not come back whole."""
    v6 = ":" in target
    with host.entered():
        sock = socket.socket(family_of(target), socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP)
    lost = []
    with sock:
        sock.settimeout(3.0)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 * MEGABYTE)
        sock.connect((target, 0))
        for size in sizes:
            rest = struct.pack("!HH", 0x6E32, size) + noise(size % 7, 65536)[:size]
            request = bytes([128 if v6 else 8, 0])
            # The kernel computes the checksum of ICMPv6 itself.
            message = request + struct.pack("!H", internet_checksum(request + b"\0\0" + rest)) + rest
            if not _echoed(sock, message, bytes([129 if v6 else 0, 0]), rest, v6):
                lost.append(size)
    return lost


def _echoed(sock: socket.socket, message: bytes, kind: bytes, rest: bytes, v6: bool) -> bool:
    """One that is too large for the path is told so, and sent again as the kernel then does it (RFC 1191)."""
    for _ in range(3):
        try:
            sock.send(message)
            return _answered(sock, kind, rest, v6)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
    return False


def _answered(sock: socket.socket, kind: bytes, rest: bytes, v6: bool) -> bool:
    while True:
        try:
            packet = sock.recv(65536)
        except TimeoutError:
            return False
        message = packet if v6 else packet[(packet[0] & 15) * 4 :]
        if message[:2] == kind and message[4:] == rest:
            return True
