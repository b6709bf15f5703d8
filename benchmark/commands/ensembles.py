"""Ensembles: pairs and triples searched on dev queries and open subsets, the best ones reported on test and report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from ...datasets.truth import Assets
from ...errors import UserError
from ...leaderboard.rows.row import Metrics, Row, row_key
from ...leaderboard.stats.ranking import RANDOM, Standing, paired_difference, standings
from ...leaderboard.views.ablations import failure_of, interval, paired_gain
from ...leaderboard.views.sheet import MISSING, Failure, Interval, Sheet, yes_no
from ...methods.ensemble import Ensemble, Params
from ...methods.registry import Entry, Listing, params_hash
from ..metrics.scores import lds_metrics
from ..run.environment import git_state
from ..run.plan import Options, PlannedCell, command_line, parse_entries, plan_cells
from ..run.results import Cell, Results
from ..run.runner import Runner
from ..tasks.spec import TaskSpec, find_task, open_assets
from .ablate import print_sheets
from .leaderboard import registered
from .removal import Removing, Settings
from .run import announce, options, run_cells
from .terminal import Bar, console

Combine = Literal["rank", "z"]
COMBINES: tuple[Combine, ...] = ("rank", "z")
SIZES = (2, 3)
SHOWN = 10
MOST = 3
ALPHA = 0.05
UNFIT = {
    "stored-scores": "an ensemble itself",
    "open-truth": "a reference that learns from what ensembles are chosen on",
}
NOTE = (
    "Searched on dev queries and open subsets: the best of so many looks better there than it is. Difference: to its "
    "best member there, paired; brackets are 95 % intervals."
)
GAIN_NOTE = "* the paired 95 % interval lies above 0, not corrected for the number of pairs."
REPORT_NOTE = (
    "On test queries and report subsets, which chose nothing. The best member is the best on these very data, which "
    "counts against the ensemble. p: one-sided, paired bootstrap; Holm: adjusted over the chosen ensembles."
)


@dataclass(frozen=True)
class Candidate:
    """An entry that may be a member, with its dev row's standing and its stored dev scores [Q, N]."""

    planned: PlannedCell
    row: Row
    standing: Standing
    scores: Tensor

    @property
    def entry(self) -> Entry:
        """The method and preset."""
        return self.planned.entry


@dataclass(frozen=True)
class Found:
    """An ensemble as dev queries and open subsets see it; gain: over its best member there, paired."""

    label: str
    params: Params
    members: tuple[Entry, ...]
    standing: Standing
    best: Candidate
    gain: Interval


@dataclass(frozen=True)
class Verdict:
    """A chosen ensemble on test queries and report subsets, against its best member there.

    p is 1 for an ensemble that could not be measured, so that it still counts in Holm's correction.
    """

    row: Row
    standing: Standing | None
    best: Standing | None
    gain: Interval
    p: float
    holm: float

    @property
    def better(self) -> bool:
        """Say whether it is better than its best member at 5 % after the correction."""
        return self.holm <= ALPHA


@dataclass(frozen=True)
class Session:
    """Where cells of one task are planned and run."""

    spec: TaskSpec
    assets: Assets
    plugins: tuple[Path, ...]
    results: Results
    options: Options

    def plan(self, entries: Sequence[Entry], query_set: str, params: Any = None) -> list[PlannedCell]:
        """Return the cells of entries with seed 0; ``params`` replaces those of a single entry's preset."""
        given = None if params is None else {entries[0].method: params}
        return plan_cells(self.spec, self.assets, list(entries), [0], query_set, self.plugins, given)

    def run(self, planned: list[PlannedCell]) -> list[Row]:
        """Run the cells that need it and return the rows of all."""
        return run_cells(planned, self.results, self.options)


def ensembles(
    task: str,
    methods: list[str],
    preset: str,
    keep: int,
    folder: Path,
    plugins: tuple[Path, ...],
    device: str,
    jobs: int,
    removal: Settings,
) -> list[PlannedCell]:
    """Search ensembles; run, report and take to removal the best ``keep``; return their test cells (dry run: none)."""
    if not 1 <= keep <= MOST:
        raise UserError(f"--keep {keep}: keep 1 to {MOST}, since each one kept weakens the evidence for the others")
    spec = find_task(task)
    entries = parse_members(methods, preset, registered(plugins))
    chosen_options = options(device, jobs, 3600.0, 0.0, 512, False, False)
    session = Session(spec, open_assets(spec), plugins, Results(folder), chosen_options)
    if removal.dry_run:
        _say_what_would_run(session, entries)
        return []
    candidates, left_out = measured(session, entries)
    found = search(session, candidates, preset)
    chosen = choose(found, keep)
    record = _search_record(session, candidates, left_out, found, chosen)
    _write(session, record)
    print_sheets(_search_sheets(found, candidates))
    cells, verdicts = report(session, chosen)
    ends = [_verdict_record(one.label, verdict) for one, verdict in zip(chosen, verdicts, strict=True)]
    _write(session, record | {"report": ends})
    print_sheets([_report_sheet(chosen, verdicts)])
    Removing(spec, session.assets, session.results, chosen_options, removal).measure(cells)
    return cells


def parse_members(names: list[str], preset: str, known: dict[str, Listing]) -> list[Entry]:
    """Return the entries to combine: those named, or every method but ensembles, references and random scores.

    Raises UserError for one that cannot be a member, and for fewer than two.
    """
    default = [name for name, listing in known.items() if not UNFIT.keys() & set(listing.needs) and name != RANDOM]
    entries = parse_entries(names or default, [], preset, known)
    for entry in entries:
        for need in UNFIT.keys() & set(known[entry.method].needs):
            raise UserError(f"{entry} cannot be a member: it is {UNFIT[need]}; leave it out of --methods")
    if len(entries) < min(SIZES):
        raise UserError("an ensemble needs at least two members: name more with --methods")
    return sorted(entries, key=str)


def _say_what_would_run(session: Session, entries: list[Entry]) -> None:
    runner = Runner(session.results, session.options)
    for query_set in ("dev", "test"):
        cells = session.plan(entries, query_set)
        due = [cell for i in runner.due(cells) if not runner.rescorable(cell := cells[i])]
        announce(cells, due, session.options)
        names = ", ".join(str(cell.entry) for cell in due) or "none"
        console.print(f"{query_set} queries: {names}", soft_wrap=True, markup=False)
    console.print("test cells: only of members of chosen ensembles, and the ensembles, which take no pass of a model")


def measured(session: Session, entries: Sequence[Entry]) -> tuple[list[Candidate], dict[str, str]]:
    """Run the dev cells and return those that have all scores, and why others do not.

    Raises UserError where fewer than two are left.
    """
    cells = session.plan(entries, "dev")
    candidates, left_out = [], {}
    for planned, row in zip(cells, session.run(cells), strict=True):
        if row.status == "ok":
            record = session.results.cell(planned.key, planned.identity)
            scores = from_numpy(np.concatenate([record.scores(part) for part in record.parts()]))
            candidates.append(Candidate(planned, row, standings([row])[0], scores))
        else:
            left_out[str(planned.entry)] = f"{row.status}: {row.reason}"
    for entry, reason in left_out.items():
        console.print(f"left out: {entry}: {reason}", soft_wrap=True, markup=False)
    if len(candidates) < min(SIZES):
        raise UserError(f"{len(candidates)} of {len(cells)} methods have all dev scores, and an ensemble needs two")
    return candidates, left_out


def search(session: Session, candidates: Sequence[Candidate], preset: str) -> list[Found]:
    """Return all pairs and triples of candidates in both normalisations, best mean LDS over kinds first."""
    groups = [group for size in SIZES for group in combinations(candidates, size)]
    tries = list(product(groups, COMBINES))
    truth, ids, found = session.assets.truth("open"), candidates[0].planned.query_ids, []
    with Bar("ensembles tried") as bar:
        for done, (group, combine) in enumerate(tries, 1):
            metrics = lds_metrics(session.assets, truth, _Unstored(combined(group, combine)), ids, ids)
            found.append(_found(group, combine, preset, metrics))
            bar.update(done, len(tries))
    return sorted(found, key=lambda one: -_mean(one.standing))


def combined(group: Sequence[Candidate], combine: Combine) -> Tensor:
    """Return the scores [Q, N] that the method ``ensemble`` makes of the candidates' stored ones."""
    view: Any = SimpleNamespace(stored_scores={one.entry: lambda ids, own=one.scores: own for one in group})
    queries: Any = SimpleNamespace(ids=group[0].planned.query_ids)
    return Ensemble(Params(combine)).attribute(view, None, queries)


class _Unstored(Cell):
    """Scores [Q, N] as a cell that no store holds."""

    def __init__(self, scores: Tensor) -> None:
        self.matrix = scores.numpy()

    def parts(self) -> list[slice]:
        return [slice(0, len(self.matrix))]

    def scores(self, part: slice) -> NDArray[np.float32]:
        return self.matrix[part]


def _found(group: Sequence[Candidate], combine: Combine, preset: str, metrics: Metrics) -> Found:
    members = tuple(one.entry for one in group)
    best = max(group, key=lambda one: _mean(one.standing))
    name, params = label(members, combine, preset), Params(combine, tuple(map(str, members)))
    names = {"method": Ensemble.name, "method_version": Ensemble.version, "preset": name}
    hashed = {"params": asdict(params), "params_hash": params_hash(params)}
    key = best.row.key.model_copy(update=names | hashed)
    standing = standings([best.row.model_copy(update={"key": key, "metrics": metrics})])[0]
    return Found(name, params, members, standing, best, paired_gain(standing, best.standing))


def label(members: Iterable[Entry], combine: Combine, preset: str) -> str:
    """Return an ensemble's preset name, such as ``z-pixel+trak-paper``; of ``preset``, its members' names suffice."""
    names = [one.method if one.preset == preset else f"{one.method}-{one.preset}" for one in members]
    return ("" if combine == "rank" else f"{combine}-") + "+".join(names)


def _mean(standing: Standing) -> float:
    return -np.inf if standing.overall.mean is None else standing.overall.mean


def choose(found: Sequence[Found], keep: int) -> list[Found]:
    """Return the best ``keep`` of ensembles that come best first, the better normalisation of each set of members.

    Raises UserError where none has all its scores.
    """
    best: dict[tuple[Entry, ...], Found] = {}
    for one in found:
        if one.standing.rankable:
            best.setdefault(one.members, one)
    if not best:
        raise UserError("no ensemble has a score for every dev query: name other members with --methods")
    return list(best.values())[:keep]


def report(session: Session, chosen: Sequence[Found]) -> tuple[list[PlannedCell], list[Verdict]]:
    """Run the chosen ensembles on test queries, after their members, and return their cells and verdicts."""
    members = session.plan(list(dict.fromkeys(entry for one in chosen for entry in one.members)), "test")
    own = [session.plan([Entry(Ensemble.name, one.label)], "test", one.params)[0] for one in chosen]
    row_of = {cell.entry: row for cell, row in zip([*members, *own], session.run([*members, *own]), strict=True)}
    pairs = zip(own, chosen, strict=True)
    raw = [judge(row_of[cell.entry], [row_of[entry] for entry in one.members]) for cell, one in pairs]
    adjusted = holm([one.p for one in raw])
    return own, [replace(one, holm=value) for one, value in zip(raw, adjusted, strict=True)]


def judge(row: Row, members: Sequence[Row]) -> Verdict:
    """Return an ensemble's row against the best of its members' rows, before any correction."""
    if row.status != "ok":
        return Verdict(row, None, None, Interval(), 1.0, 1.0)
    own = standings([row])[0]
    best = max((standings([member])[0] for member in members), key=_mean)
    p = one_sided_p(paired_difference(own, best))
    return Verdict(row, own, best, paired_gain(own, best), p, p)


def one_sided_p(replicates: NDArray[np.float64]) -> float:
    """Return (1 + replicates [B] that are not above 0) / (B + 1); one without a value counts as not above."""
    return (1 + int((~(replicates > 0)).sum())) / (len(replicates) + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values (1979, step-down), in the given order."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()


def _write(session: Session, record: dict[str, Any]) -> None:
    session.results.store.put_json(f"ensembles/{session.spec.label}.json", record)


def _search_record(
    session: Session, candidates: Sequence[Candidate], left_out: dict[str, str], found: list[Found], chosen: list[Found]
) -> dict[str, Any]:
    revision, dirty = git_state()
    return {
        "task": session.spec.label,
        "query_set": "dev",
        "subsets": "open",
        "truth_sha256": session.assets.sha256,
        "command": command_line(),
        "git_revision": revision,
        "git_dirty": dirty,
        "candidates": [_candidate_record(one) for one in candidates],
        "left_out": left_out,
        "ensembles": [_found_record(one) for one in found],
        "chosen": [one.label for one in chosen],
    }


def _candidate_record(one: Candidate) -> dict[str, Any]:
    hashes = {"row": row_key(one.row.key), "scores_sha256": one.row.source.scores_sha256}
    return {"entry": str(one.entry)} | hashes | _standing_record(one.standing)


def _found_record(one: Found) -> dict[str, Any]:
    names = {"label": one.label, "members": list(one.params.members), "combine": one.params.combine}
    gain = {"best_member": str(one.best.entry), "difference": asdict(one.gain)}
    return names | _standing_record(one.standing) | gain


def _standing_record(standing: Standing) -> dict[str, Any]:
    scores = {"overall": standing.overall, **standing.kinds}
    return {"lds": {name: asdict(interval(score)) for name, score in scores.items()}}


def _verdict_record(name: str, one: Verdict) -> dict[str, Any]:
    found = {"label": name, "row": row_key(one.row.key), "status": one.row.status, "reason": one.row.reason}
    tested = {"p": one.p, "holm_p": one.holm, "better": one.better}
    best = row_key(one.best.rows[0].key) if one.best else None
    return found | tested | {"best_member": best, "difference": asdict(one.gain)}


def _search_sheets(found: Sequence[Found], candidates: Sequence[Candidate]) -> list[Sheet]:
    entries = [str(one.entry) for one in candidates]
    title, best = f"best of {len(found)} ensembles, dev queries x open subsets", found[:SHOWN]
    headings = ["Preset", "mean LDS×100", "Best member", "its mean", "Difference"]
    gains = [[row, *(gain_text(found, row, column) for column in entries)] for row in entries]
    return [
        _sheet(title, headings, [_search_line(one) for one in best], NOTE),
        _sheet("gain of a pair's z ensemble over its better member, LDS×100", ["Method", *entries], gains, GAIN_NOTE),
    ]


def _sheet(title: str, names: list[str], rows: list[list[str]], note: str, failed: Sequence[Failure] = ()) -> Sheet:
    return Sheet(title, names, rows, [note], failed, data={}, records=[])


def _search_line(one: Found) -> list[str]:
    own, best = interval(one.standing.overall), interval(one.best.standing.overall)
    return [one.label, own.text(), str(one.best.entry), best.text(), one.gain.text()]


def gain_text(found: Sequence[Found], row: str, column: str) -> str:
    """Return the gain of two entries' z ensemble over the better one, x100, with ``*`` where it is significant."""
    for one in found:
        if one.gain.mean is not None and (one.params.combine, {*one.params.members}) == ("z", {row, column}):
            return f"{100 * one.gain.mean:+.1f}" + ("*" if one.gain.low is not None and one.gain.low > 0 else "")
    return MISSING


def _report_sheet(chosen: Sequence[Found], verdicts: Sequence[Verdict]) -> Sheet:
    kinds = sorted({kind for one in verdicts if one.standing for kind in one.standing.kinds})
    scores = [*(f"LDS×100\n{kind}" for kind in kinds), "Mean"]
    headings = ["Preset", *scores, "Best member", "its mean", "Difference", "p", "Holm", "Better"]
    lines = [_report_line(one.label, verdict, kinds) for one, verdict in zip(chosen, verdicts, strict=True)]
    failures = [failure_of(one.row) for one in verdicts if one.row.status != "ok"]
    return _sheet("chosen ensembles, test queries x report subsets", headings, lines, REPORT_NOTE, failures)


def _report_line(name: str, one: Verdict, kinds: Sequence[str]) -> list[str]:
    if one.standing is None or one.best is None:
        return [name, *[MISSING] * len(kinds), one.row.status, *[MISSING] * 6]
    scores = [interval(score).text() for score in (*(one.standing.kinds[kind] for kind in kinds), one.standing.overall)]
    best = [f"{one.best.entry.method}:{one.best.entry.preset}", interval(one.best.overall).text()]
    return [name, *scores, *best, one.gain.text(), f"{one.p:.3f}", f"{one.holm:.3f}", yes_no(one.better)]
