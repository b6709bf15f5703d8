"""A self-check of methods on somebody's model: copies of it, tuned on images that it never saw, and what finds these.

No truth is at hand, and none is trained from nothing: a copy of the model goes on training for a moment on one image,
and what it then makes is that image's by construction (``truth/exemplars.py``). Images of the training set that are
shown again are the easier half of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...datasets.own.items import FILE, Own, bring
from ...datasets.own.sources import given, joined, picked, upside_down
from ...datasets.queries import item_queries
from ...datasets.truth import Assets, write_assets
from ...errors import UserError
from ...leaderboard.rows.row import Row
from ...methods.view import Progress, silent
from ...models.pipelines.problem import pipeline_problem
from ...models.problem import problem_files, query_list
from ...models.recipe import Recipe
from ...seeds import digest, torch_generator
from ...store import FolderStore, home
from ..metrics.exemplars import chances, measures
from ..metrics.sanity import copy_checks
from ..processes import one_thread, run_jobs
from ..run.forecast import forecast
from ..run.plan import PlannedCell
from ..run.results import why_not
from ..tasks.spec import ExemplarPlan
from ..truth.derived import Source
from ..truth.exemplars import ExemplarTruth, Job, exemplar_ids, run_job
from ..truth.retraining import seconds_per_update
from .cells import Cells
from .items import beside
from .problem import guidance_of, manifest_of, stored

FORMAT = 1  # bumped when checks are made in another way
ITEMS = 500  # training images, at most, among which the others are looked for
PLAN = ExemplarPlan(ks=(1,), cases=5, queries=2, strengths=(150.0,), share=0.75, rate=3.0)
BATCH = 16  # of updates of a copy
SHOWN, AGAIN = 5, "shown-again"  # training images that are looked for as they are
COLUMNS = ("of samples, image found", "average precision", "shown again, first")


@dataclass(frozen=True)
class SelfCheck:
    """What methods found, as a line and as a table whose rows are an entry and a text for each of ``columns``.

    values: by entry, in how many of ``samples`` pictures the image that a copy was tuned on is among the ten best of
    ``items``, their mean average precision, and how many of the ``shown`` training images come first themselves.
    """

    line: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    values: dict[str, dict[str, float]]
    samples: int
    items: int
    shown: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Check:
    """The self-check of cells: some of their training images beside others, stored as a problem of its own."""

    cells: Cells

    @cached_property
    def own(self) -> tuple[Own, int]:
        """These images, stored, and how many of them, the first ones by their files, are of the training set."""
        made = self.cells.made
        pictures = given(made.request.images)
        places = {name: i for i, name in enumerate(pictures.names)}
        read = sorted(made.own.files)
        order = torch.randperm(len(read), generator=torch_generator("self-check", made.own.name)).tolist()
        drawn = [places[read[i]] for i in order]
        kept = drawn[: max(1, min(ITEMS, len(drawn) - PLAN.cases))]
        others = picked(pictures, drawn[len(kept) :][: PLAN.cases] or kept[: PLAN.cases])
        held_out = upside_down(others) if made.request.held_out is None else given(made.request.held_out)
        both = joined(picked(pictures, kept), held_out)
        height, width = made.own.data.images.shape[2:]
        conditions = beside(made.pipeline, both, made.numbers)
        return bring(both, made.pipeline.channels, (height, width), conditions), len(kept)

    @cached_property
    def assets(self) -> Assets:
        """The problem of the images that are of the training set, some of which are the queries."""
        made, (own, n) = self.cells.made, self.own
        base = made.assets.folder.parent.name
        key = f"{base}/self-check-{digest([FORMAT, own.name, n])}"

        def write(path: Path) -> Assets:
            ids = (own.data.groups[FILE] < n).nonzero().flatten()
            problem = pipeline_problem(made.pipeline, own.data.select(ids), store=FolderStore(home()))
            shown = torch.randperm(len(ids), generator=torch_generator(AGAIN, own.name))[:SHOWN]
            names = tuple(f"{AGAIN}-{i}" for i in range(len(shown)))
            queries = item_queries(problem.train.select(shown), names, "external", AGAIN, tuple(shown.tolist()))
            recipe = replace(Recipe.from_json(made.assets.manifest["recipe"]), batch_size=BATCH)
            problem = replace(problem, recipe=recipe, queries=queries)
            manifest = manifest_of(f"{base}-check", own, problem) | {"queries": query_list(queries, own.data)}
            return write_assets(path, problem_files(problem, ids), manifest)

        return stored(key, write)

    @cached_property
    def truth(self) -> ExemplarTruth:
        """The copies, no more than there are images to tune them on; raises UserError where there are none."""
        made, (own, n) = self.cells.made, self.own
        planted = int((own.data.groups[FILE] >= n).sum())
        if not planted:
            raise UserError(f"none of the images of {made.request.held_out} can be read: give others with --held-out")
        plan = replace(PLAN, cases=min(PLAN.cases, planted))
        return ExemplarTruth(Source(self.assets), plan, guidance_of(made.request, made.pipeline))

    def seconds(self) -> float:
        """Return about how long what is missing takes, measured."""
        options, problem = self.cells.options, self.truth.source.problem()
        updates = len(self.truth.missing()) * int(PLAN.strengths[0])
        with one_thread():
            each = seconds_per_update(self.truth.recipe, problem, options.device) if updates else 0.0
        _, rates = self.cells.rates
        due = self.cells.runner.due(self._shown_again)
        cells = forecast([self._shown_again[i] for i in due], problem, rates)
        return (
            updates * each + (1 + len(self.truth.cases)) * sum(item.seconds or 0.0 for item in cells)
        ) / options.jobs

    def tune(self, report: Progress = silent) -> None:
        """Make the copies that are missing."""
        options, missing = self.cells.options, self.truth.missing()
        jobs = [Job(self.truth, run, options.device) for run in missing]
        for done, _ in enumerate(run_jobs(run_job, jobs, options.jobs) if jobs else (), 1):
            report("tuning copies of the model", done, len(jobs))

    @cached_property
    def planned(self) -> list[PlannedCell]:
        """The cells of the check: of each entry, under the first seed alone, on every copy and on the model."""
        cases = [(self.truth.assets(case), case.name) for case in self.truth.cases]
        return [self._on(cell, *case) for case in cases for cell in self._first] + self._shown_again

    @property
    def _first(self) -> list[PlannedCell]:
        seed = self.cells.made.request.seeds[0]
        return [cell for cell in self.cells.possible if cell.key.seed == seed]

    @property
    def _shown_again(self) -> list[PlannedCell]:
        return [self._on(cell, self.assets, AGAIN) for cell in self._first]

    def _on(self, cell: PlannedCell, assets: Assets, query_set: str) -> PlannedCell:
        key = cell.key.model_copy(update={"task": self.assets.manifest["task"]})  # whatever pictures are explained
        return replace(cell, key=key).on(assets, query_set)

    def found(self, rows: Sequence[Row]) -> SelfCheck:
        """Return what methods found; rows: those of ``planned``."""
        failed = {str(cell.entry) for cell, row in zip(self.planned, rows, strict=True) if why_not(row) is not None}
        values = {}
        for entry in dict.fromkeys(str(cell.entry) for cell in self.planned):
            cells = [cell for cell in self.planned if str(cell.entry) == entry]
            values[entry] = {} if entry in failed else self._values(cells)
        items = self.assets.manifest["n_train"] + 1
        samples, shown = len(self.truth.cases) * PLAN.queries, len(self.assets.manifest["queries"])
        chance = samples * chances(items, 1)["recall-10"]
        table = [[entry, *_words(found, samples, shown)] for entry, found in values.items()]
        return SelfCheck(_line(values, samples, items, chance), COLUMNS, table, values, samples, items, shown)

    def _values(self, cells: Sequence[PlannedCell]) -> dict[str, float]:
        """Return what one entry found, of its cells."""
        results, again = self.cells.results, cells[-1]
        found = [measures(s, exemplar_ids(c.assets)) for c in cells[:-1] for s in results.scores(c).values()]
        shown = {query["id"]: query["source"] for query in again.assets.manifest["queries"]}
        scores = {query: s for query, s in results.scores(again).items() if np.isfinite(s).all()}
        first = next(iter(copy_checks("self", scores, shown).values())).values if scores else []
        return {
            "found": float(np.nansum([one["recall-10"] for one in found])),
            "precision": float(np.nan_to_num(np.mean([one["ap"] for one in found]))),
            "first": float(sum(value or 0.0 for value in first)),
        }


def checked(cells: Cells) -> SelfCheck:
    """Make what is missing of the self-check of cells, run it, and return what it found."""
    check = Check(cells)
    check.tune()
    return check.found(cells.runner.run(check.planned))


def _words(found: Mapping[str, float], samples: int, shown: int) -> list[str]:
    if not found:
        return ["-"] * len(COLUMNS)
    return [f"{found['found']:.3g} of {samples}", f"{found['precision']:.2f}", f"{found['first']:.3g} of {shown}"]


def _line(values: Mapping[str, Mapping[str, float]], samples: int, items: int, chance: float) -> str:
    """Return the check in a sentence, the best method first."""
    known = sorted(((found["found"], entry) for entry, found in values.items() if found), key=lambda pair: -pair[0])
    said = ", ".join(f"{entry} {count:.3g}" for count, entry in known)
    return (
        f"self-check: of {samples} pictures by copies of this model, each tuned on one image that it had not seen, "
        f"that image is among the ten best of {items} for: {said or 'no method'} (by chance {chance:.1f})"
    )
