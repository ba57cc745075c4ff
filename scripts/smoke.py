"""Does an installed n2n work?  Run by scripts/dist.sh in an empty environment, from outside the source tree.

smoke.py FOLDER-OF-VECTORS
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import platform
import socket
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
    for vector in [vector for vector in vectors("protov_header") if vector["accepted"]]:
        fields = {name: value for name, value in vector["fields"].items() if name != "version"}
        fields |= {name: bytes.fromhex(fields[name]) for name in ("source", "dest")}
        assert plane.pack_protov(**fields).hex() + vector["payload"] == vector["hex"], vector
        count += 1
    for vector in vectors("zstd") if plane.zstd_available() else []:
        frame = bytes.fromhex(vector["plaintext"])
        assert not vector["zstd"] or plane.Zstd().decompress(bytes.fromhex(vector["zstd"]), 65536) == frame, vector
        count += 1
    for vector in vectors("gob_PeerInfoList"):
        packet = parse(ProtoV(type=7).pack() + bytes.fromhex(vector["hex"]))
        assert packet.message is not None, vector
        count += 1
    return count


def check_processor() -> None:
    """The compiled code finds what this processor has; a compiler's own way to ask may say no to everything."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    wanted = platform.machine() == "x86_64" and "avx2" in flags
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        found = plane.Plane("supernode", udp.fileno()).features()
    assert found["avx2_checksum"] is wanted, found


def import_all() -> int:
    """Every module that was packed can be imported: its parts and its data are there."""
    names = [found.name for found in pkgutil.walk_packages(n2n.__path__, "n2n.")]
    for name in names:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    return len(names)


def main() -> None:
    where = Path(n2n.__file__).resolve()
    assert "site-packages" in where.parts, f"n2n was imported from {where}, not from the installed wheel"
    codec = PayloadCodec(key_from_passphrase("lab"), compress=False)
    assert codec.open(codec.seal(b"frame")) == b"frame"
    check_processor()
    modules = import_all()
    print(f"n2n in {where.parent}: {modules} modules, {check(Path(sys.argv[1]))} vectors hold; {plane.LIBCRYPTO}")


if __name__ == "__main__":
    main()
