"""Which cells of two sets of rows are the same, and what is said of those that have no partner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..rows.row import Row
from ..stats.ranking import Entry, by_entry

Entries = Mapping[Entry, Sequence[Row]]


@dataclass(frozen=True)
class Pair:
    """An entry's rows before and after: those of the seeds that both have, or all of them where they share none."""

    entry: Entry
    before: tuple[Row, ...]
    after: tuple[Row, ...]

    @property
    def same_seeds(self) -> bool:
        """Say whether both sides ran with the same seeds."""
        return _seeds(self.before) == _seeds(self.after)

    @property
    def seeds(self) -> str:
        """The seeds of both sides in words."""
        old, new = (", ".join(map(str, _seeds(rows))) for rows in (self.before, self.after))
        return old if old == new else f"{old} to {new}"

    @property
    def same_scores(self) -> bool:
        """Say whether both sides hold the same scores, bit for bit."""
        hashes = [[row.source.scores_sha256 for row in rows] for rows in (self.before, self.after)]
        return self.same_seeds and hashes[0] == hashes[1] and None not in hashes[0]


class Pairing(NamedTuple):
    """The pairs, and what is to be said of what was not paired."""

    pairs: list[Pair]
    notes: list[str]


def label(entry: Entry) -> str:
    """Return an entry as people name it."""
    return f"{entry.title} on {entry.task}@{entry.task_version}"


def paired(baseline: Iterable[Row], current: Iterable[Row]) -> Pairing:
    """Return the cells that both sets have, measured on one truth, and notes on all others."""
    old, new = by_entry(baseline), by_entry(current)
    pairs, notes = [], []
    for entry, rows in new.items():
        if entry not in old:
            notes.append(_unpaired(entry, old))
        elif (truths := _truths(old[entry])) and (now := _truths(rows)) and truths != now:
            notes.append(f"{label(entry)}: not compared, the baseline was measured on another truth of its task")
        else:
            pairs.append(_pair(entry, old[entry], rows))
    missing = len(old.keys() - new.keys())
    return Pairing(pairs, notes + ([f"{missing} cells of the baseline were not run."] if missing else []))


def _pair(entry: Entry, before: Sequence[Row], after: Sequence[Row]) -> Pair:
    common = set(_seeds(before)) & set(_seeds(after))
    sides = ([row for row in rows if not common or row.key.seed in common] for rows in (before, after))
    return Pair(entry, *(tuple(sorted(rows, key=lambda row: row.key.seed)) for rows in sides))


def _unpaired(entry: Entry, baseline: Entries) -> str:
    """Return why an entry has no partner: what the baseline has under the same names, if anything."""
    alike = [old for old in baseline if _names(old) == _names(entry)]
    if not alike:
        return f"{label(entry)}: not compared, the baseline has no row of it"
    others = ", ".join(f"{label(old)} with parameters {old.params_hash[:8]}" for old in alike)
    return f"{label(entry)} with parameters {entry.params_hash[:8]}: not compared, the baseline has {others}"


def _names(entry: Entry) -> tuple[str, str, str, str]:
    return entry.task, entry.method, entry.preset, entry.query_set


def _seeds(rows: Iterable[Row]) -> list[int]:
    return sorted(row.key.seed for row in rows)


def _truths(rows: Iterable[Row]) -> set[str]:
    return {row.source.truth_sha256 for row in rows if row.metrics is not None and row.source.truth_sha256}
