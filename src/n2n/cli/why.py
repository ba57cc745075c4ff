"""``n2n why PEER`` and ``n2n ping PEER``: what is the way to a peer, why, and how long does it take."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from n2n.cli.exits import FAILED, NOT_READY, OK
from n2n.cli.output import duration, print_json, print_pairs
from n2n.errors import ConfigError, N2NError

__all__ = ["app"]

app = typer.Typer()

_Peer = Annotated[str, typer.Argument(metavar="PEER", help="Its name, virtual address or MAC address.")]
_Instance = Annotated[str | None, typer.Option(metavar="NAME", help="Which edge, by its TAP device.")]
_Json = Annotated[bool, typer.Option("--json", help="JSON; its fields are stable.")]


@app.command()
def why(peer: _Peer, instance: _Instance = None, as_json: _Json = False) -> None:
    """Say why frames to a peer go the way they go, and what to do about it.

    Ends with 0 where frames go directly both ways (or nobody needs them to), with 1 otherwise. JSON: {at, verdict,
    text, remedy, peer, theirs}; the verdict is one of: direct, one_way_out, one_way_in, idle, searching,
    not_registered, unknown_peer, offline, both_hard, hard_and_restricted, one_lan, v5, silent_peer, blocked.
    """
    from n2n.netcheck.why import Verdict, explain

    status, found, state = _facts(peer, instance)
    theirs = _theirs(state, found["mac"], status["mac"]) if found is not None else None
    if status["state"] != "registered":
        text = f"this edge is not registered: {status['state']} ({status['reason']})"
        verdict = Verdict("not_registered", text, "See n2n status and n2n logs")
    elif found is None:
        verdict = _absent(peer, state)
    else:
        verdict = explain(status, found, theirs)
    if as_json:
        told = {"verdict": verdict.code, "text": verdict.text, "remedy": verdict.remedy}
        print_json({"at": time.time()} | told | {"peer": found, "theirs": theirs})
    else:
        print_pairs([("verdict", verdict.text), ("to do", verdict.remedy or "nothing")])
    raise typer.Exit(OK if verdict.code in ("direct", "idle") else FAILED)


@app.command()
def ping(
    peer: _Peer,
    count: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="How many times.")] = 4,
    interval: Annotated[float, typer.Option(metavar="SECONDS", min=0.2, help="Between two.")] = 1.0,
    instance: _Instance = None,
    as_json: _Json = False,
) -> None:
    """Measure the ways to a peer, each there and back: outer (straight, by UDP), relay, and through the tunnel.

    Outer and relay are measured with n2n peers only. Ends with 4 where the peer answered by none. JSON: {peer, path,
    endpoint, rounds: [{outer, relay, tunnel}]}, in seconds; null: no answer.
    """
    from n2n.api.client import choose_edge, connect
    from n2n.netcheck.echo import Echo

    name = choose_edge(instance)
    with connect(name) as client:
        found = _only(client.call("peers")["peers"], peer)
        if found is None:
            raise N2NError(f"there is no edge {peer!r} in this community: see n2n peers")
        rounds: list[dict[str, float | None]] = []
        with Echo() as echo:
            for number in range(count):
                start = time.monotonic()
                trip = client.call("ping", mac=found["mac"])
                tunnel = echo.ask(found["virtual_ip"]) if found["virtual_ip"] else None
                rounds.append({"outer": trip["outer"], "relay": trip["relay"], "tunnel": tunnel})
                if not as_json:
                    shown = ", ".join(f"{way} {_time(seconds)}" for way, seconds in rounds[-1].items())
                    print(f"{found['name']}  {shown}", flush=True)
                if number + 1 < count:
                    time.sleep(max(start + interval - time.monotonic(), 0.0))
        after = _only(client.call("peers")["peers"], found["mac"]) or found
    if as_json:
        print_json({"peer": found["mac"], "path": after["path"], "endpoint": after["in_use"], "rounds": rounds})
    else:
        where = f" ({after['in_use']})" if after["in_use"] else ""
        print_pairs([("path", f"{after['path']}{where}"), *((way, _summary(rounds, way)) for way in rounds[0])])
    answered = any(seconds is not None for one in rounds for seconds in one.values())
    raise typer.Exit(OK if answered else NOT_READY)


def _facts(peer: str, instance: str | None) -> tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any] | None]:
    """Status of the edge, entry of the peer, and how all see each other (None: the supernode does not answer)."""
    from n2n.api.client import CallFailed, choose_edge, connect

    with connect(choose_edge(instance)) as client:
        status, found = client.call("status"), _only(client.call("peers")["peers"], peer)
        try:
            state = client.call("state")
        except (CallFailed, N2NError):
            state = None
    return status, found, state


def _only(peers: list[dict[str, Any]], wanted: str) -> dict[str, Any] | None:
    from n2n.netcheck.why import find

    found = find(peers, wanted)
    if len(found) > 1:
        raise ConfigError(f"{wanted!r} may be any of {', '.join(one['mac'] for one in found)}: give a MAC address")
    return found[0] if found else None


def _theirs(state: dict[str, Any] | None, mac: str, own: str) -> dict[str, Any] | None:
    """What the peer told the supernode of the way to us."""
    told = next((one for one in (state or {}).get("reachable", ()) if one["mac"] == mac), None)
    return next((one for one in told["peers"] if one["mac"] == own), None) if told is not None else None


def _absent(peer: str, state: dict[str, Any] | None) -> Any:
    from n2n.netcheck.why import Verdict, find

    gone = find((state or {}).get("offline", []), peer)
    if gone:
        return Verdict("offline", f"{gone[0]['name']} is not running, or cannot reach the supernode", "Start it there")
    return Verdict("unknown_peer", f"there is no edge {peer!r} in this community", "See n2n peers, and its community")


def _time(seconds: float | None) -> str:
    return "no answer" if seconds is None else duration(seconds)


def _summary(rounds: list[dict[str, float | None]], way: str) -> str:
    times = [seconds for one in rounds if (seconds := one[way]) is not None]
    if not times:
        return "no answer"
    low, mean, high = min(times), sum(times) / len(times), max(times)
    return (
        f"{len(times)} of {len(rounds)} answered; {duration(low)} / {duration(mean)} / {duration(high)} (min/mean/max)"
    )
