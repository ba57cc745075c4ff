"""n2n as a peer of vpnbench.py, a harness that measures tunnels side by side.

    vpnbench.py run -n 5 --peers benchmarks/vpnbench_peer.py n2n n2n-plain n2n-relay tinc fastd nebula-deb

The harness is not part of this project: it brings the namespaces, the loads and the other tunnels, and loads this file.
VPNBENCH_N2N names an interpreter with n2n installed; without it, that of this tree's .venv.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from vpnbench import US, Peer  # type: ignore[import-not-found]

TAP = "n2n_tap0"
PYTHON = os.environ.get("VPNBENCH_N2N") or str(Path(__file__).resolve().parents[1] / ".venv/bin/python")


class N2N(Peer):  # type: ignore[misc]
    name, crypto = "n2n", "AES-256-GCM"
    sn = True
    ifs = (TAP, TAP)
    passphrase: str | None = "benchmark"
    more: dict[str, object] = {}  # noqa: RUF012  (as the harness declares its own)

    def start(self, t: Any) -> None:
        folder = Path(t.work("supernode"))
        self._spawn(
            t, "supernode", t.S, ["supernode", "serve"], {"listen_address": ":7777", "state_dir": f"{folder}/state"}
        )
        time.sleep(1.5)
        addresses = []
        for role, namespace in (("edge_a", t.A), ("edge_b", t.B)):
            config = {
                "edge_id": role,
                "community": "bench",
                "supernode_addr": f"{US}:7777",
                "tap_name": TAP,
                **self.more,
            }
            if self.passphrase:
                config["encryption_passphrase"] = self.passphrase
            self._spawn(t, role, namespace, ["edge", "up"], config)
            addresses.append(self._address(t, namespace))
        self.addrs = tuple(addresses)

    def _spawn(self, t: Any, role: str, namespace: str, command: list[str], config: dict[str, object]) -> None:
        path = Path(t.work(role)) / "config.yaml"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        env = {"N2N_RUN_DIR": t.work(f"{role}-run")}
        t.spawn(role, namespace, [PYTHON, "-m", "n2n", *command, "--config", str(path)], env=env)

    def _address(self, t: Any, namespace: str) -> str:
        """Wait for the address that the supernode gives."""
        t.wait_if(namespace, TAP)
        until = time.time() + 20
        while time.time() < until:
            t.check_alive()
            (link,) = json.loads(t.ip(namespace, "-j", "-4", "addr", "show", "dev", TAP)) or [{}]
            if found := [one["local"] for one in link.get("addr_info", [])]:
                return str(found[0])
            time.sleep(0.1)
        raise RuntimeError(f"no address on {TAP} in {namespace}")


class Plain(N2N):
    name, crypto, passphrase = "n2n-plain", "none", None


class Relay(N2N):
    name, isolate, path = "n2n-relay", True, "relay"


class OpenSsl(N2N):
    name, crypto = "n2n-libcrypto", "AES-256-GCM by libcrypto"
    more = {"cipher": "libcrypto"}  # noqa: RUF012
