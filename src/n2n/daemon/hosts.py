"""The members of a community by name: who is called what, and a managed block in a hosts file.

Names are other people's: each becomes one label below ``<community>.n2n``, which is nobody else's domain, and a name
that two members have stands for neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Final, NamedTuple

from n2n.net import hosts
from n2n.proto.peers import PeerView
from n2n.types import MacAddress

__all__ = ["DOMAIN", "HostsKeeper", "Member", "Named", "hostnames"]

#: Below this lie all names that are given out here.
DOMAIN: Final = "n2n"
#: Seconds between two looks at whether the members changed.
_PERIOD: Final = 2.0
#: Seconds until a file that could not be written is tried again.
_RETRY: Final = 60.0
_PATIENCE: Final = 5.0


class Member(NamedTuple):
    """A member as others know it."""

    name: str
    mac: MacAddress | None
    """None: we do not know our own yet."""
    address: IPv4Address | None


class Named(NamedTuple):
    """A member, and what it may be called."""

    member: Member
    hostname: str | None
    """None: nothing of its name can stand in one, another has the same, or its address is none of this network."""


def hostnames(community: str, network: IPv4Interface | None, own: Member, others: Iterable[PeerView]) -> list[Named]:
    """Host names for members.

    Args:
        community: its name.
        network: our own address with the prefix length; without it nobody gets a name.
        own: ourselves.
        others: all other members.

    >>> ada = Member("Ada", MacAddress(bytes(6)), IPv4Address("10.1.2.3"))
    >>> hostnames("acme", IPv4Interface("10.1.2.3/24"), ada, ())[0].hostname
    'ada.acme.n2n'
    """
    if own.mac is None:
        return []
    members = [own, *(Member(peer.name, peer.mac, peer.virtual_ip) for peer in others)]
    below = hosts.host_label(community)
    labels = [hosts.host_label(member.name) for member in members]
    count = Counter(labels)
    found = []
    for member, label in zip(members, labels, strict=True):
        inside = network is not None and member.address is not None and member.address in network.network
        usable = label is not None and below is not None and count[label] == 1 and inside
        found.append(Named(member, f"{label}.{below}.{DOMAIN}" if usable else None))
    return found


class HostsKeeper:
    """Keeps the members' names in a file while the edge runs.

    A guardian process takes them out if this one dies without doing so.

    Args:
        owner: the edge's instance name.
        names: the members now.
        warn: told of a file that cannot be written: event and fields.
    """

    def __init__(
        self, owner: str, names: Callable[[], Sequence[Named]], warn: Callable[[str, dict[str, object]], None]
    ) -> None:
        self._owner = owner
        self._names = names
        self._warn = warn
        self._path: Path | None = None
        self._written: list[str] | None = None  # not yet: what another left goes even where no name is known
        self._guardian: subprocess.Popen[bytes] | None = None
        self._busy = threading.Lock()  # a thread that writes is not stopped by the end of the task that waits for it

    def use(self, path: Path | None) -> None:
        """Keep the names in this file from now on, and in no other; None: in none."""
        with self._busy:
            if path != self._path:
                self._leave()
                self._path = path

    async def run(self, path: Path | None) -> None:
        """Keep the names in this file: look and write, until cancelled."""
        self.use(path)
        while True:
            lines = [f"{n.member.address} {n.hostname}" for n in self._names() if n.hostname is not None]
            written = self._path is None or lines == self._written or await asyncio.to_thread(self._write, lines)
            await asyncio.sleep(_PERIOD if written else _RETRY)

    def _write(self, lines: list[str]) -> bool:
        with self._busy:
            return self._path is None or self._put(self._path, lines)

    def _put(self, path: Path, lines: list[str]) -> bool:
        try:
            if self._guardian is None:
                self._guardian = _watch(path, self._owner)
            hosts.put_lines(path, self._owner, lines)
        except OSError as error:
            self._warn("hosts_failed", {"file": str(path), "error": error.strerror or str(error)})
            return False
        self._written = lines
        return True

    def close(self) -> None:
        """Take the names out."""
        self.use(None)

    def _leave(self) -> None:
        path, self._written = self._path, None
        if path is not None and self._guardian is not None:
            try:
                hosts.put_lines(path, self._owner, ())
            except OSError as error:
                self._warn("hosts_failed", {"file": str(path), "error": error.strerror or str(error)})
        guardian, self._guardian = self._guardian, None
        if guardian is not None:
            assert guardian.stdin is not None
            guardian.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                guardian.wait(_PATIENCE)


def _watch(path: Path, owner: str) -> subprocess.Popen[bytes]:
    """A process that takes the owner's lines out when this process ends, however it ends."""
    command = [sys.executable, "-I", "-S", str(hosts.__file__), str(path), owner]
    pipe = subprocess.PIPE
    guardian = subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, start_new_session=True, bufsize=0
    )
    assert guardian.stdout is not None
    with guardian.stdout as answer:
        if not answer.read(1):
            guardian.communicate()
            raise OSError(f"the program that would tidy up at a crash ended with {guardian.returncode}")
    return guardian
