"""A preset beside its ablations, from rows alone: what each change of a parameter does to the score."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from ...errors import UserError
from ..rows.row import Row
from ..stats.ranking import LEVEL, Entry, Score, Standing, entry_of, paired_difference, standings
from .selection import Place, place_of
from .sheet import MISSING, Failure, Interval, Sheet

QUERY_SET = "dev"
NOTES = (
    "Difference: of the mean over kinds to the preset's, paired bootstrap over queries and subsets; brackets are 95 % "
    "intervals. Passes: samples sent forward and backward through the model.",
    "Looked at on dev queries and open subsets only, and not corrected for the number of ablations: of those that "
    "change nothing, about one in twenty differs at 95 %.",
)


class Group(NamedTuple):
    """What a preset's row and those of its ablations share."""

    place: Place
    method: str
    preset: str


@dataclass(frozen=True)
class Variant:
    """The preset or one ablation of it, averaged over its seeds: scores as fractions, costs in sample passes.

    changed: each parameter that differs from the preset's, with the preset's value and its own; difference: of the
    mean over kinds to the preset's, unknown for the preset itself.
    """

    preset: str
    params_hash: str
    changed: Mapping[str, tuple[Any, Any]]
    lds: Mapping[str, Interval]
    overall: Interval
    difference: Interval
    passes: float | None
    status: str


@dataclass(frozen=True)
class Ablations:
    """One preset of a method and its ablations, the preset first, and the cells that lack scores."""

    group: Group
    kinds: tuple[str, ...]
    variants: tuple[Variant, ...]
    failures: tuple[Failure, ...]


def ablation_sheets(rows: Iterable[Row]) -> list[Sheet]:
    """Return the tables of all ablated presets among dev rows; raises UserError where there is none."""
    tables = build_ablations(rows)
    if not tables:
        raise UserError("no dev rows of a preset and its ablations: run `tdabench ablate METHOD`")
    return [_sheet(table) for table in tables]


def build_ablations(rows: Iterable[Row]) -> list[Ablations]:
    """Return one table for each preset among the dev rows that has both a row of its own and ablations."""
    groups: dict[Group, list[Row]] = {}
    for row in rows:
        if row.key.query_set == QUERY_SET:
            method = f"{row.key.method}@{row.key.method_version}"
            groups.setdefault(Group(place_of(row), method, row.key.preset.partition("+")[0]), []).append(row)
    tables = [_table(group, groups[group]) for group in sorted(groups, key=str)]
    return [table for table in tables if table is not None]


def paired_gain(one: Standing, other: Standing) -> Interval:
    """Return by how much ``one`` has the better mean over kinds, with the paired 95 % interval.

    Unknown where either misses queries: means over different queries do not compare.
    """
    if not one.rankable or not other.rankable or one.overall.mean is None or other.overall.mean is None:
        return Interval()
    low, high = np.nanquantile(paired_difference(one, other), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(one.overall.mean - other.overall.mean, float(low), float(high))


def _table(group: Group, rows: Sequence[Row]) -> Ablations | None:
    ablated = [row for row in rows if row.key.preset != group.preset]
    base = _base([row for row in rows if row.key.preset == group.preset], ablated)
    if base is None or not ablated:
        return None
    entries: dict[Entry, list[Row]] = {entry_of(base): []}
    for row in rows:
        if row.key.preset != group.preset or entry_of(row) == entry_of(base):
            entries.setdefault(entry_of(row), []).append(row)
    kept = [row for seeds in entries.values() for row in seeds]
    ranked = {standing.entry: standing for standing in standings(row for row in kept if row.metrics)}
    start = ranked.get(entry_of(base))
    found = (_variant(seeds, base, ranked.get(entry), start) for entry, seeds in entries.items())
    variants = tuple(sorted(found, key=_order))
    kinds = sorted({kind for variant in variants for kind in variant.lds})
    return Ablations(group, tuple(kinds), variants, tuple(failure_of(row) for row in kept if row.status != "ok"))


def _base(named: Sequence[Row], ablated: Sequence[Row]) -> Row | None:
    # Rows of tuning carry the preset's name too; ablations differ from the preset itself in the fewest parameters.
    def distance(row: Row) -> int:
        return sum(len(changes(row.key.params, other.key.params)) for other in ablated)

    hashes = {row.key.params_hash for row in ablated}
    newest = sorted(named, key=lambda row: row.source.started_utc, reverse=True)
    return min((row for row in newest if row.key.params_hash not in hashes), key=distance, default=None)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the parameters whose values differ, each with both values (None where there is none)."""
    names = dict.fromkeys([*before, *after])
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def _variant(rows: Sequence[Row], base: Row, own: Standing | None, start: Standing | None) -> Variant:
    key = rows[0].key
    return Variant(
        preset=key.preset,
        params_hash=key.params_hash,
        changed=changes(base.key.params, key.params),
        lds={kind: interval(score) for kind, score in own.kinds.items()} if own else {},
        overall=interval(own.overall) if own else Interval(),
        difference=paired_gain(own, start) if own and start and own is not start else Interval(),
        passes=_passes(rows),
        status=next((row.status for row in rows if row.status != "ok"), "ok"),
    )


def _order(variant: Variant) -> list[tuple[str, float, str]]:
    """Put what changes the same parameters together, in order of their values; the preset comes first."""
    values = [(name, value) for name, (_, value) in variant.changed.items()]
    return [(name, value if isinstance(value, int | float) else np.inf, str(value)) for name, value in values]


def interval(score: Score) -> Interval:
    """Return a score without its replicates."""
    return Interval(score.mean, score.low, score.high)


def _passes(rows: Sequence[Row]) -> float | None:
    costs = [row.cost for row in rows if row.cost]
    counts = [sum(cost.forward_passes.values()) + sum(cost.backward_passes.values()) for cost in costs]
    return sum(counts) / len(counts) if counts else None


def failure_of(row: Row) -> Failure:
    """Return a row without all its scores as a line below a table."""
    key, reason = row.key, " ".join((row.reason or "no reason given").split())
    return Failure(f"{key.method}@{key.method_version}", key.preset, key.params_hash, key.seed, row.status, reason)


def _sheet(table: Ablations) -> Sheet:
    place, method, preset = table.group
    return Sheet.of(
        title=f"{method} {preset} and its ablations, {place.title} x open subsets",
        headings=["Preset", "Changed", *(f"LDS×100\n{kind}" for kind in table.kinds), "Mean", "Difference", "Passes"],
        rows=[_cells(variant, table.kinds) for variant in table.variants],
        notes=NOTES,
        shared=place.record() | {"method": method, "ablated_preset": preset},
        lines=[asdict(variant) for variant in table.variants],
        failures=table.failures,
    )


def _cells(variant: Variant, kinds: Sequence[str]) -> list[str]:
    changed = ", ".join(f"{name}: {json.dumps(a)} -> {json.dumps(b)}" for name, (a, b) in variant.changed.items())
    return [
        variant.preset,
        changed or MISSING,
        *(variant.lds.get(kind, Interval()).text() for kind in kinds),
        variant.overall.text(),
        variant.difference.text(),
        MISSING if variant.passes is None else f"{variant.passes:,.0f}",
    ]
