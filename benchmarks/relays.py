"""Several senders and receivers around one relay, each in a namespace of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import loads

from n2n.errors import PlatformError
from n2n.lab.namespaces import Process, wait_until
from n2n.lab.topology import Host, Lab
from n2n.types import MacAddress
from n2n.wire import VFuze

SIZE = 1469  # what carries an inner packet of 1,420 bytes, sealed: Ethernet 14, header 7, nonce and tag 28
TRAIN = loads.Flow(SIZE, train=44)  # 44 of them are the most that one call takes
SINGLE = loads.Flow(SIZE)
_PORT = 7777
_OWN = 9000


@dataclass(frozen=True)
class Pair:
    """A sender and a receiver, the only two members of their community."""

    number: int
    sender: Host
    receiver: Host

    @property
    def macs(self) -> tuple[bytes, bytes]:
        return bytes([2, 0, 0, 0, self.number, 1]), bytes([2, 0, 0, 0, self.number, 2])

    def members(self) -> list[str]:
        """As bare_relay.py takes them."""
        hosts = zip(self.macs, (self.sender, self.receiver), strict=True)
        return [f"{self.number},{mac.hex()},{host.addr},{_OWN}" for mac, host in hosts]

    def flow(self, flow: loads.Flow) -> loads.Flow:
        """The same flow, addressed to this receiver."""
        return replace(flow, source=_OWN, prefix=VFuze(MacAddress(self.macs[1])).pack())


@dataclass
class Star:
    """Pairs around a relay that runs."""

    pairs: list[Pair]
    relay: Process
    host: Host
    program: str

    def run(self, flows: Sequence[tuple[Pair, loads.Flow]], seconds: float) -> tuple[list[loads.Bulk], float]:
        """Send all flows at the same time; returns what arrived of each, and the relay's CPU seconds."""
        flows = [(pair, pair.flow(flow)) for pair, flow in flows]
        far = [loads.start_receiver(pair.receiver, self.program, flow, _OWN, seconds) for pair, flow in flows]
        before = self.relay.cpu_seconds()
        near = [
            pair.sender.spawn(*flow.send(self.program, self.host.addr, _PORT, seconds), log=f"send-{id(flow)}")
            for pair, flow in flows
        ]
        for process in near:
            if process.wait(seconds + 10):
                raise PlatformError(f"load send: {process.tail()}")
        found = [
            loads.result_of(receiver, pair.receiver, sender.tail(), seconds)
            for receiver, sender, (pair, _) in zip(far, near, flows, strict=True)
        ]
        for process, (pair, _) in zip(near, flows, strict=True):
            pair.sender.lab.processes.remove(process)
        return found, self.relay.cpu_seconds() - before


@contextlib.contextmanager
def star(program: str, count: int = 1, *, naive: bool = False, options: Sequence[str] = ()) -> Iterator[Star]:
    """`count` pairs around a relay: a supernode's (`options` are those of bare_relay.py), or a naive one."""
    with Lab() as lab:
        switch = lab.switch()
        middle = lab.host("relay")
        middle.attach(switch, "198.18.0.1/16")
        pairs = []
        for number in range(count):
            hosts = [lab.host(f"{kind}{number}") for kind in ("from", "to")]
            for side, host in enumerate(hosts):
                host.attach(switch, f"198.18.{side + 1}.{number + 1}/16")
            pairs.append(Pair(number, *hosts))
        if naive:
            words = [f"{pair.sender.addr} {pair.receiver.addr} {_OWN}".split() for pair in pairs]
            relay = middle.spawn(program, "relay", str(_PORT), *(word for one in words for word in one), log="relay")
        else:
            script = str(Path(__file__).with_name("bare_relay.py"))
            members = [member for pair in pairs for member in pair.members()]
            relay = middle.python(script, str(_PORT), *members, *options, log="relay")
        wait_until("the relay is ready", lambda: "ready" in relay.tail() or not relay.alive, 15)
        if not relay.alive:
            raise PlatformError(f"the relay ended: {relay.tail()}")
        yield Star(pairs, relay, middle, program)
