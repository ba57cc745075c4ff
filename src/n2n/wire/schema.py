"""How each message lies on the wire: the structs of GOB.md, in the order of the reference's descriptors.

The Python names are those of the dataclasses in :mod:`n2n.wire.messages`, in the same order.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

from n2n.wire import messages as m

__all__ = ["STRUCTS", "Basic", "Field", "FieldKind", "MapOf", "Pointer", "SliceOf", "Struct"]


class Basic(Enum):
    """A field whose value is made of no other structs."""

    BOOL = "bool"
    INT = "int"
    UINT8 = "uint8"
    BYTES = "bytes"
    STRING = "string"
    ADDR = "addr"
    TIME = "time"


@dataclass(frozen=True, slots=True, eq=False)
class Struct:
    """A struct of the wire.

    Args:
        cls: the dataclass of its values.
        fields: its fields in the reference's order.
        empty: the value without any field; being immutable, one serves all.
        further: the field `N2N` behind them, which the reference does not have (and skips); it is described and
            written only where a message has something in one.
    """

    cls: type
    fields: tuple[Field, ...]
    empty: Any
    further: Field | None = None

    @property
    def name(self) -> str:
        """Its name in descriptors."""
        return self.cls.__name__

    def described(self, more: bool) -> tuple[Field, ...]:
        """Its fields in a message with something in a further field, or without."""
        return (*self.fields, self.further) if more and self.further is not None else self.fields


@dataclass(frozen=True, slots=True, eq=False)
class Pointer:
    """A struct that may be absent."""

    struct: Struct


@dataclass(frozen=True, slots=True, eq=False)
class SliceOf:
    """Any number of structs; `name` is the slice type's in descriptors."""

    struct: Struct
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class MapOf:
    """Structs by strings; `name` is the map type's in descriptors."""

    struct: Struct
    name: str


FieldKind: TypeAlias = Basic | Struct | Pointer | SliceOf | MapOf


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One field: its name on the wire, its name in the dataclass, what it holds."""

    wire: str
    attr: str
    kind: FieldKind


#: Every struct by its dataclass.
STRUCTS: Final[dict[type, Struct]] = {}


_FURTHER: Final = "n2n"


def _struct(cls: type, **kinds: FieldKind | str) -> Struct:
    """Register a struct: wire names with their kinds, in the order of the dataclass's fields."""
    attrs = [field.name for field in dataclasses.fields(cls)]
    further = Field("N2N", _FURTHER, Basic.BYTES) if _FURTHER in attrs else None
    fields = tuple(
        Field(wire, attr, Basic(kind) if isinstance(kind, str) else kind)
        for (wire, kind), attr in zip(kinds.items(), (a for a in attrs if a != _FURTHER), strict=True)
    )
    STRUCTS[cls] = struct = Struct(cls, fields, cls(), further)
    return struct


_UDP_ADDR = _struct(m.UDPAddr, IP="bytes", Port="int", Zone="string")
_PEER_INFO = _struct(
    m.PeerInfo, VirtualIP="addr", MACAddr="bytes", PubSocket=Pointer(_UDP_ADDR), Community="string", Desc="string"
)
#: In what edges tell of each other nobody has a card.
_SEEN_INFO = dataclasses.replace(_PEER_INFO, further=None)
_PEER = _struct(m.Peer, Infos=_SEEN_INFO, P2PStatus="uint8", IsFullDuplex="bool", P2PCheckID="string", UpdatedAt="time")
_CACHED = _struct(
    m.PeerCachedInfo, Desc="string", MACAddr="string", VirtualIP="addr", Community="string", LastUpdate="time"
)
_LEASE = _struct(m.Lease, IP="bytes", MAC="string", Expiry="time", Sticky="bool", LastRenew="time")
_LEASE_EDGE = _struct(
    m.LeaseEdgeInfos, EdgeID="string", IsRegistered="bool", TimeSinceLastUpdate="int", VirtualIP="addr"
)
_LEASE_WITH_EDGE = _struct(m.LeaseWithEdgeInfos, Lease=_LEASE, LeaseEdgeInfos=_LEASE_EDGE)
_struct(m.SNPublicSecret, IsRequest="bool", PemData="bytes")
_struct(
    m.RegisterRequest,
    EdgeMACAddr="string",
    EdgeDesc="string",
    CommunityName="string",
    EncryptedMachineID="bytes",
    ClearMachineID="bytes",
)
_struct(m.RegisterResponse, IsRegisterOk="bool", VirtualIP="string", Masklen="int")
_struct(
    m.HeartbeatPulse, EdgeMACAddr="string", CommunityName="string", EncryptedMachineID="bytes", ClearMachineID="bytes"
)
_struct(m.UnregisterRequest, EdgeMACAddr="string", CommunityName="string", EncryptedMachineID="bytes")
_struct(m.PeerListRequest, CommunityName="string")
_struct(m.PeerToPing, CheckID="string", IsPong="bool")
_struct(
    m.PeerInfoList,
    HasOrigin="bool",
    Origin=_PEER_INFO,
    PeerInfos=SliceOf(_PEER_INFO, "[]p2p.PeerInfo"),
    EventType="uint8",
)
_P2P_INFOS = _struct(m.PeerP2PInfos, From=Pointer(_PEER), To=SliceOf(_PEER, "[]*p2p.Peer"))
_COMMUNITY_DATAS = _struct(
    m.P2PCommunityDatas,
    Reachables=MapOf(_P2P_INFOS, "map[string]p2p.PeerP2PInfos"),
    UnReachables=MapOf(_CACHED, "map[string]p2p.PeerCachedInfo"),
)
_struct(m.P2PFullState, CommunityName="string", IsRequest="bool", P2PCommunityDatas=_COMMUNITY_DATAS)
_struct(
    m.LeasesInfos,
    IsRequest="bool",
    CommunityName="string",
    LeasesWithEdgesInfos=MapOf(_LEASE_WITH_EDGE, "map[string]netstruct.LeaseWithEdgeInfos"),
)
_struct(m.OnlineCheck, Cookie="string")
