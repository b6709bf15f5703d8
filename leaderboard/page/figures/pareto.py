"""Quality against cost: which entries are worth what they cost, as far as the intervals can say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from ...rows.row import Cost
from ...stats.ranking import better
from ...views.lds import peak
from ..entries import Entry, Ranked
from .axes import Scale, abbreviated, apart, horizontal, linear, logarithmic, vertical
from .drawing import SHAPES, Drawing, Look, colours_of, width_of

FRONT, OPEN, DOMINATED = "front", "open", "dominated"
LEFT, RIGHT, TOP, ROW = 60.0, 720.0, 34.0, 14.0


class Axis(NamedTuple):
    """A cost: its heading, how a row's is read (None: unknown), and whether it depends on the machine."""

    name: str
    of: Callable[[Cost], float | None]
    by_machine: bool = True


def passes(cost: Cost) -> float:
    """Return the samples passed through the model, forward and backward."""
    return float(sum(cost.forward_passes.values()) + sum(cost.backward_passes.values()))


def _mebibytes(phases: Mapping[str, int | None]) -> float | None:
    value = peak(phases)
    return None if value is None else value / 2**20


AXES = {
    "passes": Axis("samples passed through the model, forward and backward", passes, by_machine=False),
    "fit": Axis("seconds to fit, once for all queries", lambda cost: cost.fit_s),
    "query": Axis("seconds for each query", lambda cost: cost.seconds_per_query),
    "memory": Axis("peak memory of the process, MiB", lambda cost: _mebibytes(cost.peak_rss_bytes)),
    "gpu": Axis("peak memory of the GPU, MiB", lambda cost: _mebibytes(cost.peak_gpu_bytes)),
}


class Costly(NamedTuple):
    """An entry with its cost, its score x 100 with the interval, and where it stands."""

    entry: Entry
    cost: float
    low_cost: float
    high_cost: float
    score: float
    low: float
    high: float
    place: str


def costly(entries: Sequence[Entry], axis: Axis) -> list[Costly]:
    """Return the ranked entries whose cost is known, cheapest first, each with its place relative to the front."""
    known = [(one, costs) for one in entries if one.standing.rankable and (costs := _costs(one, axis))]
    known.sort(key=lambda pair: fmean(pair[1]))
    return [_costly(one, costs, known) for one, costs in known]


def _costs(entry: Entry, axis: Axis) -> list[float]:
    """Return the cost of each of an entry's seeds, none where one of them is unknown."""
    found = [axis.of(row.cost) if row.cost else None for row in entry.standing.rows]
    known = [cost for cost in found if cost is not None]
    return known if len(known) == len(found) else []


def _costly(one: Entry, costs: Sequence[float], known: Sequence[tuple[Entry, list[float]]]) -> Costly:
    cost, overall = fmean(costs), one.line.overall
    rivals = [other.standing for other, prices in known if fmean(prices) <= cost and other is not one]
    if any(better(rival, one.standing) for rival in rivals):
        place = DOMINATED
    else:
        place = FRONT if all(better(one.standing, rival) for rival in rivals) else OPEN
    score, low, high = (100 * (value or 0.0) for value in (overall.mean, overall.low, overall.high))
    return Costly(one, cost, min(costs), max(costs), score, low, high, place)


def pareto_figures(ranked: Ranked) -> dict[str, list[Drawing]]:
    """Return by cost one figure, or for what depends on the machine one for each machine; none for unknown costs."""
    found = {name: _figures(ranked, axis) for name, axis in AXES.items()}
    return {name: figures for name, figures in found.items() if figures}


def _figures(ranked: Ranked, axis: Axis) -> list[Drawing]:
    machines = sorted({one.machine for one in ranked.readable}) if axis.by_machine else [""]
    drawn = []
    for machine in machines:
        shown = [one for one in ranked.readable if not axis.by_machine or one.machine == machine]
        points = costly(shown, axis)
        if len({point.cost for point in points}) > 1:
            drawn.append(_figure(ranked, axis, machine, points))
    return drawn


def _figure(ranked: Ranked, axis: Axis, machine: str, points: Sequence[Costly]) -> Drawing:
    where = f", measured on {machine}" if machine else ", on an unknown machine" if axis.by_machine else ""
    bottom = TOP + max(346.0, ROW * (len(points) + 1))
    drawing = Drawing(
        f"{ranked.table.task}: LDS×100 against {axis.name}{where}",
        "; ".join(f"{one.entry.label}: {one.score:.1f} for {one.cost:.3g}, {one.place}" for one in points),
        RIGHT + 30 + width_of(f"{one.entry.label}  00.0" for one in points),
        bottom + 46,
    )
    ceiling = mean_ceiling(ranked)
    x = logarithmic([value for one in points for value in (one.low_cost, one.high_cost)], LEFT, RIGHT)
    heights = [value for one in points for value in (one.low, one.high)]
    y = linear([*heights, *([ceiling] if ceiling else [])], bottom, TOP)
    horizontal(drawing, x, TOP, bottom, axis.name + where, [abbreviated(tick) for tick in x.ticks()])
    vertical(drawing, y, LEFT, RIGHT, "LDS×100, mean over kinds of queries")
    if ceiling:
        drawing.line(((LEFT, y.at(ceiling)), (RIGHT, y.at(ceiling))), Look(stroke="soft", width=1.5, dash="6 4"))
        drawing.text((LEFT + 6, y.at(ceiling) - 5), f"noise ceiling {ceiling:.1f}", Look(fill="soft", size=11))
    _draw_front(drawing, points, x.at, y.at)
    _draw_points(drawing, points, x.at, y)
    return drawing


def mean_ceiling(ranked: Ranked) -> float | None:
    """Return the mean over kinds of a table's noise ceilings x 100, or None where one is unknown."""
    ceiling = ranked.table.ceiling
    return None if ceiling is None else 100 * ceiling


Place = Callable[[float], float]


def _draw_front(drawing: Drawing, points: Sequence[Costly], x: Place, y: Place) -> None:
    front = [one for one in points if one.place == FRONT]
    steps = [(x(front[0].cost), y(front[0].score))] if front else []
    for one in front[1:]:
        steps += [(x(one.cost), steps[-1][1]), (x(one.cost), y(one.score))]
    if steps:
        drawing.line([*steps, (RIGHT, steps[-1][1])], Look(stroke="mark", width=1.5, opacity=0.8))


def _draw_points(drawing: Drawing, points: Sequence[Costly], x: Place, scale: Scale) -> None:
    y, colours = scale.at, colours_of([one.entry.method for one in points])
    labels = apart([y(one.score) for one in points], ROW, TOP + 4, scale.start)
    for one, height in zip(points, labels, strict=True):
        colour, faint = colours[one.entry.method], 0.45 if one.place == DOMINATED else 1.0
        at = x(one.cost), y(one.score)
        whisker = Look(stroke=colour, width=1.2, opacity=0.6 * faint)
        drawing.line(((at[0], y(one.low)), (at[0], y(one.high))), whisker)
        if one.high_cost > one.low_cost:
            drawing.line(((x(one.low_cost), at[1]), (x(one.high_cost), at[1])), whisker)
        drawing.line((at, (RIGHT + 8, height), (RIGHT + 14, height)), Look(stroke=colour, width=0.7, opacity=0.3))
        fill = "page" if one.place == OPEN else colour
        title = f"{one.entry.label}: {one.entry.line.overall.text()} for {one.cost:.4g}, {one.place}"
        drawing.dot(at, shape_of(one.entry, points), 5, Look(stroke=colour, fill=fill, width=2, opacity=faint), title)
        text = f"{one.entry.label}  {one.score:.1f}"
        weight = "bold" if one.place == FRONT else "normal"
        drawing.text((RIGHT + 18, height + 4), text, Look(fill=colour, size=12, opacity=max(faint, 0.7), weight=weight))


def shape_of(entry: Entry, points: Sequence[Costly]) -> str:
    """Return a shape that tells the presets of one method apart."""
    presets = [one.entry.label for one in points if one.entry.method == entry.method]
    return SHAPES[sorted(presets).index(entry.label) % len(SHAPES)]
