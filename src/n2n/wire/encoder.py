"""Messages to gob: per message type a constant block of descriptors, then the value.

A message with something in a further field (`Struct.further`) has a block of its own; all others are what the reference
writes.
"""

from __future__ import annotations

import struct as packing
from collections.abc import Callable
from functools import cache
from operator import itemgetter
from typing import Any, Final, TypeAlias

from n2n.errors import LocalProtocolError
from n2n.wire import gob
from n2n.wire.gob import Kind, WireType
from n2n.wire.hashes import name_bytes
from n2n.wire.messages import GoTime
from n2n.wire.schema import STRUCTS, Basic, Field, FieldKind, MapOf, Pointer, SliceOf, Struct

__all__ = ["YEAR_ONE", "descriptor_block", "encode_stream"]

#: Unix seconds of 1 January of year 1, 00:00 UTC, from which Go counts.
YEAR_ONE: Final = -62_135_596_800
#: Our type ids count up from here; a process of the reference starts at 64 or 65 too.
_FIRST_ID: Final = gob.FIRST_TYPE + 1
_UTC_MARK: Final = -1
_BASIC_IDS: Final = {
    Basic.BOOL: gob.BOOL,
    Basic.INT: gob.INT,
    Basic.UINT8: gob.UINT,
    Basic.BYTES: gob.BYTES,
    Basic.STRING: gob.STRING,
}

_FIRST: Final = itemgetter(0)
_Write: TypeAlias = Callable[[bytearray, Any], None]


class _Describer:
    """Gives ids to the types of one message, outer before inner, and writes their descriptors."""

    def __init__(self, more: bool) -> None:
        self.out = bytearray()
        self._more = more
        self._ids: dict[object, int] = {}

    def id_of(self, kind: FieldKind) -> int:
        """The id of a type; new ones are described, then what they are made of."""
        if isinstance(kind, Basic) and kind in _BASIC_IDS:
            return _BASIC_IDS[kind]
        if isinstance(kind, Pointer):
            kind = kind.struct
        if kind not in self._ids:
            self._ids[kind] = _FIRST_ID + len(self._ids)
        return self._ids[kind]

    def describe(self, kind: FieldKind, done: set[object]) -> None:
        """Write the descriptors of a type and of all that it is made of, each once.

        Ids are given in the order in which types are met, which differs from the order of descriptors.
        """
        if isinstance(kind, Pointer):
            kind = kind.struct
        if kind in done or (isinstance(kind, Basic) and kind in _BASIC_IDS):
            return
        done.add(kind)
        type_id = self.id_of(kind)
        if isinstance(kind, Struct):
            fields = kind.described(self._more)
            names = tuple(field.wire.encode() for field in fields)
            parts = tuple(self.id_of(field.kind) for field in fields)
            gob.put_descriptor(self.out, type_id, kind.name, WireType(Kind.STRUCT, parts, names))
            for field in fields:
                self.describe(field.kind, done)
        elif isinstance(kind, SliceOf):
            gob.put_descriptor(self.out, type_id, kind.name, WireType(Kind.SLICE, (self.id_of(kind.struct),)))
            self.describe(kind.struct, done)
        elif isinstance(kind, MapOf):
            parts = (gob.STRING, self.id_of(kind.struct))
            gob.put_descriptor(self.out, type_id, kind.name, WireType(Kind.MAP, parts))
            self.describe(kind.struct, done)
        elif kind is Basic.TIME:
            gob.put_descriptor(self.out, type_id, "Time", WireType(Kind.GOB_ENCODER))
        else:
            gob.put_descriptor(self.out, type_id, "Addr", WireType(Kind.BINARY_MARSHALER))


@cache
def descriptor_block(struct: Struct, more: bool = False) -> bytes:
    """The descriptors that every message of this struct starts with; `more`: with something in a further field."""
    describer = _Describer(more)
    describer.describe(struct, set())
    return bytes(describer.out)


def encode_stream(message: object) -> bytes:
    """The message as a gob stream.

    Raises:
        LocalProtocolError: it is no message, or a value does not fit its field.
    """
    struct = STRUCTS.get(type(message))
    if struct is None:
        raise LocalProtocolError(f"{type(message).__name__} is not a message of the protocol")
    value = bytearray()
    gob.put_int(value, _FIRST_ID)
    more = _holds_more(struct, message)
    _struct_writer(struct, more)(value, message)
    out = bytearray(descriptor_block(struct, more))
    gob.put_message(out, value)
    return bytes(out)


def _holds_more(struct: Struct, value: Any) -> bool:
    """Whether something stands in a further field of a message or of what it is directly made of."""
    if struct.further is not None and getattr(value, struct.further.attr, None):
        return True
    for field in struct.fields:
        content = getattr(value, field.attr, None)
        if isinstance(field.kind, Struct) and _holds_more(field.kind, content):
            return True
        if isinstance(field.kind, SliceOf) and (further := field.kind.struct.further) is not None:
            return isinstance(content, tuple | list) and any(
                getattr(element, further.attr, None) for element in content
            )
    return False


@cache
def _struct_writer(struct: Struct, more: bool) -> _Write:
    """A function that appends the fields of a struct that are not zero, and the end byte."""
    described = struct.described(more)
    fields = [(field.attr, _absent_test(field), _writer(field, more), field.wire) for field in described]
    cls = struct.cls

    def write(out: bytearray, value: Any) -> None:
        if type(value) is not cls:
            raise LocalProtocolError(f"{type(value).__name__} stands where {cls.__name__} belongs")
        delta = 1
        for attr, present, write_field, wire in fields:
            content = getattr(value, attr)
            if present(content):
                out.append(delta)
                delta = 1
                try:
                    write_field(out, content)
                except (TypeError, ValueError, AttributeError) as error:
                    raise LocalProtocolError(f"{cls.__name__}.{wire} cannot be {content!r}: {error}") from None
            else:
                delta += 1
        out.append(0)

    return write


def _absent_test(field: Field) -> Callable[[Any], bool]:
    """What tells whether a field is written: structs always are, maps and pointers unless None, others unless zero."""
    if isinstance(field.kind, Struct):
        return lambda _: True
    if isinstance(field.kind, Basic | SliceOf):
        return bool
    return lambda content: content is not None


def _writer(field: Field, more: bool) -> _Write:
    kind = field.kind
    if isinstance(kind, Basic):
        return _BASIC_WRITERS[kind]
    if isinstance(kind, Struct):
        return _struct_writer(kind, more)
    write_struct = _struct_writer(kind.struct, more)
    if isinstance(kind, Pointer):
        return write_struct
    if isinstance(kind, SliceOf):

        def write_slice(out: bytearray, content: Any) -> None:
            gob.put_uint(out, len(content))
            for element in content:
                write_struct(out, element)

        return write_slice

    def write_map(out: bytearray, content: Any) -> None:
        gob.put_uint(out, len(content))
        # Sorted, so that equal messages are equal bytes.
        for key, element in sorted(((name_bytes(key), element) for key, element in content.items()), key=_FIRST):
            gob.put_blob(out, key)
            write_struct(out, element)

    return write_map


def _write_bool(out: bytearray, content: Any) -> None:
    out.append(1 if content else 0)


def _write_int(out: bytearray, content: Any) -> None:
    if not -(2**63) <= content < 2**63:
        raise ValueError("it needs more than 64 bits")
    gob.put_int(out, content)


def _write_uint8(out: bytearray, content: Any) -> None:
    if not 0 <= content <= 255:
        raise ValueError("it needs more than 8 bits")
    gob.put_uint(out, content)


def _write_bytes(out: bytearray, content: Any) -> None:
    if not isinstance(content, bytes):
        raise TypeError("it is not bytes")
    gob.put_blob(out, content)


def _write_string(out: bytearray, content: Any) -> None:
    gob.put_blob(out, name_bytes(content))


def _write_addr(out: bytearray, content: Any) -> None:
    if len(content) != 4 and len(content) < 16:
        raise ValueError("an address has 4 bytes, or 16 and a zone")
    _write_bytes(out, content)


def _write_time(out: bytearray, content: Any) -> None:
    """Version 1 has the zone in minutes; version 2, for zones with odd seconds, a byte more."""
    if not isinstance(content, GoTime):
        raise TypeError("it is not a GoTime")
    if not 0 <= content.nsec < 10**9:
        raise ValueError("a second has 10^9 nanoseconds")
    seconds = 0
    if content.offset is None:
        minutes = _UTC_MARK
    else:
        minutes = abs(content.offset) // 60
        seconds = abs(content.offset) % 60
        if content.offset < 0:
            minutes, seconds = -minutes, -seconds
        if minutes == _UTC_MARK:
            raise ValueError("a zone of -1 minute would mean UTC")
    try:
        raw = packing.pack(">BqIh", 2 if seconds else 1, content.unix - YEAR_ONE, content.nsec, minutes)
    except packing.error as error:
        raise ValueError(str(error)) from None
    if seconds:
        raw += packing.pack(">b", seconds)
    gob.put_blob(out, raw)


_BASIC_WRITERS: Final[dict[Basic, _Write]] = {
    Basic.BOOL: _write_bool,
    Basic.INT: _write_int,
    Basic.UINT8: _write_uint8,
    Basic.BYTES: _write_bytes,
    Basic.STRING: _write_string,
    Basic.ADDR: _write_addr,
    Basic.TIME: _write_time,
}
