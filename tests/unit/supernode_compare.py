"""How recorded answers of a reference supernode and ours are compared, and its key used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from n2n.crypto.rsa import SupernodeKey
from n2n.errors import AuthenticationFailed
from n2n.wire import MESSAGE_OF, PacketType, ProtoV, parse
from tests.wirejson import json_of

__all__ = ["Near", "answer_of", "opener"]


class Near:
    """A number of seconds that equals another within 1.5: the recording's clock is known to the second only."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Near) and abs(self.seconds - other.seconds) <= 1.5

    def __repr__(self) -> str:
        return f"Near({self.seconds})"


def opener(private_pem: str) -> Callable[[bytes], bytes | None]:
    """What decrypts with a recorded key; None for what does not open."""
    key = SupernodeKey.load(private_pem.encode())

    def decrypt(ciphertext: bytes) -> bytes | None:
        try:
            return key.decrypt(ciphertext)
        except AuthenticationFailed:
            return None

    return decrypt


def loosened(value: Any, echoed: bool) -> Any:
    """A decoded message whose moments and durations compare as `Near`, unless they are an edge's own, echoed."""
    if isinstance(value, list):
        return [loosened(element, echoed) for element in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"unix", "nsec", "zone"}:
        return value if echoed else Near(value["unix"] + value["nsec"] / 1e9)
    return {
        key: Near(element / 1e9)
        if key == "TimeSinceLastUpdate"
        else loosened(element, echoed=(echoed or key == "Reachables"))
        for key, element in value.items()
    }


def answer_of(datagram: bytes, now: float) -> Any:
    """What is compared of an answer: for our own messages header and values, for relayed packets every byte."""
    if datagram[0] != 5 or datagram[2] in (PacketType.DATA, PacketType.PING):
        return datagram.hex()
    header = ProtoV.unpack(datagram)
    fields = (header.type, header.ttl, header.flags, header.sequence, header.community, header.source, header.dest)
    assert abs(header.timestamp - now) < 2
    assert header.checksum == 0
    packet = parse(datagram)
    body = json_of(packet.message) if header.type in MESSAGE_OF else packet.payload
    return fields, loosened(body, echoed=False)
