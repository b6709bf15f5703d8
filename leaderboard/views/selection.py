"""Which rows a view shows, by which names, and how they ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from ...errors import UserError
from ..rows.row import Row
from ..stats.ranking import entry_of
from .sheet import Failure

T = TypeVar("T")
SEEDS_NOTE = "Of an entry that ran with several seeds, the row of the lowest is shown."


class Place(NamedTuple):
    """What all rows of a view's table share: the task version, the query set and the truth."""

    task: str
    task_version: int
    query_set: str
    truth_sha256: str | None

    @property
    def label(self) -> str:
        """``name@version`` of the task."""
        return f"{self.task}@{self.task_version}"

    @property
    def title(self) -> str:
        """Name the task version and the query set."""
        return f"{self.label}, {self.query_set} queries"

    @property
    def axes(self) -> tuple[str, int]:
        """The names of the resampling that all methods on this task version share."""
        return self.task, self.task_version

    def record(self) -> dict[str, Any]:
        """Return these facts for JSON and CSV."""
        truth = {"truth_sha256": self.truth_sha256}
        return {"task": self.label, "query_set": self.query_set} | truth


def place_of(row: Row) -> Place:
    """Return where a row belongs."""
    key = row.key
    return Place(key.task, key.task_version, key.query_set, row.source.truth_sha256)


def holding(rows: Iterable[Row], get: Callable[[Row], T | None], what: str, command: str) -> list[tuple[Row, T]]:
    """Return an entry's row of the lowest seed that holds a result, with that result; entries in order of name.

    Averaging seeds would mix unions of different size, each removed on its own. Raises UserError where no row holds
    ``what``; ``command`` is what would get it.
    """
    chosen: dict[Any, tuple[Row, T]] = {}
    for row in sorted(rows, key=lambda row: (row.key.seed, entry_of(row))):
        if (value := get(row)) is not None:
            chosen.setdefault(entry_of(row), (row, value))
    if not chosen:
        raise UserError(f"no row holds {what}: run `{command}`")
    return [chosen[entry] for entry in sorted(chosen)]


def lacking_notes(rows: Sequence[Row], place: Place, shown: Iterable[Row], what: str) -> list[str]:
    """Return notes on what is not shown of a place's rows: entries without ``what``, and further seeds."""
    here = [row for row in rows if place_of(row)[:3] == place[:3]]
    found = {entry_of(row) for row in shown}
    without = sorted({entry for row in here if (entry := entry_of(row)) not in found})
    names = ", ".join(dict.fromkeys(entry.title for entry in without))
    seeds = Counter(entry_of(row) for row in here)
    notes = [f"Without {what}: {names}."] if names else []
    return notes + [SEEDS_NOTE] * any(seeds[entry] > 1 for entry in found)


def names_of(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return each row's method with its version, and its preset."""
    methods = [row.key.versioned for row in rows]
    keys = [(method, row.key.setting, row.key.params_hash) for method, row in zip(methods, rows, strict=True)]
    return list(zip(methods, preset_labels(keys), strict=True))


def preset_labels(keys: Sequence[tuple[str, str, str]]) -> list[str]:
    """Return the presets of (method, preset, params hash), with the hash's start where two share a name."""
    counts = Counter(key[:2] for key in keys)
    return [preset if counts[method, preset] == 1 else f"{preset}-{hash[:8]}" for method, preset, hash in keys]


def identity(row: Row) -> dict[str, Any]:
    """Return what names a row in JSON and CSV."""
    key = row.key
    name = {"method": key.versioned, "preset": key.setting}
    return name | {"params_hash": key.params_hash, "seed": key.seed}


def status_of(rows: Iterable[Row]) -> str:
    """Return how an entry's seeds ended: the first status that is not ``ok``, if any."""
    return next((row.status for row in rows if row.status != "ok"), "ok")


def failure_of(row: Row) -> Failure:
    """Return a row without all its scores as a line below a table."""
    return Failure(**identity(row), status=row.status, reason=" ".join((row.reason or "no reason given").split()))
