"""Communities that never were: what an edge would answer to `status`, `peers`, `state` and `leases`."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from n2n.web.pages import Methods
from n2n.web.server import Answer, HttpServer

NOW = 1_700_000_000.0
NAMES = ("laptop", "nas", "build server", "phone", "router-bern", "camera", "desktop", "printer", "pi", "workstation")


def mac_of(number: int) -> str:
    return f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"


def address_of(number: int) -> str:
    return f"10.171.{number >> 8}.{(number & 255) + 1}"


def name_of(number: int) -> str:
    return f"{NAMES[number % len(NAMES)]}-{number}" if number >= len(NAMES) else NAMES[number]


def community(members: int, *, offline: int = 0, others: int = 10_000, seed: int = 5) -> dict[str, Any]:
    """Answers of member 0 in a community of `members`, of whom the last `offline` are gone.

    `others`: how many of the members have told how they see the rest.
    """
    dice = random.Random(seed)
    online = members - offline
    peers, ways = [], {}
    for a in range(online):
        for b in range(a + 1, online):
            ways[a, b] = dice.choices(("direct", "one_way", "relay"), (12, 1, 3))[0]
    for number in range(1, online):
        way = ways[0, number]
        peers.append(
            {
                "mac": mac_of(number),
                "name": name_of(number),
                "virtual_ip": address_of(number),
                "endpoint": f"198.51.100.{number % 250}:{40000 + number}",
                "path": "relay" if way == "relay" else "direct",
                "status": {"direct": "full_duplex", "one_way": "available", "relay": "unavailable"}[way],
                "one_way": way == "one_way",
                "full_duplex": way == "direct",
                "reason": "no_answer" if way == "relay" else "answered",
                "since": NOW - dice.uniform(5, 9000),
                "rtt": None if way == "relay" else dice.uniform(0.0002, 0.08),
                "last_pong": NOW - 1,
                "updated": NOW,
                "tx_frames": 10,
                "tx_bytes": dice.randrange(10 ** dice.randrange(3, 10)),
                "rx_frames": 10,
                "rx_bytes": dice.randrange(10 ** dice.randrange(3, 10)),
            }
        )
    reachable = [
        {
            "mac": mac_of(a),
            "name": name_of(a),
            "virtual_ip": address_of(a),
            "endpoint": "198.51.100.1:1",
            "peers": [_seen(ways, a, b) for b in range(online) if b != a],
        }
        for a in range(min(online, others))
    ]
    gone = [
        {"mac": mac_of(n), "name": name_of(n), "virtual_ip": address_of(n), "last_seen": NOW - dice.uniform(60, 90000)}
        for n in range(online, members)
    ]
    status = {
        "role": "edge",
        "instance": "n2n_tap0",
        "version": "0.1.0",
        "pid": 1,
        "started": NOW - 5000,
        "uptime": 5000.0,
        "ready": True,
        "state": "registered",
        "reason": "accepted",
        "name": name_of(0),
        "community": "our-community",
        "mac": mac_of(0),
        "address": f"{address_of(0)}/16",
        "tap": "n2n_tap0",
        "supernode": {"configured": "vpn.example.org:7777", "endpoint": "192.0.2.1:7777"},
        "public": "198.51.100.1:40000",
        "sealed": True,
        "peers": {"total": online - 1, "direct": sum(p["path"] == "direct" for p in peers), "relay": 0},
        "traffic": {"tx_frames": 1, "tx_bytes": 2, "rx_frames": 3, "rx_bytes": 4, "tx_direct": 5, "tx_relay": 6},
    }
    state = {"at": NOW - 2, "community": "our-community", "reachable": reachable, "offline": gone}
    leases = {"at": NOW - 2, "leases": []}
    return {"status": status, "peers": {"at": NOW, "peers": peers}, "state": state, "leases": leases}


def _seen(ways: dict[tuple[int, int], str], a: int, b: int) -> dict[str, Any]:
    way = ways[min(a, b), max(a, b)]
    # Of a pair that reaches each other one way, the one with the lower number reaches the other.
    there = way == "direct" or (way == "one_way" and a < b)
    status = "available" if there else "unavailable"
    return {"mac": mac_of(b), "name": name_of(b), "status": status, "full_duplex": way == "direct"}


def methods_of(answers: dict[str, Any]) -> Methods:
    """The methods of an edge that gives these answers."""

    def method(name: str) -> Callable[[Mapping[str, Any]], Awaitable[Any]]:
        async def answer(_: Mapping[str, Any]) -> Any:
            found = answers[name]
            if isinstance(found, Exception):
                raise found
            return found

        return answer

    return {name: method(name) for name in answers}


@contextmanager
def served(answer: Answer, token: str | None = None) -> Iterator[tuple[str, HttpServer]]:
    """A server in a thread; gives its ``address:port``."""
    loop = asyncio.new_event_loop()
    faults: list[Exception] = []
    server = HttpServer("127.0.0.1", 0, answer, token=token, fault=faults.append)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(server.start(), loop).result(20), server
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()
    assert faults == []
