"""The JSON form of messages in the vector files (tests/vectors/README.md), in both directions.

`json_of(message)` gives what a vector calls `value` or `decoded`; `message_of(type name, value)` the message.
"""

from __future__ import annotations

from typing import Any

from n2n.wire import GoTime, messages
from n2n.wire.hashes import name_bytes, name_of
from n2n.wire.schema import STRUCTS, Basic, FieldKind, MapOf, Pointer, SliceOf, Struct


def class_of(name: str) -> type:
    """The message class of a vector's `type`."""
    return getattr(messages, name)


def json_of(message: object) -> dict[str, Any]:
    """A message as the vector files write it."""
    return _struct_json(STRUCTS[type(message)], message)


def message_of(name: str, value: dict[str, Any]) -> Any:
    """The message that a vector's `value` stands for."""
    return _struct_value(STRUCTS[class_of(name)], value)


def _struct_json(struct: Struct, value: Any) -> dict[str, Any]:
    return {field.wire: _json(field.kind, getattr(value, field.attr)) for field in struct.fields}


def _text_json(text: str) -> Any:
    raw = name_bytes(text)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return {"hexstr": raw.hex()}


def _json(kind: FieldKind, value: Any) -> Any:
    if isinstance(kind, Struct):
        return _struct_json(kind, value)
    if isinstance(kind, Pointer):
        return None if value is None else _struct_json(kind.struct, value)
    if isinstance(kind, SliceOf):
        return [_struct_json(kind.struct, element) for element in value]
    if isinstance(kind, MapOf):
        return None if value is None else {key: _struct_json(kind.struct, element) for key, element in value.items()}
    if kind in (Basic.BYTES, Basic.ADDR):
        return value.hex()
    if kind is Basic.STRING:
        return _text_json(value)
    if kind is Basic.TIME:
        return value and {
            "unix": value.unix,
            "nsec": value.nsec,
            "zone": "UTC" if value.offset is None else value.offset,
        }
    return value


def _struct_value(struct: Struct, value: dict[str, Any]) -> Any:
    assert set(value) == {field.wire for field in struct.fields}, f"fields of a {struct.name}"
    return struct.cls(**{field.attr: _value(field.kind, value[field.wire]) for field in struct.fields})


def _value(kind: FieldKind, value: Any) -> Any:
    if isinstance(kind, Struct):
        return _struct_value(kind, value)
    if isinstance(kind, Pointer):
        return None if value is None else _struct_value(kind.struct, value)
    if isinstance(kind, SliceOf):
        return tuple(_struct_value(kind.struct, element) for element in value)
    if isinstance(kind, MapOf):
        return None if value is None else {key: _struct_value(kind.struct, item) for key, item in value.items()}
    if kind in (Basic.BYTES, Basic.ADDR):
        return bytes.fromhex(value)
    if kind is Basic.STRING:
        return name_of(bytes.fromhex(value["hexstr"])) if isinstance(value, dict) else value
    if kind is Basic.TIME:
        return value and GoTime(value["unix"], value["nsec"], None if value["zone"] == "UTC" else value["zone"])
    return value
