"""A drawing: marks in pixels with a look by name, written as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from ..wording import seen

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]

# Okabe & Ito's colours, which colour-blind readers tell apart, in an order that keeps likely neighbours distinct; the
# second of a pair is for dark pages. Shapes tell entries apart where colours are used up, and in grey print.
PALETTE = {
    "text": ("#1b1b1f", "#ececf1"),
    "soft": ("#5b5b66", "#a9a9b5"),
    "line": ("#d9d9e0", "#3a3a45"),
    "page": ("#ffffff", "#141418"),
    "mark": ("#a33b00", "#ffb38a"),
    "c0": ("#0072b2", "#56b4e9"),
    "c1": ("#d55e00", "#ff8c42"),
    "c2": ("#007d5c", "#2fc79a"),
    "c3": ("#b0548c", "#e39cc6"),
    "c4": ("#b07d00", "#f0c040"),
    "c5": ("#4b5fc9", "#9aa8ff"),
    "c6": ("#7a4a21", "#d3a06f"),
    "c7": ("#606060", "#bdbdbd"),
}
COLOURS = tuple(name for name in PALETTE if name[0] == "c" and name[1:].isdigit())
SHAPES = ("circle", "square", "diamond", "triangle")
FONT = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"


class Look(NamedTuple):
    """How a mark is painted: colours of PALETTE (none: not at all), width of lines and size of text in pixels."""

    stroke: str = ""
    fill: str = ""
    width: float = 1.0
    dash: str = ""
    opacity: float = 1.0
    size: float = 12.0
    weight: str = "normal"


@dataclass(frozen=True)
class Mark:
    """A line through points, an area between points, or text at a point; ``title`` is shown on hovering.

    turned: the text goes upwards.
    """

    kind: Literal["line", "area", "text"]
    points: tuple[Point, ...]
    look: Look
    text: str = ""
    anchor: Anchor = "start"
    title: str = ""
    turned: bool = False


@dataclass
class Drawing:
    """Marks on a canvas of ``width`` x ``height`` pixels; ``title`` and ``description`` are for who cannot see it."""

    title: str
    description: str
    width: float
    height: float
    marks: list[Mark] = field(default_factory=list)

    def line(self, points: Iterable[Point], look: Look, title: str = "") -> None:
        """Draw a line through points."""
        self.marks.append(Mark("line", tuple(points), look, title=title))

    def area(self, points: Iterable[Point], look: Look, title: str = "") -> None:
        """Fill the area between points."""
        self.marks.append(Mark("area", tuple(points), look, title=title))

    def box(self, x: float, y: float, width: float, height: float, look: Look, title: str = "") -> None:
        """Fill a rectangle whose upper left corner is (x, y)."""
        self.area(((x, y), (x + width, y), (x + width, y + height), (x, y + height)), look, title)

    def dot(self, at: Point, shape: str, radius: float, look: Look, title: str = "") -> None:
        """Draw one of SHAPES around a point."""
        self.area(outline(at, shape, radius), look, title)

    def text(self, at: Point, text: str, look: Look, anchor: Anchor = "start", turned: bool = False) -> None:
        """Write text at the left, middle or right of whose base line the point is; ``turned``: upwards."""
        self.marks.append(Mark("text", (at,), look, seen(text), anchor, turned=turned))

    def svg(self, style: str = "") -> str:
        """Return the drawing as an SVG element; ``style``: CSS that goes into it, for a file of its own."""
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}" role="img"'
        size = f' width="{self.width:g}" height="{self.height:g}" class="figure" font-family={quoteattr(FONT)}>'
        words = f"<title>{_xml(self.title)}</title><desc>{_xml(self.description)}</desc>"
        inside = f"<style>{style}</style>" if style else ""
        return head + size + words + inside + "".join(map(_svg, self.marks)) + "</svg>"


def outline(at: Point, shape: str, radius: float) -> list[Point]:
    """Return the corners of one of SHAPES of about equal area."""
    corners, first, scale = {
        "circle": (20, 0.0, 1.0),
        "square": (4, math.pi / 4, 1.2),
        "diamond": (4, 0.0, 1.25),
        "triangle": (3, -math.pi / 2, 1.45),
    }[shape]
    angles = [first + 2 * math.pi * index / corners for index in range(corners)]
    return [(at[0] + scale * radius * math.cos(a), at[1] + scale * radius * math.sin(a)) for a in angles]


def stylesheet() -> str:
    """Return the CSS that gives the classes of an SVG their colours, in the light and in the dark."""
    names = [(name, light, dark) for name, (light, dark) in PALETTE.items()]
    light = "".join(f"--f-{name}:{value};" for name, value, _ in names)
    dark = "".join(f"--f-{name}:{value};" for name, _, value in names)
    rules = "".join(
        f".figure .s-{name}{{stroke:var(--f-{name})}}.figure .f-{name}{{fill:var(--f-{name})}}" for name in PALETTE
    )
    return f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}{rules}"


def _svg(mark: Mark) -> str:
    title = f"<title>{_xml(mark.title)}</title>" if mark.title else ""
    if mark.kind == "text":
        x, y = mark.points[0]
        weight = f' font-weight="{mark.look.weight}"' if mark.look.weight != "normal" else ""
        place = f'x="{x:.1f}" y="{y:.1f}" font-size="{mark.look.size:g}" text-anchor="{mark.anchor}"{weight}'
        place += f' transform="rotate(-90 {x:.1f} {y:.1f})"' if mark.turned else ""
        return f"<text {place}{_paint(mark.look)}>{_xml(mark.text)}</text>"
    where = " ".join(f"{x:.1f},{y:.1f}" for x, y in mark.points)
    name = "polygon" if mark.kind == "area" else "polyline"
    return f'<{name} points="{where}"{_paint(mark.look)}>{title}</{name}>'


def _paint(look: Look) -> str:
    """Return attributes that paint in light colours where no CSS applies, and classes by which CSS has its say."""
    classes = " ".join(f"{kind}-{name}" for kind, name in (("s", look.stroke), ("f", look.fill)) if name)
    parts = [f' class="{classes}"', f' fill="{PALETTE[look.fill][0] if look.fill else "none"}"']
    if look.stroke:
        parts.append(f' stroke="{PALETTE[look.stroke][0]}" stroke-width="{look.width:g}"')
    parts += [f' stroke-dasharray="{look.dash}"'] * bool(look.dash)
    parts += [f' opacity="{look.opacity:g}"'] * (look.opacity != 1)
    return "".join(parts)


def _xml(text: str) -> str:
    return escape(seen(text))


def width_of(texts: Iterable[str], size: float = 12.0) -> float:
    """Return about how wide the longest of texts is, in pixels; on the safe side for wide fonts."""
    return max((0.61 * size * len(text) for text in texts), default=0.0)


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each distinct name, in order of name, so that a method has one colour in all figures."""
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(sorted(set(names)))}
