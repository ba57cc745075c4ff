"""A whole network, brought up, used and taken away again, for somebody who wants to see it work.

A supernode and two edges, each in a network namespace of its own, on one switch: they register, ping each other, find
the direct path, and carry TCP both ways.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from n2n.errors import N2NError, NotReady, PlatformError
from n2n.lab.namespaces import need_rights
from n2n.lab.nodes import EdgeNode, SupernodeNode, start_all
from n2n.lab.topology import Lab
from n2n.lab.traffic import PingResult, ping, transfer

__all__ = ["Demo", "DemoOptions"]

#: Addresses of supernode, a and b: a range that RFC 2544 keeps for tests.
_ADDRESSES: Final = {"sn": "198.18.0.1/24", "a": "198.18.0.2/24", "b": "198.18.0.3/24"}
_PINGS: Final = 5

#: Told what has been reached: a topic of one word, and a line about it.
Report = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What a demo does.

    Args:
        duration: seconds of TCP in each direction.
        passphrase: seals the frames between the edges; None: plain.
        relay: keep the edges from reaching each other, so that the supernode relays.
        keep_logs: a folder that gets a copy of every log.
        patience: seconds to wait for each thing that has to happen.
    """

    duration: float = 3.0
    passphrase: str | None = None
    relay: bool = False
    keep_logs: Path | None = None
    patience: float = 30.0

    @classmethod
    def sealed(cls, **more: Any) -> DemoOptions:
        """With a passphrase that nobody knows, made for this run."""
        return cls(passphrase=secrets.token_urlsafe(24), **more)


class Demo:
    """One run of the demo.

    Args:
        options: what it does.
        report: is told of every step.
    """

    def __init__(self, options: DemoOptions, report: Report) -> None:
        self.options = options
        self.result: dict[str, Any] = {
            "ok": False,
            "error": None,
            "sealed": options.passphrase is not None,
            "supernode": None,
            "edges": [],
            "path": None,
            "seconds_to_direct": None,
            "ping": {},
            "tcp": {},
            "seconds": 0.0,
        }
        """What was found, in the stable form of ``--json``; filled as the run goes on."""
        self._report = report

    def run(self) -> dict[str, Any]:
        """Do all of it; everything it made is gone when it returns or raises.

        Returns:
            :attr:`result`, its `ok` true.

        Raises:
            PermissionError: this process may not make namespaces or TAPs.
            PlatformError: a program is missing, or something did not work.
            NotReady: something did not come up in time.
        """
        start = time.monotonic()
        try:
            need_rights("ping")
            with Lab(keep_logs=self.options.keep_logs) as lab:
                self._run(lab)
            self.result["ok"] = True
        except (N2NError, OSError) as error:
            self.result["error"] = str(error)
            raise
        finally:
            self.result["seconds"] = round(time.monotonic() - start, 3)
        return self.result

    def _run(self, lab: Lab) -> None:
        edges = self._bring_up(lab)
        a, b = edges
        for here, there in ((a, b), (b, a)):
            self._ping(here, there)
        self._find_path(a, b)
        for here, there in ((a, b), (b, a)):
            self._ping(here, there)
        for here, there in ((a, b), (b, a)):
            self._transfer(here, there)

    def _bring_up(self, lab: Lab) -> tuple[EdgeNode, EdgeNode]:
        switch = lab.switch()
        for name, address in _ADDRESSES.items():
            host = lab.host(name)
            port = host.attach(switch, address)
            port.isolate(self.options.relay and name != "sn")
        self._report("network", f"namespaces {lab.tag}-sn, -a and -b on one switch, 198.18.0.0/24")
        supernode = SupernodeNode(lab.hosts["sn"])
        a, b = (EdgeNode(lab.hosts[name], supernode, passphrase=self.options.passphrase) for name in ("a", "b"))
        start_all(supernode, [a, b], self.options.patience)
        self.result["supernode"] = {"address": supernode.endpoint}
        self._report("supernode", f"serves on {supernode.endpoint}")
        for edge in (a, b):
            about = {"name": edge.name, "address": edge.address, "mac": edge.mac, "underlay": edge.host.addr}
            self.result["edges"].append({**about, "tap": edge.tap})
            self._report(f"edge {edge.name}", "{address}  (MAC {mac}, on {underlay})".format(**about))
        self._report("frames", "sealed with AES-256-GCM" if self.options.passphrase else "plain: no passphrase")
        return a, b

    def _ping(self, here: EdgeNode, there: EdgeNode) -> None:
        path = here.path_to(there) or "relay"
        found = ping(here.host, there.address, count=_PINGS, interval=0.1)
        self.result["ping"][f"{here.name}_to_{there.name}"] = {**asdict(found), "path": path}
        if found.received == 0:
            raise PlatformError(f"{here.name} pinged {there.name} ({there.address}) {found.sent} times: no answer")
        self._report("ping", f"{here.name} -> {there.name}  {_times(found)}, {_PATHS[path]}")

    def _find_path(self, a: EdgeNode, b: EdgeNode) -> None:
        wanted = "relay" if self.options.relay else "direct"
        start = time.monotonic()
        try:
            a.wait_path(b, wanted, self.options.patience)
            b.wait_path(a, wanted, self.options.patience)
        except NotReady:
            self.result["path"] = a.path_to(b) or None
            raise
        self.result["path"] = wanted
        if wanted == "direct":
            waited = time.monotonic() - start
            self.result["seconds_to_direct"] = round(waited, 3)
            self._report("path", f"direct both ways, after {waited:.1f} s more")
        else:
            self._report("path", "relayed by the supernode (the switch keeps a and b apart)")

    def _transfer(self, here: EdgeNode, there: EdgeNode) -> None:
        found = transfer(here.host, there.host, there.address, seconds=self.options.duration)
        path = here.path_to(there)
        self.result["tcp"][f"{here.name}_to_{there.name}"] = {**asdict(found), "path": path}
        if not found.verified:
            raise PlatformError(f"TCP from {here.name} to {there.name}: what arrived is not what was sent")
        rate, size = found.bits_per_second / 1e6, found.bytes / 1e6
        self._report("TCP", f"{here.name} -> {there.name}  {rate:,.0f} Mbit/s ({size:,.0f} MB, checksum right), {path}")


_PATHS: Final = {"direct": "direct", "relay": "through the supernode"}


def _times(found: PingResult) -> str:
    answered = f"{found.received} of {found.sent} answered"
    return answered if found.avg_ms is None else f"{answered}, {found.avg_ms:.2f} ms"
