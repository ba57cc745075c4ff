"""A supernode as a process: its socket, its data plane, its store, and the core that decides.

Order of start: store, key, socket, plane, core.  RSA is done in threads, the disk in another; the loop waits for
neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Final

from n2n.config import SupernodeConfig
from n2n.config.kinds import AUTO_PORT
from n2n.crypto import SupernodeKey
from n2n.daemon.base import Daemon, PlaneFactory, local_endpoint
from n2n.daemon.commits import CommitQueue
from n2n.daemon.dataplane import add_queues, socket_count, thread_count
from n2n.daemon.drive import Drive
from n2n.daemon.logs import log_event
from n2n.daemon.probe import ProbeSocket
from n2n.errors import N2NError, PlatformError
from n2n.net import open_udp, open_udp_group
from n2n.proto.actions import Decrypt, DropMember, PutMember, SendProbe
from n2n.proto.supernode import SupernodeCore
from n2n.store import KEY_FILE, LEASES_FILE, LeaseStore, MemoryStore, SqliteStore, load_or_make_key
from n2n.types import Endpoint, MacAddress

__all__ = ["GroupNumbers", "SupernodeDaemon"]

#: Decryptions that wait or are under way. The core asks for fewer and gives up the late ones: a second fence.
_MAX_DECRYPTIONS: Final = 4096
_LAST_PORT: Final = 65535


class GroupNumbers:
    """Small numbers for communities, used again when a community has no member left.

    The core numbers communities without end; the plane's table has room for so many.

    >>> numbers = GroupNumbers()
    >>> numbers.put(7, "a"), numbers.put(900000, "b"), numbers.drop(7, "a"), numbers.put(8, "c")
    (0, 1, 0, 0)
    """

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._members: dict[int, set[object]] = {}
        self._free: list[int] = []
        self._next = 0

    def put(self, group: int, member: object) -> int:
        """The number of a community that this member is in, or comes into."""
        number = self._numbers.get(group)
        if number is None:
            if self._free:
                number = self._free.pop()
            else:
                number, self._next = self._next, self._next + 1
            self._numbers[group] = number
        self._members.setdefault(group, set()).add(member)
        return number

    def drop(self, group: int, member: object) -> int | None:
        """The number of a community that this member leaves; None if there is no such community."""
        number = self._numbers.get(group)
        if number is None:
            return None
        members = self._members[group]
        members.discard(member)
        if not members:
            del self._members[group], self._numbers[group]
            self._free.append(number)
        return number


class SupernodeDaemon(Daemon):
    """One running supernode.

    Args:
        config: its settings.
        store: where leases are kept; closed at the end. None: SQLite in the configuration's state directory.
        key: its RSA key. None: the one in the state directory, made if there is none.
        plane_factory: see :class:`~n2n.daemon.base.Daemon`.
    """

    role: ClassVar[str] = "supernode"

    def __init__(
        self,
        config: SupernodeConfig,
        *,
        store: LeaseStore | None = None,
        key: SupernodeKey | None = None,
        plane_factory: PlaneFactory | None = None,
    ) -> None:
        super().__init__(plane_factory)
        self.config = config
        self.local: Endpoint | None = None
        """Where the UDP socket is bound."""
        self._store = store
        self._key = key
        self._drive: Drive[SupernodeCore] | None = None
        self._commits: CommitQueue | None = None
        self._rsa: ThreadPoolExecutor | None = None
        self._opened: list[tuple[int, bytes | None]] = []
        self._decryptions = 0
        self._decryptions_dropped = 0
        self._groups = GroupNumbers()
        self._probe_sock: socket.socket | None = None
        self._probe: ProbeSocket | None = None
        self._handlers |= {
            Decrypt: self._on_decrypt,
            PutMember: self._on_put_member,
            DropMember: self._on_drop_member,
            SendProbe: self._on_send_probe,
        }

    @property
    def core(self) -> SupernodeCore | None:
        """What decides; None before the start. For looking, not for touching."""
        return self._drive.core if self._drive is not None else None

    @property
    def public_pem(self) -> bytes | None:
        """Its public key as it travels; None before the start."""
        return self._key.public_pem() if self._key is not None else None

    def _progress(self) -> str:
        return "it has not been started" if self.core is None else "it is ending"

    def live_keys(self) -> dict[str, Callable[[Any], object]]:
        """See :meth:`Daemon.live_keys`."""
        return super().live_keys() | {
            "expiry_duration": lambda seconds: self._call(SupernodeCore.set_expiry, seconds),
            "cleanup_interval": lambda seconds: self._call(SupernodeCore.set_cleanup, seconds),
            "strict_hash_checking": lambda strict: self._call(SupernodeCore.set_strict, strict),
        }

    def kick(self, community: str, mac: MacAddress, *, release: bool = False) -> bool:
        """Drop a registered edge; it may come back.

        Args:
            community: the name.
            mac: of the edge.
            release: give its address back as well, which another edge may then get.

        Returns:
            False if there is no such edge (with `release`: no such lease).
        """
        return bool(self._call(SupernodeCore.release if release else SupernodeCore.kick, community, mac))

    def _call(self, step: Callable[..., object], *args: object) -> object:
        """What one step of the core returns; it has been carried out then (on the disk: soon)."""
        if self._drive is None:
            return None
        outcome: list[object] = []
        core = self._drive.core
        self._drive.call(lambda now: outcome.append(step(core, *args, now)))
        return outcome[0] if outcome else None

    def _core_counters(self) -> Mapping[str, int]:
        return self.core.counters() if self.core is not None else {}

    def _own_counters(self) -> dict[str, int]:
        return {
            "daemon_core_faults": self._drive.faults if self._drive is not None else 0,
            "daemon_decryptions_dropped": self._decryptions_dropped,
            "daemon_probe_failures": self._probe.failures if self._probe is not None else 0,
            "daemon_store_failures": self._commits.failures if self._commits is not None else 0,
        }

    # ---- start -------------------------------------------------------------------------------

    async def _open(self, undo: contextlib.AsyncExitStack) -> None:
        config = self.config
        store = await asyncio.to_thread(self._open_store)
        undo.callback(store.close)
        given = self._key is not None
        key = self._key if self._key is not None else await asyncio.to_thread(self._open_key)
        self._key = key
        leases, networks = await asyncio.to_thread(lambda: (store.load_leases(), store.load_networks()))
        threads = thread_count(config.threads)
        socks = self._socks = open_udp_group(
            config.listen_address, socket_count(threads), buffer_size=config.udp_buffer_size
        )
        for one in socks:
            undo.callback(self._release, one)
        sock = socks[0]
        self.local = local_endpoint(sock)
        probe_port = self._open_probe(undo, self.local)
        # As the reference does: a dual-stack socket has IPv4 addresses in their mapped form, and tells them so.
        settings = config.settings(
            mapped_addresses=sock.family == socket.AF_INET6,
            probe_port=probe_port,
            key_lasts=given or config.state_dir is not None,
        )
        plane = self._plane = self._make_plane(
            "supernode",
            [one.fileno() for one in socks[:threads]],
            vfuze=config.enable_vfuze,
            max_peers=settings.max_members,
            gso=config.udp_gso,
            gro=config.udp_gro,
            max_groups=min(settings.max_communities, settings.max_members),  # those with a member
        )
        add_queues(plane, socks, threads)
        core = SupernodeCore(settings, public_pem=key.public_pem(), leases=leases, networks=networks, key_size=key.size)
        self._commits = CommitQueue(store, self._execute, self._save_failed)
        undo.push_async_callback(self._commits.close)
        # Each decryption holds the interpreter for its own time: more threads would not make it faster.
        self._rsa = ThreadPoolExecutor(min(2, os.cpu_count() or 1), thread_name_prefix="n2n-rsa")
        undo.callback(self._rsa.shutdown, wait=True, cancel_futures=True)
        self._drive = Drive(core, plane, self._commits.submit)
        self.tell(
            "info",
            "starting",
            {
                "listen": str(self.local),
                "subnet": f"{config.community_subnet}/{config.community_subnet_cidr}",
                "leases": len(leases),
                "communities": len(networks),
                "vfuze": config.enable_vfuze,
                "strict_hash_checking": config.strict_hash_checking,
            },
        )
        self._run_plane(plane, self._drive, undo)
        if self._probe_sock is not None:
            self._probe = ProbeSocket(self._probe_sock, self._probed)
            undo.callback(self._probe.stop)
        self._ready.set()

    def _open_probe(self, undo: contextlib.AsyncExitStack, local: Endpoint) -> int:
        """Open the second socket, at the main one's address; returns its port, or 0 if there is none."""
        wanted = self.config.probe_port
        port = local.port + 1 if wanted == AUTO_PORT else wanted
        if not 0 < port <= _LAST_PORT:
            return 0
        anywhere = self.config.listen_address.startswith(":")
        try:
            sock = open_udp(f":{port}" if anywhere else Endpoint(local.ip, port))
        except PlatformError as error:
            if wanted != AUTO_PORT:
                raise
            self.tell("warning", "no_probe_port", {"port": port, "error": str(error)})
            return 0
        undo.callback(sock.close)
        self._probe_sock = sock
        return port

    def _probed(self, datagram: bytes, source: Endpoint) -> None:
        if self._drive is not None:
            self._drive.call(self._drive.core.receive_probe, datagram, source)

    def _open_store(self) -> LeaseStore:
        if self._store is None:
            directory = self.config.state_dir
            self._store = MemoryStore() if directory is None else SqliteStore(directory / LEASES_FILE)
        return self._store

    def _open_key(self) -> SupernodeKey:
        directory = self.config.state_dir
        return SupernodeKey.generate() if directory is None else load_or_make_key(directory / KEY_FILE)

    # ---- actions -----------------------------------------------------------------------------

    def _save_failed(self, error: Exception) -> None:
        # Called in the store's thread.
        log_event(self.log, "error", "store_failed", {"error": str(error)})

    def _on_send_probe(self, action: SendProbe) -> None:
        if self._probe is not None:
            self._probe.send(action.datagram, action.endpoint, fresh=action.fresh)

    def _on_put_member(self, action: PutMember) -> None:
        assert self._plane is not None
        number = self._groups.put(action.group, (action.header_id, action.mac))
        endpoint = action.endpoint
        self._plane.put_member(action.header_id, number, action.mac.raw, endpoint.packed, endpoint.port)

    def _on_drop_member(self, action: DropMember) -> None:
        assert self._plane is not None
        number = self._groups.drop(action.group, (action.header_id, action.mac))
        if number is not None:
            self._plane.drop_member(action.header_id, number, action.mac.raw)

    def _on_decrypt(self, action: Decrypt) -> None:
        assert self._rsa is not None
        if self._decryptions >= _MAX_DECRYPTIONS:
            self._decryptions_dropped += 1
            return
        self._decryptions += 1
        self._rsa.submit(self._decrypt, action, asyncio.get_running_loop())

    def _decrypt(self, action: Decrypt, loop: asyncio.AbstractEventLoop) -> None:
        # In a thread of the pool.
        assert self._key is not None
        try:
            machine_id = self._key.decrypt(action.ciphertext)
        except (N2NError, ValueError):
            machine_id = None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for this any more
            loop.call_soon_threadsafe(self._decrypted, action.token, machine_id)

    def _decrypted(self, token: int, machine_id: bytes | None) -> None:
        """Gather what is ready, so that one transaction serves all of it."""
        self._decryptions -= 1
        if not self._opened:
            asyncio.get_running_loop().call_soon(self._answer)
        self._opened.append((token, machine_id))

    def _answer(self) -> None:
        opened, self._opened = self._opened, []
        if self._drive is None or self._ended.is_set():
            return
        for token, machine_id in opened:
            self._drive.guard(self._drive.core.decrypted, token, machine_id)
        self._drive.settle()
