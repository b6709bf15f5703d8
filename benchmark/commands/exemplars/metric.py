"""The metric exemplars of the command run: cells on the cases, and how well their scores find the exemplars."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, groupby

from ....leaderboard.rows.exemplars import Exemplars, ExemplarScores
from ....seeds import digest
from ...metrics.exemplars import exemplar_scores, measures
from ...run.plan import PlannedCell
from ...run.results import Results, why_not
from ...tasks.spec import TaskSpec
from ...truth.exemplars import Case, ExemplarTruth, exemplar_ids
from ..session import Session
from ..terminal import console, duration
from .cases import make, seconds_of, truth_of

VERSION = 2  # of the measures: bumped when one is computed in another way, so that rows get it
OF_GROUPS = "it scores groups, and exemplars are items"
Cells = dict[Case, PlannedCell]


def exemplars(session: Session, cells: list[PlannedCell]) -> None:
    """Run the test cells that have scores on every case, and write what they find into the rows of these cells.

    Cases that are missing are made first; what holds already is left alone. Ensembles need their members among
    ``cells``.
    """
    label, truth = session.spec.label, _truth(session)
    scored = [cell for cell in cells if session.results.scored(cell) is not None]
    if not scored:
        console.print(f"{label}: no cell has scores, so none is run on exemplars")
        return
    make(truth, session.options.jobs, session.options.device)
    console.print(f"{label}: {len(scored)} cells on each of {len(truth.cases)} cases of exemplars", soft_wrap=True)
    members_first = sorted(scored, key=lambda cell: bool(cell.members))
    on_cases = [_on_cases(truth, cell) for cell in members_first]
    if planned := [cells[case] for case in truth.cases for cells in on_cases if case in cells]:
        session.run(planned)
    pairs = zip(members_first, on_cases, strict=True)
    written = sum(_write(truth, cell, cells, session.results) for cell, cells in pairs)
    console.print(f"{label}: exemplars written into {written} rows, {len(scored) - written} had them", soft_wrap=True)


def announce(session: Session, cells: list[PlannedCell]) -> None:
    """Say what making the missing cases and running cells on all cases would take."""
    truth = _truth(session)
    seconds = seconds_of(truth, missing := truth.missing(), session.options.device)
    if missing:
        about = duration(sum(seconds) / session.options.jobs)
        console.print(f"{session.spec.label}: {len(missing)} models to tune on exemplars, about {about}")
    if planned := plan_exemplars(session.spec, cells):
        session.announce(planned, planned)


def plan_exemplars(spec: TaskSpec, cells: list[PlannedCell]) -> list[PlannedCell]:
    """Return stand-ins for the cells on all cases on the task's own problem: for forecasts, as none may be made yet."""
    plan, found = spec.exemplars, []
    for cell in cells:
        kinds = {query["id"]: query["kind"] for query in cell.assets.manifest["queries"]}
        made = [query for query in cell.query_ids if kinds[query] == "generated"] or list(cell.query_ids)
        names = [f"exemplars-{i}" for i in range(len(plan.ks) * len(plan.strengths) * plan.cases)]
        if cell.cls.unit == "item":
            found += [cell.asking((made[0],) * 2 * plan.queries, name) for name in names]
    return found


def _truth(session: Session) -> ExemplarTruth:
    return truth_of(session.spec, session.assets, session.plugins)


def _on_cases(truth: ExemplarTruth, cell: PlannedCell) -> Cells:
    if cell.cls.unit == "group":
        return {}
    return {case: cell.on(truth.assets(case), case.name) for case in truth.cases}


def _write(truth: ExemplarTruth, cell: PlannedCell, cells: Cells, results: Results) -> bool:
    """Write the results of a cell into its row, and say whether they were not there yet."""
    row = results.scored(cell)
    assert row is not None and row.metrics is not None
    inputs = digest([VERSION, truth.identity, results.states(cells.values())])
    if row.metrics.exemplars is not None and row.metrics.exemplars.inputs == inputs:
        return False
    values, skipped = _values(truth, cells, results)
    scores = [_scores(truth, list(cases), values) for _, cases in groupby(_by_setting(truth), key=_setting)]
    n = truth.source.assets.manifest["n_train"]
    found = Exemplars(
        inputs=inputs,
        truth=truth.identity,
        n_before=n,
        scores=scores,
        skipped=skipped,
        provenance=truth.provenance,
    )
    return results.add_metrics(cell.key, row.source.scores_sha256, exemplars=found)


def _by_setting(truth: ExemplarTruth) -> list[Case]:
    return sorted(truth.cases, key=lambda case: (*_setting(case), case.index))


def _setting(case: Case) -> tuple[int, int]:
    return case.k, case.steps


def _values(truth: ExemplarTruth, cells: Cells, results: Results) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Return the measures by query of the cases that have scores, and by name why others have none."""
    values: dict[str, dict[str, float]] = {}
    skipped: dict[str, str] = {}
    for case in truth.cases:
        reason = why_not(results.row(cells[case].key)) if case in cells else OF_GROUPS
        if reason is not None:
            skipped[case.name] = reason
            continue
        ids = exemplar_ids(cells[case].assets)
        values |= {query: measures(scores, ids) for query, scores in results.scores(cells[case]).items()}
    return values, skipped


def _scores(truth: ExemplarTruth, cases: list[Case], values: Mapping[str, Mapping[str, float]]) -> ExemplarScores:
    n, (k, steps) = truth.source.assets.manifest["n_train"], _setting(cases[0])
    count = truth.plan.queries
    asked = {query: case.index for case in cases for query in case.query_ids(count)}
    pairs = [zip(case.query_ids(count), case.control_ids(count), strict=True) for case in cases]
    return exemplar_scores(k, steps, n + k, asked, dict(chain.from_iterable(pairs)), values)
