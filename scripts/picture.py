"""Draw what a command printed as a terminal window, for the README.

n2n lab demo | python scripts/picture.py "make demo" > docs/demo.svg
"""

from __future__ import annotations

import sys
from html import escape

WIDTH, LINE, LEFT, TOP = 8.4, 20, 20, 62  # pixels: a character, a line, the margins
BUTTONS = ((20, "#ff5f57"), (38, "#febc2e"), (56, "#28c840"))
STYLE = """
  .window { fill: #14181f; stroke: #2b3240; }
  .bar { fill: #1d232d; }
  text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; fill: #d5dbe5; }
  .time { fill: #6d7a8f; } .what { fill: #7cc4ff; } .good { fill: #8ee39a; } .prompt { fill: #e6c07b; }
"""


def draw(command: str, lines: list[str]) -> str:
    """The window as SVG."""
    columns = max(len(line) for line in [*lines, command])
    width, height = round(2 * LEFT + WIDTH * columns), TOP + LINE * (len(lines) + 1) + 8
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(command, quote=True)}">',
        f"<style>{STYLE}</style>",
        f'<rect class="window" width="{width - 1}" height="{height - 1}" x="0.5" y="0.5" rx="9"/>',
        f'<path class="bar" d="M1 32V10a9 9 0 0 1 9-9h{width - 20}a9 9 0 0 1 9 9v22z"/>',
        *(
            f'<circle cx="{x}" cy="17" r="5.5" fill="{c}"/>'
            for x, c in ((20, "#ff5f57"), (38, "#febc2e"), (56, "#28c840"))
        ),
        f'<text x="{LEFT}" y="{TOP - 4}" xml:space="preserve"><tspan class="prompt"># </tspan>{escape(command)}</text>',
    ]
    for number, line in enumerate(lines, start=1):
        y = TOP + LINE * number
        parts = (
            [("time", line[:7]), ("what", line[7:18]), ("", line[18:])] if line.startswith("  ") else [("good", line)]
        )
        spans = "".join(f'<tspan class="{kind}">{escape(text)}</tspan>' for kind, text in parts if text)
        out.append(f'<text x="{LEFT}" y="{y}" xml:space="preserve">{spans}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(draw(sys.argv[1], [line.rstrip("\n") for line in sys.stdin if line.strip()]))
