"""Exemplars: how well methods find what a model was tuned on, by how strongly it was tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..rows.exemplars import ExemplarMeasure, Exemplars, ExemplarScores
from ..rows.row import Row
from ..stats.over_queries import resampled_means
from ..stats.over_seeds_and_queries import LEVEL
from ..stats.ranking import (
    Entry,
    Score,
    Standing,
    average,
    beats_random,
    bounds,
    by_entry,
    by_mean,
    entry_of,
    rank_ranges,
)
from .selection import Place, holding, lacking_notes, place_of, preset_labels, status_of
from .sheet import MISSING, Interval, Sheet, rank_text, yes_no

SHOWN = "ap"
SPECIFIC = "specific"  # its average precision less that on the controls, where there are any
RESULTS = "exemplar results"
COMMAND = "tdabench run TASK --metrics exemplars"
CHANCE = "chance"
NOTES = (
    "mAP×100: average precision of the exemplars among all training items, ties averaged over their orders, mean over "
    "cases and samples. Sees from: the fewest updates from which on the interval lies above chance.",
    "×100 as well, and means over strengths: recall, the share of exemplars among the first k or 10 items; percentile, "
    "the share of other items that are ranked below an exemplar.",
    "Rank a-b, by the mean over strengths: a is 1 + the number of entries that are significantly better, b the number "
    "of entries less those that are significantly worse (paired bootstrap over cases, 95 %). Brackets are 95 % "
    "intervals over cases; entries that miss samples have no rank.",
)
CONTROLLED = (
    "Above control: mAP less that on what the base model made of the same noise, in which the exemplars had no part, "
    "mean over strengths. It decides ranks and Beats random, and Sees from asks it, too, to be above 0 from there on: "
    "a method that names the exemplars whatever it is asked about has 0."
)
UNCONTROLLED = (
    "Rows without controls: a method that names the exemplars whatever it is asked about is on top here as well."
)

# Columns of means over all strengths, by heading.
OVER_STRENGTHS = {"Recall@k": "recall-k", "Recall@10": "recall-10", "Percentile": "percentile"}


class Setting(NamedTuple):
    """What entries must share to be compared: the place, the cases, and the number of exemplars."""

    place: Place
    cases: str
    k: int


@dataclass(frozen=True)
class Line:
    """One entry, averaged over its seeds: its standing with a kind a strength, by mAP, above control where known.

    measures: all of them by name, by strength; cases: how many have values at every strength.
    """

    standing: Standing
    sees_from: int | None
    measures: Mapping[str, Mapping[str, Score]]
    cases: int


def exemplar_sheets(rows: Sequence[Row]) -> list[Sheet]:
    """Return one table per task version, set of cases and k; raises UserError where no row has results."""
    holding(rows, _exemplars, RESULTS, COMMAND)
    return [_sheet(rows, setting, lines) for setting, lines in exemplar_lines(rows).items()]


def exemplar_lines(rows: Sequence[Row]) -> dict[Setting, list[Line]]:
    """Return the entries that have exemplar results by setting, best mean first."""
    settings: dict[Setting, list[Row]] = {}
    for row in rows:
        if (found := _exemplars(row)) is not None:
            for k in {scores.k for scores in found.scores}:
                settings.setdefault(Setting(place_of(row), found.truth, k), []).append(row)
    return {setting: _lines(setting, settings[setting]) for setting in sorted(settings, key=str)}


def _lines(setting: Setting, rows: Sequence[Row]) -> list[Line]:
    lines = [_line(setting, entry, own) for entry, own in by_entry(rows).items()]
    return sorted(lines, key=lambda line: by_mean(line.standing))


def _exemplars(row: Row) -> Exemplars | None:
    return row.metrics.exemplars if row.metrics else None


def _of(row: Row, k: int) -> list[ExemplarScores]:
    """Return a row's results for a number of exemplars, weakest tuning first."""
    found = _exemplars(row)
    assert found is not None
    return sorted((scores for scores in found.scores if scores.k == k), key=lambda scores: scores.steps)


def _sheet(rows: Sequence[Row], setting: Setting, lines: Sequence[Line]) -> Sheet:
    found = [row for line in lines for row in line.standing.rows]
    standings = [line.standing for line in lines]
    ranges = rank_ranges(standings)
    ranks = [ranges.get(one.entry, (None, None)) for one in standings]
    beats = [beats_random(one, standings) for one in standings]
    presets = preset_labels([one.entry.columns for one in standings])
    shown = _of(found[0], setting.k)
    strengths = [f"{scores.steps} updates" for scores in shown]
    controlled = SPECIFIC in lines[0].measures
    above = ["Above control"] * controlled
    headings = ["Rank", "Method", "Preset", *strengths, *above, "Sees from", *OVER_STRENGTHS, "Status", "Beats random"]
    cells = [_cells(*parts) for parts in zip(lines, presets, ranks, beats, strict=True)]
    chance = [Interval(scores.measures[SHOWN].chance).text() for scores in shown]
    chance += [Interval(0.0).text()] * controlled
    rest = [_text(_chance(shown, name)) for name in OVER_STRENGTHS.values()]
    cells.append([MISSING, CHANCE, MISSING, *chance, MISSING, *rest, MISSING, MISSING])
    records = [_record(*parts) for parts in zip(lines, ranks, beats, strict=True)]
    notes = [_counts(shown[0], _exemplars(found[0])), *NOTES, CONTROLLED if controlled else UNCONTROLLED]
    notes += _skipped_notes(found)
    notes += lacking_notes(rows, setting.place, found, RESULTS)
    shared = {"view": "exemplars", **setting.place.record(), "cases": setting.cases, "k": setting.k}
    tuned = f"samples of models tuned on {_exemplars_in_words(setting.k)}"
    title = f"{setting.place.label}: {tuned}, mAP×100"
    return Sheet.of(title, headings, cells, notes, shared, records)


def _line(setting: Setting, entry: Entry, rows: Sequence[Row]) -> Line:
    results = [_of(row, setting.k) for row in rows]
    names = [*results[0][0].measures, *[SPECIFIC] * bool(results[0][0].controls)]
    measures = {name: _by_strength(setting.place, results, name) for name in names}
    ranked = SPECIFIC if SPECIFIC in measures else SHOWN
    kinds = measures[ranked]
    values = [value for one in results for scores in one for value in _measure(scores, ranked).values]
    done = len(values) - values.count(None)
    standing = Standing(entry, tuple(rows), kinds, average(list(kinds.values())), done, len(values))
    bars = {SHOWN: [scores.measures[SHOWN].chance for scores in results[0]], SPECIFIC: [0.0] * len(results[0])}
    seen = [_sees_from(measures[name], bars[name]) for name in bars if name in measures]
    cases = min(int(np.isfinite(case_means(scores.cases, scores.measures[SHOWN])).sum()) for scores in results[0])
    return Line(standing, None if None in seen else max(filter(None, seen)), measures, cases)


def _measure(scores: ExemplarScores, name: str) -> ExemplarMeasure:
    """Return a measure by name, or what its samples' average precision is above that of their controls."""
    if name != SPECIFIC:
        return scores.measures[name]
    pairs = zip(scores.measures[SHOWN].values, scores.controls[SHOWN].values, strict=True)
    values = [None if own is None or control is None else own - control for own, control in pairs]
    known = [value for value in values if value is not None]
    return ExemplarMeasure(values=values, mean=float(np.mean(known)) if known else None, chance=0.0)


def _by_strength(place: Place, results: Sequence[Sequence[ExemplarScores]], name: str) -> dict[str, Score]:
    columns = zip(*results, strict=True)
    return {str(one[0].steps): average([_score(place, scores, name) for scores in one]) for one in columns}


def _score(place: Place, scores: ExemplarScores, name: str) -> Score:
    """Return a measure with its interval over cases: cases are drawn, each with all its samples.

    To draw samples again within each drawn case would count their noise twice (Davison & Hinkley, Bootstrap Methods and
    their Application, 1997, section 3.8).
    """
    means = case_means(scores.cases, _measure(scores, name))
    replicates = resampled_means(means, *place.axes, "exemplars", scores.k)
    known = means[np.isfinite(means)]
    mean = float(known.mean()) if len(known) else None
    return _within(Score(mean, *bounds(replicates), replicates), len(known), -1.0 if name == SPECIFIC else 0.0)


def case_means(cases: Sequence[int], measure: ExemplarMeasure) -> np.ndarray:
    """Return the mean of each case's values that are there [C], NaN where none is."""
    values = np.array([np.nan if value is None else value for value in measure.values])
    index = np.array(cases)
    parts = [values[(index == case) & np.isfinite(values)] for case in sorted(set(cases))]
    return np.array([part.mean() if len(part) else np.nan for part in parts])


def _sees_from(kinds: Mapping[str, Score], chances: Sequence[float]) -> int | None:
    """Return the fewest updates from which on a method is above chance, or None where it never is."""
    found = None
    for (steps, score), chance in reversed(list(zip(kinds.items(), chances, strict=True))):
        if score.low is None or score.low <= chance:
            break
        found = int(steps)
    return found


def _over_strengths(line: Line, name: str) -> Score | None:
    return _within(average(list(line.measures[name].values())), line.cases) if name in line.measures else None


def _within(score: Score, cases: int, least: float = 0.0) -> Score:
    """Return a score with its interval cut at what shares or differences can be: those of few cases reach beyond.

    Where all cases are at one end, there is no spread to draw from. A mean m of what is at most 1 has all n cases at 1
    with a chance of m^n at most, which bounds it (Clopper & Pearson, 1934, for shares), and so at the other end.
    """
    low, high = score.low, score.high
    if low is None or high is None:
        return score
    reach = (1 - least) * (1 - ((1 - LEVEL) / 2) ** (1 / cases))
    if low == high == 1.0:
        low = 1 - reach
    elif low == high == least:
        high = least + reach
    return replace(score, low=max(low, least), high=min(high, 1.0))


def _chance(shown: Sequence[ExemplarScores], name: str) -> Score | None:
    found = [scores.measures[name].chance for scores in shown if name in scores.measures]
    return Score(float(np.mean(found)), None, None, np.empty(0)) if found else None


def _interval(score: Score) -> Interval:
    return Interval(score.mean, score.low, score.high)


def _text(score: Score | None) -> str:
    return MISSING if score is None else _interval(score).text()


def _intervals(scores: Mapping[str, Score]) -> dict[str, dict[str, float | None]]:
    return {steps: asdict(_interval(score)) for steps, score in scores.items()}


def _cells(line: Line, preset: str, rank: tuple[int | None, int | None], beats: bool | None) -> list[str]:
    one = line.standing
    status = f"{one.done} of {one.asked}" if one.done < one.asked else status_of(one.rows)
    seen = MISSING if line.sees_from is None else str(line.sees_from)
    scores = [_interval(score).text() for score in line.measures[SHOWN].values()]
    scores += [_interval(one.overall).text()] * (SPECIFIC in line.measures)
    rest = [_text(_over_strengths(line, name)) for name in OVER_STRENGTHS.values()]
    return [rank_text(*rank), one.entry.versioned, preset, *scores, seen, *rest, status, yes_no(beats)]


def _record(line: Line, rank: tuple[int | None, int | None], beats: bool | None) -> dict[str, Any]:
    one = line.standing
    return {
        "rank_best": rank[0],
        "rank_worst": rank[1],
        **dict(zip(("method", "preset", "params_hash"), one.entry.columns, strict=True)),
        "seeds": sorted(row.key.seed for row in one.rows),
        "status": status_of(one.rows),
        "done": one.done,
        "asked": one.asked,
        "beats_random": beats,
        "sees_from": line.sees_from,
        "map": _intervals(line.measures[SHOWN]),
        **({"above_control": _intervals(line.measures[SPECIFIC])} if SPECIFIC in line.measures else {}),
        "measures": {n: _intervals(scores) for n, scores in line.measures.items() if n not in (SHOWN, SPECIFIC)},
    }


def _counts(scores: ExemplarScores, found: Exemplars | None) -> str:
    n, cases = found.n_before if found else 0, len(set(scores.cases))
    each = len(scores.query_ids) // cases
    return f"{cases} cases, {each} samples of each model; {_exemplars_in_words(scores.k)} among {n} others."


def _exemplars_in_words(k: int) -> str:
    return "1 exemplar" if k == 1 else f"{k} exemplars"


def _skipped_notes(rows: Sequence[Row]) -> list[str]:
    reasons: dict[str, set[str]] = {}
    for row in rows:
        found = _exemplars(row)
        for reason in found.skipped.values() if found else ():
            reasons.setdefault(" ".join(reason.split()), set()).add(entry_of(row).title)
    return [f"Cases skipped for {', '.join(sorted(who))}: {reason}" for reason, who in reasons.items()]
