"""What the verbs for running daemons have in common: reload, and a supernode's communities and edges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from n2n.api.client import connect
from n2n.api.instances import SUPERNODE
from n2n.cli.exits import tell_warning
from n2n.cli.output import duration, print_json, print_table
from n2n.errors import ConfigError, N2NError

__all__ = ["kick_edge", "reload_daemon", "show_communities", "show_edges"]


def reload_daemon(instance: str, as_json: bool) -> None:
    """Have a daemon read its configuration again, and say what came of it.

    JSON: {"changes": [{key, before, after, applied, why}], "warnings": []}.
    """
    with connect(instance) as client:
        found = client.call("reload")
    if as_json:
        print_json(found)
        return
    for warning in found["warnings"]:
        tell_warning(warning)
    rows = [
        (change["key"], change["before"], change["after"], "in force" if change["applied"] else change["why"])
        for change in found["changes"]
    ]
    print_table(("KEY", "BEFORE", "NOW", "STATE"), rows, "nothing has changed")


def show_communities(as_json: bool) -> None:
    """The communities of this host's supernode. JSON: {"communities": [...]} as in its status."""
    with connect(SUPERNODE) as client:
        found = client.call("status")["communities"]
    if as_json:
        print_json({"communities": found})
        return
    rows = [
        (entry["name"], entry["network"], "derived" if entry["derived"] else "moved", entry["edges"], entry["leases"])
        for entry in found
    ]
    print_table(("COMMUNITY", "NETWORK", "ORIGIN", "EDGES", "LEASES"), rows, "no community yet")


def show_edges(community: str | None, as_json: bool) -> None:
    """The registered edges. JSON: as `state` of a supernode, see `n2n.api.views`."""
    found = _state(community)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            entry["name"],
            edge["name"],
            edge["virtual_ip"],
            duration(found["at"] - edge["registered"]),
            duration(edge["idle"]),
            edge["endpoint"],
            edge["mac"],
        )
        for entry in found["communities"]
        for edge in entry["edges"]
    ]
    headings = ("COMMUNITY", "NAME", "ADDRESS", "REGISTERED FOR", "SILENT FOR", "ENDPOINT", "MAC")
    print_table(headings, rows, "no edge is registered")


def kick_edge(edge: str, community: str | None, release: bool, as_json: bool) -> None:
    """Drop the one edge that `edge` names. JSON: {community, name, mac, virtual_ip, released}.

    Raises:
        ConfigError: it names several.
        N2NError: it names none.
    """
    matches = _named(edge, _leases(community) if release else _registered(community))
    if not matches:
        raise N2NError(f"no edge is called {edge!r}: see n2n supernode edges, or n2n leases --instance supernode")
    if len(matches) > 1:
        several = ", ".join(f"{found.mac} in {found.community}" for found in matches)
        raise ConfigError(f"several edges are called {edge!r} ({several}): give the MAC address, or --community")
    [found] = matches
    with connect(SUPERNODE) as client:
        done = client.call("kick", community=found.community, mac=found.mac, release=release)
    if not done["kicked"]:
        raise N2NError(f"{edge} has left in the meantime")
    if as_json:
        known = {"community": found.community, "name": found.name, "mac": found.mac, "virtual_ip": found.address}
        print_json(known | {"released": release})
        return
    done_to = f"released {found.address} of" if release else "kicked"
    print(f"{done_to} {found.name} ({found.mac}) in {found.community}")


class _Known(NamedTuple):
    community: str
    name: str
    mac: str
    address: str


def _named(edge: str, known: Iterable[_Known]) -> list[_Known]:
    wanted = edge.lower()
    return [each for each in known if wanted in (each.name.lower(), each.mac, each.address)]


def _registered(community: str | None) -> Iterator[_Known]:
    for entry in _state(community)["communities"]:
        for edge in entry["edges"]:
            yield _Known(entry["name"], edge["name"], edge["mac"], edge["virtual_ip"])


def _leases(community: str | None) -> Iterator[_Known]:
    """Whoever has an address, registered or not."""
    with connect(SUPERNODE) as client:
        found = client.call("leases")["leases"]
    for lease in found:
        if community in (None, lease["community"]):
            yield _Known(lease["community"], lease["name"], lease["mac"], lease["ip"])


def _state(community: str | None) -> Any:
    with connect(SUPERNODE) as client:
        found = client.call("state")
    if community is not None:
        found["communities"] = [entry for entry in found["communities"] if entry["name"] == community]
        if not found["communities"]:
            raise N2NError(f"there is no community {community!r}: see n2n supernode communities")
    return found
