"""Scores against how far any method could get: each entry's interval by kind of query, beside the noise ceilings."""

from __future__ import annotations

from ...views.sheet import Interval
from ..entries import Entry, Ranked
from .axes import Scale, horizontal, linear
from .drawing import SHAPES, Drawing, Look, width_of

SPAN, TOP, ROW = 720.0, 14.0, 22.0
KINDS = ("c0", "c1", "c2", "c3")


def ceiling_figure(ranked: Ranked) -> Drawing | None:
    """Return the figure of a table's entries, best first, or None where it has none."""
    shown = [one for one in ranked.readable if one.line.overall.mean is not None]
    if not shown:
        return None
    bottom = TOP + ROW * len(shown)
    title = f"{ranked.table.task}: LDS×100 by kind of query, and the noise ceiling"
    said = "; ".join(f"{one.label}: {_said(one)}" for one in shown)
    left = 28 + width_of(one.label for one in shown)
    drawing = Drawing(title, said, left + SPAN + 16, bottom + 64)
    x = linear([0.0, *_bounds(ranked, shown)], left, left + SPAN, 0.03)
    _draw_ceilings(drawing, ranked, x, bottom)
    horizontal(drawing, x, TOP, bottom, "LDS×100 with 95 % intervals")
    for index, one in enumerate(shown):
        _draw_entry(drawing, one, TOP + ROW * (index + 0.5), x)
    _draw_key(drawing, ranked, (left, bottom + 56))
    return drawing


def _said(entry: Entry) -> str:
    return ", ".join(f"{kind} {score.text()}" for kind, score in entry.line.lds.items())


def _bounds(ranked: Ranked, shown: list[Entry]) -> list[float]:
    intervals = [*ranked.table.ceilings.values(), *(score for one in shown for score in one.line.lds.values())]
    values = [value for one in intervals for value in (one.mean, one.low, one.high)]
    return [100 * value for value in values if value is not None]


def _draw_ceilings(drawing: Drawing, ranked: Ranked, x: Scale, bottom: float) -> None:
    for kind, ceiling in ranked.table.ceilings.items():
        colour = _colour(ranked.table.kinds, kind)
        if ceiling.low is not None and ceiling.high is not None:
            left, right = x.at(100 * ceiling.low), x.at(100 * ceiling.high)
            drawing.box(left, TOP, right - left, bottom - TOP, Look(fill=colour, opacity=0.12), _title(kind, ceiling))
        if ceiling.mean is not None:
            at = x.at(100 * ceiling.mean)
            drawing.line(((at, TOP), (at, bottom)), Look(stroke=colour, width=1.5, dash="6 4"), _title(kind, ceiling))


def _title(kind: str, ceiling: Interval) -> str:
    return f"noise ceiling of {kind} queries: {ceiling.text()}"


def _draw_entry(drawing: Drawing, entry: Entry, y: float, x: Scale) -> None:
    if entry.tie is not None and entry.tie % 2 == 0:
        drawing.box(4, y - ROW / 2, drawing.width - 8, ROW, Look(fill="soft", opacity=0.07))
    drawing.text((x.start - 12, y + 4), entry.label, Look(fill="text", size=12), "end")
    kinds = list(entry.line.lds)
    for index, (kind, score) in enumerate(entry.line.lds.items()):
        if score.mean is None:
            continue
        colour, height = _colour(kinds, kind), y + 7 * (index - (len(kinds) - 1) / 2)
        if score.low is not None and score.high is not None:
            ends = (x.at(100 * score.low), height), (x.at(100 * score.high), height)
            drawing.line(ends, Look(stroke=colour, width=2, opacity=0.55))
        look = Look(fill=colour, stroke=colour)
        drawing.dot(
            (x.at(100 * score.mean), height), _shape(kinds, kind), 4, look, f"{entry.label}, {kind}: {score.text()}"
        )


def _draw_key(drawing: Drawing, ranked: Ranked, place: tuple[float, float]) -> None:
    at, y = place
    for kind in ranked.table.kinds:
        colour = _colour(ranked.table.kinds, kind)
        drawing.dot((at, y - 4), _shape(ranked.table.kinds, kind), 4, Look(fill=colour, stroke=colour))
        text = (
            _title(kind, ranked.table.ceilings[kind])
            .replace("noise ceiling of ", "")
            .replace("queries:", "queries, ceiling")
        )
        drawing.text((at + 10, y), text, Look(fill="text", size=12))
        at += 320


def _colour(kinds: tuple[str, ...] | list[str], kind: str) -> str:
    return KINDS[list(kinds).index(kind) % len(KINDS)]


def _shape(kinds: tuple[str, ...] | list[str], kind: str) -> str:
    return SHAPES[list(kinds).index(kind) % len(SHAPES)]
