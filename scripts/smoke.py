"""Does an installed n2n work?  Run by scripts/dist.sh in an empty environment, from outside the source tree.

smoke.py FOLDER-OF-VECTORS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import n2n
from n2n._fastpath import plane
from n2n.crypto import PayloadCodec, key_from_passphrase
from n2n.wire import ProtoV, community_id, derive_mac, parse


def names(vector: dict[str, Any]) -> str:
    return bytes.fromhex(vector["name_hex"]).decode("utf-8", "surrogateescape")


def check(folder: Path) -> int:
    def vectors(name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["vectors"]
        return found

    count = 0
    for vector in vectors("community_hash"):
        assert community_id(names(vector)) == vector["hash"], vector
        count += 1
    for vector in vectors("mac"):
        assert str(derive_mac(bytes.fromhex(vector["machine_id"]), names(vector))) == vector["mac"], vector
        count += 1
    for vector in vectors("aesgcm"):
        sealed = plane.Aead(key_from_passphrase(vector["passphrase"])).seal(
            bytes.fromhex(vector["plaintext"]), bytes.fromhex(vector["nonce"])
        )
        assert sealed.hex() == vector["sealed"], vector
        count += 1
    for vector in vectors("gob_PeerInfoList"):
        packet = parse(ProtoV(type=7).pack() + bytes.fromhex(vector["hex"]))
        assert packet.message is not None, vector
        count += 1
    return count


def main() -> None:
    where = Path(n2n.__file__).resolve()
    assert "site-packages" in where.parts, f"n2n was imported from {where}, not from the installed wheel"
    codec = PayloadCodec(key_from_passphrase("lab"), compress=False)
    assert codec.open(codec.seal(b"frame")) == b"frame"
    print(f"n2n in {where.parent}: {check(Path(sys.argv[1]))} vectors hold")


if __name__ == "__main__":
    main()
