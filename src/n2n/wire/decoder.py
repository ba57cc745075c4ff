"""Gob to messages: a stream's descriptors become a plan, the plan reads the value.

Fields are matched by name, so ids, order and set of a stream's fields are free; a field of ours that the
stream describes with another kind makes the message malformed, sent or not.  A plan is remembered by the
bytes of the descriptors: a process of the reference writes the same ones as long as it runs.
"""

from __future__ import annotations

import struct as unpacking
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

from n2n.errors import MalformedDatagram
from n2n.wire import gob
from n2n.wire.encoder import YEAR_ONE
from n2n.wire.gob import Kind, WireType
from n2n.wire.hashes import name_of
from n2n.wire.messages import GoTime
from n2n.wire.schema import STRUCTS, Basic, FieldKind, MapOf, Pointer, SliceOf, Struct

__all__ = ["decode_stream"]

#: Longest block of descriptors whose plan is remembered (the reference's longest has about 800 bytes),
#: and how many plans are.
_BLOCK_LIMIT: Final = 2048
_PLANS: Final = 128

_TIME: Final = unpacking.Struct(">BqIh")
_UTC_MARK: Final = -1

#: Reads a value at a position and returns it with the position behind it.
_Read: TypeAlias = Callable[[bytes, int], tuple[Any, int]]


def decode_stream(cls: type, payload: bytes) -> Any:
    """The message of class `cls` that a payload holds; bytes behind its value are ignored.

    Raises:
        MalformedDatagram: it holds none.
    """
    try:
        block_end, type_id, start, end = gob.split(payload)
        block = payload[:block_end]
        read = (_remembered_plan if block_end <= _BLOCK_LIMIT else _plan)(cls, block, type_id)
        # The outer struct's end byte may be missing: the reference takes such messages. A value that is cut anywhere
        # else lacks more than the one that is added here.
        value, _ = read(payload[start:end] + b"\0", 0)
    except IndexError:
        raise MalformedDatagram(f"a {cls.__name__} that is cut") from None
    return value


def _plan(cls: type, block: bytes, type_id: int) -> _Read:
    """What reads a value of type `type_id`, as described by `block`, into a `cls`."""
    types = gob.read_types(block)
    gob.check_described(types, type_id)
    described = types.get(type_id)
    if described is None or described.kind is not Kind.STRUCT:
        raise MalformedDatagram(f"a {cls.__name__} that is not a struct")
    struct = STRUCTS[cls]
    if described.names and not {field.wire.encode() for field in struct.fields}.intersection(described.names):
        raise MalformedDatagram(f"a {cls.__name__} without a field of one")
    return _Planner(types).struct(struct, type_id)


_remembered_plan = lru_cache(maxsize=_PLANS)(_plan)


class _Planner:
    """Matches our structs with the types of one stream, as deep as our structs go, whatever the stream says."""

    def __init__(self, types: Mapping[int, WireType]) -> None:
        self._types = types
        self._structs: dict[tuple[Struct, int], _Read] = {}

    def struct(self, struct: Struct, type_id: int) -> _Read:
        """A reader of a struct."""
        known = self._structs.get((struct, type_id))
        if known is not None:
            return known
        described = self._described(struct.name, type_id, Kind.STRUCT)
        ours = {field.wire.encode(): field for field in struct.described(more=True)}
        fields: list[tuple[str | None, _Read]] = []
        for name, part in zip(described.names, described.parts, strict=True):
            field = ours.get(name)
            if field is None:
                fields.append((None, self._skipper(part)))
            else:
                fields.append((field.attr, self._field(field.kind, part, f"{struct.name}.{field.wire}")))
        self._structs[struct, type_id] = read = _struct_reader(struct, tuple(fields))
        return read

    def _field(self, kind: FieldKind, type_id: int, where: str) -> _Read:
        if isinstance(kind, Basic):
            if kind in _BASIC_IDS:
                if type_id != _BASIC_IDS[kind]:
                    raise MalformedDatagram(f"{where} described as another kind (type {type_id})")
            else:
                self._described(where, type_id, _OPAQUE_KINDS[kind])
            return _BASIC_READERS[kind]
        if isinstance(kind, Struct):
            return self.struct(kind, type_id)
        if isinstance(kind, Pointer):
            return self.struct(kind.struct, type_id)
        if isinstance(kind, SliceOf):
            described = self._described(where, type_id, Kind.SLICE)
            return _slice_reader(self.struct(kind.struct, described.parts[0]))
        return self._map(kind, type_id, where)

    def _map(self, kind: MapOf, type_id: int, where: str) -> _Read:
        key, elem = self._described(where, type_id, Kind.MAP).parts
        if key != gob.STRING:
            raise MalformedDatagram(f"{where} described with keys that are not strings")
        return _map_reader(self.struct(kind.struct, elem))

    def _described(self, where: str, type_id: int, kind: Kind) -> WireType:
        described = self._types.get(type_id)
        if described is None or described.kind is not kind:
            raise MalformedDatagram(f"{where} described as another kind (type {type_id})")
        return described

    def _skipper(self, type_id: int) -> _Read:
        types = self._types
        return lambda data, pos: (None, gob.skip(types, type_id, data, pos))


def _struct_reader(struct: Struct, fields: tuple[tuple[str | None, _Read], ...]) -> _Read:
    cls, empty, number = struct.cls, struct.empty, len(fields)

    def read(data: bytes, pos: int) -> tuple[Any, int]:
        values: dict[str, Any] = {}
        index = -1
        while True:
            delta = data[pos]
            pos += 1
            if delta == 0:
                break
            if delta >= 128:
                delta, pos = gob.get_uint(data, pos - 1)
            index += delta
            if index >= number:
                raise MalformedDatagram(f"a {cls.__name__} with a field that its type does not have")
            attr, read_field = fields[index]
            value, pos = read_field(data, pos)
            if attr is not None:
                values[attr] = value
        return (cls(**values) if values else empty), pos

    return read


def _slice_reader(read_element: _Read) -> _Read:
    def read(data: bytes, pos: int) -> tuple[Any, int]:
        count, pos = gob.get_count(data, pos, 1)
        elements = []
        for _ in range(count):
            element, pos = read_element(data, pos)
            elements.append(element)
        return tuple(elements), pos

    return read


def _map_reader(read_element: _Read) -> _Read:
    def read(data: bytes, pos: int) -> tuple[Any, int]:
        count, pos = gob.get_count(data, pos, 2)
        entries = {}
        for _ in range(count):
            key, pos = _read_string(data, pos)
            entries[key], pos = read_element(data, pos)
        return entries, pos

    return read


def _read_bool(data: bytes, pos: int) -> tuple[bool, int]:
    number, pos = gob.get_uint(data, pos)
    return number != 0, pos


def _read_uint8(data: bytes, pos: int) -> tuple[int, int]:
    number, pos = gob.get_uint(data, pos)
    if number > 255:
        raise MalformedDatagram(f"{number} in a field of 8 bits")
    return number, pos


def _read_string(data: bytes, pos: int) -> tuple[str, int]:
    raw, pos = gob.get_blob(data, pos)
    return name_of(raw), pos


def _read_addr(data: bytes, pos: int) -> tuple[bytes, int]:
    raw, pos = gob.get_blob(data, pos)
    if len(raw) not in (0, 4) and len(raw) < 16:
        raise MalformedDatagram(f"an address of {len(raw)} bytes")
    return raw, pos


def _read_time(data: bytes, pos: int) -> tuple[GoTime, int]:
    raw, pos = gob.get_blob(data, pos)
    if len(raw) not in (_TIME.size, _TIME.size + 1):
        raise MalformedDatagram(f"a time of {len(raw)} bytes")
    version, seconds, nsec, minutes = _TIME.unpack_from(raw)
    if version != len(raw) - _TIME.size + 1:
        raise MalformedDatagram(f"a time of version {version} in {len(raw)} bytes")
    if nsec >= 10**9:
        raise MalformedDatagram(f"a time with {nsec} nanoseconds")
    if version == 1:
        return GoTime(seconds + YEAR_ONE, nsec, None if minutes == _UTC_MARK else minutes * 60), pos
    odd: int = unpacking.unpack(">b", raw[-1:])[0]
    # The form is for odd seconds only, on the same side of UTC; no minute but the mark is written as -1.
    if not 0 < abs(odd) < 60 or minutes * odd < 0 or minutes == _UTC_MARK:
        raise MalformedDatagram(f"a time in a zone of {minutes} minutes and {odd} seconds")
    return GoTime(seconds + YEAR_ONE, nsec, minutes * 60 + odd), pos


_BASIC_IDS: Final = {
    Basic.BOOL: gob.BOOL,
    Basic.INT: gob.INT,
    Basic.UINT8: gob.UINT,
    Basic.BYTES: gob.BYTES,
    Basic.STRING: gob.STRING,
}
_OPAQUE_KINDS: Final = {Basic.ADDR: Kind.BINARY_MARSHALER, Basic.TIME: Kind.GOB_ENCODER}
_BASIC_READERS: Final[dict[Basic, _Read]] = {
    Basic.BOOL: _read_bool,
    Basic.INT: gob.get_int,
    Basic.UINT8: _read_uint8,
    Basic.BYTES: gob.get_blob,
    Basic.STRING: _read_string,
    Basic.ADDR: _read_addr,
    Basic.TIME: _read_time,
}
