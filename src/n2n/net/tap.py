"""TAP devices: a virtual Ethernet card whose cable ends in a file descriptor.

`Tap` opens one by the TUNSETIFF ioctl and gives the descriptor to the data plane.  `read` and `write` are for
library users and tests: the data plane does its own input and output on `Tap.fd`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
from typing import Final, Self

from n2n.errors import TapError
from n2n.net.holders import tap_holder

__all__ = ["MAX_NAME_LENGTH", "VNET_HEADER_SIZE", "Tap", "check_name"]

#: Longest name of a network interface in bytes (IFNAMSIZ of linux/if.h, less the final zero).
MAX_NAME_LENGTH: Final = 15
#: Bytes before each frame on a device opened with `vnet_hdr` (struct virtio_net_hdr of linux/virtio_net.h).
VNET_HEADER_SIZE: Final = 10

_DEVICE: Final = "/dev/net/tun"
# linux/if_tun.h: _IOW('T', 202, int) and _IOR('T', 210, unsigned int) in the encoding that all but a few old
# architectures share (asm-generic/ioctl.h), and the flags of struct ifreq.
_TUNSETIFF: Final = 0x400454CA
_TUNGETIFF: Final = 0x800454D2
_IFF_TAP: Final = 0x0002
_IFF_MULTI_QUEUE: Final = 0x0100
_IFF_NO_PI: Final = 0x1000
_IFF_VNET_HDR: Final = 0x4000
# _IOW('T', 208, unsigned int), and what can be asked for (TUN_F_* of linux/if_tun.h). TSO and USO need CSUM; the two
# kinds of USO (since Linux 6.2) go together.
_TUNSETOFFLOAD: Final = 0x400454D0
_F_CSUM: Final = 0x01
_F_TSO: Final = 0x02 | 0x04
_F_USO: Final = 0x20 | 0x40
# struct ifreq: 16 bytes of name, then a union of 24 bytes that begins with the flags.
_IFREQ: Final = struct.Struct("16sH22x")
#: A frame with a super-frame's 64 KiB and every header that can stand before it.
_READ_SIZE: Final = 65536 + 64

_GRANT: Final = "run as root, or give the process CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN)"


def check_name(name: str) -> None:
    """See whether the kernel would take `name` for a network interface.

    One ``%d`` is allowed: the kernel puts the lowest free number there.

    Raises:
        TapError: it is empty, longer than `MAX_NAME_LENGTH` bytes, or has a character that is not allowed.
    """
    size = len(os.fsencode(name))
    if not 0 < size <= MAX_NAME_LENGTH:
        raise TapError(
            f"TAP name {name!r} has {size} bytes: a network interface's name has 1 to {MAX_NAME_LENGTH}; choose another"
        )
    # dev_valid_name() of net/core/dev.c; a second % or one before another letter is refused by dev_alloc_name().
    if name in (".", "..") or re.search(r"[\s/:\0]", name) or "%" in name.replace("%d", "", 1):
        raise TapError(
            f"TAP name {name!r} is not a possible name of a network interface: "
            "leave out blanks, '/' and ':' (one '%d' stands for a free number)"
        )


class Tap:
    """An open TAP device.  Make one with `Tap.open`; it is a context manager.

    The device lives as long as the descriptor, unless it was made persistent (``ip tuntap add``).

    >>> from ipaddress import IPv4Address
    >>> from n2n.net import gratuitous_arp, interface_up
    >>> from n2n.types import MacAddress
    >>> frame = gratuitous_arp(MacAddress.parse("02:00:00:00:00:01"), IPv4Address("10.0.0.1"))
    >>> with Tap.open("example%d") as tap:
    ...     interface_up(tap.name)
    ...     tap.write(frame)  # the host takes it for a frame from the network
    True
    """

    def __init__(self, fd: int, name: str, *, vnet_hdr: bool = False) -> None:
        """Take over a descriptor that already is a TAP device's (or, in tests, plays one); it is closed by `close`."""
        self._fd = fd
        self._name = name
        self._vnet_hdr = vnet_hdr

    @classmethod
    def open(
        cls, name: str = "n2n_tap0", *, vnet_hdr: bool = False, multi_queue: bool = False, nonblocking: bool = True
    ) -> Self:
        """Make the TAP device `name`, or attach to it if it is persistent.

        Args:
            name: of the interface, at most 15 bytes; one ``%d`` becomes a free number (see `name` afterwards).
            vnet_hdr: a virtio header of `VNET_HEADER_SIZE` bytes stands before each frame (offloads need it).
            multi_queue: further calls with the same name open further queues of the same device.
            nonblocking: `read` returns None instead of waiting.

        Raises:
            TapError: the message names the cause and what to do.
        """
        check_name(name)
        fd = _open_control(nonblocking)
        flags = _IFF_TAP | _IFF_NO_PI | (_IFF_VNET_HDR if vnet_hdr else 0) | (_IFF_MULTI_QUEUE if multi_queue else 0)
        try:
            answer = fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(os.fsencode(name), flags))
        except OSError as error:
            os.close(fd)
            raise TapError(_why_not_attached(name, error)) from error
        tap = cls(fd, os.fsdecode(_IFREQ.unpack(answer)[0].rstrip(b"\0")), vnet_hdr=vnet_hdr)
        if not vnet_hdr:
            # A persistent device remembers what was agreed with the program before: without headers we could not tell
            # a super-frame, nor a checksum that is still to be computed.
            tap._set_offload(0)
        return tap

    @property
    def fd(self) -> int:
        """The descriptor, for the data plane.

        Raises:
            TapError: the device is closed.
        """
        if self._fd < 0:
            raise TapError(f"TAP {self._name} is closed")
        return self._fd

    @property
    def name(self) -> str:
        """The interface's name when it was opened (``n2n0`` for ``n2n%d``)."""
        return self._name

    @property
    def vnet_hdr(self) -> bool:
        """True if a virtio header stands before each frame."""
        return self._vnet_hdr

    def offload(self, *, uso: bool = True) -> frozenset[str]:
        """Have the kernel hand over super-frames (up to 64 KiB) and unfinished checksums, as far as it can.

        The virtio header before each frame tells which; the device must have been opened with `vnet_hdr`.

        Args:
            uso: UDP super-frames too.

        Returns:
            What the kernel agreed to, of: csum, tso, uso.
        """
        wanted = [(_F_CSUM | _F_TSO | _F_USO, {"csum", "tso", "uso"})] if uso else []
        wanted += [(_F_CSUM | _F_TSO, {"csum", "tso"}), (_F_CSUM, {"csum"}), (0, set())]
        for mask, names in wanted:
            if self._set_offload(mask):  # else an older kernel: ask for less
                return frozenset(names)
        return frozenset()

    def _set_offload(self, mask: int) -> bool:
        try:
            fcntl.ioctl(self.fd, _TUNSETOFFLOAD, mask)
        except OSError:
            return False
        return True

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._fd < 0

    def current_name(self) -> str:
        """The interface's name now, should somebody have renamed it (TUNGETIFF).

        Raises:
            TapError: the device is closed or gone.
        """
        try:
            answer = fcntl.ioctl(self.fd, _TUNGETIFF, bytes(_IFREQ.size))
        except OSError as error:
            raise TapError(f"TAP {self._name}: {_cause(error)}. Was it deleted? Open it again") from error
        return os.fsdecode(_IFREQ.unpack(answer)[0].rstrip(b"\0"))

    def read(self) -> bytes | None:
        """Take one frame that the host sent into the device.

        Returns:
            The frame (after its virtio header, with `vnet_hdr`), or None if none waits on a non-blocking device.

        Raises:
            TapError: the device is closed, or gone.
        """
        try:
            return os.read(self.fd, _READ_SIZE)
        except BlockingIOError:
            return None
        except OSError as error:
            raise TapError(f"TAP {self._name}: cannot read: {_why_no_transfer(self._name, error)}") from error

    def write(self, frame: bytes | bytearray | memoryview) -> bool:
        """Give the host one frame, as if it had come in by a cable.

        Args:
            frame: at least 14 bytes of Ethernet frame without checksum (after a virtio header, with `vnet_hdr`).

        Returns:
            False if the kernel has no room now (non-blocking device): the frame is lost.

        Raises:
            TapError: the device is closed, gone or down, or the frame is too short.
        """
        try:
            os.write(self.fd, frame)
        except BlockingIOError:
            return False
        except OSError as error:
            raise TapError(
                f"TAP {self._name}: cannot write {len(frame)} bytes: {_why_no_transfer(self._name, error)}"
            ) from error
        return True

    def close(self) -> None:
        """Close the descriptor; a device that is not persistent disappears.  May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Tap({self._name!r}, fd={self._fd})"


def _open_control(nonblocking: bool) -> int:
    try:
        return os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC | (os.O_NONBLOCK if nonblocking else 0))
    except OSError as error:
        raise TapError(f"{_DEVICE}: {_cause(error)}. {_open_remedy(error)}") from error


def _open_remedy(error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return f"Load the driver (modprobe tun); in a container pass the device through (--device {_DEVICE})"
        case errno.ENODEV | errno.ENXIO:
            return "The kernel has no TUN/TAP driver loaded: modprobe tun"
        case errno.EACCES | errno.EPERM:
            return f"It needs access to the device and CAP_NET_ADMIN: {_GRANT}; in a container: --cap-add NET_ADMIN"
        case errno.EMFILE | errno.ENFILE:
            return "Too many files are open: raise the limit (ulimit -n, LimitNOFILE=)"
        case _:
            return f"Check the device (ls -l {_DEVICE})"


def _why_not_attached(name: str, error: OSError) -> str:
    said = f"TAP {name}: {_cause(error)}. "
    match error.errno:
        case errno.EPERM | errno.EACCES:
            return (
                f"{said}Making a TAP device needs CAP_NET_ADMIN: {_GRANT}; or let root make one for your user: "
                f"ip tuntap add dev {name} mode tap user NAME"
            )
        case errno.EBUSY:
            holder = tap_holder(name)
            by = f" (held by {holder})" if holder else ""
            return f"{said}The name is in use{by}: stop its owner, or choose another tap_name for this edge"
        case errno.EINVAL:
            return (
                f"{said}An interface of that name exists and is no TAP device, or it was made with other settings "
                f"(see ip -d link show {name}): choose another tap_name, or delete it"
            )
        case errno.EEXIST | errno.ENFILE:
            return f"{said}No free number is left for that name: choose another tap_name"
        case _:
            return f"{said}Check ip -d link show {name}"


def _why_no_transfer(name: str, error: OSError) -> str:
    match error.errno:
        case errno.EIO:
            return f"the interface is down; bring it up (ip link set {name} up)"
        case errno.EBADFD:
            return "the device is gone; open it again"
        case errno.EINVAL:
            return "the frame is shorter than an Ethernet header (14 bytes), or its virtio header is wrong"
        case _:
            return _cause(error)


def _cause(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)
