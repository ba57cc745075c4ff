"""A network namespace for the test that asks for it, and nothing left behind."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000  # linux/sched.h


def missing() -> str:
    """What this process lacks for a namespace with TAP devices; empty if nothing."""
    if os.geteuid() != 0:
        return "needs root (network namespaces)"
    if not os.path.exists("/dev/net/tun"):
        return "needs /dev/net/tun (modprobe tun)"
    try:
        with entered():
            return ""
    except OSError as error:
        return f"needs the right to make network namespaces (CAP_SYS_ADMIN): {error}"


@contextmanager
def entered() -> Iterator[None]:
    """Move the calling thread into a new namespace, and back; the namespace ends with its last descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            yield
        finally:
            if libc.setns(before, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "cannot return to the first network namespace")
    finally:
        os.close(before)
