"""The supernode's data plane, modelled in a few lines of Python: what it relays, to whom, and what it hands on.

For tests only: the dialogue tests, the simulator in virtual time, and the property tests that hold the compiled plane
equal to it.  It is fed with the same actions (`PutMember`, `DropMember`) and follows the same rules:

- a ProtoV packet's sender is known if a member with its (header community id, source MAC) was put;
- Data goes to the member of the sender's group that has the destination MAC (be it the sender itself), else to all
  members of the group but the source MAC; Ping goes to such a member or nowhere; both get flag 2, nothing else changes;
- a VFuze packet's sender is the member that was put last at the packet's source endpoint; it goes unchanged to the
  member of that group with the destination MAC, or nowhere;
- Data and Ping of unknown senders reach the core cut to their header; the types that a supernode takes reach it whole.

The core keeps two promises: a MAC is in a group under one header id only, and under a header id in one group only.
Where several members claim one endpoint, the last one put there has it, until it leaves; the core then puts another.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from n2n.proto.actions import DropMember, PutMember
from n2n.types import Endpoint, MacAddress

__all__ = ["Outcome", "RelayModel"]

_DATA, _PING, _STATE = 4, 8, 9
_LONGEST_REQUEST = 30 + 4096
_TAKEN = frozenset({1, 2, 3, 6, 9, 10, 11, 251})


@dataclass(frozen=True)
class Outcome:
    """What becomes of one datagram."""

    sends: tuple[tuple[bytes, Endpoint], ...] = ()
    control: bytes | None = None
    """What the core is given, if anything."""
    verdict: str = "relayed"
    """The plane's counter; "unknown_sender" is counted as control there."""


@dataclass
class RelayModel:
    """A supernode's plane.

    Args:
        vfuze: relay packets with the short header.
        every_type: hand on types that a supernode has no use for, too, to try the core by itself.
    """

    vfuze: bool = True
    every_type: bool = False
    members: dict[tuple[int, bytes], PutMember] = field(default_factory=dict)
    at: dict[Endpoint, tuple[int, bytes]] = field(default_factory=dict)
    traffic: dict[tuple[int, bytes], Counter[str]] = field(default_factory=dict)
    """Of each member, as `Plane.peer_counters` tells it."""

    def apply(self, action: PutMember | DropMember) -> None:
        """Carry out an action of the core."""
        key = action.header_id, action.mac.raw
        former = self.members.pop(key, None)
        if former is not None and self.at.get(former.endpoint) == key:
            del self.at[former.endpoint]
        if isinstance(action, PutMember):
            assert former is None or former.group == action.group, "two groups under one header id"
            assert self._in_group(action.group, key[1]) is None, "two header ids in one group"
            self.members[key] = action
            self.at[action.endpoint] = key
            self.traffic.setdefault(key, Counter())
        else:
            self.traffic.pop(key, None)

    def handle(self, datagram: bytes, source: Endpoint) -> Outcome:
        """A datagram came in."""
        if datagram[:1] == b"\x51":
            return self._short(datagram, source)
        if not datagram:
            return Outcome(verdict="drop_empty")
        if datagram[:1] != b"\x05":
            return Outcome(verdict="drop_foreign")
        if len(datagram) < 30:
            return Outcome(verdict="drop_short")
        if datagram[2] not in (_DATA, _PING):
            taken = self.every_type or datagram[2] in _TAKEN
            if not taken:
                return Outcome(verdict="drop_type")
            if len(datagram) > _LONGEST_REQUEST and datagram[2] != _STATE and not self.every_type:
                return Outcome(verdict="drop_control_long")
            return Outcome(control=datagram, verdict="control")
        sender = self.members.get((int.from_bytes(datagram[6:10], "big"), datagram[10:16]))
        if sender is None:
            return Outcome(control=datagram[:30], verdict="unknown_sender")
        target = self._in_group(sender.group, datagram[16:22])
        if target is not None:
            targets = [target]
        elif datagram[2] == _DATA:
            targets = [m for m in self.members.values() if m.group == sender.group and m.mac != sender.mac]
        else:
            return Outcome(verdict="drop_unknown_target")
        flagged = datagram[:3] + bytes([datagram[3] | 2]) + datagram[4:]
        return self._relay(sender, targets, flagged, "relayed_flood" if target is None else "relayed")

    def _short(self, datagram: bytes, source: Endpoint) -> Outcome:
        if len(datagram) < 7:
            return Outcome(verdict="drop_short")
        if not self.vfuze:
            return Outcome(verdict="drop_vfuze_off")
        sender = self.members.get(self.at[source]) if source in self.at else None
        if sender is None:
            return Outcome(verdict="drop_stranger")
        target = self._in_group(sender.group, datagram[1:7])
        if target is None:
            return Outcome(verdict="drop_unknown_target")
        return self._relay(sender, [target], datagram, "relayed")

    def _relay(self, sender: PutMember, targets: list[PutMember], datagram: bytes, verdict: str) -> Outcome:
        self.traffic[sender.header_id, sender.mac.raw].update(rx_frames=1, rx_bytes=len(datagram))
        for member in targets:
            self.traffic[member.header_id, member.mac.raw].update(tx_frames=1, tx_bytes=len(datagram))
        return Outcome(tuple((datagram, member.endpoint) for member in targets), verdict=verdict)

    def _in_group(self, group: int, mac: bytes) -> PutMember | None:
        wanted = MacAddress(mac)
        return next((m for m in self.members.values() if m.group == group and m.mac == wanted), None)
