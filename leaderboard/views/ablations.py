"""A preset beside its ablations, from rows alone: what each change of a parameter does to the score."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from ...errors import UserError
from ..rows.row import Row
from ..stats.ranking import Entry, Standing, by_entry, entry_of, standings
from .lds import interval, paired_gain
from .selection import Place, failure_of, place_of, status_of
from .sheet import MISSING, Failure, Interval, Sheet

QUERY_SET = "dev"
NOTES = (
    "Difference: of the mean over kinds to the preset's, paired bootstrap over queries and subsets; brackets are 95 % "
    "intervals. Passes: samples sent forward and backward through the model.",
    "Looked at on dev queries and open subsets only, and not corrected for the number of ablations: of those that "
    "change nothing, about one in twenty differs at 95 %.",
)


class Setting(NamedTuple):
    """What the rows of a preset and those of its ablations share."""

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

    setting: Setting
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
    settings: dict[Setting, list[Row]] = {}
    for row in rows:
        if row.key.query_set == QUERY_SET:
            settings.setdefault(_setting(row), []).append(row)
    compared = {setting: _compared(setting.preset, settings[setting]) for setting in sorted(settings, key=str)}
    return [_table(setting, entries) for setting, entries in compared.items() if entries]


def _setting(row: Row) -> Setting:
    preset, _, _ = row.key.preset.partition("+")
    return Setting(place_of(row), row.key.versioned, preset)


def _compared(preset: str, rows: Sequence[Row]) -> dict[Entry, list[Row]]:
    """Return by entry the rows of the preset, which come first, and of its ablations; nothing without either."""
    ablated = [row for row in rows if row.key.preset != preset]
    own = _own([row for row in rows if row.key.preset == preset], ablated)
    return by_entry([*own, *ablated]) if own and ablated else {}


def _own(named: Sequence[Row], ablated: Sequence[Row]) -> list[Row]:
    # Rows of tuning carry the preset's name too; ablations differ from the preset itself in the fewest parameters.
    def nearness(row: Row) -> tuple[int, str]:
        changed = sum(len(changes(row.key.params, other.key.params)) for other in ablated)
        return -changed, row.source.started_utc

    hashes = {row.key.params_hash for row in ablated}
    base = max((row for row in named if row.key.params_hash not in hashes), key=nearness, default=None)
    return [row for row in named if base and entry_of(row) == entry_of(base)]


def _table(setting: Setting, entries: Mapping[Entry, Sequence[Row]]) -> Ablations:
    rows = [row for seeds in entries.values() for row in seeds]
    scored = {standing.entry: standing for standing in standings(row for row in rows if row.metrics)}
    params, base = rows[0].key.params, scored.get(entry_of(rows[0]))  # the preset's
    variants = [_variant(seeds, params, scored.get(entry), base) for entry, seeds in entries.items()]
    kinds = sorted({kind for variant in variants for kind in variant.lds})
    failures = [failure_of(row) for row in rows if row.status != "ok"]
    return Ablations(setting, tuple(kinds), tuple(sorted(variants, key=_order)), tuple(failures))


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the parameters whose values differ, each with both values (None where there is none)."""
    names = dict.fromkeys([*before, *after])
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def _variant(rows: Sequence[Row], params: Mapping[str, Any], own: Standing | None, base: Standing | None) -> Variant:
    key = rows[0].key
    return Variant(
        preset=key.preset,
        params_hash=key.params_hash,
        changed=changes(params, key.params),
        lds={kind: interval(score) for kind, score in own.kinds.items()} if own else {},
        overall=interval(own.overall) if own else Interval(),
        difference=paired_gain(own, base) if own and base and own is not base else Interval(),
        passes=_passes(rows),
        status=status_of(rows),
    )


def _order(variant: Variant) -> list[tuple[str, float, str]]:
    """Put what changes the same parameters together, in order of their values; the preset comes first."""
    values = [(name, value) for name, (_, value) in variant.changed.items()]
    return [(name, value if isinstance(value, int | float) else np.inf, str(value)) for name, value in values]


def _passes(rows: Sequence[Row]) -> float | None:
    costs = [row.cost for row in rows if row.cost]
    counts = [sum(cost.forward_passes.values()) + sum(cost.backward_passes.values()) for cost in costs]
    return sum(counts) / len(counts) if counts else None


def _sheet(table: Ablations) -> Sheet:
    place, method, preset = table.setting
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
