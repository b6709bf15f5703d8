"""Removal of all targets' top items at once: what it did to them, by crossed intervals and as published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..rows.removal import LOSS, Change, Published, Removal, Similarity, Union
from ..rows.row import Row
from ..stats.over_seeds_and_queries import above_zero, estimate
from ..stats.ranking import RANDOM
from .by_similarity import Unit, held_by, unit_of, weights_notes
from .selection import Place, identity, lacking_notes, names_of, place_of
from .sheet import MISSING, Failure, Interval, Sheet, rank_text, yes_no

Floats = NDArray[np.float64]
RESULTS = "removal results"
ONE_SIDED = 0.975  # the lower bound of the two-sided 95 % interval
RANK_NOTE = (
    "Rank a-b: a is 1 + the number of entries that are significantly better, b the number of entries less those that "
    "are significantly worse (95 % interval of the paired difference in Above random on the targets)."
)
BY_SIZE_NOTE = (
    "Random is linear in the union's size between the sizes that were tried: where its curve bends upwards, that is "
    "too much, and Above random too little."
)
PUBLISHED_NOTES = (
    "Change: of the similarity against random removal's median, in per cent with 1.98 standard errors. AUC: how often "
    "random removal leaves a query more similar, 0.5 = no better than random. p: Mann-Whitney U and paired Wilcoxon; "
    "targets: less similar than under random removal; controls: different.",
    "As published, and not what decides: all ignore that the targets share one retraining per seed, and random removal "
    "takes as many items here as random scores would, a larger union than that of a method whose queries share items.",
)


class Setting(NamedTuple):
    """What entries must share to be compared: place, retrainings, items, seeds, queries, random's reading, weights."""

    place: Place
    laboratory: str
    n_train: int
    top_k: int
    seeds: tuple[int, ...]
    targets: tuple[str, ...]
    controls: tuple[str, ...]
    random_by: str
    weights: str = ""


@dataclass(frozen=True)
class Result:
    """One entry's union removal by one similarity; ``loss`` is its change of the queries' own diffusion loss.

    weights: the hash of those of the similarity's encoder, empty where none is known.
    """

    row: Row
    removal: Removal
    union: Union
    similarity: Similarity
    loss: Similarity | None
    weights: str = ""

    @property
    def setting(self) -> Setting:
        """With which entries this one is compared."""
        union, sizes = self.union, (self.removal.laboratory, self.removal.n_train, self.removal.top_k)
        queries = tuple(union.target_ids), tuple(union.control_ids)
        return Setting(place_of(self.row), *sizes, tuple(union.seeds), *queries, union.random_by, self.weights)

    @cached_property
    def above(self) -> Floats:
        """How much more the targets changed than under random removal of as many items, [S, Q]."""
        return above_random(self.similarity.targets)


@dataclass(frozen=True)
class Line:
    """One entry: ranks, the union's size and share of the training set, and changes as differences of similarity."""

    rank_best: int
    rank_worst: int
    method: str
    preset: str
    params_hash: str
    seed: int
    union_size: int
    union_share: float
    beats_random: bool | None
    circular: bool
    effect: Interval
    random: Interval
    above_random: Interval
    controls_above_random: Interval
    loss_above_random: Interval


def above_random(change: Change) -> Floats:
    """Return how much more queries changed than under random removal, [S, Q]; the floor cancels."""
    return np.subtract(change.random, change.after)


def removal_sheets(rows: Sequence[Row], similarity: str) -> list[Sheet]:
    """Return one table per setting, its entries ranked by what they change above random; raises UserError."""
    return [_removal_sheet(rows, similarity, *part) for part in removal_settings(rows, similarity)]


def published_sheets(rows: Sequence[Row], similarity: str) -> list[Sheet]:
    """Return the published pipeline's statistics, in the order of the removal table; raises UserError."""
    return [_published_sheet(rows, similarity, *part) for part in removal_settings(rows, similarity)]


Part = tuple[Setting, list[Result], list[Failure]]


def removal_settings(rows: Sequence[Row], similarity: str) -> list[Part]:
    """Return each setting's results by a similarity, most above random first, and failures; raises UserError."""
    held = held_by(rows, "union", similarity)
    results: dict[Setting, list[Result]] = {}
    for row, removal in held.rows:
        result = _result(row, removal, similarity)
        results.setdefault(result.setting, []).append(result)
    return [
        (setting, sorted(results[setting], key=lambda one: -one.above.mean()), held.failures.get(setting.place, []))
        for setting in sorted(results, key=str)
    ]


def _result(row: Row, removal: Removal, similarity: str) -> Result:
    assert removal.union is not None
    measured = removal.union.similarities
    weights = removal.encoders.get(similarity, "")
    return Result(row, removal, removal.union, measured[similarity], measured.get(LOSS), weights)


def _removal_sheet(
    rows: Sequence[Row], similarity: str, setting: Setting, results: list[Result], failures: list[Failure]
) -> Sheet:
    lines = removal_lines(setting.place, results)
    with_loss = similarity != LOSS
    unit, presets = unit_of(similarity), [preset for _, preset in names_of([result.row for result in results])]
    headings = ["Rank", "Method", "Preset", "Union", "Effect", "Random", "Above random", "Controls\nabove random"]
    headings += ["loss×1000\nabove random"] * with_loss + ["Beats random"]
    cells = [_cells(line, preset, unit, with_loss) for line, preset in zip(lines, presets, strict=True)]
    shown = [result.row for result in results]
    notes = [*_removal_notes(setting, results, unit), *lacking_notes(rows, setting.place, shown, RESULTS)]
    title = f"{setting.place.title}: removal of all targets' top {setting.top_k} at once, {unit.name}"
    records = [asdict(line) for line in lines]
    return Sheet.of(title, headings, cells, notes, _shared("removal", setting, similarity), records, failures)


def _shared(view: str, setting: Setting, similarity: str) -> dict[str, Any]:
    sizes = {"n_train": setting.n_train, "top_k": setting.top_k, "seeds": list(setting.seeds)}
    counts = {"n_targets": len(setting.targets), "n_controls": len(setting.controls)}
    return {"view": view, **setting.place.record(), "similarity": similarity, **sizes, **counts}


def removal_lines(place: Place, results: Sequence[Result]) -> list[Line]:
    """Return the line of each of a setting's results; resampled seeds and queries are the same in all of them."""
    axes = _axes(place)
    wins = np.array([[better(place, one, other) for other in results] for one in results], dtype=int)
    ranks = zip(1 + wins.sum(axis=0), len(results) - wins.sum(axis=1), strict=True)
    return [_line(result, int(best), int(worst), axes) for result, (best, worst) in zip(results, ranks, strict=True)]


def better(place: Place, one: Result, other: Result) -> bool:
    """Say whether the 95 % interval of the paired difference of what two results change above random lies above 0."""
    return bool(above_zero(one.above - other.above, *_axes(place), level=ONE_SIDED))


def _axes(place: Place) -> tuple[str | int, ...]:
    return (*place.axes, "removal", "targets")


def _line(result: Result, best: int, worst: int, axes: tuple[str | int, ...]) -> Line:
    targets, is_random = result.similarity.targets, result.row.key.method == RANDOM
    return Line(
        best,
        worst,
        **identity(result.row),
        union_size=result.union.size,
        union_share=result.union.size / result.removal.n_train,
        beats_random=None if is_random else above_zero(result.above, *axes),
        circular=result.similarity.circular,
        effect=_interval(np.subtract(targets.floor, targets.after), axes),
        random=_interval(np.subtract(targets.floor, targets.random), axes),
        above_random=_interval(result.above, axes),
        controls_above_random=_interval(above_random(result.similarity.controls), (*axes[:-1], "controls")),
        loss_above_random=_interval(above_random(result.loss.targets), axes) if result.loss else Interval(),
    )


def _interval(values: Floats, axes: tuple[str | int, ...]) -> Interval:
    return Interval(*estimate(values, *axes))


def _cells(line: Line, preset: str, unit: Unit, with_loss: bool) -> list[str]:
    changes = [line.effect, Interval(line.random.mean), line.above_random, line.controls_above_random]
    return [
        rank_text(line.rank_best, line.rank_worst),
        line.method,
        preset,
        f"{line.union_size} ({100 * line.union_share:.1f}%)",
        *map(unit.text, changes),
        *[unit_of(LOSS).text(line.loss_above_random)] * with_loss,
        yes_no(line.beats_random) + " (circular)" * line.circular,
    ]


def _removal_notes(setting: Setting, results: Sequence[Result], unit: Unit) -> list[str]:
    targets, controls, seeds = map(len, (setting.targets, setting.controls, setting.seeds))
    return [
        f"{targets} targets and {controls} controls, regenerated by models retrained under {seeds} seeds without the "
        f"Union of the targets' top {setting.top_k} of {setting.n_train} items. Effect: by how much the targets are "
        "less similar to what the base model made than under retraining on everything (the floor). Random: the effect "
        "of as many random items.",
        "Above random: Effect less Random, in which the floor cancels; controls: the same for queries that nothing was "
        "removed for; loss: the same for the queries' own diffusion loss. Brackets: 95 % intervals over seeds and "
        "queries crossed. Beats random: Above random is above 0 for the targets, one-sided at 95 %.",
        RANK_NOTE,
        *[BY_SIZE_NOTE] * (setting.random_by == "size"),
        *dict.fromkeys(_floor_note(setting, result.similarity, unit) for result in results),
        *dict.fromkeys(_curve_note(result.similarity, unit) for result in results),
        *_mark_notes(results, unit),
        *weights_notes(setting.weights),
        *_skipped_notes(results),
    ]


def _floor_note(setting: Setting, similarity: Similarity, unit: Unit) -> str:
    parts = {"targets": similarity.targets.floor, "controls": similarity.controls.floor}
    floors = [
        f"{unit.text(_interval(np.asarray(floor), (*setting.place.axes, 'removal', name)))} ({name})"
        for name, floor in parts.items()
    ]
    return f"Floor: retrained on everything, {unit.name} is {', '.join(floors)}."


def _curve_note(similarity: Similarity, unit: Unit) -> str:
    points = [f"{point.size}: {unit.text(Interval(point.mean, point.low, point.high))}" for point in similarity.curve]
    return f"Effect of random removal by union size: {'; '.join(points)}."


def _mark_notes(results: Sequence[Result], unit: Unit) -> list[str]:
    notes = []
    if any(result.similarity.circular for result in results):
        notes.append(f"circular: the method itself compares images by what {unit.name} compares them by.")
    if not all(result.similarity.meaningful for result in results):
        notes.append(f"{unit.name} is not meaningful here: the images are too small for its encoder.")
    return notes


def _skipped_notes(results: Sequence[Result]) -> list[str]:
    skipped = sorted({item for result in results for item in result.removal.skipped.items()})
    reasons = "; ".join(f"{name} ({' '.join(reason.split())})" for name, reason in skipped)
    return [f"Similarities that were skipped: {reasons}."] if reasons else []


def _published_sheet(
    rows: Sequence[Row], similarity: str, setting: Setting, results: list[Result], failures: list[Failure]
) -> Sheet:
    shown = [result.row for result in results]
    columns = ["change %", "AUC", "Mann-Whitney p", "Wilcoxon p"]
    headings = ["Method", "Preset", "Union", *(f"{who}\n{name}" for who in ("Targets", "Controls") for name in columns)]
    cells = [[*names, *_statistics(result)] for names, result in zip(names_of(shown), results, strict=True)]
    missing = lacking_notes(rows, setting.place, shown, RESULTS)
    marks = [*_mark_notes(results, unit_of(similarity)), *weights_notes(setting.weights)]
    notes = [*PUBLISHED_NOTES, *marks, *missing]
    title = f"{setting.place.title}: removal of all targets' top {setting.top_k} at once, {similarity}, as published"
    records = [_published_record(result) for result in results]
    return Sheet.of(title, headings, cells, notes, _shared("published", setting, similarity), records, failures)


def _published_record(result: Result) -> dict[str, Any]:
    groups = {"targets": result.similarity.targets, "controls": result.similarity.controls}
    published = {name: change.published.model_dump() for name, change in groups.items()}
    return {**identity(result.row), "union_size": result.union.size, "circular": result.similarity.circular} | published


def _statistics(result: Result) -> list[str]:
    cells = [str(result.union.size)]
    for stated in (result.similarity.targets.published, result.similarity.controls.published):
        cells += [_change(stated), f"{stated.auc:.3f}", f"{stated.mann_whitney_p:.2g}", f"{stated.wilcoxon_p:.2g}"]
    return cells


def _change(stated: Published) -> str:
    if stated.change_percent is None:
        return MISSING
    margin = "" if stated.change_margin is None else f" ± {stated.change_margin:.1f}"
    return f"{stated.change_percent:.1f}{margin}"
