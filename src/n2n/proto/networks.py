"""Which virtual network a community gets: the derivation of protocol v5, and what to do when two meet.

The derivation maps every name to one of a limited number of networks (32,768 with the default base and prefix), so two
names may fall on one network.  The reference lets them share it; here the later one gets the next free network, which
must then be remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Final, NamedTuple

from n2n.wire.hashes import virtual_network

__all__ = ["Assignment", "NetworkPlan"]

#: The derivation spreads names over the low 24 bits of the base address (WIRE 6.5).
_SPREAD: Final = 0x00FFFFFF
_ALL: Final = 0xFFFFFFFF


class Assignment(NamedTuple):
    """A network given to a community."""

    network: IPv4Network
    derived: bool
    """True for the network of the v5 derivation, False where it was taken and another was given."""


class NetworkPlan:
    """The networks of all communities; no two are alike, and none overlap since all have one prefix length.

    Args:
        base: start of the block.
        prefix: prefix length of every network.
    """

    def __init__(self, base: IPv4Address, prefix: int) -> None:
        self._base = base
        self._prefix = prefix
        self._host_bits = _ALL >> prefix
        # Bits in which networks of the block differ: those that a name can set and that the base leaves clear.
        self._free = _SPREAD & ~int(base) & ~self._host_bits
        self._fixed = int(base) & ~self._host_bits & _ALL
        self._of: dict[str, IPv4Network] = {}
        self._taken: dict[IPv4Network, str] = {}

    @property
    def networks(self) -> Mapping[str, IPv4Network]:
        """What each community has."""
        return self._of

    def derived(self, name: str) -> IPv4Network:
        """The network that the v5 derivation gives, whoever has it."""
        return virtual_network(name, self._base, self._prefix)

    def keep(self, name: str, network: IPv4Network) -> bool:
        """Take over an assignment made earlier.

        Returns:
            False, and nothing is kept, if it does not belong to this base and prefix (they were changed since), or if
            the network is another community's already.
        """
        fits = network.prefixlen == self._prefix and int(network.network_address) & ~self._free & _ALL == self._fixed
        if not fits or network in self._taken or name in self._of:
            return False
        self._put(name, network)
        return True

    def assign(self, name: str) -> Assignment | None:
        """The network of a community, which keeps it from now on.

        Returns:
            None when every network of the block is taken.
        """
        own = self.derived(name)
        if (had := self._of.get(name)) is not None:
            return Assignment(had, had == own)
        value = int(own.network_address)
        network = own
        # One of these is free, or all there are have been tried: each step gives another network.
        for _ in range(len(self._taken) + 1):
            if network not in self._taken:
                self._put(name, network)
                return Assignment(network, network == own)
            # Count in the free bits alone: with all others set, the carry passes them by.
            value = self._fixed | (((value | ~self._free) + 1) & self._free)
            network = IPv4Network((value, self._prefix))
        return None

    def release(self, name: str) -> None:
        """A community was given up; another may have its network."""
        network = self._of.pop(name, None)
        if network is not None:
            del self._taken[network]

    def _put(self, name: str, network: IPv4Network) -> None:
        self._of[name] = network
        self._taken[network] = name
