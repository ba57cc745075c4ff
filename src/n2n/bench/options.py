"""What a run of the benchmark is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from n2n.errors import ConfigError

__all__ = ["COMPONENTS", "LARGEST", "SMALLEST", "Options"]

#: Short name of each component and its name in the results, in the order in which they are measured.
COMPONENTS: Final = {
    "protocol": "Protocol Serialization",
    "udp": "UDP Socket",
    "tap": "TAP Device",
    "path": "Complete Path",
}
#: Frame sizes in bytes: the headers of Ethernet (14), IPv4 (20) and UDP (8) with a number of 8 bytes fit into the
#: smallest, a TAP device with jumbo frames takes the largest.
SMALLEST: Final = 64
LARGEST: Final = 9000
MAX_ITERATIONS: Final = 1_000_000
MAX_ROUNDS: Final = 100
_MAX_SIZES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to measure, and how often.

    Args:
        components: of `COMPONENTS`; empty: all of them.
        iterations: packets of each measurement, 1 to 1,000,000; None: as many as give a steady figure, which differs
            from component to component.
        packet_sizes: bytes, each 64 to 9000: of the Ethernet frame (UDP Socket: of the datagram's payload).
        rounds: every measurement is made in so many parts, all of them in turn, so that a disturbance hits none alone;
            the lowest and highest median of the rounds are the spread.
        supernode: ``host:port`` of a supernode: the complete path then goes through it, between two edges of this
            process that need no rights, and not through private namespaces.
        community: in which the edges of the complete path meet, those that seal in one of that name with "-sealed"
            behind it.

    Raises:
        ConfigError: a value is impossible.

    >>> Options(components=("udp",), packet_sizes=(64, 1400)).components
    ('udp',)
    >>> Options(packet_sizes=(20,))
    Traceback (most recent call last):
    n2n.errors.ConfigError: packet size 20 is not between 64 and 9000 bytes
    """

    components: tuple[str, ...] = ()
    iterations: int | None = None
    packet_sizes: tuple[int, ...] = (64, 512, 1400)
    rounds: int = 5
    supernode: str | None = None
    community: str = "n2n-bench"

    def __post_init__(self) -> None:
        for name in self.components:
            if name not in COMPONENTS:
                raise ConfigError(f"there is no component {name!r}: choose of {', '.join(COMPONENTS)}, or all")
        if self.iterations is not None and not 1 <= self.iterations <= MAX_ITERATIONS:
            raise ConfigError(f"{self.iterations} iterations are not between 1 and {MAX_ITERATIONS:,}")
        if not 1 <= len(self.packet_sizes) <= _MAX_SIZES:
            raise ConfigError(f"give 1 to {_MAX_SIZES} packet sizes, not {len(self.packet_sizes)}")
        for size in self.packet_sizes:
            if not SMALLEST <= size <= LARGEST:
                raise ConfigError(f"packet size {size} is not between {SMALLEST} and {LARGEST} bytes")
        if not 1 <= self.rounds <= MAX_ROUNDS:
            raise ConfigError(f"{self.rounds} rounds are not between 1 and {MAX_ROUNDS}")
        self._check_where()

    def _check_where(self) -> None:
        """Supernode and community are what an edge would take, also where they are not needed."""
        from n2n.config import EdgeConfig

        EdgeConfig(
            community=f"{self.community}-sealed" if self.community else "", supernode_addr=self.supernode or "sn:7777"
        )

    def wanted(self) -> tuple[str, ...]:
        """The components to measure, in their order.

        >>> Options(components=("tap", "udp")).wanted()
        ('udp', 'tap')
        """
        return tuple(name for name in COMPONENTS if name in (self.components or COMPONENTS))
