"""Who is better than whom: paired bootstrap differences between entries that were measured on the same truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ..rows.row import LdsResult, Row

Floats = NDArray[np.float64]
LEVEL = 0.95
RANDOM = "random"


class Group(NamedTuple):
    """What rows must share to be compared: the task version, the truth's hash, the query set and the query kinds."""

    task: str
    task_version: int
    query_set: str
    kinds: tuple[str, ...]
    truth_sha256: str | None

    @property
    def label(self) -> str:
        """``name@version`` of the task."""
        return f"{self.task}@{self.task_version}"


class Entry(NamedTuple):
    """What is ranked: one method with one set of parameters; its seeds are averaged."""

    task: str
    task_version: int
    method: str
    method_version: int
    preset: str
    params_hash: str
    query_set: str

    @property
    def versioned(self) -> str:
        """``name@version`` of the method."""
        return f"{self.method}@{self.method_version}"

    @property
    def title(self) -> str:
        """The method with its version and preset, as people name it."""
        return f"{self.versioned} {self.preset}"

    @property
    def columns(self) -> tuple[str, str, str]:
        """The method with its version, the preset and the parameters' hash: what a table names it by."""
        return self.versioned, self.preset, self.params_hash


@dataclass(frozen=True)
class Score:
    """A mean LDS with its 95 % interval, as fractions, and its bootstrap replicates [B] (empty if unknown)."""

    mean: float | None
    low: float | None
    high: float | None
    replicates: Floats


@dataclass(frozen=True)
class Standing:
    """An entry's rows (one a seed) with their scores by query kind and over all kinds.

    ``done`` of ``asked`` queries, summed over kinds and seeds, have a value.
    """

    entry: Entry
    rows: tuple[Row, ...]
    kinds: Mapping[str, Score]
    overall: Score
    done: int
    asked: int

    @property
    def rankable(self) -> bool:
        """Say whether the cells ended well, every query has a value, and replicates are there to compare with."""
        if any(row.status != "ok" for row in self.rows):
            return False
        return self.done == self.asked > 0 and len(self.overall.replicates) > 0


def group_of(row: Row) -> Group:
    """Return the group in which a measured row is compared."""
    kinds = tuple(row.metrics.lds) if row.metrics else ()
    return Group(row.key.task, row.key.task_version, row.key.query_set, tuple(sorted(kinds)), row.source.truth_sha256)


def entry_of(row: Row) -> Entry:
    """Return the entry to which a row belongs."""
    key = row.key
    version = (key.task, key.task_version, key.method, key.method_version)
    return Entry(*version, key.setting, key.params_hash, key.query_set)


def by_entry(rows: Iterable[Row]) -> dict[Entry, list[Row]]:
    """Return each entry's rows, in the order in which entries and rows come."""
    entries: dict[Entry, list[Row]] = {}
    for row in rows:
        entries.setdefault(entry_of(row), []).append(row)
    return entries


def standings(rows: Iterable[Row]) -> list[Standing]:
    """Return the entries of one group's measured rows, best overall mean first; raises UserError for mixed groups."""
    entries = by_entry(rows)
    groups = {group_of(row) for seeds in entries.values() for row in seeds}
    if len(groups) > 1:
        raise UserError(f"these rows cannot be ranked together: {'; '.join(sorted(map(str, groups)))}")
    return sorted((_standing(entry, seeds) for entry, seeds in entries.items()), key=by_mean)


def by_mean(standing: Standing) -> tuple[float, Entry]:
    """Return what standings are sorted by: best overall mean first."""
    mean = standing.overall.mean
    return (float("inf") if mean is None else -mean, standing.entry)


def _standing(entry: Entry, rows: Sequence[Row]) -> Standing:
    results = [row.metrics.lds if row.metrics else {} for row in rows]
    kinds = {kind: average([_score(lds[kind]) for lds in results]) for kind in results[0]}
    values = [value for lds in results for result in lds.values() for value in result.values]
    done = len(values) - values.count(None)
    return Standing(entry, tuple(rows), kinds, average(list(kinds.values())), done, len(values))


def _score(result: LdsResult) -> Score:
    return Score(result.mean, result.low, result.high, np.array(result.replicates, dtype=np.float64))


def average(scores: Sequence[Score]) -> Score:
    """Return the mean of scores over seeds or kinds, replicate by replicate; unknown where one of them is."""
    if len(scores) == 1:
        return scores[0]
    means = [score.mean for score in scores if score.mean is not None]
    mean = float(np.mean(means)) if scores and len(means) == len(scores) else None
    if len({len(score.replicates) for score in scores}) != 1:
        return Score(mean, None, None, np.empty(0))
    replicates = np.mean([score.replicates for score in scores], axis=0)
    return Score(mean, *bounds(replicates), replicates)


def bounds(replicates: Floats) -> tuple[float | None, float | None]:
    """Return the 95 % percentile interval of replicates [B], of which some or all may be unknown."""
    known = replicates[~np.isnan(replicates)]
    if not len(known):
        return None, None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def paired_difference(one: Standing, other: Standing) -> Floats:
    """Return the replicates [B] of the difference in overall score: replicate b resamples the same data in both.

    Raises UserError where the two hold different numbers of replicates.
    """
    counts = len(one.overall.replicates), len(other.overall.replicates)
    if counts[0] != counts[1]:
        names = f"{one.entry.method} and {other.entry.method}"
        raise UserError(f"{names} hold {counts[0]} and {counts[1]} bootstrap replicates; measure one of them again")
    return one.overall.replicates - other.overall.replicates


def better(one: Standing, other: Standing) -> bool:
    """Say whether the 95 % interval of the paired difference lies above 0."""
    low, _ = bounds(paired_difference(one, other))
    return low is not None and low > 0


def paired_p(one: Standing, other: Standing) -> float | None:
    """Return the two-sided p-value that two overall scores are equal, by the paired bootstrap; None if unknown.

    Twice the smaller share of replicates on one side of 0, with one more counted on it, so that it is never 0 (Davison
    & Hinkley, Bootstrap Methods and their Application, 1997, section 4.2).
    """
    found = paired_difference(one, other)
    known = found[~np.isnan(found)]
    if not len(known):
        return None
    side = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2 * (side + 1) / (len(known) + 1))


def tie_groups(standings: Sequence[Standing]) -> dict[Entry, int]:
    """Return by rankable entry the number of its group, from 0; ``standings`` are best first.

    A group is its best entry and those after it that are not significantly worse than it; the first that is begins the
    next. Members need not be tied among each other.
    """
    groups: dict[Entry, int] = {}
    leader: Standing | None = None
    for standing in (one for one in standings if one.rankable):
        if leader is None or better(leader, standing):
            leader, groups[standing.entry] = standing, len(set(groups.values()))
        else:
            groups[standing.entry] = groups[leader.entry]
    return groups


def rank_ranges(standings: Sequence[Standing]) -> dict[Entry, tuple[int, int]]:
    """Return each rankable entry's (best, worst) rank.

    Best is 1 + the number significantly better, worst the number of entries less the number significantly worse.
    """
    ranked = [standing for standing in standings if standing.rankable]
    wins = np.array([[better(one, other) for other in ranked] for one in ranked], dtype=int)
    wins = wins.reshape(len(ranked), len(ranked))
    above, below = wins.sum(axis=0), wins.sum(axis=1)
    return {s.entry: (1 + int(up), len(ranked) - int(down)) for s, up, down in zip(ranked, above, below, strict=True)}


def beats_random(standing: Standing, standings: Iterable[Standing]) -> bool | None:
    """Say whether an entry is better than every ``random`` entry among ``standings``, or than 0 where there is none.

    None for a random entry itself, and for entries that cannot be ranked.
    """
    if standing.entry.method == RANDOM or not standing.rankable:
        return None
    randoms = [other for other in standings if other.entry.method == RANDOM and other.rankable]
    if randoms:
        return all(better(standing, other) for other in randoms)
    return standing.overall.low is not None and standing.overall.low > 0
