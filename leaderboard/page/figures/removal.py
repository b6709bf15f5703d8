"""Removal as curves: all targets' top items at once beside random removal, and one query's alone by how many go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...rows.removal import CurvePoint
from ...rows.row import Row
from ...views.by_similarity import unit_of
from ...views.selection import identity
from ...views.sheet import Sheet
from .axes import Scale, apart, horizontal, linear, vertical
from .drawing import SHAPES, Drawing, Look, colours_of, width_of

LEFT, RIGHT, TOP, ROW = 64.0, 720.0, 34.0, 14.0
PANEL, PANELS, PANEL_HEIGHT = 225.0, 4, 122.0
RANDOM = Look(stroke="c7", width=2)
Record = Mapping[str, Any]


def union_figure(sheet: Sheet, rows: Sequence[Row], shown: int) -> Drawing:
    """Return the effect of each entry's union by its size, beside the curve of random removal.

    ``rows`` are those behind the sheet, of which the first line's holds the curve.
    """
    lines, unit = sheet.data["lines"][:shown], unit_of(sheet.data["similarity"])
    curve = _curve(lines[0], rows, sheet.data["similarity"])
    bottom = TOP + max(330.0, ROW * (len(lines) + 1))
    said = "; ".join(
        f"{_label(one)}: {unit.scale * one['effect']['mean']:.2f} for {one['union_size']} items" for one in lines
    )
    drawing = Drawing(
        f"{sheet.title}: effect by how many items went", said, RIGHT + 30 + width_of(map(_label, lines)), bottom + 46
    )
    sizes = [0.0, *(float(one["union_size"]) for one in lines), *(float(point.size) for point in curve)]
    x = linear(sizes, LEFT, RIGHT)
    values = [one["effect"][part] for one in lines for part in ("mean", "low", "high")]
    values += [value for point in curve for value in (point.mean, point.low, point.high)]
    y = linear([0.0, *(unit.scale * value for value in values if value is not None)], bottom, TOP)
    horizontal(drawing, x, TOP, bottom, f"items removed, of {sheet.data['n_train']}")
    vertical(drawing, y, LEFT, RIGHT, f"Effect on the targets, {unit.name}, with 95 % intervals")
    _draw_band(drawing, [(p.size, p.low, p.mean, p.high) for p in curve], unit.scale, x, y, RANDOM, "random items")
    _draw_unions(drawing, lines, unit.scale, x, y)
    return drawing


def _curve(line: Record, rows: Sequence[Row], similarity: str) -> list[CurvePoint]:
    for row in rows:
        union = row.metrics.removal.union if row.metrics and row.metrics.removal else None
        if union and similarity in union.similarities and identity(row).items() <= line.items():
            return sorted(union.similarities[similarity].curve, key=lambda point: point.size)
    return []


def _label(line: Record) -> str:
    return f"{line['method'].split('@')[0]}:{line['preset']}"


Band = Sequence[tuple[float, float | None, float, float | None]]


def _draw_band(drawing: Drawing, points: Band, scale: float, x: Scale, y: Scale, look: Look, title: str) -> None:
    known = [(at, low, high) for at, low, _, high in points if low is not None and high is not None]
    if len(known) > 1:
        lower = [(x.at(at), y.at(scale * low)) for at, low, _ in known]
        upper = [(x.at(at), y.at(scale * high)) for at, _, high in reversed(known)]
        drawing.area([*lower, *upper], Look(fill=look.stroke, opacity=0.18))
    drawing.line([(x.at(at), y.at(scale * mean)) for at, _, mean, _ in points], look, title)


def _draw_unions(drawing: Drawing, lines: Sequence[Record], scale: float, x: Scale, y: Scale) -> None:
    colours = colours_of([one["method"].split("@")[0] for one in lines])
    shapes = _shapes(lines)
    heights = apart([y.at(scale * one["effect"]["mean"]) for one in lines], ROW, TOP + 4, y.start)
    for one, height, shape in zip(lines, heights, shapes, strict=True):
        effect, colour = one["effect"], colours[one["method"].split("@")[0]]
        at = x.at(one["union_size"]), y.at(scale * effect["mean"])
        if effect["low"] is not None:
            ends = (at[0], y.at(scale * effect["low"])), (at[0], y.at(scale * effect["high"]))
            drawing.line(ends, Look(stroke=colour, width=1.2, opacity=0.45))
        drawing.line((at, (RIGHT + 8, height), (RIGHT + 14, height)), Look(stroke=colour, width=0.7, opacity=0.3))
        drawing.dot(at, shape, 5, Look(fill=colour, stroke=colour), f"{_label(one)}: {scale * effect['mean']:.2f}")
        bold = "bold" if one["beats_random"] else "normal"
        drawing.text((RIGHT + 18, height + 4), _label(one), Look(fill=colour, weight=bold))


def _shapes(lines: Sequence[Record]) -> list[str]:
    seen: dict[str, int] = {}
    found = []
    for one in lines:
        seen[one["method"]] = seen.get(one["method"], -1) + 1
        found.append(SHAPES[seen[one["method"]] % len(SHAPES)])
    return found


def alone_figure(sheet: Sheet, shown: int) -> Drawing | None:
    """Return a panel for each entry: how much more a query's top items change it than random ones, by their number."""
    lines, unit = sheet.data["lines"][:shown], unit_of(sheet.data["similarity"])
    sizes = [int(size) for size in lines[0]["above_random"]]
    if len(sizes) < 2:
        return None
    height = TOP + PANEL_HEIGHT * -(-len(lines) // PANELS) + 10
    said = "; ".join(f"{_label(one)}: {_said(one, unit.scale)}" for one in lines)
    drawing = Drawing(f"{sheet.title}: change above random by how many items went", said, PANEL * PANELS, height)
    name = f"Change above random, {unit.name}, when a query's own top {', '.join(map(str, sizes))} items go"
    drawing.text((8, 16), name, Look(fill="text"))
    values = [one["above_random"][str(s)][part] for one in lines for s in sizes for part in ("mean", "low", "high")]
    spread = [0.0, *(unit.scale * value for value in values if value is not None)]
    colours = colours_of([one["method"].split("@")[0] for one in lines])
    for index, one in enumerate(lines):
        left, top = 34 + index % PANELS * PANEL, TOP + index // PANELS * PANEL_HEIGHT
        look = Look(stroke=colours[one["method"].split("@")[0]], width=2)
        _draw_panel(drawing, one, sizes, unit.scale, (left, top), spread, look)
    return drawing


def _said(line: Record, scale: float) -> str:
    return ", ".join(f"{scale * found['mean']:.2f} at {size}" for size, found in line["above_random"].items())


def _draw_panel(
    drawing: Drawing,
    line: Record,
    sizes: Sequence[int],
    scale: float,
    corner: tuple[float, float],
    spread: Sequence[float],
    look: Look,
) -> None:
    left, top = corner
    x = linear([0, *sizes], left, left + PANEL - 46, 0.03)
    y = linear(spread, top + PANEL_HEIGHT - 30, top + 18, 0.03)
    for value in (min(y.ticks()), 0.0, max(y.ticks())):
        drawing.line(((x.start, y.at(value)), (x.end, y.at(value))), Look(stroke="soft" if value == 0 else "line"))
        drawing.text((left - 4, y.at(value) + 4), f"{value:g}", Look(fill="soft", size=10), "end")
    found = [line["above_random"][str(size)] for size in sizes]
    points = [(size, one["low"], one["mean"], one["high"]) for size, one in zip(sizes, found, strict=True)]
    _draw_band(drawing, points, scale, x, y, look, _said(line, scale))
    for size, _, mean, _ in points:
        drawing.dot((x.at(size), y.at(scale * mean)), "circle", 2.5, Look(fill=look.stroke))
    drawing.text((left, top + 12), _label(line), Look(fill=look.stroke, size=11, weight="bold"))
