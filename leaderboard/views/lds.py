"""The leaderboard of the LDS: one table per group of comparable rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from ..rows.row import Cost, LdsResult, Row, row_key
from ..stats.ranking import (
    Group,
    Score,
    Standing,
    beats_random,
    bounds,
    group_of,
    paired_difference,
    rank_ranges,
    standings,
)
from ..stats.suspicion import above_ceiling, far_above_open, in_the_open
from .selection import failure_of, preset_labels, status_of
from .sheet import MISSING, Failure, Interval, Sheet, flat, rank_text, yes_no

RANK_NOTE = (
    "Rank a-b: a is 1 + the number of entries that are significantly better, b the number of entries less those that "
    "are significantly worse (paired bootstrap over queries and subsets, 95 %, mean over kinds). Brackets are 95 % "
    "intervals; entries that miss queries have no rank. Fwd and Bwd count samples passed through the model."
)
MARKS = {
    "above-ceiling": "above-ceiling: significantly above the noise ceiling, as if it saw the truth (docs/security.md).",
    "above-open": "above-open: a far larger share of the ceiling on report subsets than its dev row has on open ones.",
    "no-isolation": "no-isolation: a method from outside the package, not kept from the truth, or an ensemble of such.",
    "reported": "reported: the submitter's own numbers, not verified here.",
    "resumed": "resumed: took several starts; slices were timed in each, fit and wall time are the last one's.",
}

Suspected = Mapping[str, Collection[str]]  # the keys of rows by their mark


def interval(score: Score) -> Interval:
    """Return a score without its replicates."""
    return Interval(score.mean, score.low, score.high)


def paired_gain(one: Standing, other: Standing) -> Interval:
    """Return by how much ``one`` has the better mean over kinds, with the paired 95 % interval.

    Unknown where either misses queries: means over different queries do not compare.
    """
    if not one.rankable or not other.rankable or one.overall.mean is None or other.overall.mean is None:
        return Interval()
    return Interval(one.overall.mean - other.overall.mean, *bounds(paired_difference(one, other)))


@dataclass(frozen=True)
class Line:
    """One entry, averaged over its seeds: scores as fractions, costs in seconds, bytes and sample passes.

    ``marks`` holds those of MARKS that apply; ``done`` of ``asked`` queries have a value, summed over kinds and seeds.
    """

    rank_best: int | None
    rank_worst: int | None
    method: str
    preset: str
    params_hash: str
    seeds: tuple[int, ...]
    overall: Interval
    lds: Mapping[str, Interval]
    fit_s: float | None
    seconds_per_query: float | None
    peak_rss_bytes: float | None
    peak_gpu_bytes: float | None
    forward_passes: float | None
    backward_passes: float | None
    status: str
    marks: tuple[str, ...]
    done: int
    asked: int
    beats_random: bool | None


@dataclass(frozen=True)
class Table:
    """The entries of one group that may be compared, best mean first, the cells that failed, and the notes below.

    ``ceilings`` are noise ceilings by kind.
    """

    task: str
    query_set: str
    truth_sha256: str | None
    kinds: tuple[str, ...]
    lines: tuple[Line, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    ceilings: Mapping[str, Interval]

    @property
    def ceiling(self) -> float | None:
        """The mean of the noise ceilings over kinds, or None where one is unknown."""
        known = [one.mean for one in self.ceilings.values() if one.mean is not None]
        return mean(known) if known and len(known) == len(self.ceilings) else None

    @property
    def title(self) -> str:
        """Name the task version and the query set."""
        return f"{self.task}, {self.query_set} queries"


def build_tables(rows: Iterable[Row], beside: Sequence[Row] = ()) -> list[Table]:
    """Return one table per group of comparable rows, with each failed cell in the largest table of its query set.

    Rows of methods that score groups, and of tasks without subsets, have no LDS, and are left out. beside: rows that
    are not shown, such as those on dev queries, by which some that are may be marked.
    """
    rows = [row for row in rows if row.metrics is None or row.metrics.lds]
    suspected = {"no-isolation": in_the_open(rows), "above-open": far_above_open(rows, [*rows, *beside])}
    measured: dict[Group, list[Row]] = {}
    for row in rows:
        if row.metrics is not None:
            measured.setdefault(group_of(row), []).append(row)
    failed: dict[Group, list[Row]] = {}
    for row in rows:
        if row.metrics is None:
            failed.setdefault(_home(row, measured), []).append(row)
    groups = sorted(measured.keys() | failed.keys(), key=lambda group: (*group[:4], group.truth_sha256 or ""))
    return [_table(group, measured.get(group, []), failed.get(group, []), suspected) for group in groups]


def _home(row: Row, groups: Mapping[Group, Sequence[Row]]) -> Group:
    own = group_of(row)
    near = [group for group in groups if group[:3] == own[:3]]
    return max(near, key=lambda group: (group.truth_sha256 == own.truth_sha256, len(groups[group])), default=own)


def _table(group: Group, measured: Sequence[Row], failed: Sequence[Row], suspected: Suspected) -> Table:
    ranked = standings(measured)
    ranges = rank_ranges(ranked)
    lines = tuple(
        _line(one, ranges.get(one.entry), beats_random(one, ranked), _marks(one.rows, suspected)) for one in ranked
    )
    unfinished = [row for row in measured if row.status not in ("ok", "partial")]
    failures = sorted(map(failure_of, [*failed, *unfinished]), key=lambda one: (one.method, one.preset, one.seed))
    results = {kind: [row.metrics.lds[kind] for row in measured if row.metrics] for kind in group.kinds}
    ceilings = {kind: _ceiling(_shown(found)) for kind, found in results.items()}
    notes = _notes(measured, results, _marks(measured, suspected)) if measured else ()
    return Table(group.label, group.query_set, group.truth_sha256, group.kinds, lines, tuple(failures), notes, ceilings)


def _line(standing: Standing, rank: tuple[int, int] | None, beats: bool | None, marks: tuple[str, ...]) -> Line:
    entry = standing.entry
    costs = [row.cost for row in standing.rows if row.cost]
    return Line(
        *(rank or (None, None)),
        method=entry.versioned,
        preset=entry.preset,
        params_hash=entry.params_hash,
        seeds=tuple(sorted(row.key.seed for row in standing.rows)),
        overall=interval(standing.overall),
        lds={kind: interval(score) for kind, score in sorted(standing.kinds.items())},
        fit_s=_mean(costs, lambda cost: cost.fit_s),
        seconds_per_query=_mean(costs, lambda cost: cost.seconds_per_query),
        peak_rss_bytes=_mean(costs, lambda cost: peak(cost.peak_rss_bytes)),
        peak_gpu_bytes=_mean(costs, lambda cost: peak(cost.peak_gpu_bytes)),
        forward_passes=_mean(costs, lambda cost: sum(cost.forward_passes.values())),
        backward_passes=_mean(costs, lambda cost: sum(cost.backward_passes.values())),
        status=status_of(standing.rows),
        marks=marks,
        done=standing.done,
        asked=standing.asked,
        beats_random=beats,
    )


def _mean(costs: Sequence[Cost], measure: Callable[[Cost], float | None]) -> float | None:
    values = [value for value in map(measure, costs) if value is not None]
    if len(values) == 1:
        return values[0]
    return sum(values) / len(values) if values else None


def peak(phases: Mapping[str, int | None]) -> int | None:
    """Return the largest value of any phase, or None where none is known."""
    return max((value for value in phases.values() if value is not None), default=None)


def _marks(rows: Sequence[Row], suspected: Suspected) -> tuple[str, ...]:
    found = {"resumed" for row in rows if row.cost and row.cost.resumed}
    found |= {"above-ceiling" for row in rows if above_ceiling(row)}
    found |= {mark for row in rows for mark, keys in suspected.items() if row_key(row.key) in keys}
    found |= {"reported" for row in rows if row.source.kind == "reported"}
    return tuple(sorted(found))


def _notes(
    measured: Sequence[Row], results: Mapping[str, Sequence[LdsResult]], marks: Iterable[str]
) -> tuple[str, ...]:
    return (*_kind_notes(results), RANK_NOTE, _machine_note(measured), *(MARKS[mark] for mark in marks))


def _kind_notes(results: Mapping[str, Sequence[LdsResult]]) -> Iterable[str]:
    for kind, found in results.items():
        shuffled = [abs(result.shuffled_mean) for result in found if result.shuffled_mean is not None]
        control = f" Other queries' scores reach {100 * max(shuffled):.1f} at most." if shuffled else ""
        one = _shown(found)
        ceiling = _ceiling(one).text()
        yield f"{kind}: {len(one.query_ids)} queries, {one.n_subsets} subsets, noise ceiling {ceiling}.{control}"


def _shown(results: Sequence[LdsResult]) -> LdsResult:
    """Return a result that has the ceiling, which all of a kind share, if any has."""
    return next((result for result in results if result.ceiling is not None), results[0])


def _ceiling(result: LdsResult) -> Interval:
    return Interval(result.ceiling, result.ceiling_low, result.ceiling_high)


def _machine_note(measured: Sequence[Row]) -> str:
    machines = {machine_of(row) for row in measured if row.cost}
    together = sorted({int(row.environment.get("concurrent_cells", 1)) for row in measured if row.cost})
    if len(machines) == 1 and (name := machines.pop()):
        return f"Cost: cold, {' or '.join(map(str, together))} cell(s) at a time, on {name}."
    return "Cost: not all on one known machine; compare passes, which do not depend on it, rather than seconds."


def machine_of(row: Row) -> str:
    """Return on what a row was measured: its processor, and its GPU if any; empty if unknown."""
    return " and ".join(str(row.environment[part]) for part in ("cpu", "gpu") if row.environment.get(part))


def headings(table: Table) -> list[str]:
    """Return the text columns' names, folded at line breaks."""
    scores = [f"LDS×100\n{kind}" for kind in table.kinds]
    memory = "GPU MiB" if _uses_gpu(table) else "RSS MiB"
    return ["Rank", "Method", "Preset", *scores, "Fit s", "s/query", memory, "Fwd", "Bwd", "Status", "Beats random"]


def cells(table: Table) -> list[list[str]]:
    """Return the text of each line, a cell for each of :func:`headings`."""
    presets = preset_labels([(line.method, line.preset, line.params_hash) for line in table.lines])
    return [_cells(line, preset, table) for line, preset in zip(table.lines, presets, strict=True)]


def _cells(line: Line, preset: str, table: Table) -> list[str]:
    memory = line.peak_gpu_bytes if _uses_gpu(table) else line.peak_rss_bytes
    return [
        rank_text(line.rank_best, line.rank_worst),
        line.method,
        preset,
        *(line.lds[kind].text() for kind in table.kinds),
        _seconds(line.fit_s),
        _seconds(line.seconds_per_query),
        _mebibytes(memory),
        _abbreviated(line.forward_passes),
        _abbreviated(line.backward_passes),
        _status(line),
        yes_no(line.beats_random),
    ]


def _uses_gpu(table: Table) -> bool:
    return any(line.peak_gpu_bytes for line in table.lines)


def _status(line: Line) -> str:
    missing = (f"{line.done} of {line.asked}",) if line.done < line.asked else ()
    return ", ".join((*missing, *line.marks)) or line.status


def _seconds(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _mebibytes(value: float | None) -> str:
    return MISSING if value is None else f"{value / 2**20:,.0f}"


def _abbreviated(value: float | None) -> str:
    if value is None:
        return MISSING
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:  # what rounds up to 1000 takes the next unit
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def lds_sheets(rows: Iterable[Row], beside: Sequence[Row] = ()) -> list[Sheet]:
    """Return the tables of ``rows``, ready to be rendered; beside: as ``build_tables`` takes it."""
    return [sheet_of(table) for table in build_tables(rows, beside)]


def sheet_of(table: Table) -> Sheet:
    """Return one table, ready to be rendered."""
    texts = headings(table), cells(table), table.notes, table.failures
    return Sheet(table.title, *texts, data=asdict(table), records=list(_records(table)))


def _records(table: Table) -> Iterator[dict[str, Any]]:
    shared = {"task": table.task, "query_set": table.query_set, "truth_sha256": table.truth_sha256}
    for line in table.lines:
        yield flat(shared | asdict(line))
    for failure in table.failures:
        record = shared | asdict(failure)
        yield record | {"seeds": record.pop("seed")}
