"""The part of Go's ``encoding/gob`` that the messages need: numbers, the stream, descriptors, skipping.

What is read comes from strangers.  The rules that keep it harmless:

- Readers take ``(data, position)`` and return ``(value, new position)``; `data` ends where the message
  ends.  Reading past its end raises IndexError, anything else that is wrong MalformedDatagram; the codec
  turns the one into the other, so neither leaves :mod:`n2n.wire`.
- A count is compared with the bytes that are left before anything is made (an element has at least one).
- Types may be recursive and values nested as deep as a datagram is long: such values are only ever
  *skipped* (no message of ours is recursive), by a loop with its own stack.
- A stream describes at most `MAX_TYPES` types of at most `MAX_FIELDS` fields, several times what any
  message needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from n2n.errors import MalformedDatagram

__all__ = [
    "BOOL",
    "BYTES",
    "FIRST_TYPE",
    "INT",
    "MAX_FIELDS",
    "MAX_TYPES",
    "STRING",
    "UINT",
    "Kind",
    "WireType",
    "check_described",
    "get_blob",
    "get_count",
    "get_int",
    "get_uint",
    "put_blob",
    "put_descriptor",
    "put_int",
    "put_message",
    "put_uint",
    "read_types",
    "skip",
    "split",
]

# Ids of the built-in types.
BOOL: Final = 1
INT: Final = 2
UINT: Final = 3
_FLOAT: Final = 4
BYTES: Final = 5
STRING: Final = 6
_COMPLEX: Final = 7
_BASIC: Final = frozenset({BOOL, INT, UINT, _FLOAT, BYTES, STRING, _COMPLEX})
#: Ids below are Go's own.
FIRST_TYPE: Final = 64
_LAST_TYPE: Final = 2**31 - 1

#: Most types that a stream may describe (the largest message of the reference needs 12).
MAX_TYPES: Final = 64
#: Most fields that a described struct may have (the largest of the reference has 5).
MAX_FIELDS: Final = 64


class Kind(IntEnum):
    """What a described type is: the field of Go's wireType that holds its descriptor."""

    ARRAY = 0
    SLICE = 1
    STRUCT = 2
    MAP = 3
    GOB_ENCODER = 4
    BINARY_MARSHALER = 5
    TEXT_MARSHALER = 6


@dataclass(frozen=True, slots=True)
class WireType:
    """One described type.

    Args:
        kind: what it is.
        parts: the types it is made of: of a struct, its fields'; of a map, key and element; of a slice or
            array, the element; else none.
        names: of a struct, its fields' names (bytes, as sent), in the order of `parts`.
        length: of an array.
    """

    kind: Kind
    parts: tuple[int, ...] = ()
    names: tuple[bytes, ...] = ()
    length: int = 0


#: Index of the last field in the descriptor of each kind; field 0 is "common".
_LAST_PROPERTY: Final = {
    Kind.ARRAY: 2,
    Kind.SLICE: 1,
    Kind.STRUCT: 1,
    Kind.MAP: 2,
    Kind.GOB_ENCODER: 0,
    Kind.BINARY_MARSHALER: 0,
    Kind.TEXT_MARSHALER: 0,
}


# Writing


def put_uint(out: bytearray, number: int) -> None:
    """Append an unsigned number, 0 to 2^64 - 1, in its shortest form."""
    if number < 128:
        out.append(number)
    else:
        size = (number.bit_length() + 7) // 8
        out.append(256 - size)
        out += number.to_bytes(size, "big")


def put_int(out: bytearray, number: int) -> None:
    """Append a signed number of 64 bits: the sign lies in the lowest bit."""
    put_uint(out, number << 1 if number >= 0 else ~number << 1 | 1)


def put_blob(out: bytearray, raw: bytes) -> None:
    """Append a length and the bytes: strings, bytes and opaque values."""
    put_uint(out, len(raw))
    out += raw


def put_message(out: bytearray, body: bytes | bytearray) -> None:
    """Append one message of a stream: its length and its body."""
    put_uint(out, len(body))
    out += body


def put_descriptor(out: bytearray, type_id: int, name: str, described: WireType) -> None:
    """Append the message that describes a type."""
    body = bytearray()
    put_int(body, -type_id)
    body += bytes((described.kind + 1, 1))  # delta to the kind's field of wireType, then "common"
    if name:
        body.append(1)
        put_blob(body, name.encode())
    body.append(1 if name else 2)
    put_int(body, type_id)
    body.append(0)
    if described.kind is Kind.STRUCT and described.names:
        body.append(1)
        put_uint(body, len(described.names))
        for field_name, field_type in zip(described.names, described.parts, strict=True):
            body.append(1)
            put_blob(body, field_name)
            body.append(1)
            put_int(body, field_type)
            body.append(0)
    elif described.kind is not Kind.STRUCT:
        for part in described.parts:
            body.append(1)
            put_int(body, part)
    body += b"\0\0"
    put_message(out, body)


# Reading


def get_uint(data: bytes, pos: int) -> tuple[int, int]:
    """Read an unsigned number of up to 64 bits; forms longer than needed are taken."""
    first = data[pos]
    pos += 1
    if first < 128:
        return first, pos
    size = 256 - first
    if size > 8:
        raise MalformedDatagram(f"a number of {size} bytes")
    end = pos + size
    if end > len(data):
        raise IndexError
    return int.from_bytes(data[pos:end], "big"), end


def get_int(data: bytes, pos: int) -> tuple[int, int]:
    """Read a signed number of 64 bits."""
    number, pos = get_uint(data, pos)
    return ~(number >> 1) if number & 1 else number >> 1, pos


def get_blob(data: bytes, pos: int) -> tuple[bytes, int]:
    """Read a length and that many bytes."""
    size, pos = get_uint(data, pos)
    end = pos + size
    if end > len(data):
        raise IndexError
    return data[pos:end], end


def get_count(data: bytes, pos: int, least: int) -> tuple[int, int]:
    """Read how many elements follow, of at least `least` bytes each."""
    count, pos = get_uint(data, pos)
    if count * least > len(data) - pos:
        raise MalformedDatagram(f"{count} elements in {len(data) - pos} bytes")
    return count, pos


def split(payload: bytes) -> tuple[int, int, int, int]:
    """Find the value in a stream.

    Returns:
        where the descriptors end; the id of the value's type; where the value starts and ends.

    Raises:
        MalformedDatagram, IndexError: there is no value, or the stream is cut before its end.
    """
    pos = count = 0
    while True:
        start = pos
        size, pos = get_uint(payload, pos)
        end = pos + size
        if size == 0 or end > len(payload):
            raise MalformedDatagram(f"a gob message of {size} bytes where {len(payload) - pos} are left")
        type_id, body = get_int(payload, pos)
        if body > end:
            raise MalformedDatagram("a gob message that ends within its type id")
        if type_id >= 0:
            return start, type_id, body, end
        count += 1
        if count > MAX_TYPES:
            raise MalformedDatagram(f"a gob stream that describes more than {MAX_TYPES} types")
        pos = end


def read_types(block: bytes) -> dict[int, WireType]:
    """Read the descriptors of a stream: all messages before the value, whose bounds `split` has checked.

    Raises:
        MalformedDatagram, IndexError: a descriptor is malformed, reserved, or there twice.
    """
    types: dict[int, WireType] = {}
    pos = 0
    while pos < len(block):
        size, pos = get_uint(block, pos)
        message = block[pos : pos + size]
        pos += size
        negative, body = get_int(message, 0)
        type_id = -negative
        if not FIRST_TYPE <= type_id <= _LAST_TYPE or type_id in types:
            raise MalformedDatagram(f"a gob descriptor for the type {type_id}, which is taken")
        types[type_id], end = _get_wire_type(message, body)
        if end != len(message):
            raise MalformedDatagram("a gob descriptor with something behind it")
    return types


def _get_wire_type(data: bytes, pos: int) -> tuple[WireType, int]:
    """Read a wireType value: a struct in which one field, the kind's, is present."""
    delta, pos = get_uint(data, pos)
    if not 1 <= delta <= len(Kind):
        raise MalformedDatagram("a gob descriptor of no known kind")
    kind = Kind(delta - 1)
    names: tuple[bytes, ...] = ()
    parts: tuple[int, ...] = ()
    numbers = [0, 0]
    last = _LAST_PROPERTY[kind]
    index = -1
    while True:
        delta, pos = get_uint(data, pos)
        if delta == 0:
            break
        index += delta
        if index > last:
            raise MalformedDatagram("a gob descriptor with an unknown property")
        if index == 0:
            pos = _skip_common(data, pos)
        elif kind is Kind.STRUCT:
            names, parts, pos = _get_fields(data, pos)
        else:
            numbers[index - 1], pos = get_int(data, pos)
    end, pos = get_uint(data, pos)
    if end != 0:
        raise MalformedDatagram("a gob descriptor of two kinds")
    if kind is Kind.MAP:
        return WireType(kind, (numbers[0], numbers[1])), pos
    if kind is Kind.SLICE:
        return WireType(kind, (numbers[0],)), pos
    if kind is Kind.ARRAY:
        return WireType(kind, (numbers[0],), length=numbers[1]), pos
    return WireType(kind, parts, names), pos


def _skip_common(data: bytes, pos: int) -> int:
    """Pass over a type's name and its own id, neither of which matters."""
    index = -1
    while True:
        delta, pos = get_uint(data, pos)
        if delta == 0:
            return pos
        index += delta
        if index == 0:
            _, pos = get_blob(data, pos)
        elif index == 1:
            _, pos = get_int(data, pos)
        else:
            raise MalformedDatagram("a gob descriptor with an unknown common field")


def _get_fields(data: bytes, pos: int) -> tuple[tuple[bytes, ...], tuple[int, ...], int]:
    """Read the names and types of a struct's fields."""
    count, pos = get_count(data, pos, 1)
    if count > MAX_FIELDS:
        raise MalformedDatagram(f"a gob struct of {count} fields")
    names: list[bytes] = []
    parts: list[int] = []
    for _ in range(count):
        name, type_id = b"", 0
        index = -1
        while True:
            delta, pos = get_uint(data, pos)
            if delta == 0:
                break
            index += delta
            if index == 0:
                name, pos = get_blob(data, pos)
            elif index == 1:
                type_id, pos = get_int(data, pos)
            else:
                raise MalformedDatagram("a gob field with an unknown property")
        if not name:
            raise MalformedDatagram("a gob field without a name")
        names.append(name)
        parts.append(type_id)
    return tuple(names), tuple(parts), pos


def check_described(types: Mapping[int, WireType], root: int) -> None:
    """Make sure that every type that a value of type `root` can hold is known.

    Raises:
        MalformedDatagram: one is not, or is an interface.
    """
    seen: set[int] = set()
    todo = [root]
    while todo:
        type_id = todo.pop()
        if type_id in seen or type_id in _BASIC:
            continue
        seen.add(type_id)
        described = types.get(type_id)
        if described is None:
            raise MalformedDatagram(f"a gob value whose type {type_id} is not described")
        todo.extend(described.parts)


class _Level:
    """A value that `skip` is inside of: a struct (`left` is -1), or `left` more elements of the types in turn."""

    __slots__ = ("index", "left", "parts")

    def __init__(self, parts: tuple[int, ...], left: int) -> None:
        self.parts = parts
        self.left = left
        self.index = -1

    def following(self, data: bytes, pos: int) -> tuple[int, int]:
        """The type of the next value inside, or 0 if there is none, and where it starts."""
        if self.left < 0:
            delta, pos = get_uint(data, pos)
            if delta == 0:
                return 0, pos
            self.index += delta
            if self.index >= len(self.parts):
                raise MalformedDatagram("a gob value with a field that its type does not have")
            return self.parts[self.index], pos
        if self.left == 0:
            return 0, pos
        self.left -= 1
        self.index = (self.index + 1) % len(self.parts)
        return self.parts[self.index], pos


def skip(types: Mapping[int, WireType], root: int, data: bytes, pos: int) -> int:
    """Pass over one value of type `root`, all of whose types are described.

    Every turn of the loop consumes a byte or ends a level, and a level begins with a byte: time and memory
    are in proportion to `data`.

    Returns:
        the position behind the value.
    """
    levels: list[_Level] = []
    type_id = root
    while True:
        if type_id in _BASIC:
            pos = _skip_basic(type_id, data, pos)
        else:
            described = types[type_id]
            if described.kind is Kind.STRUCT:
                levels.append(_Level(described.parts, -1))
            elif described.parts:
                count, pos = get_count(data, pos, len(described.parts))
                if described.kind is Kind.ARRAY and count != described.length:
                    raise MalformedDatagram("a gob array of another length than described")
                levels.append(_Level(described.parts, count * len(described.parts)))
            else:
                _, pos = get_blob(data, pos)
        while levels:
            type_id, pos = levels[-1].following(data, pos)
            if type_id:
                break
            levels.pop()
        else:
            return pos


def _skip_basic(type_id: int, data: bytes, pos: int) -> int:
    if type_id in (BYTES, STRING):
        return get_blob(data, pos)[1]
    pos = get_uint(data, pos)[1]
    return get_uint(data, pos)[1] if type_id == _COMPLEX else pos
