"""The metric sanity of the command run: cells on derived problems, and what their scores say of a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...datasets.truth import Assets
from ...leaderboard.rows.sanity import Sanity, SanityCheck
from ...seeds import digest
from ..metrics.sanity import CHECKS, Scores, Undecided, agreement, copy_checks
from ..run.plan import PlannedCell
from ..run.results import Results, why_not
from ..truth.variants import DERIVE, copies, derived, sampled
from .session import Session
from .terminal import Bar, console

VERSION = 1  # of the checks: bumped when one is computed in another way, so that rows get it
N_QUERIES = 10
COPIES = ("planted", "self")


@dataclass(frozen=True)
class Checked:
    """A cell with scores, and the cells of the same method on derived problems by variant."""

    cell: PlannedCell
    variants: Mapping[str, PlannedCell]


def sanity(session: Session, cells: list[PlannedCell], n: int = N_QUERIES) -> None:
    """Run the variants of the test cells that have scores, and write the checks into the rows of these cells.

    What holds already is left alone; ``n``: queries per variant. Ensembles need their members among ``cells``.
    """
    label = session.spec.label
    scored = [cell for cell in cells if session.results.scored(cell) is not None]
    if not scored:
        console.print(f"{label}: no cell has scores for sanity checks")
        return
    console.print(f"{label}: sanity checks of {len(scored)} cells: {', '.join(CHECKS)}", soft_wrap=True)
    problems = _problems(session, n)
    checked = [
        Checked(cell, {name: cell.on(problems[name], name, _seed(cell, name)) for name in variants(cell)})
        for cell in scored
    ]
    members_first = sorted(checked, key=lambda one: bool(one.cell.members))
    session.run([one.variants[name] for name in DERIVE for one in members_first if name in one.variants])
    items = {name: copies(problems[name]) for name in COPIES}
    written = sum(_write(one, items, session.results, n) for one in checked)
    console.print(
        f"{label}: sanity checks written into {written} rows, {len(checked) - written} had them", soft_wrap=True
    )


def plan_sanity(cells: list[PlannedCell], n: int = N_QUERIES) -> list[PlannedCell]:
    """Return stand-ins for the variants' cells on the task's own problem: for forecasts, as nothing is derived yet."""
    return [_stand_in(cell, variant, n) for variant in DERIVE for cell in cells if variant in variants(cell)]


def variants(cell: PlannedCell) -> list[str]:
    """Return the variants that say anything of a cell: those that look for an image say nothing of scores of groups."""
    return [name for name in DERIVE if name not in COPIES or cell.cls.unit == "item"]


def _problems(session: Session, n: int) -> dict[str, Assets]:
    task = session.spec, session.assets
    with Bar(f"{session.spec.name} with planted copies, updates") as bar:
        return {variant: derived(*task, variant, n, bar.update, session.plugins) for variant in DERIVE}


def _stand_in(cell: PlannedCell, variant: str, n: int) -> PlannedCell:
    kinds = {query["id"]: query["kind"] for query in cell.assets.manifest["queries"]}
    heldout = [query for query in cell.query_ids if kinds[query] == "heldout"][:n]
    mixed = [cell.query_ids[i] for i in sampled([kinds[query] for query in cell.query_ids], n)]
    ids = tuple(heldout if variant in COPIES else mixed)
    return cell.asking(ids, variant, _seed(cell, variant))


def _seed(cell: PlannedCell, variant: str) -> int:
    return cell.key.seed + 1 if variant == "stability" else cell.key.seed


def _write(one: Checked, items: Mapping[str, dict[str, int]], results: Results, n: int) -> bool:
    """Write the checks of a cell into its row, and say whether they were not there yet."""
    row = results.row(one.cell.key)
    assert row is not None and row.metrics is not None
    inputs = _inputs([one.cell, *one.variants.values()], results, n)
    if row.metrics.sanity is not None and row.metrics.sanity.inputs == inputs:
        return False
    checks, skipped = {}, {}
    for variant in sorted(DERIVE.keys() - one.variants.keys()):
        skipped |= dict.fromkeys(CHECKS[variant], "it scores groups, of which the copy is one item")
    for variant in one.variants:
        try:
            checks |= _checks(one, variant, items.get(variant), results)
        except Undecided as reason:
            skipped |= dict.fromkeys(CHECKS[variant], str(reason))
    found = Sanity(inputs=inputs, checks=checks, skipped=skipped)
    return results.add_metrics(one.cell.key, row.source.scores_sha256, sanity=found)


def _inputs(cells: list[PlannedCell], results: Results, n: int) -> str:
    return digest([VERSION, n, results.states(cells)])


def _checks(one: Checked, variant: str, items: dict[str, int] | None, results: Results) -> dict[str, SanityCheck]:
    planned = one.variants[variant]
    row = results.row(planned.key)
    if (reason := why_not(row)) is not None:
        raise Undecided(reason)
    scores = _scores(planned, results)
    if items is not None:
        return copy_checks(variant, scores, items)
    return agreement(variant, _scores(one.cell, results, tuple(scores)), scores)


def _scores(planned: PlannedCell, results: Results, queries: tuple[str, ...] = ()) -> Scores:
    """Return the stored scores [N] by query, of all queries or of these; raises Undecided for NaN."""
    found = results.scores(planned)
    wanted = {query: found[query] for query in queries or found}
    bad = sum(not np.isfinite(row).all() for row in wanted.values())
    if bad:
        raise Undecided(f"{bad} of {len(wanted)} queries have scores that are NaN or infinite")
    return wanted
