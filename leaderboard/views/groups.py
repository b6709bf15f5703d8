"""Groups left out: methods that score groups beside item methods, whose scores are summed over each group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from ...errors import UserError
from ..rows.groups import GroupScore, GroupsResult
from ..rows.row import Row
from ..rows.strict import mean_of
from ..stats.over_queries import resampled_means
from ..stats.ranking import (
    Entry,
    Score,
    Standing,
    average,
    beats_random,
    better,
    bounds,
    by_entry,
    by_mean,
    entry_of,
    rank_ranges,
)
from .selection import Place, failure_of, place_of, preset_labels, status_of
from .sheet import MISSING, Interval, Sheet, rank_text, yes_no

RANKED = "spearman"
MEASURES = {"spearman": "Spearman×100", "ndcg": "NDCG×100", "top1": "Top-1 %"}
LOWEST = {"spearman": -1.0, "ndcg": 0.0, "top1": 0.0}
SIZE = "group size"
UNITS = {"item": "items, summed", "group": "groups"}
NOTES = (
    "For each query, groups ranked by score against groups ranked by their effect: how much the query's loss grows in "
    "models trained without them. NDCG: gains are effects, or 0 below that. Top-1: how often the best by score is the "
    "one of the largest effect. Scores of items are summed over each group's items.",
    "Rank a-b, by Spearman: a is 1 + the number of entries that are significantly better, b the number of entries less "
    "those that are significantly worse (paired bootstrap over queries, 95 %). Brackets are 95 % intervals over "
    "queries; entries that miss queries have no rank.",
    "Group size: what the number of a group's items gets as its score. Sums of items' scores hold it, for an offset of "
    "all scores counts as often as there are items. Beats size: significantly better than that, by Spearman.",
    "Ceiling: of Spearman, the square root of the reliability; of the others what half of the retrainings gets against "
    "the other half, which a method may surpass. Control: what scores for other queries of the kind get, at most.",
)


class Setting(NamedTuple):
    """What entries must share to be compared."""

    place: Place
    kind: str


@dataclass(frozen=True)
class Line:
    """One entry, averaged over its seeds: its standing by Spearman, and its scores by measure."""

    standing: Standing
    unit: str
    scores: Mapping[str, Interval]


def group_sheets(rows: Sequence[Row]) -> list[Sheet]:
    """Return one table per task version, query set, truth and query kind; raises UserError where no row has results."""
    settings = group_lines(rows)
    if not settings:
        raise UserError("no row holds results of groups: run `tdabench run TASK` on a task that leaves groups out")
    return [_sheet(rows, setting, lines) for setting, lines in settings.items()]


def group_lines(rows: Sequence[Row]) -> dict[Setting, list[Line]]:
    """Return the entries that have results of groups by setting, best mean Spearman first."""
    settings: dict[Setting, list[Row]] = {}
    for row in rows:
        for kind in row.metrics.groups if row.metrics else ():
            settings.setdefault(Setting(place_of(row), kind), []).append(row)
    return {setting: _lines(setting, settings[setting]) for setting in sorted(settings, key=str)}


def _lines(setting: Setting, rows: Sequence[Row]) -> list[Line]:
    lines = [_line(setting, entry, own) for entry, own in by_entry(rows).items()]
    return sorted(lines, key=lambda line: by_mean(line.standing))


def _sheet(rows: Sequence[Row], setting: Setting, lines: Sequence[Line]) -> Sheet:
    place, kind = setting
    found = [row for line in lines for row in line.standing.rows]
    standings = [line.standing for line in lines]
    ranges = rank_ranges(standings)
    ranks = [ranges.get(one.entry, (None, None)) for one in standings]
    beats = [beats_random(one, standings) for one in standings]
    presets = preset_labels([one.entry.columns for one in standings])
    size = _sizes(setting, found)
    beats_size = [better(one, size.standing) if size and one.rankable else None for one in standings]
    headings = ["Rank", "Method", "Preset", "Scores", *MEASURES.values(), "Status", "Beats random", "Beats size"]
    cells = [_cells(*parts) for parts in zip(lines, presets, ranks, beats, beats_size, strict=True)]
    if size:
        scores = [size.scores[name].text() for name in MEASURES]
        cells.append([MISSING, SIZE, MISSING, MISSING, *scores, MISSING, MISSING, MISSING])
    records = [_record(*parts) for parts in zip(lines, ranks, beats, beats_size, strict=True)]
    failures = [failure_of(row) for row in rows if row.metrics is None and place_of(row)[:3] == place[:3]]
    notes = [_limits([_result(row, kind) for row in found]), *NOTES, *_lacking_notes(rows, setting)]
    shared = {"view": "groups", **place.record(), "kind": kind, "group_size": size and _scores_of(size)}
    return Sheet.of(f"{place.title}: groups left out, {kind}", headings, cells, notes, shared, records, failures)


def _result(row: Row, kind: str) -> GroupsResult:
    assert row.metrics is not None
    return row.metrics.groups[kind]


def _line(setting: Setting, entry: Entry, rows: Sequence[Row]) -> Line:
    results = [_result(row, setting.kind) for row in rows]
    scores = {name: average([_score(setting, one.scores[name]) for one in results]) for name in MEASURES}
    values = [value for one in results for value in one.scores[RANKED].values]
    done, ranked = len(values) - values.count(None), scores[RANKED]
    standing = Standing(entry, tuple(rows), {setting.kind: ranked}, ranked, done, len(values))
    return Line(standing, results[0].unit, {name: _interval(name, score) for name, score in scores.items()})


def _sizes(setting: Setting, rows: Sequence[Row]) -> Line | None:
    """Return what groups' sizes get as scores, by the first row that says so, or None: it is one truth's for all."""
    for row in rows:
        found = {name: score.sizes for name, score in _result(row, setting.kind).scores.items()}
        if all(found.values()):
            scores = {name: _score(setting, _as_score(sizes)) for name, sizes in found.items()}
            standing = Standing(entry_of(row), (), {}, scores[RANKED], 0, 0)
            return Line(standing, "group", {name: _interval(name, score) for name, score in scores.items()})
    return None


def _as_score(values: list[float | None]) -> GroupScore:
    return GroupScore(values=values, mean=mean_of(values), shuffled=None)


def _score(setting: Setting, score: GroupScore) -> Score:
    values = [np.nan if value is None else value for value in score.values]
    replicates = resampled_means(values, *setting.place.axes, "groups", setting.kind)
    return Score(score.mean, *bounds(replicates), replicates)


def _interval(name: str, score: Score) -> Interval:
    """Return a score with its interval cut at what its measure can be: t intervals of few queries reach beyond."""
    if score.low is None or score.high is None:
        return Interval(score.mean)
    return Interval(score.mean, max(score.low, LOWEST[name]), min(score.high, 1.0))


def _cells(
    line: Line, preset: str, rank: tuple[int | None, int | None], beats: bool | None, beats_size: bool | None
) -> list[str]:
    one = line.standing
    status = f"{one.done} of {one.asked}" if one.done < one.asked else status_of(one.rows)
    scores = [line.scores[name].text() for name in MEASURES]
    marks = yes_no(beats), yes_no(beats_size)
    return [rank_text(*rank), one.entry.versioned, preset, UNITS[line.unit], *scores, status, *marks]


def _scores_of(line: Line) -> dict[str, Any]:
    return {name: asdict(interval) for name, interval in line.scores.items()}


def _record(
    line: Line, rank: tuple[int | None, int | None], beats: bool | None, beats_size: bool | None
) -> dict[str, Any]:
    one, seeds = line.standing, sorted(row.key.seed for row in line.standing.rows)
    named = dict(zip(("method", "preset", "params_hash"), one.entry.columns, strict=True))
    counted = {"status": status_of(one.rows), "done": one.done, "asked": one.asked, "beats_random": beats}
    return {
        "rank_best": rank[0],
        "rank_worst": rank[1],
        **named,
        "seeds": seeds,
        "unit": line.unit,
        **counted,
        "beats_size": beats_size,
        **_scores_of(line),
    }


def _limits(results: Sequence[GroupsResult]) -> str:
    one = results[0]
    counts = f"{len(one.query_ids)} queries, {len(one.names)} groups, {one.n_replicates} models without each"
    return f"{counts}. {'; '.join(_limit(name, [found.scores[name] for found in results]) for name in MEASURES)}."


def _limit(name: str, scores: Sequence[GroupScore]) -> str:
    limit = Interval(scores[0].ceiling, scores[0].ceiling_low, scores[0].ceiling_high).text()
    controls = [one.shuffled for one in scores if one.shuffled is not None]
    control = f"{100 * max(controls):.1f}" if controls else MISSING
    return f"{MEASURES[name]}: ceiling {limit}, control {control}"


def _lacking_notes(rows: Sequence[Row], setting: Setting) -> list[str]:
    here = [row for row in rows if place_of(row)[:3] == setting.place[:3]]
    lacking = [row for row in here if row.metrics and setting.kind not in row.metrics.groups]
    without = sorted({entry_of(row).title for row in lacking})
    return [f"Without results of groups: {', '.join(without)}."] if without else []
