# SPDX-License-Identifier: GPL-2.0-only
"""Boxes, arrows and words as SVG: what the documentation's pictures are made of.

A picture is a small Python function that calls `box`, `arrow` and `text`; its SVG is
committed beside it, and a test draws it anew and compares. So a picture is changed
like code, and its diff can be read.

R1 Colours are CSS variables with a fall-back. Put into a page as text (a snippet), a picture
   follows the page's light or dark scheme; opened alone, it is dark on white.
R2 Lengths are in pixels; y grows downwards. Text never wraps by itself: give its lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

IMAGES = Path(__file__).parent.parent / "images"

STYLE = """
.mq { background: var(--mq-paper, #ffffff); font-family: Roboto, Helvetica, Arial, sans-serif; }
.mq text { fill: var(--mq-ink, #24292f); font-size: 13px; }
.mq text.title { font-size: 15px; font-weight: 600; }
.mq text.code { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, monospace; font-size: 12px; }
.mq text.small { font-size: 11.5px; fill: var(--mq-soft, #57606a); }
.mq text.number { font-size: 11.5px; font-weight: 600; fill: var(--mq-paper, #ffffff); }
.mq .plain { fill: var(--mq-plain, #f3f5f8); stroke: var(--mq-line, #8c959f); }
.mq .blue { fill: var(--mq-blue, #dcebfb); stroke: var(--mq-blue-line, #4f8cc9); }
.mq .green { fill: var(--mq-green, #def2e1); stroke: var(--mq-green-line, #55a065); }
.mq .amber { fill: var(--mq-amber, #fbecd0); stroke: var(--mq-amber-line, #c4923b); }
.mq .violet { fill: var(--mq-violet, #ece4f9); stroke: var(--mq-violet-line, #8f74c2); }
.mq .none { fill: none; stroke: var(--mq-line, #8c959f); }
.mq .paper { fill: var(--mq-paper, #ffffff); }
.mq .dashed { stroke-dasharray: 5 4; }
.mq .arrow { fill: none; stroke: var(--mq-ink, #24292f); stroke-width: 1.4; }
.mq .head { fill: var(--mq-ink, #24292f); }
.mq .dot { fill: var(--mq-ink, #24292f); }
.mq .rule { stroke: var(--mq-line, #8c959f); stroke-dasharray: 2 5; }
"""

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """Where a box is; arrows ask it for points on its edges (0 = left or top end, 1 = other)."""

    x: float
    y: float
    width: float
    height: float

    def top(self, part: float = 0.5) -> Point:
        """Returns a point on the upper edge."""
        return self.x + self.width * part, self.y

    def bottom(self, part: float = 0.5) -> Point:
        """Returns a point on the lower edge."""
        return self.x + self.width * part, self.y + self.height

    def left(self, part: float = 0.5) -> Point:
        """Returns a point on the left edge."""
        return self.x, self.y + self.height * part

    def right(self, part: float = 0.5) -> Point:
        """Returns a point on the right edge."""
        return self.x + self.width, self.y + self.height * part


class Picture:
    """One picture that grows element by element."""

    def __init__(self, name: str, width: int, height: int, title: str) -> None:
        self.name = name
        self.width = width
        self.height = height
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="mq" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-labelledby="{name}-title">',
            f'<title id="{name}-title">{escape(title)}</title>',
            f"<style>{STYLE}</style>",
            f'<defs><marker id="{name}-head" viewBox="0 0 8 8" refX="7" refY="4" '
            'markerWidth="8" markerHeight="8" orient="auto-start-reverse">'
            '<path class="head" d="M0,0.6 L8,4 L0,7.4 Z"/></marker></defs>',
        ]

    def box(
        self, x: float, y: float, width: float, height: float, *lines: str, kind: str = "plain"
    ) -> Box:
        """Draws a box with its lines of text in the middle; a line `like_this()` is code."""
        self.parts.append(
            f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" '
            'rx="5"/>'
        )
        first = y + height / 2 - 17 * (len(lines) - 1) / 2 + 4.5
        for number, line in enumerate(lines):
            self.text(x + width / 2, first + 17 * number, line, anchor="middle")
        return Box(x, y, width, height)

    def region(
        self, x: float, y: float, width: float, height: float, label: str, kind: str = "none"
    ) -> Box:
        """Draws a large box with its name in the upper left corner."""
        made = self.box(x, y, width, height, kind=kind)
        self.text(x + 12, y + 21, label, style="title")
        return made

    def text(
        self, x: float, y: float, line: str, *, anchor: str = "start", style: str = ""
    ) -> None:
        """Writes one line; a line in backticks is code, one after ~ is small."""
        if line.startswith("`"):
            line, style = line.strip("`"), "code"
        elif line.startswith("~"):
            line, style = line[1:], "small"
        name = f' class="{style}"' if style else ""
        self.parts.append(
            f'<text{name} x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(line)}</text>'
        )

    def arrow(self, *points: Point, label: str = "", dashed: bool = False) -> None:
        """Draws an arrow through the points; its label stands above the middle of the first leg."""
        path = " L".join(f"{x:g},{y:g}" for x, y in points)
        kind = "arrow dashed" if dashed else "arrow"
        self.parts.append(f'<path class="{kind}" d="M{path}" marker-end="url(#{self.name}-head)"/>')
        if label:
            (x1, y1), (x2, y2) = points[:2]
            self.text((x1 + x2) / 2, (y1 + y2) / 2 - 6, label, anchor="middle")

    def rule(self, start: Point, end: Point) -> None:
        """Draws a thin dotted line."""
        (x1, y1), (x2, y2) = start, end
        self.parts.append(f'<line class="rule" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>')

    def two_lanes(self, x: float, names: tuple[str, str], end: float) -> tuple[float, float]:
        """Draws two lanes, side by side, as far down as `end`; returns the x of their middles."""
        middles = (x + 105, x + 295)
        for middle, name in zip(middles, names, strict=True):
            self.text(middle, 60, name, anchor="middle")
        for middle in middles:
            self.rule((middle, 70), (middle, end))
        return middles

    def number(self, x: float, y: float, value: int) -> None:
        """Draws a step's number in a dot."""
        self.parts.append(f'<circle class="dot" cx="{x:g}" cy="{y:g}" r="10"/>')
        self.text(x, y + 4, str(value), anchor="middle", style="number")

    def svg(self) -> str:
        """Returns the whole picture."""
        return "\n".join([*self.parts, "</svg>"]) + "\n"

    def save(self, folder: Path = IMAGES) -> Path:
        """Writes the picture; returns where."""
        path = folder / f"{self.name}.svg"
        path.write_text(self.svg())
        return path
