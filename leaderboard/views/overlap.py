"""How much the top items of different queries overlap within a method, and those of one query across methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..rows.row import Row
from ..stats.over_queries import over_pairs, over_queries
from .selection import Place, holding, identity, lacking_notes, names_of, place_of
from .sheet import Interval, Sheet

Floats = NDArray[np.float64]
RESULTS = "top items"
COMMAND = "tdabench run TASK"
KIND = "generated"  # the kind that removal targets
SHOWN_PRESET, ENSEMBLE = "quick", "ensemble"
ACROSS_NOTE = (
    "For the same query, the mean share ×100 of top items that two entries have in common, with its 95 % interval over "
    "queries."
)


class Setting(NamedTuple):
    """What entries must share for their top items to be compared."""

    place: Place
    n_train: int
    k: int
    kind: str

    @property
    def axes(self) -> tuple[str | int, ...]:
        """The names of the resampling of queries."""
        return (*self.place.axes, "overlap", self.kind)


@dataclass(frozen=True)
class Top:
    """One entry's top items [k] by query."""

    row: Row
    items: dict[str, list[int]]
    n_train: int

    @cached_property
    def union(self) -> set[int]:
        """All top items, each once."""
        return {item for ids in self.items.values() for item in ids}

    def members(self, queries: Sequence[str]) -> Floats:
        """Return [Q, N], 1 where an item is among a query's top items."""
        found = np.zeros((len(queries), self.n_train))
        for row, query in zip(found, queries, strict=True):
            row[self.items[query]] = 1
        return found


def overlap_sheets(rows: Sequence[Row]) -> list[Sheet]:
    """Return two tables per setting: overlap within each entry, and between entries; raises UserError."""
    tops: dict[Setting, list[Top]] = {}
    for row, top in holding(rows, lambda row: row.metrics.top if row.metrics else None, RESULTS, COMMAND):
        kind = KIND if KIND in top.kinds else min(top.kinds)
        items = {q: ids for q, its, ids in zip(top.query_ids, top.kinds, top.ids, strict=True) if its == kind and ids}
        setting = Setting(place_of(row), top.n_train, top.k, kind)
        tops.setdefault(setting, []).append(Top(row, items, top.n_train))
    return [
        sheet
        for setting in sorted(tops, key=str)
        for sheet in (_within_sheet(rows, setting, tops[setting]), *_across_sheets(setting, tops[setting]))
    ]


def within(members: ArrayLike, k: int, *axes: str | int) -> Interval:
    """Return the mean share of ``k`` top items that two different queries have in common; ``members`` [Q, N]."""
    members = np.asarray(members, dtype=np.float64)
    return Interval(*over_pairs(members @ members.T / k, *axes)) if len(members) > 1 else Interval()


def across(one: ArrayLike, other: ArrayLike, k: int, *axes: str | int) -> Interval:
    """Return the mean share of ``k`` top items that one query has in common under two methods; both [Q, N]."""
    shared = (np.asarray(one, dtype=np.float64) * np.asarray(other, dtype=np.float64)).sum(1) / k
    return Interval(*over_queries(shared, *axes)) if len(shared) else Interval()


def _within_sheet(rows: Sequence[Row], setting: Setting, tops: Sequence[Top]) -> Sheet:
    found = [(top, _within(setting, top)) for top in tops]
    found.sort(key=lambda pair: pair[1].mean or 0.0)
    shown = [top.row for top, _ in found]
    headings = ["Method", "Preset", "Overlap×100", "Cardinality×100", "Union", "Queries"]
    cells = [[*names, *_within_cells(setting, *pair)] for names, pair in zip(names_of(shown), found, strict=True)]
    lines = [_within_record(setting, *pair) for pair in found]
    notes = [*_within_notes(setting, tops), *lacking_notes(rows, setting.place, shown, RESULTS)]
    title = f"{setting.place.title}: overlap of the top {setting.k} of different {setting.kind} queries"
    shared = _shared("overlap-within", setting) | {"chance": setting.k / setting.n_train}
    return Sheet.of(title, headings, cells, notes, shared, lines)


def _within(setting: Setting, top: Top) -> Interval:
    return within(top.members(list(top.items)), setting.k, *setting.axes)


def _cardinality(setting: Setting, top: Top) -> float | None:
    return len(top.union) / (len(top.items) * setting.k) if top.items else None


def _within_cells(setting: Setting, top: Top, overlap: Interval) -> list[str]:
    return [overlap.text(), Interval(_cardinality(setting, top)).text(), str(len(top.union)), str(len(top.items))]


def _within_record(setting: Setting, top: Top, overlap: Interval) -> dict[str, Any]:
    sizes = {"cardinality": _cardinality(setting, top), "union_size": len(top.union), "n_queries": len(top.items)}
    return {**identity(top.row), **sizes, "overlap": asdict(overlap)}


def _within_notes(setting: Setting, tops: Sequence[Top]) -> list[str]:
    share, queries = setting.k / setting.n_train, max(len(top.items) for top in tops)
    distinct = setting.n_train * (1 - (1 - share) ** queries)
    cardinality = distinct / (queries * setting.k) if queries else 0.0
    return [
        "Overlap: the mean share of top items that two different queries have in common, with its 95 % interval over "
        "queries. Cardinality: the number of distinct items among all queries' top items (Union) by the number of top "
        "items; low values mean that the same items are named for every query.",
        f"Chance: random scores have an overlap×100 of {100 * share:.1f}, a cardinality×100 of {100 * cardinality:.1f} "
        f"and a union of {distinct:.0f} of {setting.n_train} items with {queries} queries.",
    ]


def _shared(view: str, setting: Setting) -> dict[str, Any]:
    sizes = {"n_train": setting.n_train, "k": setting.k, "kind": setting.kind}
    return {"view": view, **setting.place.record(), **sizes}


def _across_sheets(setting: Setting, tops: Sequence[Top]) -> list[Sheet]:
    pairs = {(i, j): _pair(setting, tops[i], tops[j]) for i, j in combinations(range(len(tops)), 2)}
    return [_across_sheet(setting, tops, pairs, _readable(tops))] if pairs else []


def _across_sheet(
    setting: Setting, tops: Sequence[Top], pairs: Mapping[tuple[int, int], Interval], shown: Sequence[int]
) -> Sheet:
    names = names_of([tops[i].row for i in shown])
    headings = ["Method", "Preset", *("\n".join(name) for name in names[:-1])]
    cells = [
        [*name, *(pairs[j, i].text(decimals=0) if j < i else "" for j in shown[:-1])]
        for i, name in zip(shown[1:], names[1:], strict=True)
    ]
    lines = [_pair_record(tops[i], tops[j], overlap) for (i, j), overlap in pairs.items()]
    rest = ["Presets other than quick, but for those of ensembles, are in JSON and CSV only."] * (
        len(shown) < len(tops)
    )
    notes = [f"{ACROSS_NOTE} Chance: {100 * setting.k / setting.n_train:.0f}.", *rest]
    title = f"{setting.place.title}: overlap of the top {setting.k} of {setting.kind} queries between methods"
    return Sheet.of(title, headings, cells, notes, _shared("overlap-across", setting), lines)


def _readable(tops: Sequence[Top]) -> list[int]:
    # All pairs of all presets make a table that nobody can read; the records hold them.
    chosen = [i for i, top in enumerate(tops) if top.row.key.preset == SHOWN_PRESET or top.row.key.method == ENSEMBLE]
    return chosen if len(chosen) > 1 else list(range(len(tops)))


def _pair(setting: Setting, one: Top, other: Top) -> Interval:
    queries = [query for query in one.items if query in other.items]
    return across(one.members(queries), other.members(queries), setting.k, *setting.axes)


def _pair_record(one: Top, other: Top, overlap: Interval) -> dict[str, Any]:
    second = {f"other_{name}": value for name, value in identity(other.row).items()}
    queries = len(one.items.keys() & other.items.keys())
    return {**identity(one.row), **second, "n_queries": queries, "overlap": asdict(overlap)}
