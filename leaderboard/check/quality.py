"""By how much a pair's metrics changed, each with its standard error from what both sides share.

Shapes: Q queries, S retraining seeds, B replicates of the bootstrap that all methods of a task version share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from ..rows.removal import Removal
from ..rows.row import Row
from ..stats.over_seeds_and_queries import two_way_variance
from ..stats.ranking import LEVEL, Standing, standings
from ..views.removal import above_random
from .pairing import Pair

Floats = NDArray[np.float64]
FRACTION = 100.0  # how fractions are shown
HEADLINE = "ap"  # of the measures on exemplars, which all say the same


@dataclass(frozen=True)
class Change:
    """A metric's means before and after, and the standard error of their difference with its degrees of freedom.

    ``error`` is None where there is a single query. scale: what it is shown times.
    """

    what: str
    before: float
    after: float
    error: float | None
    freedom: float
    scale: float = FRACTION

    @property
    def difference(self) -> float:
        """By how much it rose."""
        return self.after - self.before

    @property
    def p(self) -> float | None:
        """The one-sided p-value of a fall, from Student's t; None without a standard error."""
        if self.error is None:
            return None
        if self.error == 0:
            return 0.0 if self.difference < 0 else 1.0
        return float(stdtr(self.freedom, self.difference / self.error))

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """The 95 % interval of the difference."""
        if self.error is None:
            return None, None
        half = float(stdtrit(self.freedom, (1 + LEVEL) / 2)) * self.error
        return self.difference - half, self.difference + half


def changes(pair: Pair) -> list[Change]:
    """Return the changes of all metrics that both sides have; both need metrics in all their rows."""
    return [change for metric in (_lds, _groups, _exemplars, _removal) for change in metric(pair)]


def _lds(pair: Pair) -> Iterator[Change]:
    """LDS by kind of query and over all kinds, with errors over queries and subsets, from rows' crossed bootstraps.

    Another seed's scores differ in what all queries share, which shows over subsets and not over queries alone.
    """
    if not all(row.metrics and row.metrics.lds for row in (*pair.before, *pair.after)):
        return
    before, after = standings(pair.before)[0], standings(pair.after)[0]
    if _queries(pair.before[0]) != _queries(pair.after[0]):
        return
    kinds = sorted(before.kinds)
    for kind in kinds:
        yield _crossed(f"LDS×100 {kind}", before, after, [kind])
    if len(kinds) > 1:
        yield _crossed("LDS×100, mean over kinds", before, after, kinds)


def _crossed(what: str, before: Standing, after: Standing, kinds: Sequence[str]) -> Change:
    values = [[_lds_values(side.rows, kind) for kind in kinds] for side in (before, after)]
    known = [np.isfinite(a) & np.isfinite(b) for a, b in zip(*values, strict=True)]
    old, new = (float(np.mean([v[k].mean() for v, k in zip(side, known, strict=True) if k.any()])) for side in values)
    deviations = np.concatenate([(b - a)[k] for a, b, k in zip(*values, known, strict=True)])
    replicates = [np.stack([side.kinds[kind].replicates for kind in kinds]).mean(0) for side in (before, after)]
    freedom = len(deviations) - len(kinds)
    if len(replicates[0]) != len(replicates[1]) or not len(replicates[0]) or not np.concatenate(known).all():
        return Change(what, old, new, _standard_error(deviations), max(freedom, 1))
    if freedom < 1:
        return Change(what, old, new, None, 1)
    stretch = np.sqrt(len(deviations) / freedom)  # a bootstrap of few queries spreads too little (Hesterberg, 2015)
    return Change(what, old, new, float(stretch * np.nanstd(replicates[1] - replicates[0], ddof=1)), freedom)


def _queries(row: Row) -> dict[str, list[str]]:
    return {kind: result.query_ids for kind, result in row.metrics.lds.items()} if row.metrics else {}


def _lds_values(rows: Sequence[Row], kind: str) -> Floats:
    return _over_rows(rows, lambda row: row.metrics.lds[kind].values if row.metrics else [])


def _over_rows(rows: Sequence[Row], get: Callable[[Row], Sequence[float | None]]) -> Floats:
    """Return the mean over rows, one a seed, of values [Q]; NaN where one of them has none."""
    return np.stack([np.array(get(row), dtype=float) for row in rows]).mean(0)


def _standard_error(deviations: Floats) -> float | None:
    return float(deviations.std(ddof=1) / np.sqrt(len(deviations))) if len(deviations) > 1 else None


def _paired(what: str, before: Floats, after: Floats, cases: Sequence[int] | None = None) -> Iterator[Change]:
    """The change of values [Q] that are known on both sides, with its error over queries, or over their cases."""
    known = np.isfinite(before) & np.isfinite(after)
    if not known.any():
        return
    numbers = np.arange(len(before)) if cases is None else np.asarray(cases)
    groups = [known & (numbers == number) for number in np.unique(numbers[known])]
    old, new = (np.array([values[group].mean() for group in groups]) for values in (before, after))
    yield Change(what, float(old.mean()), float(new.mean()), _standard_error(new - old), max(len(old) - 1, 1))


def _groups(pair: Pair) -> Iterator[Change]:
    """Measures of groups by kind of query, with errors over queries."""
    first = [rows[0].metrics.groups if rows[0].metrics else {} for rows in (pair.before, pair.after)]
    for kind in sorted(first[0].keys() & first[1].keys()):
        if first[0][kind].query_ids != first[1][kind].query_ids or first[0][kind].names != first[1][kind].names:
            continue
        for name in sorted(first[0][kind].scores.keys() & first[1][kind].scores.keys()):
            get = partial(_group_values, kind=kind, name=name)
            before, after = (_over_rows(rows, get) for rows in (pair.before, pair.after))
            yield from _paired(f"groups' {name}×100 {kind}", before, after)


def _group_values(row: Row, kind: str, name: str) -> list[float | None]:
    return row.metrics.groups[kind].scores[name].values if row.metrics else []


def _exemplars(pair: Pair) -> Iterator[Change]:
    """Average precision by number of exemplars and strength, with errors over cases, which samples share."""
    old, new = (rows[0].metrics.exemplars if rows[0].metrics else None for rows in (pair.before, pair.after))
    if old is None or new is None or old.truth != new.truth:
        return
    later = {(scores.k, scores.steps): scores for scores in new.scores}
    for scores in old.scores:
        other = later.get((scores.k, scores.steps))
        if other is not None and other.query_ids == scores.query_ids:
            before, after = (np.array(side.measures[HEADLINE].values, dtype=float) for side in (scores, other))
            what = f"exemplars' {HEADLINE}×100, k {scores.k}, {scores.steps} steps"
            yield from _paired(what, before, after, scores.cases)


def _removal(pair: Pair) -> Iterator[Change]:
    """What removal does above random to the targets, by similarity, with errors over seeds and queries."""
    old, new = (rows[0].metrics.removal if rows[0].metrics else None for rows in (pair.before, pair.after))
    if old is None or new is None or old.union is None or new.union is None or _laboratory(old) != _laboratory(new):
        return
    for name in sorted(old.union.similarities.keys() & new.union.similarities.keys()):
        before, after = (above_random(side.similarities[name].targets) for side in (old.union, new.union))
        if old.encoders.get(name) != new.encoders.get(name):
            continue  # numbers by other weights of one encoder
        if before.shape == after.shape and min(before.shape) > 1:
            variance, freedom = two_way_variance(after - before)
            old_mean, new_mean, error = float(before.mean()), float(after.mean()), float(np.sqrt(variance))
            yield Change(f"removal above random, {name}", old_mean, new_mean, error, freedom, scale=1.0)


def _laboratory(removal: Removal) -> tuple[object, ...]:
    union = removal.union
    return (removal.laboratory, removal.top_k, *((union.seeds, union.target_ids) if union else ()))
