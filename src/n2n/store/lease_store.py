"""What a store of leases offers, and the one that forgets everything when the process ends."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol, TypeAlias

from n2n.errors import StoreError
from n2n.proto.actions import DropLease, DropNetwork, LeaseRecord, SaveLease, SaveNetwork
from n2n.types import MacAddress

__all__ = ["LeaseStore", "MemoryStore", "StoreAction", "address_given_twice", "network_given_twice", "not_to_be_stored"]

#: The actions of a supernode's core that a store carries out.
StoreAction: TypeAlias = SaveLease | DropLease | SaveNetwork | DropNetwork


class LeaseStore(Protocol):
    """Keeps the leases and networks of a supernode.  Every method may block: call them off the event loop."""

    def load_leases(self) -> list[LeaseRecord]:
        """All leases, those that were first saved first.

        Raises:
            StoreError: they cannot be read, or the store is closed.
        """
        ...

    def load_networks(self) -> dict[str, IPv4Network]:
        """The network of each community, in the order in which they were first saved.

        Raises:
            StoreError: they cannot be read, or the store is closed.
        """
        ...

    def save(self, batch: Iterable[StoreAction]) -> None:
        """Carry out all actions, in order, or none of them.

        When it returns they survive a crash of this process and of the machine.

        Raises:
            StoreError: nothing was saved; also if afterwards two edges of a community would have one address, or two
                communities one network.
            TypeError: `batch` holds another kind of action.
        """
        ...

    def close(self) -> None:
        """Give everything back.  May be called again."""
        ...


class MemoryStore:
    """A store for tests and for supernodes that need not remember anything."""

    def __init__(self) -> None:
        self._leases: dict[tuple[str, MacAddress], LeaseRecord] = {}
        self._networks: dict[str, IPv4Network] = {}
        self._closed = False

    def load_leases(self) -> list[LeaseRecord]:
        """See `LeaseStore.load_leases`."""
        self._check_open()
        return list(self._leases.values())

    def load_networks(self) -> dict[str, IPv4Network]:
        """See `LeaseStore.load_networks`."""
        self._check_open()
        return dict(self._networks)

    def save(self, batch: Iterable[StoreAction]) -> None:
        """See `LeaseStore.save`."""
        self._check_open()
        leases, networks = dict(self._leases), dict(self._networks)
        for action in batch:
            match action:
                case SaveLease(record):
                    leases[record.community, record.mac] = record
                case DropLease(community, mac):
                    leases.pop((community, mac), None)
                case SaveNetwork(community, network):
                    networks[community] = network
                case DropNetwork(community):
                    networks.pop(community, None)
                case _:
                    raise not_to_be_stored(action)
        _check_addresses(leases.values())
        _check_networks(networks)
        self._leases, self._networks = leases, networks

    def close(self) -> None:
        """See `LeaseStore.close`."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the lease store is closed")


def _check_addresses(leases: Iterable[LeaseRecord]) -> None:
    holders: dict[tuple[str, IPv4Address], MacAddress] = {}
    for record in leases:
        holder = holders.setdefault((record.community, record.ip), record.mac)
        if holder != record.mac:
            raise address_given_twice(record.community, record.ip)


def _check_networks(networks: dict[str, IPv4Network]) -> None:
    seen: set[IPv4Network] = set()
    for network in networks.values():
        if network in seen:
            raise network_given_twice(network)
        seen.add(network)


def address_given_twice(community: str, ip: IPv4Address) -> StoreError:
    """The error for two leases of one address."""
    return StoreError(
        f"the address {ip} of community {community!r} would belong to two edges; nothing was saved. "
        "This is a bug: please report it with the log"
    )


def network_given_twice(network: IPv4Network) -> StoreError:
    """The error for two communities with one network."""
    return StoreError(
        f"the network {network} would belong to two communities; nothing was saved. "
        "This is a bug: please report it with the log"
    )


def not_to_be_stored(action: object) -> TypeError:
    """The error for an action that is no store's business."""
    return TypeError(f"{type(action).__name__} is no action that a store carries out")
