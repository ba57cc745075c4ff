"""Hypothesis strategies for everything on the wire: messages, headers, names."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from n2n.types import MacAddress
from n2n.wire import GoTime, ProtoV
from n2n.wire.hashes import name_of
from n2n.wire.schema import STRUCTS, Basic, FieldKind, MapOf, Pointer, SliceOf, Struct

#: Names as they come off the wire: text, and bytes that are not UTF-8.
names = st.one_of(st.text(max_size=20), st.binary(max_size=20).map(name_of)).filter(
    lambda name: not any("\ud800" <= char <= "\udfff" and not "\udc80" <= char <= "\udcff" for char in name)
)
macs = st.binary(min_size=6, max_size=6).map(MacAddress)

#: Zones that a time can carry: minutes, but not -1, which is the mark "UTC"; and odd seconds.
_offsets = st.one_of(
    st.none(),
    st.integers(-32768, 32767).filter(lambda minutes: minutes != -1).map(lambda minutes: minutes * 60),
    st.integers(-32767 * 60, 32767 * 60).filter(lambda seconds: not -120 < seconds <= -60),
)
times = st.builds(GoTime, st.integers(-(2**62), 2**62), st.integers(0, 10**9 - 1), _offsets)

_BASIC = {
    Basic.BOOL: st.booleans(),
    Basic.INT: st.integers(-(2**63), 2**63 - 1),
    Basic.UINT8: st.integers(0, 255),
    Basic.BYTES: st.binary(max_size=300),
    # Surrogates that spell valid UTF-8 are another spelling of the same name: use the one that decoding gives.
    Basic.STRING: names.map(lambda name: name_of(name.encode("utf-8", "surrogateescape"))),
    Basic.ADDR: st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=20), st.just(b"")),
    Basic.TIME: st.none() | times,
}


def _field(kind: FieldKind) -> st.SearchStrategy[Any]:
    if isinstance(kind, Basic):
        return _BASIC[kind]
    if isinstance(kind, Struct):
        return values_of(kind)
    inner = values_of(kind.struct)
    if isinstance(kind, Pointer):
        return st.none() | inner
    if isinstance(kind, SliceOf):
        return st.lists(inner, max_size=4).map(tuple)
    assert isinstance(kind, MapOf)
    return st.none() | st.dictionaries(_BASIC[Basic.STRING], inner, max_size=4)


def values_of(struct: Struct) -> st.SearchStrategy[Any]:
    """Values of a struct, fields at their default more often than not."""
    defaults = struct.empty
    return st.builds(
        struct.cls,
        **{field.attr: st.just(getattr(defaults, field.attr)) | _field(field.kind) for field in struct.described(True)},
    )


#: Any message, or part of one, that has a form of its own on the wire.
messages = st.sampled_from(sorted(STRUCTS, key=lambda cls: cls.__name__)).flatmap(lambda cls: values_of(STRUCTS[cls]))

#: ProtoV headers whose fields all fit.
headers = st.builds(
    ProtoV,
    type=st.integers(0, 255),
    community=st.integers(0, 2**32 - 1),
    source=macs,
    dest=macs,
    flags=st.integers(0, 255),
    sequence=st.integers(0, 2**16 - 1),
    timestamp=st.integers(0, 2**32 - 1),
    checksum=st.integers(0, 2**32 - 1),
    ttl=st.integers(0, 255),
)
