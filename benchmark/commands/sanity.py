"""Sanity checks that cost little: copies found, noise that does not decide, and a model that does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.stats import rankdata

from ...datasets.truth import Assets
from ...leaderboard.rows.removal import Sanity, SanityCheck
from ...leaderboard.rows.row import Key, Row
from ...seeds import digest
from ..metrics import lds as metrics
from ..metrics.scores import query_ids
from ..run.plan import Options, PlannedCell
from ..run.results import Results
from ..tasks.spec import TaskSpec
from ..truth.derived import DERIVE, copies, derived, sampled
from .run import run_cells
from .terminal import console

VERSION = 1  # of the checks: bumped when one is computed in another way, so that rows get it
N_QUERIES = 10
CHECKS = {
    "planted": ("planted-recall-1", "planted-mean-rank"),
    "self": ("self-recall-1", "self-mean-rank"),
    "randomised": ("randomised",),
    "stability": ("stability",),
}
COPIES = ("planted", "self")
Scores = dict[str, np.ndarray]


class _Unknown(Exception):
    """A check says nothing about a method; the message says why."""


def sanity(cells: list[PlannedCell], results: Results, options: Options, spec: TaskSpec, n: int = N_QUERIES) -> None:
    """Run the variants of the test cells that have scores, and write the checks into the rows of these cells.

    What holds already is left alone; ``n``: queries per variant. Ensembles need their members among ``cells``.
    """
    scored = [cell for cell in cells if _has_scores(results.row(cell.key), cell)]
    if not scored:
        console.print(f"{spec.label}: no cell has scores for sanity checks")
        return
    console.print(f"{spec.label}: sanity checks of {len(scored)} cells: {', '.join(CHECKS)}", soft_wrap=True)
    problems = {variant: derived(spec, scored[0].assets, variant, n) for variant in DERIVE}
    planned = [{name: _planned(cell, name, assets) for name, assets in problems.items()} for cell in scored]
    members_first = sorted(range(len(scored)), key=lambda i: bool(scored[i].members))
    run_cells([planned[i][name] for name in DERIVE for i in members_first], results, options)
    known = {name: copies(problems[name]) for name in COPIES}
    written = [_update(cell, variants, known, results, n) for cell, variants in zip(scored, planned, strict=True)]
    held = len(written) - sum(written)
    console.print(f"{spec.label}: sanity checks written into {sum(written)} rows, {held} had them", soft_wrap=True)


def plan_sanity(cells: list[PlannedCell], n: int = N_QUERIES) -> list[PlannedCell]:
    """Return stand-ins for the variants' cells on the task's own problem: for forecasts, as nothing is derived yet."""
    return [_stand_in(cell, variant, n) for variant in DERIVE for cell in cells]


def copy_checks(variant: str, scores: Scores, items: dict[str, int]) -> dict[str, SanityCheck]:
    """Return recall@1 and the rank of each query's copy, given scores [N] and the copy's training id by query.

    Ranks are averaged over ties, and recall@1 is shared out among ties at the top, so that equal scores are at chance.
    """
    queries, n_train = list(scores), len(next(iter(scores.values())))
    recall_name, rank_name = CHECKS[variant]
    recalls = [_recall(scores[query], items[query]) for query in queries]
    ranks = [float(rankdata(-scores[query].astype(np.float64))[items[query]]) for query in queries]
    return {
        recall_name: _check(queries, recalls, 1 / n_train),
        rank_name: _check(queries, ranks, (n_train + 1) / 2),
    }


def agreement(variant: str, reference: Scores, scores: Scores) -> dict[str, SanityCheck]:
    """Return Spearman's correlation over training items between two score vectors [N] of each query in ``scores``.

    Scores that become all equal agree with nothing and count as 0, as a ranking that vanishes with the model should.
    Raises _Unknown where those of the reference are all equal.
    """
    queries = list(scores)
    one, other = (np.stack([part[query] for query in queries], axis=1) for part in (reference, scores))
    constant = int((one == one[0]).all(axis=0).sum())
    if constant:
        raise _Unknown(f"{constant} of {len(queries)} queries have scores that are all equal")
    values = metrics.lds(one, other)  # the same correlation per column, over items instead of subsets
    return {CHECKS[variant][0]: _check(queries, np.nan_to_num(values).tolist(), 0.0)}


def _check(queries: list[str], values: Sequence[float], chance: float) -> SanityCheck:
    return SanityCheck(query_ids=queries, values=list(values), mean=float(np.mean(values)), chance=chance)


def _recall(scores: np.ndarray, item: int) -> float:
    top = scores == scores.max()
    return float(top[item] / top.sum())


def _has_scores(row: Row | None, cell: PlannedCell) -> bool:
    return row is not None and row.status in ("ok", "partial") and row.diagnostics.get("identity") == cell.identity


def _planned(cell: PlannedCell, variant: str, assets: Assets) -> PlannedCell:
    """Return the cell of the same method and parameters on a derived problem, with its members there."""
    members = {name: _planned(member, variant, assets) for name, member in cell.members.items()}
    ids = query_ids(assets.manifest, variant)
    return replace(cell, key=_key(cell, variant), assets=assets, query_ids=ids, members=members)


def _stand_in(cell: PlannedCell, variant: str, n: int) -> PlannedCell:
    kinds = {query["id"]: query["kind"] for query in cell.assets.manifest["queries"]}
    heldout = [query for query in cell.query_ids if kinds[query] == "heldout"][:n]
    mixed = [cell.query_ids[i] for i in sampled([kinds[query] for query in cell.query_ids], n)]
    return replace(cell, key=_key(cell, variant), query_ids=tuple(heldout if variant in COPIES else mixed))


def _key(cell: PlannedCell, variant: str) -> Key:
    seed = cell.key.seed + 1 if variant == "stability" else cell.key.seed
    return cell.key.model_copy(update={"query_set": variant, "seed": seed})


def _update(
    cell: PlannedCell, variants: dict[str, PlannedCell], known: dict[str, dict[str, int]], results: Results, n: int
) -> bool:
    """Write the checks of a cell into its row, and say whether they were not there yet."""
    row = results.row(cell.key)
    assert row is not None and row.metrics is not None
    inputs = _inputs([cell, *variants.values()], results, n)
    if row.metrics.sanity is not None and row.metrics.sanity.inputs == inputs:
        return False
    checks, skipped = {}, {}
    for variant, planned in variants.items():
        try:
            checks |= _checks(variant, cell, planned, known.get(variant), results)
        except _Unknown as reason:
            skipped |= dict.fromkeys(CHECKS[variant], str(reason))
    found = Sanity(inputs=inputs, checks=checks, skipped=skipped)
    return results.add_metrics(cell.key, row.source.scores_sha256, sanity=found)


def _inputs(cells: list[PlannedCell], results: Results, n: int) -> str:
    rows = [results.row(cell.key) for cell in cells]
    return digest([VERSION, n, [[row.source.scores_sha256, row.status, row.reason] for row in rows if row is not None]])


def _checks(
    variant: str, cell: PlannedCell, planned: PlannedCell, items: dict[str, int] | None, results: Results
) -> dict[str, SanityCheck]:
    row = results.row(planned.key)
    if row is None or row.status != "ok":
        raise _Unknown("its row is gone" if row is None else _why(row))
    scores = _scores(planned, results)
    if items is not None:
        return copy_checks(variant, scores, items)
    return agreement(variant, _scores(cell, results, tuple(scores)), scores)


def _why(row: Row) -> str:
    return row.reason or "" if row.status == "skipped" else f"{row.status}: {row.reason}"


def _scores(planned: PlannedCell, results: Results, queries: tuple[str, ...] = ()) -> Scores:
    """Return the stored scores [N] by query, of all queries or of these; raises _Unknown for NaN."""
    record = results.cell(planned.key, planned.identity)
    rows = np.concatenate([record.scores(part) for part in record.parts()])
    found = dict(zip(planned.attributed_ids, rows, strict=True))
    wanted = {query: found[query] for query in queries or found}
    bad = sum(not np.isfinite(row).all() for row in wanted.values())
    if bad:
        raise _Unknown(f"{bad} of {len(wanted)} queries have scores that are NaN or infinite")
    return wanted
