"""Running a sample of a submission's queries here, in cells of its own adapter, and comparing their scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...leaderboard.rows.row import Row, row_key
from ...leaderboard.stats.suspicion import above_open
from ...methods.registry import Entry, params_from_json
from ...seeds import numpy_generator
from ..contract.rules import deviation
from ..contract.shut import check_shut_in
from ..contract.suite import Check, summary
from ..metrics.scores import query_ids
from ..run.plan import PlannedCell, Planner
from ..run.results import Results
from ..tasks.find import find_task
from .verify import Verifier

QUERY_SET = "rerun"  # no name of a role: a few queries have no metrics worth computing
TOLERANCE = 1e-2  # of the spread of a query's scores: ten times what the contract allows to slicing, for other machines


@dataclass(frozen=True)
class Sampled:
    """A submitted row, and the cell that computes ``positions`` of its attributed queries again.

    dev: the same on dev queries, whose truth any method may see; None for a row or method that these say nothing of.
    """

    row: Row
    planned: PlannedCell
    positions: tuple[int, ...]
    dev: PlannedCell | None = None


def contract_here(verifier: Verifier) -> Check:
    """Return the outcome of the contract suite on the submitted adapter, which is imported and run."""
    checks = check_shut_in(verifier.submission.adapter)
    failed = any(check.status == "fail" for check in checks)
    return Check("contract, run here", "fail" if failed else "pass", summary(checks))


def sampled(verifier: Verifier, count: int, seed: int) -> list[Sampled]:
    """Return a cell for each row, of ``count`` of its queries (all, if it has fewer) that ``seed`` picks."""
    return [_sampled(verifier, row, count, seed) for row in verifier.submission.rows]


def _sampled(verifier: Verifier, row: Row, count: int, seed: int) -> Sampled:
    key, plugins = row.key, (verifier.submission.adapter,)
    planner = Planner(find_task(key.task), verifier.assets(row), plugins, precision=key.precision)
    params = {key.method: params_from_json(planner.method(key.method), key.params)}
    entry = Entry(key.method, key.preset)
    (whole,) = planner.cells([entry], key.query_set, [key.seed], params)
    ids = whole.attributed_ids
    picked = numpy_generator("rerun", row_key(key), seed).choice(len(ids), min(count, len(ids)), replace=False)
    positions = tuple(sorted(int(i) for i in picked))
    part = whole.asking(tuple(ids[i] for i in positions), QUERY_SET)
    return Sampled(row, part, positions, _on_dev(whole) if key.query_set == "test" else None)


def _on_dev(whole: PlannedCell) -> PlannedCell | None:
    learns = "open-truth" in whole.cls.needs or whole.cls.unit == "group" or not whole.assets.has("open")
    ids = () if learns else query_ids(whole.assets.manifest, "dev")
    return whole.asking(ids, "dev") if ids else None


def compared(verifier: Verifier, one: Sampled, fresh: Row, results: Results, tolerance: float) -> Check:
    """Return whether the scores that were computed here are those submitted, and fit took no more passes."""
    name = f"rerun {row_key(one.row.key).removesuffix('.json')}"
    if fresh.status not in ("ok", "partial"):
        return Check(name, "fail", f"{fresh.status}: {fresh.reason}")
    found = results.record(one.planned.key, one.planned.identity).matrix()
    blocks = verifier.submission.blocks(one.row, verifier.attributed(one.row), verifier.width(one.row))
    claimed = np.concatenate([scores for _, scores in blocks])[list(one.positions)]
    change = _largest(found, claimed)
    if not change <= tolerance:
        return Check(name, "fail", f"scores differ by {change:.1e} of their spread, {tolerance:g} is allowed")
    if greedier := _more_passes(one.row, fresh):
        return Check(name, "fail", greedier)
    bits = "equal bits" if np.array_equal(found, claimed, equal_nan=True) else f"within {change:.1e} of their spread"
    return Check(name, "pass", f"scores of {len(one.positions)} queries: {bits}")


def on_open(one: Sampled, dev: Row) -> Check:
    """Return whether the claimed LDS is plausible beside that on dev queries and open subsets, computed here."""
    name = f"open subsets {row_key(one.row.key).removesuffix('.json')}"
    if dev.status not in ("ok", "partial"):
        return Check(name, "fail", f"{dev.status}: {dev.reason}")
    if above_open(one.row, dev):
        return Check(name, "fail", "LDS is a far larger share of the ceiling on report subsets than on open ones")
    return Check(name, "pass", "LDS is about the same share of the ceiling on open subsets")


def _largest(found: np.ndarray, claimed: np.ndarray) -> float:
    known = ~(np.isnan(found).all(1) & np.isnan(claimed).all(1))
    return deviation(found[known], claimed[known]) if known.any() else 0.0


def _more_passes(claimed: Row, fresh: Row) -> str | None:
    for way in ("forward_passes", "backward_passes"):
        here, there = (getattr(row.cost, way)["fit"] if row.cost else 0 for row in (fresh, claimed))
        if here > there:
            return f"fit took {here:,} {way.replace('_', ' ')} here, where the row has {there:,}"
    return None


def verified(one: Sampled, tolerance: float) -> Row:
    """Return the submitted row as one that was verified here, with how."""
    of = f"{len(one.positions)} of its {one.row.cost.n_queries if one.row.cost else 'many'} queries"
    note = f"submitted; metrics derived from its scores, and {of} run again, within {tolerance:g} of their spread"
    source = one.row.source.model_copy(update={"kind": "verified", "notes": [*one.row.source.notes, note]})
    return one.row.model_copy(update={"source": source})
