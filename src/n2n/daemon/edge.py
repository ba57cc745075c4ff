"""An edge as a process: its socket, its TAP device, its data plane, and the core that decides.

Order of start: identity, socket, device, plane, core; each is undone in the opposite order, so that at the end the
supernode hears a goodbye before the plane stops, and the plane has stopped before its descriptors are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Collection, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address
from typing import Any, ClassVar, TypeVar

from n2n.config import EdgeConfig
from n2n.config.mtu import USUAL_MTU
from n2n.crypto import PayloadCodec, key_from_passphrase
from n2n.daemon.announce import announcement
from n2n.daemon.base import Daemon, PlaneFactory, local_endpoint
from n2n.daemon.birthday import Birthdays
from n2n.daemon.candidates import candidates
from n2n.daemon.dataplane import TapLike, open_queues, thread_count
from n2n.daemon.drive import Drive, PlaneLike
from n2n.daemon.edge_core import make_core
from n2n.daemon.hosts import HostsKeeper, Member, Named, hostnames
from n2n.daemon.introduction import NOT_SEALED, introduction
from n2n.daemon.known import KeyMemory
from n2n.daemon.live import edge_keys
from n2n.daemon.measured import Carrier, Measured
from n2n.daemon.mtu import PathMtu, Surface
from n2n.daemon.pathprobe import PathProber
from n2n.daemon.portmap import PortMapper, PortMapState, PortMapView
from n2n.daemon.progress import progress
from n2n.daemon.proof import PortProof
from n2n.daemon.resolver import Resolver, reachable
from n2n.daemon.surroundings import Change, Watch
from n2n.errors import N2NError, NotReady, PlatformError
from n2n.identity import load_machine_id
from n2n.net import Surroundings, configure, open_udp, open_udp_group, routes_clashing, send_whole, surroundings
from n2n.proto.actions import AllowSource, Birthday, Configure, DropPeer, KeepKey, PutPeer, Resolve, SetSupernode
from n2n.proto.edge import Answer, EdgeCore, EdgeState, PeerView
from n2n.types import Endpoint, Instant, MacAddress
from n2n.wire import LeasesInfos, P2PFullState, community_id, derive_mac

__all__ = ["EdgeDaemon", "TapLike"]

T = TypeVar("T")


class EdgeDaemon(Daemon):
    """One running edge.

    Args:
        config: its settings.
        tap: a device that is ready for use; it is closed at the end.  Nothing is asked of the kernel then: the
            address that the supernode gives is only told (`address`).  None: open `config.tap_name` and configure it.
        machine_id: 16 bytes; None: the file's of the configuration or the user account.
        siblings: names of the TAP devices of this host's other edges: their networks do not count as clashes.
        plane_factory: see :class:`~n2n.daemon.base.Daemon`.
    """

    role: ClassVar[str] = "edge"

    def __init__(
        self,
        config: EdgeConfig,
        *,
        tap: TapLike | None = None,
        machine_id: bytes | None = None,
        siblings: Callable[[], Collection[str]] = tuple,
        plane_factory: PlaneFactory | None = None,
    ) -> None:
        super().__init__(plane_factory)
        self.config = config
        self.mac: MacAddress | None = None
        """The edge's address in its community, from the start on."""
        self.address: IPv4Interface | None = None
        """The virtual address and its prefix length, as the device has it; None before it is configured."""
        self.tap_name = config.tap_name
        self.local: Endpoint | None = None
        """Where the UDP socket is bound."""
        self._tap: TapLike | None = tap
        self.own_tap = tap is None
        """The TAP device is the kernel's, and ours to configure."""
        self._machine_id = machine_id
        self._siblings = siblings
        self._drive: Drive[EdgeCore] | None = None
        self._resolver: Resolver | None = None
        self._resolving = False
        self._configuring = asyncio.Lock()
        self._network: Watch | None = None
        self._prober: PathProber | None = None
        self._path_mtu: PathMtu | None = None
        self._birthdays: Birthdays | None = None
        self.hosts = HostsKeeper(config.tap_name, self.names, self._warn)
        self._supernode: Endpoint | None = None
        self._port_mapper: PortMapper | None = None
        self._codec: PayloadCodec | None = None
        self._addresses: tuple[IPv4Address | IPv6Address, ...] = ()
        self._memory = KeyMemory(config.state_dir, config.supernodes, self._warn)
        self.measured = Measured(self, self._put_peer)
        """Its part in ``n2n bench PEER``."""
        self._handlers |= {
            Configure: self._on_configure,
            SetSupernode: self._on_supernode,
            PutPeer: self._on_put_peer,
            DropPeer: self._on_drop_peer,
            AllowSource: self._on_allow_source,
            Birthday: self._on_birthday,
            Resolve: self._on_resolve,
            KeepKey: self._on_keep_key,
        }

    # ---- what it knows -----------------------------------------------------------------------

    @property
    def core(self) -> EdgeCore | None:
        """What decides; None before the start. For looking, not for touching."""
        return self._drive.core if self._drive is not None else None

    @property
    def state(self) -> EdgeState:
        """How far the registration has got."""
        return self.core.state if self.core is not None else EdgeState.IDLE

    def peers(self) -> tuple[PeerView, ...]:
        """The other edges of the community, and the way to each."""
        return self.core.peers() if self.core is not None else ()

    def names(self) -> list[Named]:
        """What every member, this edge included, may be called (see :mod:`n2n.daemon.hosts`)."""
        own = Member(self.config.edge_id, self.mac, self.address.ip if self.address is not None else None)
        return hostnames(self.config.community, self.address, own, self.peers())

    def peer_counters(self, mac: MacAddress) -> dict[str, int]:
        """What went to and came from a peer: tx_frames, tx_bytes, rx_frames, rx_bytes, last_rx_ns; empty if unknown."""
        counts = self._plane.peer_counters(mac.raw) if self._plane is not None else None
        return counts or {}

    def peer_mtu(self, mac: MacAddress) -> int | None:
        """Bytes of the largest packet that the present path to a peer takes; None: not measured yet."""
        return self._path_mtu.measured(mac) if self._path_mtu is not None else None

    @property
    def port_mapping(self) -> PortMapView:
        """The port that the router maps to this edge, or why there is none."""
        return self._port_mapper.view if self._port_mapper is not None else PortMapView(PortMapState.OFF)

    async def leases(self, timeout: float = 3.0) -> Answer[LeasesInfos]:  # noqa: ASYNC109  (an older answer will do)
        """Ask the supernode who holds which address.

        Returns:
            Its answer; the one before where none comes within `timeout` seconds.

        Raises:
            NotReady: the edge is not registered.
            TimeoutError: there never was an answer.
        """
        drive = self._registered()
        return await self._ask(drive, drive.core.ask_leases, lambda: drive.core.leases, timeout)

    async def full_state(self, timeout: float = 3.0) -> Answer[P2PFullState]:  # noqa: ASYNC109
        """Ask the supernode how all edges see each other; returns and raises as `leases`."""
        drive = self._registered()
        return await self._ask(drive, drive.core.ask_full_state, lambda: drive.core.full_state, timeout)

    def _registered(self) -> Drive[EdgeCore]:
        if self._drive is None or self.state is not EdgeState.REGISTERED:
            raise NotReady(f"the edge is not registered: {self._progress()}")
        return self._drive

    async def _ask(
        self, drive: Drive[EdgeCore], ask: Callable[[Instant], bool], read: Callable[[], T | None], patience: float
    ) -> T:
        before = answer = read()
        drive.call(ask)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while (answer := read()) is before:
                    await drive.turn()
        if answer is None:
            raise TimeoutError("the supernode did not answer in time: ask again")
        return answer

    def _progress(self) -> str:
        return progress(self.core, self._supernode, self.config.supernode_addr, self.tap_name)

    def live_keys(self) -> dict[str, Callable[[Any], object]]:
        """See :meth:`Daemon.live_keys`."""
        return super().live_keys() | edge_keys(self)

    def call(self, step: Callable[..., object], *args: object) -> None:
        """Let the core take one step, ``step(core, *args, now)``; nothing happens before the start."""
        if (drive := self._drive) is not None:
            drive.call(lambda now: step(drive.core, *args, now))

    @property
    def mtu(self) -> int:
        """Of the TAP device: as configured, or less where the path to the supernode takes less."""
        return self._path_mtu.mtu if self._path_mtu is not None else self.config.tap_mtu or USUAL_MTU

    def mtu_configured(self, mtu: int) -> None:
        """The TAP device was given another MTU: see whether the path takes it."""
        if self._path_mtu is not None:
            self._path_mtu.reset(mtu)

    def _core_counters(self) -> Mapping[str, int]:
        return self.core.counters() if self.core is not None else {}

    def _own_counters(self) -> dict[str, int]:
        counts = {"daemon_core_faults": self._drive.faults if self._drive is not None else 0}
        for part in (self.measured, self._birthdays, self._prober, self._port_mapper):
            counts |= {f"daemon_{name}": count for name, count in part.counts.items()} if part is not None else {}
        return counts

    # ---- start -------------------------------------------------------------------------------

    async def _open(self, undo: contextlib.AsyncExitStack) -> None:
        config = self.config
        if self._tap is not None:  # given: ours to close, whatever happens
            undo.callback(self._release, self._tap)
        machine_id = self._machine_id
        if machine_id is None:
            machine_id = load_machine_id(config.machine_id_file)
        self.mac = derive_mac(machine_id, config.community)
        key = key_from_passphrase(config.encryption_passphrase) if config.encryption_passphrase else None
        self._codec = PayloadCodec(key, config.compress_payload)
        threads = thread_count(config.threads) if self.own_tap else 1
        socks = self._socks = open_udp_group(config.listen, threads, buffer_size=config.udp_buffer_size)
        for sock in socks:
            undo.callback(self._release, sock)
        self.local = local_endpoint(socks[0])
        mapper = self._port_mapper = self._make_port_mapper(self.local, machine_id)
        undo.push_async_callback(mapper.close)
        taps = await self._open_taps(undo, threads)
        plane = self._plane = self._make_plane(
            "edge",
            [sock.fileno() for sock in socks],
            tap_fds=[tap.fd for tap in taps],
            mac=self.mac.raw,
            community=community_id(config.community),
            vfuze=config.enable_vfuze,
            key=key,
            compress=config.compress_payload,
            bridge=config.bridge,
            cipher=config.cipher,
            vnet_hdr=getattr(taps[0], "vnet_hdr", False),
            coalesce=config.tap_coalesce,
            uso=config.tap_uso,
            gso=config.udp_gso,
            gro=config.udp_gro,
        )
        self._resolver = Resolver(config.supernodes, reachable(socks[0]), self._warn)
        core = make_core(config, machine_id, await self._memory.load(), plane.next_sequence, key)
        prober = self._make_prober(self.mac, plane)
        self._drive = Drive(core, plane, self._execute, prober.receive)
        self._drive.noticed = self._path_mtu.used if self._path_mtu is not None else None
        self.tell("info", "starting", introduction(self))
        if key is None:
            self.tell("warning", "not_sealed", {"what": NOT_SEALED})
        self._birthdays = Birthdays(plane, self._one_more_socket, self._birthday_won, self._release)
        undo.callback(self._birthdays.close)
        self._run_plane(plane, self._drive, undo)
        undo.callback(self._leave)
        self._spawn(self.hosts.run(config.hosts_file), "names")
        undo.callback(self.hosts.close)
        undo.callback(self.measured.close)
        self.measured.carrier = Carrier(plane, self.mac, community_id(config.community), self._socket_for, socks)
        self.measured.allow(config.allow_bench)
        self._drive.call(self._drive.core.start)
        self._watch_network()
        proof = PortProof(plane, community_id(config.community), self.mac, mapper.proven)
        mapper.prove, self._drive.first = proof.ask, proof.take
        self._spawn(mapper.run(), "port mapping")

    async def _open_taps(self, undo: contextlib.AsyncExitStack, count: int) -> list[TapLike]:
        """The TAP that was given, or as many queues of one of our own."""
        if self._tap is not None:
            self.tap_name = self._tap.name
            return [self._tap]
        config = self.config

        def warn(what: str) -> None:
            self.tell("warning", "offload", {"what": what})

        taps = open_queues(config.tap_name, count, offload=config.tap_offload, uso=config.tap_uso, warn=warn)
        for tap in taps:
            undo.callback(self._release, tap)
        self._tap = taps[0]
        self.tap_name = taps[0].name
        await asyncio.to_thread(configure, self.tap_name, mac=self.mac, mtu=self.mtu, up=False)
        return list(taps)

    def _make_port_mapper(self, local: Endpoint, machine_id: bytes) -> PortMapper:
        return PortMapper(
            self.config.port_mapping,
            local,
            machine_id,
            tell=self.tell,
            seen_as=lambda: self.core.reflexive if self.core is not None else None,
            changed=lambda _: self._tell_candidates(),
        )

    def _make_prober(self, mac: MacAddress, plane: PlaneLike) -> PathProber:
        config = self.config

        def send(datagram: bytes, endpoint: Endpoint) -> bool:
            further = self._birthdays.socket_of(endpoint) if self._birthdays is not None else None
            return send_whole(further or self._socks[0], datagram, endpoint)

        async def set_tap(mtu: int) -> None:
            if self.own_tap:
                await asyncio.to_thread(configure, self.tap_name, mtu=mtu, up=False)

        prober = self._prober = PathProber(mac, community_id(config.community), plane.next_sequence, send)
        self._path_mtu = PathMtu(
            prober,
            mac,
            Surface(config.enable_vfuze, bool(config.encryption_passphrase), config.compress_payload),
            asked=lambda: self.config.tap_mtu,
            peers=self.peers,
            sent=lambda peer: self.peer_counters(peer).get("tx_bytes", 0),
            set_tap=set_tap,
            clamp=lambda peer, mtu: plane.peer_mtu(peer.raw, mtu),
            tell=self.tell,
        )
        self._spawn(self._path_mtu.run(), "measuring of paths")
        self._spawn(self._path_mtu.watch(), "checks of paths")
        return prober

    def _warn(self, event: str, about: dict[str, object]) -> None:
        self.tell("warning", event, about)

    def _leave(self) -> None:
        if self._drive is not None:
            self._drive.call(self._drive.core.close)

    # ---- this host's network ------------------------------------------------------------------

    def _watch_network(self) -> None:
        if not self.own_tap:
            return
        self._network = Watch(
            self._look_around,
            lambda: self._supernode.ip if self._supernode is not None else None,
            self._network_changed,
            lambda what: self.tell("warning", "network_unwatched", {"error": what}),
        )
        self._spawn(self._network.run(), "watch of the network")

    def _look_around(self, target: IPv4Address | IPv6Address | None) -> Surroundings:
        overlay = [self.address.network] if self.address is not None else []
        ignored = {self.tap_name, *self._siblings()}
        return surroundings(target, ignore=ignored, without=overlay, device=self.config.device)

    def _network_changed(self, change: Change) -> None:
        self._addresses = change.seen.addresses
        self._tell_candidates()
        if change.reason and self._drive is not None:
            core = self._drive.core
            self.tell("info", "network_changed", {"reason": change.reason, "what": change.what})
            self._drive.call(lambda now: core.network_changed(now, change.reason))
            if self._port_mapper is not None:
                self._port_mapper.network_changed()
            if self._path_mtu is not None:
                self._path_mtu.look_again()

    def _tell_candidates(self) -> None:
        """Tell the core where others may reach this host."""
        if self._drive is not None and self.local is not None:
            mapped = [endpoint] if (endpoint := self.port_mapping.external) is not None else []
            self._drive.call(self._drive.core.set_local, candidates(self._addresses, self.local, mapped))

    # ---- actions -----------------------------------------------------------------------------

    def _on_supernode(self, action: SetSupernode) -> None:
        assert self._plane is not None
        self._supernode = action.endpoint
        self._plane.set_supernode(action.endpoint.packed, action.endpoint.port)
        if self._network is not None:
            self._network.look_again()
        if self._port_mapper is not None:
            self._port_mapper.supernode_at(action.endpoint)

    def _on_put_peer(self, action: PutPeer) -> None:
        self.measured.put_peer(action.mac, action.endpoint, action.direct)
        for follower in (self._birthdays, self._path_mtu):
            if follower is not None:
                follower.peer_put(action.mac, action.endpoint, action.direct)

    def _put_peer(self, mac: MacAddress, endpoint: Endpoint, direct: bool) -> None:
        assert self._plane is not None
        self._plane.put_peer(mac.raw, endpoint.packed, endpoint.port, direct, self._socket_for(endpoint))

    def _on_drop_peer(self, action: DropPeer) -> None:
        assert self._plane is not None
        self.measured.drop_peer(action.mac)
        self._plane.drop_peer(action.mac.raw)
        for follower in (self._birthdays, self._path_mtu):
            if follower is not None:
                follower.peer_dropped(action.mac)

    def _on_allow_source(self, action: AllowSource) -> None:
        assert self._plane is not None
        self._plane.allow_source(action.mac.raw, action.endpoint.packed, action.endpoint.port)

    def _socket_for(self, endpoint: Endpoint) -> int:
        return self._birthdays.socket_for(endpoint) if self._birthdays is not None else 0

    def _on_birthday(self, action: Birthday) -> None:
        if self._birthdays is not None:
            self._birthdays.begin(action)

    def _one_more_socket(self, endpoint: Endpoint) -> socket.socket:
        """A socket that reaches an endpoint, at a port of the kernel's choice, from where the edge listens."""
        local = self.local
        if local is not None and int(local.ip):
            return open_udp(Endpoint.of(str(local.ip), 0))
        return open_udp(f"{self.config.device}:0", ipv4_only=endpoint.ip.version == 4)

    def _birthday_won(self, mac: MacAddress, endpoint: Endpoint, datagram: bytes) -> None:
        assert self._drive is not None
        core = self._drive.core
        self._drive.guard(core.birthday_won, mac, endpoint)
        self._drive.call(lambda now: core.receive(datagram, endpoint, now))

    def _on_keep_key(self, action: KeepKey) -> None:
        self._spawn(self._memory.keep(action), "known keys")

    def _on_resolve(self, action: Resolve) -> None:
        if not self._resolving:
            self._resolving = True
            self._spawn(self._resolve(action.again), "resolver")

    async def _resolve(self, again: bool) -> None:
        assert self._resolver is not None
        assert self._drive is not None
        try:
            endpoint = await self._resolver.find(again=again)
        finally:
            self._resolving = False
        self._drive.guard(self._drive.core.known_as, self._resolver.found)
        self._drive.call(self._drive.core.set_supernode, endpoint)

    def _on_configure(self, action: Configure) -> None:
        address = IPv4Interface((action.ip, action.prefix))
        if self.own_tap:
            self._spawn(self._configure(address), "configuration of the TAP device")
        else:
            self._configured(address)

    async def _configure(self, address: IPv4Interface) -> None:
        async with self._configuring:
            if self.address is None or self.address.network != address.network:
                await self._check_clash(address.network)
            await asyncio.to_thread(
                configure,
                self.tap_name,
                mac=self.mac,
                address=address,
                mtu=self.mtu,
                up=True,
                exclusive=True,
            )
            self._configured(address)

    async def _check_clash(self, network: IPv4Network) -> None:
        ignored = {self.tap_name, *self._siblings()}
        clashes = await asyncio.to_thread(routes_clashing, network, ignore=ignored)
        if clashes:
            raise PlatformError(
                f"the network {network} of community {self.config.community!r} clashes with what this host has: "
                f"{', '.join(clashes)}. Leave that network, or have the supernode's operator choose another "
                "community_subnet"
            )

    def _configured(self, address: IPv4Interface) -> None:
        self.address = address
        self.tell("info", "configured", {"tap": self.tap_name, "address": str(address)})
        self._announce(address)
        if self.own_tap:
            self.measured.configured(address.ip, self.tap_name)
        if self._path_mtu is not None:
            self._path_mtu.look_again(self._supernode)
        self._ready.set()

    def _announce(self, address: IPv4Interface) -> None:
        """Tell the other edges who has this address now: a gratuitous ARP reply that leaves as any broadcast frame."""
        if self._plane is None or self._supernode is None or self._codec is None or self.mac is None:
            return
        sequence = self._plane.next_sequence()
        try:
            datagram = announcement(self.config.community, self.mac, address.ip, sequence, self._codec)
        except N2NError as error:
            self.tell("warning", "announce_failed", {"error": str(error)})
            return
        self._plane.send(datagram, self._supernode.packed, self._supernode.port)
