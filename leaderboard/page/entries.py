"""Entries of one task as the page needs them: the views' standings with their lines, ties and machines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..rows.row import Row
from ..stats.ranking import Group, Standing, group_of, standings, tie_groups
from ..views.lds import Line, Table, build_tables, machine_of
from ..views.selection import preset_labels

READABLE = 40  # entries in a figure, and those compared one by one: more than a reader can tell apart


@dataclass(frozen=True)
class Entry:
    """One line of a table with its standing; ``label``: method and preset; ``tie``: its group of ties, if ranked."""

    line: Line
    standing: Standing
    label: str
    tie: int | None

    @property
    def method(self) -> str:
        """The method's name without its version."""
        return self.standing.entry.method

    @property
    def passes(self) -> float | None:
        """Samples sent through the model forward and backward."""
        counts = [self.line.forward_passes, self.line.backward_passes]
        known = [count for count in counts if count is not None]
        return sum(known) if known else None

    @property
    def machine(self) -> str:
        """On what it was measured; several machines in one line where seeds differ, empty if unknown."""
        return ", ".join(sorted({machine_of(row) for row in self.standing.rows if row.cost}))

    @property
    def source(self) -> str:
        """The weakest of its rows' sources."""
        kinds = {row.source.kind for row in self.standing.rows}
        return next(kind for kind in ("reported", "measured", "verified") if kind in kinds)


@dataclass(frozen=True)
class Ranked:
    """One table of the LDS view with its entries, best mean first, and the rows behind it."""

    table: Table
    entries: tuple[Entry, ...]

    @cached_property
    def readable(self) -> tuple[Entry, ...]:
        """The entries that figures and comparisons show: the best READABLE."""
        return self.entries[:READABLE]


def ranked_tables(rows: Iterable[Row], beside: Sequence[Row] = ()) -> list[Ranked]:
    """Return the LDS view's tables with the standings behind their lines, those with most entries first.

    beside: as ``build_tables`` takes it.
    """
    rows = list(rows)
    groups: dict[Group, list[Row]] = {}
    for row in rows:
        if row.metrics is not None and row.metrics.lds:
            groups.setdefault(group_of(row), []).append(row)
    behind = {(g.label, *g[2:]): found for g, found in groups.items()}
    tables = build_tables(rows, beside)
    keys = [(table.task, table.query_set, table.kinds, table.truth_sha256) for table in tables]
    found = [_ranked(table, behind.get(key, [])) for table, key in zip(tables, keys, strict=True)]
    return sorted(found, key=lambda one: -len(one.entries))


def _ranked(table: Table, rows: Sequence[Row]) -> Ranked:
    ranked = standings(rows)
    ties = tie_groups(ranked)
    presets = preset_labels([(line.method, line.preset, line.params_hash) for line in table.lines])
    labels = [f"{one.entry.method}:{preset}" for one, preset in zip(ranked, presets, strict=True)]
    parts = zip(table.lines, ranked, labels, strict=True)
    return Ranked(table, tuple(Entry(line, one, label, ties.get(one.entry)) for line, one, label in parts))
