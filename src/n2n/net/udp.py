"""UDP sockets for edges and supernodes, and the resolution of a supernode's name.

`open_udp` makes the one socket that carries everything; its descriptor goes to the data plane.  What exceeds a path may
be fragmented on the way (`let_fragment`): full-size broadcast frames do exceed one of 1500 bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
import struct
from typing import Final, NamedTuple

from n2n.errors import ConfigError, PlatformError
from n2n.net.df import let_fragment
from n2n.net.holders import udp_port_holder
from n2n.types import Endpoint

__all__ = [
    "DEFAULT_EDGE_BUFFER",
    "DEFAULT_SUPERNODE_BUFFER",
    "SocketBuffers",
    "bind_to",
    "open_udp",
    "open_udp_group",
    "receive_drops",
    "resolve",
    "set_buffers",
    "socket_buffers",
]

#: Bytes asked for in each direction (the protocol's reference implementation asks for the same).
DEFAULT_EDGE_BUFFER: Final = 8 * 1024 * 1024
DEFAULT_SUPERNODE_BUFFER: Final = 2 * 1024 * 1024

# asm-generic/socket.h; Python's socket module has no names for them.  They pass the limits of
# net.core.{r,w}mem_max and need CAP_NET_ADMIN.
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
# The same: nine numbers of 32 bits, since Linux 4.12; the last one is SK_MEMINFO_DROPS (linux/sock_diag.h).
_SO_MEMINFO: Final = 55

# Two of them are glibc's: other C libraries say EAI_NONAME.
_NO_SUCH_NAME: Final = {
    getattr(socket, name, socket.EAI_NONAME) for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY")
}


class SocketBuffers(NamedTuple):
    """Bytes that a socket may queue, as a caller would ask for them."""

    receive: int
    send: int


def open_udp(
    listen: str | Endpoint = ":0", *, buffer_size: int | None = None, ipv4_only: bool = False
) -> socket.socket:
    """Open a non-blocking UDP socket.  It resolves no names.

    Args:
        listen: ``:7777`` (every address: IPv6 and IPv4 by one dual-stack socket, IPv4 alone where IPv6 is off),
            ``192.0.2.1:7777``, ``[2001:db8::1]:7777``, ``eth0:7777`` (by that interface only), or an endpoint.  Port 0:
            the kernel chooses.
        buffer_size: bytes to ask for in each direction; see `socket_buffers` for what was granted.
        ipv4_only: make ``:port`` an IPv4 socket (what an edge of protocol v5 has).

    Raises:
        ConfigError: `listen` has another form.
        PlatformError: the address is in use, not ours, or not allowed; the message says what to do.

    >>> with open_udp("127.0.0.1:0") as opened:
    ...     opened.getsockname()[0], opened.getblocking()
    ('127.0.0.1', False)
    """
    host, port, device = _listen_address(listen)
    if host is None:
        opened = None if ipv4_only else _open_dual_stack(port)
        opened = opened or _open(socket.AF_INET, ("0.0.0.0", port), dual=False)  # noqa: S104
    else:
        version6 = isinstance(host, ipaddress.IPv6Address)
        family = socket.AF_INET6 if version6 else socket.AF_INET
        opened = _open(family, _sockaddr(host, port), dual=version6 and not int(host))
    try:
        if device:
            bind_to(opened, device)
        if buffer_size is not None:
            set_buffers(opened, buffer_size)
    except BaseException:
        opened.close()
        raise
    return opened


def open_udp_group(listen: str | Endpoint, count: int, *, buffer_size: int | None = None) -> list[socket.socket]:
    """Open `count` sockets on one address (SO_REUSEPORT): the kernel gives all datagrams of one sender to one of them.

    The first is bound alone, so that an address in use is refused as ever.

    Args:
        listen, buffer_size: as for `open_udp`.
        count: at least 1.

    Raises:
        ConfigError, PlatformError: as `open_udp` does.

    >>> group = open_udp_group("127.0.0.1:0", 2)
    >>> len({one.getsockname() for one in group})
    1
    >>> for one in group:
    ...     one.close()
    """
    group = [open_udp(listen, buffer_size=buffer_size)]
    try:
        if count > 1:
            group[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for _ in range(count - 1):
            group.append(_join(group[0]))
            if buffer_size is not None:
                set_buffers(group[-1], buffer_size)
    except BaseException:
        for opened in group:
            opened.close()
        raise
    return group


def _join(first: socket.socket) -> socket.socket:
    """One more socket on the address of `first`."""
    address = first.getsockname()
    opened = socket.socket(first.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if first.family == socket.AF_INET6:
            v6only = first.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        let_fragment(opened)
        opened.bind(address)
        device = first.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
    except OSError as error:
        opened.close()
        raise PlatformError(_why_not_bound(address[0], address[1], error)) from error
    return opened


def socket_buffers(opened: socket.socket) -> SocketBuffers:
    """What the kernel granted, in the unit of `open_udp`'s `buffer_size`.

    The kernel doubles what it is asked for, to have room for its own records (socket(7)); this is the half.

    >>> with open_udp(buffer_size=65536) as opened:
    ...     socket_buffers(opened)
    SocketBuffers(receive=65536, send=65536)
    """
    return SocketBuffers(
        opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2,
        opened.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2,
    )


def receive_drops(opened: socket.socket) -> int:
    """Datagrams that the kernel dropped so far because this socket's receive buffer was full; 0 where it does not say.

    >>> with open_udp() as opened:
    ...     receive_drops(opened)
    0
    """
    try:
        return int(struct.unpack("9I", opened.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36))[8])
    except (OSError, struct.error):  # an older kernel; or the socket is closed
        return 0


async def resolve(host_port: str, family: socket.AddressFamily = socket.AF_INET) -> list[Endpoint]:
    """Look up ``host:port``, off the event loop.

    Args:
        host_port: a name or an address (IPv6 in brackets), and a port from 1 to 65535.
        family: AF_INET, AF_INET6, or AF_UNSPEC for both.

    Returns:
        At least one endpoint, in the resolver's order, none twice.

    Raises:
        ConfigError: `host_port` has another form.
        PlatformError: there is no such name or no address of that family, or the resolver does not answer.

    >>> asyncio.run(resolve("192.0.2.1:7777"))
    [Endpoint('192.0.2.1:7777')]
    """
    host, port = _split(host_port)
    if not host or not port:
        raise ConfigError(f"{host_port!r} is not an address to reach: write host:port, such as vpn.example.org:7777")
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_DGRAM)
    except UnicodeError as error:  # a label that is empty or longer than DNS has it
        raise ConfigError(f"{host!r} is not a possible host name: {error}") from error
    except socket.gaierror as error:
        raise PlatformError(f"cannot resolve {host}: {_resolver_cause(error, family)}") from error
    except OSError as error:
        raise PlatformError(f"cannot resolve {host}: {error}") from error
    return list(dict.fromkeys(Endpoint.of_sockaddr(sockaddr) for *_, sockaddr in found))


def _resolver_cause(error: socket.gaierror, family: socket.AddressFamily) -> str:
    kind = {socket.AF_INET: "IPv4 ", socket.AF_INET6: "IPv6 "}.get(family, "")
    if error.errno in _NO_SUCH_NAME:
        return f"no {kind}address is known for that name. Check its spelling, and try: getent ahosts NAME"
    if error.errno == socket.EAI_AGAIN:
        return "the name servers do not answer. Is the network up? (see /etc/resolv.conf)"
    return str(error.strerror)


def _split(text: str) -> tuple[str, int]:
    """Cut ``host:port`` or ``[address]:port``; the host may be empty.

    Raises:
        ConfigError: it has another form.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"{text!r}: write an IPv6 address in brackets, such as [2001:db8::1]:7777")
    if not colon or not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ConfigError(f"{text!r} does not end in a port (:0 to :65535)")
    return host, int(port)


def bind_to(opened: socket.socket, where: str) -> None:
    """Send from one address of this host, at a port of the kernel's choice, or by one interface.

    Args:
        where: an IP address, or the name of an interface.

    Raises:
        PlatformError: there is no such address or interface, or it is not allowed.

    >>> with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
    ...     bind_to(opened, "127.0.0.1")
    """
    try:
        ipaddress.ip_address(where)
    except ValueError:
        device = True
    else:
        device = False
    try:
        if device:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, where.encode() + b"\0")
        else:
            opened.bind((where, 0))
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        kind, remedy = ("interface", "ip link") if device else ("address", "ip address")
        raise PlatformError(f"cannot send by the {kind} {where!r}: {why}. See {remedy}") from error


def _listen_address(
    listen: str | Endpoint,
) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address | None, int, str]:
    """Address (None: every one), port, and interface (empty: every one)."""
    if isinstance(listen, Endpoint):
        return listen.ip, listen.port, ""
    host, port = _split(listen)
    try:
        return (ipaddress.ip_address(host) if host else None), port, ""
    except ValueError:
        with contextlib.suppress(OSError):
            socket.if_nametoindex(host)
            return None, port, host
        raise ConfigError(
            f"{listen!r}: {host!r} is not an IP address, and this host has no interface of that name (see ip link). "
            f"Listen on :{port} (every address), or on one of this host's"
        ) from None


def _sockaddr(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> tuple[str, int] | tuple[str, int, int, int]:
    """As `bind` wants it: a link-local IPv6 address keeps its scope in the fourth place."""
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip), port
    scope = ip.scope_id
    if scope is None:
        return str(ip), port, 0, 0
    try:
        index = int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
    except OSError as error:
        raise PlatformError(f"cannot listen on [{ip}]:{port}: there is no interface {scope!r} (see ip link)") from error
    return str(ip).partition("%")[0], port, 0, index


def _open_dual_stack(port: int) -> socket.socket | None:
    """A socket for both families, or None where this host (or namespace) has no IPv6."""
    try:
        return _open(socket.AF_INET6, ("::", port), dual=True)
    except PlatformError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in (
            errno.EAFNOSUPPORT,
            errno.EADDRNOTAVAIL,
            errno.EPROTONOSUPPORT,
        ):
            return None
        raise


def _open(
    family: socket.AddressFamily, address: tuple[str, int] | tuple[str, int, int, int], *, dual: bool
) -> socket.socket:
    opened: socket.socket | None = None
    try:
        opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not dual))
        let_fragment(opened)
        opened.bind(address)
    except OSError as error:
        if opened is not None:
            opened.close()
        raise PlatformError(_why_not_bound(address[0], address[1], error)) from error
    return opened


def _why_not_bound(host: str, port: int, error: OSError) -> str:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    said = f"cannot listen on UDP {where}: {os.strerror(error.errno or 0).lower()}. "
    match error.errno:
        case errno.EADDRINUSE:
            holder = udp_port_holder(port)
            by = f" by {holder}" if holder else ""
            return f"{said}The port is in use{by}: stop that program, or choose another port"
        case errno.EACCES | errno.EPERM:
            return f"{said}A port below 1024 needs root or CAP_NET_BIND_SERVICE: choose a higher one"
        case errno.EADDRNOTAVAIL:
            return f"{said}No interface of this host has that address (see ip address): listen on :{port} instead"
        case errno.EAFNOSUPPORT:
            return f"{said}This host has no IPv6: give an IPv4 address"
        case _:
            return f"{said}Choose another address or port"


def set_buffers(opened: socket.socket, size: int) -> None:
    """Ask for so many bytes in each direction; without rights the system's limits count (see `socket_buffers`).

    >>> import socket
    >>> with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
    ...     set_buffers(made, 65536)
    ...     made.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    131072
    """
    size = min(size, 2**30 - 1)  # a C int, which the kernel doubles
    for force, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            opened.setsockopt(socket.SOL_SOCKET, force, size)
        except OSError:  # EPERM without CAP_NET_ADMIN: take what net.core.rmem_max and wmem_max allow
            opened.setsockopt(socket.SOL_SOCKET, plain, size)
