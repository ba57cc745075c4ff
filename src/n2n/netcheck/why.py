"""Why frames to a peer go the way they go: one verdict and one remedy, from both sides' facts. No input or output here.

The facts are what the control socket of an edge tells (:mod:`n2n.api.views`): `status`, one entry of `peers`, and what
the peer told the supernode of us (`state`).
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

__all__ = ["Verdict", "explain", "find"]

_HARD: Final = "hard"


class Verdict(NamedTuple):
    """What is the matter.

    Args:
        code: a fixed word for programs: direct, one_way_out, one_way_in, idle, searching, not_registered, unknown_peer,
            offline, both_hard, hard_and_restricted, one_lan, v5, silent_peer, blocked.
        text: a sentence.
        remedy: what to do; empty where all is well.
    """

    code: str
    text: str
    remedy: str


def find(peers: list[dict[str, Any]], wanted: str) -> list[dict[str, Any]]:
    """The peers that `wanted` may mean: a MAC address, a virtual address or a name."""
    text = wanted.strip().lower()
    exact = [one for one in peers if text in (one["mac"], one["virtual_ip"])]
    return exact or [one for one in peers if one["name"].lower() == text]


def explain(status: Mapping[str, Any], peer: Mapping[str, Any], theirs: Mapping[str, Any] | None) -> Verdict:
    """The verdict on the way to a peer.

    Args:
        status: of this edge.
        peer: its entry among `peers`.
        theirs: what the peer told the supernode of the way to us {status, full_duplex}; None: nothing.
    """
    name = peer["name"]
    if peer["path"] == "direct":
        return _direct(peer, theirs)
    if peer["their_path"] == "direct" or (peer["kind"] != "n2n" and _reaches(theirs)):
        return Verdict(
            "one_way_in",
            f"{name} reaches this edge directly, but what this edge sends to {name} directly is lost",
            f"Let UDP out of this host's network to {peer['endpoint']}, or in at {name}: see n2n netcheck at both",
        )
    if peer["reason"] == "idle" or (peer["kind"] == "n2n" and peer["status"] == "unknown"):
        return Verdict(
            "idle",
            f"nothing was sent to {name} for a while, so no direct path is kept; frames would go by relay at first",
            f"Nothing is wrong. To see a path come: n2n ping {name}",
        )
    if peer["reason"] in ("probing", "discovered", "network_changed", "peer_changed", "woke_up"):
        return Verdict(
            "searching", f"a direct path to {name} is being looked for ({peer['reason']})", "Ask again in 5 seconds"
        )
    return _relayed(status, peer)


def _direct(peer: Mapping[str, Any], theirs: Mapping[str, Any] | None) -> Verdict:
    name = peer["name"]
    used = next((one for one in peer["candidates"] if one["in_use"]), None)
    by = f" ({used['kind']} endpoint {used['endpoint']})" if used is not None else f" ({peer['endpoint']})"
    back = peer["their_path"] or ("direct" if peer["full_duplex"] or _reaches(theirs) else None)
    if back == "relay" or (back is None and peer["one_way"]):
        return Verdict(
            "one_way_out",
            f"frames to {name} go directly{by}, but {name} answers by way of the supernode",
            f"What {name} sends here directly is lost: let UDP to this edge's port in at this host's firewall, and "
            f"out at {name}'s",
        )
    return Verdict("direct", f"frames go directly, both ways{by}; reason: {peer['reason']}", "")


def _relayed(status: Mapping[str, Any], peer: Mapping[str, Any]) -> Verdict:
    """Looked for, and not found."""
    name, ours, their = peer["name"], status.get("nat"), peer.get("nat")
    asked = len(peer["candidates"])
    if peer["kind"] == "unknown":
        return Verdict(
            "silent_peer",
            f"{name} has answered nothing yet, neither directly nor by way of the supernode",
            f"Does {name} run, and have both the same passphrase? See its log (n2n logs there)",
        )
    if peer["kind"] == "v5":
        return Verdict(
            "v5",
            f"{name} speaks protocol v5 only: just {peer['endpoint']}, as the supernode sees it, can be tried, in vain",
            f"Let {name} run n2n, which also tries local addresses, port mappings, IPv6 and port prediction",
        )
    if _one_lan(status, peer):
        return Verdict(
            "one_lan",
            f"{name} is behind the same router, but none of its {asked} endpoints answers, local ones included",
            "Let hosts of that network reach each other (guest Wi-Fi and 'client isolation' forbid it), and let UDP "
            "in at both hosts' firewalls",
        )
    if ours == _HARD and their == _HARD:
        return Verdict(
            "both_hard",
            f"this edge and {name} are both behind symmetric NATs: neither can know the other's port",
            f"One of the two needs a port mapping (this edge: {_mapping(status)}), a public address, or both need IPv6",
        )
    if _HARD in (ours, their):
        side = "this edge" if ours == _HARD else name
        return Verdict(
            "hard_and_restricted",
            f"{side} is behind a symmetric NAT; its port is guessed, again and again, without luck so far",
            f"A port mapping at either router helps (this edge: {_mapping(status)}); or wait: it is tried again",
        )
    return Verdict(
        "blocked",
        f"none of the {asked} endpoints of {name} answers, though no NAT stands against it: a firewall drops UDP",
        f"Let UDP in and out between {status.get('public')} and {peer['endpoint']}; n2n netcheck at both tells more",
    )


def _reaches(theirs: Mapping[str, Any] | None) -> bool:
    return theirs is not None and theirs["status"] in ("available", "full_duplex")


def _one_lan(status: Mapping[str, Any], peer: Mapping[str, Any]) -> bool:
    own, other = _host(status.get("public")), _host(peer["endpoint"])
    return own is not None and own == other


def _host(endpoint: Any) -> str | None:
    """The address in an endpoint, if it is one."""
    text = str(endpoint or "").rpartition(":")[0].strip("[]")
    try:
        return str(ip_address(text))
    except ValueError:
        return None


def _mapping(status: Mapping[str, Any]) -> str:
    told = status.get("port_mapping") or {}
    return str(told.get("state", "unknown")).replace("_", " ")
