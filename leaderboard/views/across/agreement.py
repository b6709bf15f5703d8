"""Whether the truths of a task agree on the order of methods: subsets, groups left out, removal and exemplars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TypeVar

import numpy as np
from scipy.stats import spearmanr

from ....errors import UserError
from ...rows.removal import LOSS
from ...rows.row import Row
from ...stats.ranking import RANDOM, Entry, Standing, better, entry_of, group_of, standings
from .. import removal
from ..exemplars import exemplar_lines
from ..groups import group_lines
from ..selection import Place, place_of
from ..sheet import MISSING, Sheet

T = TypeVar("T")
FEWEST = 3  # entries; of two, any order is a perfect one
NOTES = (
    "Entries that two truths both rank, without random ones. Spearman: of their mean scores by the one with those by "
    "the other. Decided by both: pairs of entries of which each truth says, at 95 %, that one is better; Same and "
    "Reversed: how many of these pairs they order alike, and how many the other way round.",
    "Pairs share entries, and truths of one task share a base model: counts, and no test. Presets of one method are "
    "entries of their own.",
)


@dataclass(frozen=True)
class Order:
    """What one truth says of entries: mean scores, and the pairs whose first is significantly better."""

    name: str
    scores: Mapping[Entry, float]
    wins: frozenset[tuple[Entry, Entry]]


@dataclass(frozen=True)
class Line:
    """Two truths on the entries that both rank; ``spearman`` is None where it is undefined.

    reversals: the pairs that they order differently, the one that the first truth has before the other.
    """

    one: str
    other: str
    entries: int
    spearman: float | None
    decided: int
    same: int
    reversals: tuple[str, ...]


def agreement_sheets(rows: Sequence[Row]) -> list[Sheet]:
    """Return one table per task version, query set and truth, a line for each two truths that rank three entries.

    Raises UserError where there are no such two.
    """
    places: dict[Place, list[Row]] = {}
    for row in rows:
        if row.metrics is not None:
            places.setdefault(place_of(row), []).append(row)
    found = {place: _lines(orders_of(place, places[place])) for place in sorted(places, key=str)}
    sheets = [_sheet(place, lines) for place, lines in found.items() if lines]
    if not sheets:
        raise UserError("no task has two truths that rank the same entries: run `tdabench run TASK --metrics removal`")
    return sheets


def orders_of(place: Place, rows: Sequence[Row]) -> list[Order]:
    """Return what each truth of a place says of its entries; of one that was asked in several ways, the fullest."""
    found: dict[str, Order] = {}
    for order in (*_by_subsets(rows), *_by_groups(rows), *_by_removal(place, rows), *_by_exemplars(rows)):
        if order.name not in found or len(order.scores) > len(found[order.name].scores):
            found[order.name] = order
    return list(found.values())


def _by_subsets(rows: Sequence[Row]) -> Iterator[Order]:
    for kind in sorted({kind for row in rows for kind in group_of(row).kinds}):
        own = [_alone(row, kind) for row in rows if kind in group_of(row).kinds]
        yield _of_standings(f"LDS, {kind}", standings(own))


def _alone(row: Row, kind: str) -> Row:
    """Return a row with the LDS on one kind of query alone, so that its overall score is that kind's."""
    assert row.metrics is not None
    return row.model_copy(update={"metrics": row.metrics.model_copy(update={"lds": {kind: row.metrics.lds[kind]}})})


def _by_groups(rows: Sequence[Row]) -> Iterator[Order]:
    for setting, lines in group_lines(rows).items():
        yield _of_standings(f"groups, {setting.kind}", [line.standing for line in lines])


def _by_exemplars(rows: Sequence[Row]) -> Iterator[Order]:
    for setting, lines in exemplar_lines(rows).items():
        yield _of_standings(f"exemplars, {setting.k}", [line.standing for line in lines])


def _of_standings(name: str, found: Iterable[Standing]) -> Order:
    ranked = {one.entry: one for one in found if one.rankable and one.entry.method != RANDOM}
    scores = {entry: one.overall.mean for entry, one in ranked.items() if one.overall.mean is not None}
    return Order(name, scores, _wins({entry: ranked[entry] for entry in scores}, better))


def _by_removal(place: Place, rows: Sequence[Row]) -> Iterator[Order]:
    unions = [row.metrics.removal.union for row in rows if row.metrics and row.metrics.removal]
    if not any(union and LOSS in union.similarities for union in unions):
        return
    for setting, results, _ in removal.removal_settings(rows, LOSS):
        kept = {entry_of(one.row): one for one in results if one.row.key.method != RANDOM}
        scores = {entry: float(one.above.mean()) for entry, one in kept.items()}
        wins = _wins(kept, lambda one, other: removal.better(place, one, other))
        yield Order(f"removal of top {setting.top_k}, loss", scores, wins)


def _wins(found: Mapping[Entry, T], wins: Callable[[T, T], bool]) -> frozenset[tuple[Entry, Entry]]:
    pairs = ((one, other) for one in found for other in found if one != other)
    return frozenset(pair for pair in pairs if wins(found[pair[0]], found[pair[1]]))


def _lines(orders: Sequence[Order]) -> list[Line]:
    lines = [_line(one, other) for one, other in combinations(orders, 2)]
    return [line for line in lines if line.entries >= FEWEST]


def _line(one: Order, other: Order) -> Line:
    """Compare two truths on what both rank."""
    shared = one.scores.keys() & other.scores.keys()
    same = one.wins & other.wins
    turned = {pair for pair in one.wins if pair[::-1] in other.wins}
    reversals = tuple(sorted(f"{first.title} before {second.title}" for first, second in turned))
    counts = len(shared), _spearman(one, other, shared), len(same) + len(turned), len(same)
    return Line(one.name, other.name, *counts, reversals)


def _spearman(one: Order, other: Order, shared: Set[Entry]) -> float | None:
    first, second = ([order.scores[entry] for entry in sorted(shared)] for order in (one, other))
    if min(len(set(first)), len(set(second))) < 2:
        return None
    return float(np.asarray(spearmanr(first, second))[0])


def _sheet(place: Place, lines: Sequence[Line]) -> Sheet:
    headings = ["Truth", "Other truth", "Entries", "Spearman", "Pairs", "Decided\nby both", "Same", "Reversed"]
    shared = {"view": "agreement", **place.record()}
    title = f"{place.title}: agreement of truths"
    return Sheet.of(title, headings, [_cells(line) for line in lines], NOTES, shared, list(map(asdict, lines)))


def _cells(line: Line) -> list[str]:
    spearman = MISSING if line.spearman is None else f"{line.spearman:.2f}"
    pairs = line.entries * (line.entries - 1) // 2
    counts = (line.entries, spearman, pairs, line.decided, line.same, len(line.reversals))
    return [line.one, line.other, *map(str, counts)]
