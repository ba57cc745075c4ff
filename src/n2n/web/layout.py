"""Where everything lies in a drawing: pure and the same for the page, the SVG and every run.

Few members stand on a circle and every link is drawn; relayed ones bend through the supernode.  Of many, the edge that
tells is the centre and its links are spokes, and names stand around it like the hours of a clock.  Places depend only
on who is there, the gone included, so nothing moves when a path changes or somebody goes offline.

Lengths are in units of the drawing, which has its origin at the top left; angles in radians, clockwise from the right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from n2n.web.graph import Graph, Link

__all__ = ["FEW", "Arrow", "Layout", "Place", "Point", "arrange", "arrow", "curve", "middle"]

#: Members up to which all of them stand on the circle: twelve make 66 links, which one can still follow.
FEW: Final = 12
_FEW_RADIUS: Final = {1: 0.0, 2: 240.0, 3: 230.0, 4: 250.0, 5: 270.0, 6: 285.0}
_MOST_OF_FEW: Final = 320.0
_MANY_RADIUS: Final = 330.0
#: Room on the circle that a name of many takes: the height of a line.
_LINE: Final = 12.0
_LABEL_GAP: Final = 8.0
#: The disc in the middle of many, with room for a name in it.
_CORE: Final = 62.0


class Point(NamedTuple):
    """A place in the drawing."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where a member stands.

    Args:
        at: its centre.
        radius: of its mark.
        label: where its name is anchored.
        anchor: of the name: start, middle or end (as SVG has it).
        turn: degrees by which the name is turned around `label`.
        font: height of the name.
    """

    at: Point
    radius: float
    label: Point
    anchor: Literal["start", "middle", "end"]
    turn: float
    font: float


@dataclass(frozen=True, slots=True)
class Layout:
    """A drawing's geometry.

    Args:
        width, height: of the whole.
        places: of every member, by MAC address.
        centre: of the circle.
        radius: of the circle.
        dense: there are many members: names are turned, and links between others are not drawn unless asked for.
        hub: where the supernode stands; None where it is not drawn.
    """

    width: float
    height: float
    places: Mapping[str, Place]
    centre: Point
    radius: float
    dense: bool
    hub: Point | None


class Arrow(NamedTuple):
    """A point on a link, and its direction there in degrees."""

    at: Point
    turn: float


def arrange(graph: Graph) -> Layout:
    """Find every member its place."""
    macs = [node.mac for node in graph.nodes]
    return _few(macs, graph.own) if len(macs) <= FEW else _many(macs, graph.own)


def _few(macs: list[str], own: str) -> Layout:
    count = len(macs)
    radius = _FEW_RADIUS.get(count, _MOST_OF_FEW)
    two = count == 2
    width = 2 * radius + (300 if count > 2 else 340 if two else 640)
    height = 420.0 if count <= 2 else 2 * radius + 210
    centre = Point(_short(width / 2), _short(height / 2 - (60 if two else 0)))
    if count == 3:
        # A triangle reaches down only half as far as up.
        height -= radius / 2
    first = macs.index(own) if own in macs else 0
    start = math.pi if two else -math.pi / 2
    mark = 26.0 if count <= 6 else 21.0
    places = {}
    for index, mac in enumerate(macs):
        angle = start + 2 * math.pi * (index - first) / max(count, 1)
        at = _polar(centre, radius, angle)
        places[mac] = _beside(at, angle if count > 2 else math.pi / 2, mark)
    hub = None if count < 2 else Point(centre.x, _short(centre.y + 170)) if two else centre
    return Layout(width, height, places, centre, radius, dense=False, hub=hub)


def _beside(at: Point, angle: float, mark: float) -> Place:
    """A mark, with its name on the outer side of the circle."""
    across, down = math.cos(angle), math.sin(angle)
    font = 15.0
    if abs(across) < 0.35:
        # Above or below, name and address on two lines.
        gap = mark + 22 if down > 0 else -(mark + 26)
        return Place(at, mark, Point(at.x, _short(at.y + gap)), "middle", 0.0, font)
    side = 1 if across > 0 else -1
    label = Point(_short(at.x + side * (mark + 10)), at.y)
    return Place(at, mark, label, "start" if side > 0 else "end", 0.0, font)


def _many(macs: list[str], own: str) -> Layout:
    around = [mac for mac in macs if mac != own]
    radius = max(_MANY_RADIUS, _short(len(around) * _LINE / (2 * math.pi)))
    width = 2 * (radius + (140 if len(around) < 120 else 122))
    centre = Point(_short(width / 2), _short(width / 2))
    font = 13.0 if len(around) < 120 else 11.0
    mark = max(3.5, min(9.0, math.pi * radius / len(around) * 0.6))
    places = {}
    for index, mac in enumerate(around):
        angle = -math.pi / 2 + 2 * math.pi * (index + 0.5) / len(around)
        label = _polar(centre, radius + mark + _LABEL_GAP, angle)
        degrees = _short(math.degrees(angle))
        left = math.cos(angle) < 0
        turn = degrees + 180 if left else degrees
        places[mac] = Place(_polar(centre, radius, angle), mark, label, "end" if left else "start", turn, font)
    if own in macs:
        places[own] = Place(centre, _CORE, Point(centre.x, _short(centre.y - 2)), "middle", 0.0, 14.0)
    return Layout(width, width, places, centre, radius, dense=True, hub=None)


def curve(layout: Layout, link: Link) -> str:
    """The way of a link as an SVG path: one quadratic curve from `a` to `b`."""
    a, control, b = _bend(layout, link)
    return f"M{a.x:g} {a.y:g}Q{control.x:g} {control.y:g} {b.x:g} {b.y:g}"


def middle(layout: Layout, link: Link) -> Point:
    """The point half-way on a link."""
    return _on(*_bend(layout, link), 0.5)


def arrow(layout: Layout, link: Link) -> Arrow | None:
    """Where the arrow of a one-way link stands, pointing to whom is reached; None for other links."""
    if not link.toward:
        return None
    a, control, b = _bend(layout, link)
    forth = link.toward == link.b
    share = 0.62 if forth else 0.38
    at = _on(a, control, b, share)
    # The derivative of the curve there.
    dx = (1 - share) * (control.x - a.x) + share * (b.x - control.x)
    dy = (1 - share) * (control.y - a.y) + share * (b.y - control.y)
    return Arrow(at, _short(math.degrees(math.atan2(dy, dx))) + (0 if forth else 180))


def _bend(layout: Layout, link: Link) -> tuple[Point, Point, Point]:
    a, b = layout.places[link.a].at, layout.places[link.b].at
    if layout.dense and link.own:
        # A spoke, from the rim of the disc to the mark.
        a = _rounded(_between(a, b, (layout.places[link.a].radius + 5) / layout.radius))
    centre, mid = layout.centre, Point((a.x + b.x) / 2, (a.y + b.y) / 2)
    if layout.dense:
        # Links between others gather around the disc.
        return a, _rounded(_between(mid, centre, 0.0 if link.own else 0.65)), b
    if link.kind == "relay" and layout.hub is not None:
        # So that the middle of the curve is the supernode.
        return a, _rounded(Point(2 * layout.hub.x - mid.x, 2 * layout.hub.y - mid.y)), b
    if len(layout.places) <= 3:
        return a, _rounded(mid), b
    away = math.dist(mid, centre)
    if away < 0.12 * layout.radius:
        # Right through the middle: make way for the supernode.
        length = math.dist(a, b)
        dx, dy = (b.x - a.x) / length, (b.y - a.y) / length
        side = 1 if (a.x, a.y) < (b.x, b.y) else -1
        return a, _rounded(Point(mid.x - side * dy * 0.2 * length, mid.y + side * dx * 0.2 * length)), b
    return a, _rounded(_between(mid, centre, 0.12)), b


def _on(a: Point, control: Point, b: Point, share: float) -> Point:
    rest = 1 - share
    return _rounded(
        Point(
            rest * rest * a.x + 2 * rest * share * control.x + share * share * b.x,
            rest * rest * a.y + 2 * rest * share * control.y + share * share * b.y,
        )
    )


def _between(a: Point, b: Point, share: float) -> Point:
    return Point(a.x + (b.x - a.x) * share, a.y + (b.y - a.y) * share)


def _polar(centre: Point, radius: float, angle: float) -> Point:
    return _rounded(Point(centre.x + radius * math.cos(angle), centre.y + radius * math.sin(angle)))


def _rounded(point: Point) -> Point:
    return Point(_short(point.x), _short(point.y))


def _short(value: float) -> float:
    return round(value, 1) + 0.0  # no minus zero
