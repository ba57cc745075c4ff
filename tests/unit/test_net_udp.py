"""UDP sockets: where they listen, what they say when they cannot, how names are resolved."""

from __future__ import annotations

import asyncio
import errno
import os
import socket

import pytest

from n2n.errors import ConfigError, PlatformError
from n2n.net import udp
from n2n.net.udp import open_udp, resolve, socket_buffers
from n2n.types import Endpoint

HAS_IPV6 = os.path.exists("/proc/net/if_inet6")
needs_ipv6 = pytest.mark.skipif(not HAS_IPV6, reason="needs IPv6 in this kernel")


def exchange(target: socket.socket, family: int, host: str) -> tuple:
    """Send one datagram to the socket; returns the sender's address as the socket sees it."""
    target.settimeout(5)
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"hello", (host, target.getsockname()[1]))
        data, source = target.recvfrom(100)
        assert data == b"hello"
        return source


@needs_ipv6
def test_every_address_is_one_dual_stack_socket():
    with open_udp(":0") as opened:
        assert opened.family == socket.AF_INET6
        assert not opened.getblocking()
        assert not os.get_inheritable(opened.fileno())
        assert exchange(opened, socket.AF_INET, "127.0.0.1")[0] == "::ffff:127.0.0.1"
        assert exchange(opened, socket.AF_INET6, "::1")[0] == "::1"


@pytest.mark.parametrize("code", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_without_ipv6_every_address_is_an_ipv4_socket(monkeypatch, code):
    real = socket.socket

    def no_ipv6(family, *rest):
        if family == socket.AF_INET6:
            raise OSError(code, os.strerror(code))
        return real(family, *rest)

    monkeypatch.setattr(udp.socket, "socket", no_ipv6)
    with open_udp(":0") as opened:
        assert opened.family == socket.AF_INET
        assert opened.getsockname()[0] == "0.0.0.0"
    with pytest.raises(PlatformError, match=r"cannot listen on UDP \[::1\]:0"):
        open_udp("[::1]:0")


def test_an_edge_has_an_ipv4_socket_on_a_port_of_the_systems_choice():
    with open_udp(ipv4_only=True) as opened:
        assert opened.family == socket.AF_INET
        assert opened.getsockname()[1] > 0


@pytest.mark.parametrize("listen", ["127.0.0.1:0", Endpoint.of("127.0.0.1", 0)])
def test_one_ipv4_address(listen):
    with open_udp(listen) as opened:
        assert opened.getsockname()[0] == "127.0.0.1"
        assert exchange(opened, socket.AF_INET, "127.0.0.1")[0] == "127.0.0.1"


@needs_ipv6
def test_one_ipv6_address_is_not_dual():
    with open_udp("[::1]:0") as opened:
        assert opened.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
        assert exchange(opened, socket.AF_INET6, "::1")[0] == "::1"


@needs_ipv6
def test_the_unspecified_ipv6_address_takes_ipv4_too():
    with open_udp("[::]:0") as opened:
        assert exchange(opened, socket.AF_INET, "127.0.0.1")[0] == "::ffff:127.0.0.1"


@needs_ipv6
def test_scoped_address_needs_its_interface():
    with pytest.raises(PlatformError, match="no interface 'n2n-none'"):
        open_udp("[fe80::1%n2n-none]:0")


@pytest.mark.parametrize(
    "listen",
    [
        "",
        "7777",
        "127.0.0.1",
        ":",
        ":-1",
        ":65536",
        ":7777777777",
        ":१",
        "::1:7777",
        "localhost:7777",
        "1.2.3.4.5:1",
        "[::1]",
        "[zz]:1",
    ],
)
def test_malformed_listen_addresses(listen):
    with pytest.raises(ConfigError) as caught:
        open_udp(listen)
    assert repr(listen) in str(caught.value)


def test_port_in_use_names_the_holder():
    with open_udp("127.0.0.1:0") as first, pytest.raises(PlatformError, match="choose another port") as caught:
        open_udp(f"127.0.0.1:{first.getsockname()[1]}")
    assert f"process {os.getpid()} " in str(caught.value)


@needs_ipv6
def test_port_in_use_on_every_address_is_an_error_not_a_fallback_to_ipv4():
    with open_udp("[::1]:0") as first, pytest.raises(PlatformError, match="address already in use"):
        open_udp(f":{first.getsockname()[1]}")


def test_foreign_address_is_refused():
    with pytest.raises(PlatformError, match="No interface of this host has that address"):
        open_udp("192.0.2.77:0")


def test_low_port_needs_a_right(monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    class Refusing(socket.socket):
        bind = refuse

    monkeypatch.setattr(udp.socket, "socket", Refusing)
    with pytest.raises(PlatformError, match="CAP_NET_BIND_SERVICE"):
        open_udp("127.0.0.1:53")


def test_buffer_sizes_are_asked_for_and_reported():
    with open_udp("127.0.0.1:0") as plain, open_udp("127.0.0.1:0", buffer_size=65536) as sized:
        assert socket_buffers(sized) == (65536, 65536)
        assert socket_buffers(plain) != socket_buffers(sized)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: SO_RCVBUFFORCE passes net.core.rmem_max")
def test_root_passes_the_systems_limit():
    with open("/proc/sys/net/core/rmem_max") as limit:
        more = int(limit.read()) * 2
    with open_udp("127.0.0.1:0", buffer_size=more) as opened:
        assert socket_buffers(opened) == (more, more)


def test_without_the_right_the_limit_is_what_is_granted(monkeypatch):
    with open("/proc/sys/net/core/rmem_max") as limit:
        allowed = int(limit.read())
    monkeypatch.setattr(udp, "_SO_RCVBUFFORCE", 32767)  # no such option: fails as it does without the right
    monkeypatch.setattr(udp, "_SO_SNDBUFFORCE", 32767)
    with open_udp("127.0.0.1:0", buffer_size=allowed * 4) as opened:
        assert socket_buffers(opened).receive == allowed


def test_a_datagram_larger_than_the_path_is_fragmented():
    # 65507 bytes through loopback's MTU of 65536 less headers needs two fragments: refused if DF were forced.
    with open_udp("127.0.0.1:0") as target, open_udp("127.0.0.1:0") as sender:
        target.settimeout(5)
        assert sender.sendto(bytes(65507), target.getsockname()) == 65507
        assert len(target.recv(65535)) == 65507
        assert sender.getsockopt(socket.IPPROTO_IP, 10) == 0  # IP_MTU_DISCOVER: IP_PMTUDISC_DONT


@pytest.mark.parametrize(
    ("text", "family", "expected"),
    [
        ("127.0.0.1:7777", socket.AF_INET, "127.0.0.1:7777"),
        ("[::1]:1", socket.AF_INET6, "[::1]:1"),
        ("localhost:65535", socket.AF_INET, "127.0.0.1:65535"),
    ],
)
def test_resolve(text, family, expected):
    assert asyncio.run(resolve(text, family)) == [Endpoint.parse(expected)]


@pytest.mark.parametrize(
    "text", ["", "host", "host:", "host:0", ":7777", "host:70000", "::1:7777", "a..b:7777", "x" * 64 + ":7777"]
)
def test_resolve_refuses_what_is_no_address(text):
    with pytest.raises(ConfigError):
        asyncio.run(resolve(text))


def test_resolve_says_which_family_is_missing():
    with pytest.raises(PlatformError, match="no IPv4 address is known"):
        asyncio.run(resolve("[::1]:7777", socket.AF_INET))


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "no IPv4 address"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "name servers do not answer"),
        (socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure"), "Non-recoverable failure"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
    ],
)
def test_resolver_failures(monkeypatch, failure, says):
    async def run():
        async def fail(*_, **__):
            raise failure

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail)
        await resolve("vpn.example.org:7777")

    with pytest.raises(PlatformError, match=says) as caught:
        asyncio.run(run())
    assert "vpn.example.org" in str(caught.value)


def test_addresses_given_twice_count_once(monkeypatch):
    async def run():
        async def twice(*_, **__):
            entry = (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("192.0.2.1", 7777))
            return [entry, entry]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", twice)
        return await resolve("vpn.example.org:7777")

    assert asyncio.run(run()) == [Endpoint.parse("192.0.2.1:7777")]
