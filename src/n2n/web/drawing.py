"""A graph as data for the page, as SVG, as DOT, and as a page that needs nothing else."""

from __future__ import annotations

from typing import Any, Final

from n2n.web.graph import Graph, Link, Node
from n2n.web.layout import Layout, Place, arrange, arrow, curve, middle
from n2n.web.text import ago, dot_text, shortened, size, words_for, xml_text

__all__ = ["KINDS", "dot", "html", "offlines_dot", "snapshot", "svg"]

#: Kind of a link -> how it is called.
KINDS: Final = {"direct": "direct", "one_way": "one way", "relay": "relayed"}
#: What the page is told of an own link.
_ABOUT: Final = (
    "endpoint",
    "in_use",
    "kind",
    "nat",
    "reason",
    "since",
    "rtt",
    "last_pong",
    "tx_bytes",
    "rx_bytes",
)
#: Characters of a name that are drawn: beside its mark, in the disc of many, turned around many.
_NAME_LIMIT: Final = 18
_DISC_LIMIT: Final = 12
_TURNED_LIMIT: Final = 16
_COLOURS: Final = {
    "direct": "#1f9d61",
    "one_way": "#d97a1c",
    "relay": "#8f98a8",
    "offline": "#b9c0cc",
    "self": "#3b6fd4",
}
_STYLE: Final = """
svg{background:#fff;color:#1b2230}
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:currentColor}
.sub,.note{fill:#667085}.link{fill:none;stroke-linecap:round}.mark{fill:#fff;stroke-width:2.5}
.direct{stroke:#1f9d61}.one_way{stroke:#d97a1c}.relay{stroke:#8f98a8}.offline{stroke:#b9c0cc}.self{stroke:#3b6fd4}
.link{stroke-width:1.4}.link.own{stroke-width:2.6}.link.relay{stroke-dasharray:2 7}.mark.offline{stroke-dasharray:3 4}
.mark.self{fill:#3b6fd4}.tip{fill:#d97a1c;stroke:none}.dim{opacity:.55}
.hub{fill:#fff;stroke:#8f98a8;stroke-width:2}.halo{paint-order:stroke;stroke:#fff;stroke-width:5px;stroke-linejoin:round}
.many .link.own{stroke-width:1.5}
.letters{text-anchor:middle;font-weight:600}.small{font-weight:400}.letters.self{fill:#fff;stroke:none}
@media(prefers-color-scheme:dark){svg{background:#12151c;color:#e6e9ef}.sub,.note{fill:#8d97a8}
.mark,.hub{fill:#12151c}.halo{stroke:#12151c}.direct{stroke:#3ccb8a}.one_way{stroke:#f0a04b}.relay{stroke:#6f7a8c}
.offline{stroke:#4a5363}.self{stroke:#6d9bf1}.mark.self{fill:#6d9bf1}.letters.self{fill:#12151c;stroke:none}.tip{fill:#f0a04b}}
"""


def snapshot(graph: Graph, focus: str | None = None) -> dict[str, Any]:
    """What the page draws, and `/peers.json` tells; times are Unix seconds, lengths units of the drawing.

    Args:
        graph: what to draw.
        focus: where there are many members, leave out links between others, but for those of this MAC address; None:
            leave out nothing.

    Returns:
        community, at, told (when the supernode last told of the others, or null), counts, left_out, members: list of
        {mac, name, address, role, seen, path (direct, one_way, relay; null for the edge itself and those who are
        gone), endpoint, in_use, kind, nat, reason, since, rtt, tx_bytes, rx_bytes, why, at: [x, y],
        radius, label: {at, anchor, turn, font}}, links: list of {a, b, kind, toward, own, d,
        middle, arrow: [x, y, degrees]}, drawing: {width, height, centre, dense, hub}.
    """
    layout = arrange(graph)
    everything = focus is None or not layout.dense
    own = {link.b: link for link in graph.links if link.own}
    return {
        "community": graph.community,
        "at": graph.at,
        "told": graph.told,
        "counts": {kind: graph.count(kind) for kind in ("direct", "one_way", "relay")}
        | {"members": len(graph.nodes) - len(graph.offline), "offline": len(graph.offline)},
        "left_out": graph.left_out,
        "members": [_member(node, own.get(node.mac), layout.places[node.mac]) for node in graph.nodes],
        "links": [
            {
                "a": link.a,
                "b": link.b,
                "kind": link.kind,
                "toward": link.toward,
                "own": link.own,
                "d": curve(layout, link),
                "middle": middle(layout, link),
                "arrow": _arrow(layout, link),
            }
            for link in graph.links
            if everything or link.own or focus in (link.a, link.b)
        ],
        "drawing": {
            "width": layout.width,
            "height": layout.height,
            "centre": layout.centre,
            "dense": layout.dense,
            "hub": layout.hub,
        },
    }


def _member(node: Node, link: Link | None, place: Place) -> dict[str, Any]:
    about = link.about if link is not None else {}
    return {
        "mac": node.mac,
        "name": node.name,
        "address": node.address,
        "role": node.role,
        "seen": node.seen,
        "path": link.kind if link is not None else None,
        "toward": link.toward if link is not None else "",
        **{name: about.get(name) for name in _ABOUT},
        "why": words_for(str(about.get("reason") or "")),
        "letters": _letters(node),
        "at": place.at,
        "radius": place.radius,
        "label": {"at": place.label, "anchor": place.anchor, "turn": place.turn, "font": place.font},
    }


def _arrow(layout: Layout, link: Link) -> list[float] | None:
    found = arrow(layout, link)
    return None if found is None else [*found.at, found.turn]


def svg(graph: Graph, *, note: str = "") -> str:
    """The graph as a file that stands by itself; follows light and dark by itself, where the viewer does.

    Args:
        graph: what to draw.
        note: a line at the lower edge, such as how old it is.
    """
    layout = arrange(graph)
    title = f"{graph.community}: {len(graph.nodes) - len(graph.offline)} members"
    size_ = f'width="{layout.width:g}" height="{layout.height:g}" viewBox="0 0 {layout.width:g} {layout.height:g}"'
    dense = "many" if layout.dense else "few"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size_} class="{dense}" role="img">',
        f"<title>{xml_text(title)}</title>",
        f"<style>{_STYLE}</style>",
        *_svg_links(graph, layout),
        *_svg_hub(graph, layout),
    ]
    how = {link.b: link.kind for link in graph.links if link.own}
    for node in graph.nodes:
        shown = how.get(node.mac, node.role)
        lines += _svg_node(node, layout.places[node.mac], shown, dense=layout.dense)
    lines.append(f'<text class="note" x="16" y="{layout.height - 14:g}" font-size="12">{xml_text(note)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _svg_links(graph: Graph, layout: Layout) -> list[str]:
    lines = []
    # Own links last, so that they lie on top.
    for link in sorted(graph.links, key=lambda link: link.own):
        if layout.dense and not link.own:
            continue
        classes = f"link {link.kind} own" if link.own else f"link {link.kind} dim"
        lines.append(f'<path class="{classes}" d="{curve(layout, link)}"/>')
        tip = arrow(layout, link)
        if tip is not None:
            turn = f"translate({tip.at.x:g} {tip.at.y:g}) rotate({tip.turn:g})"
            shape = "M-4 -4L5 0L-4 4Z" if layout.dense else "M-6 -6L7 0L-6 6Z"
            lines.append(f'<path class="tip" d="{shape}" transform="{turn}"/>')
        rtt = link.about.get("rtt")
        if not layout.dense and link.kind != "relay" and isinstance(rtt, int | float):
            at = middle(layout, link)
            place = f'x="{at.x:g}" y="{at.y + 4:g}" font-size="12" text-anchor="middle"'
            lines.append(f'<text class="sub halo" {place}>{rtt * 1000:.3g} ms</text>')
    return lines


def _svg_hub(graph: Graph, layout: Layout) -> list[str]:
    if layout.hub is None or not any(link.kind == "relay" for link in graph.links):
        return []
    x, y = layout.hub
    return [
        f'<rect class="hub" x="{x - 11:g}" y="{y - 11:g}" width="22" height="22" rx="5" '
        f'transform="rotate(45 {x:g} {y:g})"/>',
        f'<text class="sub halo" x="{x:g}" y="{y + 34:g}" font-size="12" text-anchor="middle">supernode</text>',
    ]


def _svg_node(node: Node, place: Place, shown: str, *, dense: bool) -> list[str]:
    x, y = place.at
    spot = f'cx="{x:g}" cy="{y:g}" r="{place.radius:g}"'
    lines = [f'<circle class="mark {shown}" {spot}><title>{xml_text(_hover(node, shown))}</title></circle>']
    mine = " self" if node.role == "self" else ""
    if not dense:
        letters = xml_text(_letters(node))
        lines.append(f'<text class="letters{mine}" x="{x:g}" y="{y + 5:g}" font-size="14">{letters}</text>')
    lx, ly = place.label
    turn = f' transform="rotate({place.turn:g} {lx:g} {ly:g})"' if place.turn else ""
    anchor = f'font-size="{place.font:g}" text-anchor="{place.anchor}"'
    # The anchor is the middle of a turned name, and the base line of one that stands upright.
    inside = dense and node.role == "self"
    drop = place.font * 0.35 if dense and not inside else 0
    faded = " sub" if node.role == "offline" else ""
    look = f"letters{mine}" if inside else f"halo{faded}"
    name = xml_text(shortened(node.label, _DISC_LIMIT if inside else _TURNED_LIMIT if dense else _NAME_LIMIT))
    lines.append(f'<text class="{look}" x="{lx:g}" y="{ly + drop:g}" {anchor}{turn}>{name}</text>')
    if inside or not dense:
        look = "letters self small" if inside else "sub halo"
        below = f'<text class="{look}" x="{lx:g}" y="{ly + 17:g}" font-size="12" text-anchor="{place.anchor}">'
        lines.append(f"{below}{xml_text(node.address)}</text>")
    return lines


def _hover(node: Node, shown: str) -> str:
    return f"{node.label} {node.address} {KINDS.get(shown, shown)}"


def _letters(node: Node) -> str:
    """Up to two letters that stand for a member: of the words of its name, or its beginning."""
    words = "".join(char if char.isalnum() else " " for char in node.name).split()
    if len(words) > 1:
        return (words[0][0] + (words[-1][:2] if words[-1].isdigit() else words[-1][0])).upper()
    return words[0][:2].upper() if words else "?"


def dot(graph: Graph) -> str:
    """The graph in DOT, for Graphviz."""
    lines = [
        f"graph {dot_text(graph.community)} {{",
        '  layout="neato"; overlap=false; splines=true;',
        '  node [shape=ellipse, style=filled, fillcolor="#ffffff", fontname="sans-serif"];',
    ]
    for node in graph.nodes:
        label = dot_text(f"{node.label} ({node.address})" if node.address else node.label)
        look = {
            "self": f'color="{_COLOURS["self"]}", penwidth=2',
            "member": f'color="{_COLOURS["direct"]}"',
            "offline": f'color="{_COLOURS["offline"]}", style="filled,dashed"',
        }[node.role]
        lines.append(f"  {dot_text(node.mac)} [label={label}, {look}];")
    for link in graph.links:
        dashed = ", style=dashed" if link.kind == "relay" else ""
        # An arrow to whom is reached directly, where only one is.
        toward = f", dir={'forward' if link.toward == link.b else 'back'}" if link.toward else ""
        ends = f"{dot_text(link.a)} -- {dot_text(link.b)}"
        lines.append(f'  {ends} [color="{_COLOURS[link.kind]}", tooltip="{KINDS[link.kind]}"{dashed}{toward}];')
    return "\n".join([*lines, "}", ""])


def offlines_dot(graph: Graph) -> str:
    """The members that are gone, in DOT."""
    lines = [f"graph {dot_text(graph.community + ' offline')} {{"]
    for node in graph.offline:
        label = dot_text(f"{node.label} ({node.address})" if node.address else node.label)
        lines.append(f'  {dot_text(node.mac)} [label={label}, color="{_COLOURS["offline"]}", style=dashed];')
    return "\n".join([*lines, "}", ""])


def html(graph: Graph, *, note: str = "") -> str:
    """A page with drawing and table that needs no server and no script."""
    own = {link.b: link for link in graph.links if link.own}
    rows = [_row(node, own.get(node.mac), graph.at) for node in graph.nodes]
    head = "".join(f"<th>{name}</th>" for name in ("name", "address", "path", "round trip", "sent", "received", "why"))
    style = (
        "body{font:15px system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}"
        "body{color:#1b2230;background:#fff}"
        "svg{max-width:100%;height:auto}table{border-collapse:collapse;width:100%}"
        "td,th{text-align:left;padding:.35rem .8rem .35rem 0;border-bottom:1px solid #8884}"
        "@media(prefers-color-scheme:dark){body{color:#e6e9ef;background:#12151c}}"
    )
    name = xml_text(graph.community)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{name}</title><style>{style}</style></head>\n<body><h1>{name}</h1>\n<p>{xml_text(note)}</p>\n{svg(graph)}"
        f"<table><thead><tr>{head}</tr></thead><tbody>\n" + "\n".join(rows) + "\n</tbody></table></body></html>\n"
    )


def _row(node: Node, link: Link | None, now: float) -> str:
    about = link.about if link is not None else {}
    rtt = about.get("rtt")
    path = KINDS[link.kind] if link is not None else {"self": "this edge", "offline": "offline"}.get(node.role, "")
    why = words_for(str(about.get("reason") or ""))
    since = about.get("since")
    if isinstance(since, int | float) and why:
        why = f"{why}, {ago(max(now - since, 0))} ago"
    cells = (
        node.label,
        node.address,
        path,
        f"{rtt * 1000:.3g} ms" if isinstance(rtt, int | float) else "",
        size(about.get("tx_bytes") or 0) if link is not None else "",
        size(about.get("rx_bytes") or 0) if link is not None else "",
        why,
    )
    return "<tr>" + "".join(f"<td>{xml_text(cell)}</td>" for cell in cells) + "</tr>"
