"""Every way in which a TAP device can fail to open has a cause and a remedy; no root needed."""

from __future__ import annotations

import errno
import fcntl
import os
import socket

import pytest

from n2n.errors import TapError
from n2n.net import tap as tap_module
from n2n.net.tap import Tap, check_name


@pytest.fixture
def no_driver(monkeypatch):
    """Lets a test choose how opening the device, or attaching to it, fails."""

    def prepare(*, on_open: int = 0, on_attach: int = 0) -> list[int]:
        opened: list[int] = []

        def fake_open(path, flags):
            assert path == "/dev/net/tun"
            if on_open:
                raise OSError(on_open, os.strerror(on_open))
            opened.append(os.dup(0))
            return opened[-1]

        def fake_ioctl(*_):
            raise OSError(on_attach, os.strerror(on_attach))

        monkeypatch.setattr(os, "open", fake_open)
        monkeypatch.setattr(fcntl, "ioctl", fake_ioctl)
        monkeypatch.setattr(tap_module, "tap_holder", lambda name: "process 42 (openvpn)")
        return opened

    return prepare


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOENT, "modprobe tun"),
        (errno.ENODEV, "modprobe tun"),
        (errno.ENXIO, "modprobe tun"),
        (errno.EACCES, "CAP_NET_ADMIN"),
        (errno.EPERM, "--cap-add NET_ADMIN"),
        (errno.EMFILE, "ulimit"),
        (errno.EIO, "ls -l /dev/net/tun"),
    ],
)
def test_device_cannot_be_opened(no_driver, code, remedy):
    no_driver(on_open=code)
    with pytest.raises(TapError, match=r"^/dev/net/tun: ") as caught:
        Tap.open("t0")
    assert os.strerror(code).lower() in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.EPERM, "ip tuntap add dev t0"),
        (errno.EBUSY, r"held by process 42 \(openvpn\)"),
        (errno.EINVAL, "no TAP device"),
        (errno.ENFILE, "No free number"),
        (errno.EIO, "ip -d link show t0"),
    ],
)
def test_kernel_refuses_the_name(no_driver, code, remedy):
    opened = no_driver(on_attach=code)
    with pytest.raises(TapError, match=remedy) as caught:
        Tap.open("t0")
    assert str(caught.value).startswith(f"TAP t0: {os.strerror(code).lower()}. ")
    with pytest.raises(OSError, match="Bad file"):  # the descriptor did not leak
        os.fstat(opened[0])


@pytest.mark.parametrize(
    "name", ["", "sixteen-letters!", "ä" * 8, "a b", "a/b", "a:b", ".", "..", "a\n", "%s", "%d%d", "%"]
)
def test_impossible_names(name):
    with pytest.raises(TapError, match="TAP name"):
        Tap.open(name)


@pytest.mark.parametrize("name", ["fifteen-letters", "n2n%d", "ä" * 7, "n2n_tap0", "a.b"])
def test_possible_names(name):
    check_name(name)


@pytest.fixture
def played():
    """A Tap over one end of a socket pair, and the other end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with theirs, Tap(ours.detach(), "played") as tap:
        yield tap, theirs


def test_frames_pass_both_ways(played):
    tap, wire = played
    assert tap.read() is None
    wire.send(b"x" * 60)
    assert tap.read() == b"x" * 60
    assert tap.write(memoryview(b"y" * 1434))
    assert wire.recv(2000) == b"y" * 1434


def test_a_full_device_drops_and_says_so(played):
    tap, _ = played
    results = {tap.write(bytes(1434)) for _ in range(2000)}
    assert results == {True, False}


def test_closed_device(played):
    tap, _ = played
    assert not tap.closed
    tap.close()
    tap.close()
    assert tap.closed
    for use in (lambda: tap.fd, tap.read, lambda: tap.write(bytes(60)), tap.current_name):
        with pytest.raises(TapError, match="played is closed"):
            use()


@pytest.mark.parametrize(
    ("code", "says"),
    [(errno.EIO, "bring it up"), (errno.EBADFD, "open it again"), (errno.EINVAL, "shorter"), (errno.ENOMEM, "memory")],
)
def test_transfer_errors_say_what_to_do(played, monkeypatch, code, says):
    tap, _ = played

    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "write", fail)
    monkeypatch.setattr(os, "read", fail)
    with pytest.raises(TapError, match=f"cannot write 60 bytes: .*{says}"):
        tap.write(bytes(60))
    with pytest.raises(TapError, match=f"cannot read: .*{says}"):
        tap.read()
