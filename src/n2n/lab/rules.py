"""The nftables rules of the lab's routers and cuts, as text.

All of it lies in tables called ``n2n_*``, which are replaced as a whole and at once; other tables of a namespace stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["LAN", "WAN", "Behaviour", "cut_rules", "router_rules"]

#: A router's interfaces: its bridge, and the one to the outside.
LAN: Final = "br0"
WAN: Final = "wan"

_KINDS: Final = ("full", "addr", "port", "symmetric", "open")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What one router does.

    Args:
        kind: "full", "addr", "port", "symmetric" or "open".
        hairpin: packets from the LAN to an external endpoint of the LAN come back in.
        udp_ports: destination ports to which UDP passes out; None: all; empty: none.

    Raises:
        ValueError: there is no such kind, or it has no hairpin.
    """

    kind: str
    hairpin: bool = False
    udp_ports: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"unknown kind of router {self.kind!r}. Known are: {', '.join(_KINDS)}")
        if self.hairpin and self.kind in ("symmetric", "open"):
            raise ValueError(f"a router of kind {self.kind!r} has no hairpin: use full, addr or port")


def router_rules(
    behaviour: Behaviour,
    *,
    address: str,
    lifetime: int,
    moved: Mapping[tuple[str, int], int],
    black_hole: bool = False,
    frozen: bool = False,
) -> str:
    """All tables of a router, for ``nft -f``.

    Args:
        address: its WAN address.
        lifetime: seconds after which a cone forgets a mapping that is not used.
        moved: external ports for endpoints inside that are not to keep their own.
        black_hole: no ICMP error about too big packets passes.
        frozen: nothing passes at all.
    """
    tables = [_filter(behaviour, black_hole=black_hole, frozen=frozen), _nat(behaviour, address, lifetime, moved)]
    return "\n".join([_fresh("inet", "n2n_filter"), _fresh("ip", "n2n_nat"), *tables])


def cut_rules(pairs: Iterable[tuple[str, str]]) -> str:
    """Tables that drop UDP from the first address of each pair to the second, bridged or routed."""
    elements = ", ".join(f"{source} . {target}" for source, target in pairs)
    known = f"elements = {{ {elements} }}" if elements else ""
    text = []
    for family in ("bridge", "ip"):
        text.append(_fresh(family, "n2n_cut"))
        text.append(
            f"""table {family} n2n_cut {{
  set pairs {{ type ipv4_addr . ipv4_addr; {known}
  }}
  chain forward {{ type filter hook forward priority -10; policy accept;
    meta l4proto udp ip saddr . ip daddr @pairs drop
  }}
}}"""
        )
    return "\n".join(text)


def _fresh(family: str, name: str) -> str:
    return f"table {family} {name}\ndelete table {family} {name}"  # the first line for where there is none yet


def _filter(behaviour: Behaviour, *, black_hole: bool, frozen: bool) -> str:
    """What passes. The router's own WAN takes nothing unasked: such a packet would be remembered and take the port that
    a later mapping needs."""
    silent = ""
    if black_hole:
        silent = "icmp type destination-unreachable icmp code frag-needed drop\n    icmpv6 type packet-too-big drop"
    blocked = ""
    if behaviour.udp_ports is not None:
        ports = ", ".join(str(port) for port in behaviour.udp_ports)
        which = f"udp dport != {{ {ports} }}" if ports else "meta l4proto udp"
        blocked = f'iifname "{LAN}" oifname "{WAN}" {which} drop'
    everything = "accept" if behaviour.kind == "open" else ""
    stop = "drop" if frozen else ""
    return f"""table inet n2n_filter {{
  chain input {{ type filter hook input priority 0; policy accept;
    {stop}
    ct state established,related accept
    iifname "{WAN}" icmp type echo-request accept
    iifname "{WAN}" meta l4proto ipv6-icmp accept
    iifname "{WAN}" drop
  }}
  chain forward {{ type filter hook forward priority 0; policy drop;
    {stop}
    {silent}
    {blocked}
    {everything}
    ct state established,related accept
    ct status dnat accept
    iifname "{LAN}" oifname "{WAN}" accept
  }}
  chain output {{ type filter hook output priority 0; policy accept;
    {silent}
  }}
}}"""


def _nat(behaviour: Behaviour, address: str, lifetime: int, moved: Mapping[tuple[str, int], int]) -> str:
    if behaviour.kind == "open":
        return ""
    moves = f'oifname "{WAN}" meta l4proto udp masquerade to :ip saddr . udp sport map @moved'
    leave = f'{moves}\n    oifname "{WAN}" masquerade'
    if behaviour.kind == "symmetric":
        leave = f'oifname "{WAN}" masquerade random,fully-random'
    elements = ", ".join(f"{ip} . {port} : {external}" for (ip, port), external in moved.items())
    known = f"elements = {{ {elements} }}" if elements else ""
    let_in = {
        "full": f'iifname "{WAN}" meta l4proto udp dnat ip addr . port to udp dport map @inside',
        "addr": f'iifname "{WAN}" udp dport . ip saddr @met dnat ip addr . port to udp dport map @inside',
    }.get(behaviour.kind, "")
    turn = f'iifname "{LAN}" oifname "{LAN}" ct status dnat meta l4proto udp snat to {address}'
    back = f'iifname "{LAN}" ip daddr {address} meta l4proto udp dnat ip addr . port to udp dport map @inside'
    hairpin_in, hairpin_out = (
        (back, f"{turn}:ip saddr . udp sport map @moved\n    {turn}") if behaviour.hairpin else ("", "")
    )
    return f"""table ip n2n_nat {{
  map moved {{ type ipv4_addr . inet_service : inet_service; {known}
  }}
  map inside {{ type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout {lifetime}s;
  }}
  set met {{ type inet_service . ipv4_addr; flags dynamic,timeout; timeout {lifetime}s;
  }}
  chain in {{ type nat hook prerouting priority -100; policy accept;
    {let_in}
    {hairpin_in}
  }}
  chain out {{ type nat hook postrouting priority 100; policy accept;
    {hairpin_out}
    {leave}
  }}
  chain learn {{ type filter hook postrouting priority 150; policy accept;
    oifname "{WAN}" meta l4proto udp ct direction original jump note
  }}
  chain note {{
    update @inside {{ udp sport : ct original ip saddr . ct original proto-src }}
    update @met {{ udp sport . ip daddr }}
  }}
}}"""
