"""Exemplar truth: the base model tuned on items that it never saw, and samples that are theirs by construction.

After "attribution by customisation" (Wang et al., Evaluating Data Attribution for Text-to-Image Models, ICCV 2023,
arXiv 2306.09345). A case is a derived problem: the task's items, then k exemplars; the tuned model; its samples, and as
controls what the base model made of the same noise, in which the exemplars had no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ...datasets.base import ImageDataset
from ...datasets.groups import integer_column
from ...datasets.queries import Queries, concatenate
from ...datasets.truth import Assets
from ...errors import UserError
from ...models.denoiser import Denoiser
from ...models.problem import Problem
from ...models.recipe import Recipe, Tuning
from ...models.training import State
from ...models.tuning import tune
from ...seeds import derive, digest, torch_generator
from ..tasks.spec import ExemplarPlan
from .build import provenance
from .derived import Source, derived_store, deriving, is_derived, write_derived
from .queries import generated


@dataclass(frozen=True)
class Case:
    """One model: tuned for ``steps`` updates on the exemplars ``items`` [k], ids of the dataset; ``index`` of its k."""

    index: int
    items: tuple[int, ...]
    steps: int

    @property
    def k(self) -> int:
        """How many exemplars."""
        return len(self.items)

    @property
    def name(self) -> str:
        """What its queries' role and its cells' query set are called."""
        return f"exemplars-k{self.k}-steps{self.steps}-case{self.index}"

    def query_ids(self, count: int) -> tuple[str, ...]:
        """Return the names of its samples."""
        return tuple(f"{self.name}-{i}" for i in range(count))

    def control_ids(self, count: int) -> tuple[str, ...]:
        """Return the names of its controls, one for each sample."""
        return tuple(f"{self.name}-control-{i}" for i in range(count))


@dataclass(frozen=True)
class ExemplarTruth:
    """The cases of a task: which there are, where they lie, and how they are made.

    guidance: of samples, as in ``QueryPlan``. Raises UserError for a plan that cannot be.
    """

    source: Source
    plan: ExemplarPlan
    guidance: float = 0.0

    def __post_init__(self) -> None:
        self.plan.check()
        self.plan.steps(self.recipe.steps)

    @property
    def recipe(self) -> Recipe:
        """The recipe of the base model."""
        return Recipe.from_json(self.source.assets.manifest["recipe"])

    @cached_property
    def cases(self) -> list[Case]:
        """All cases, those of one tuning together, weakest first."""
        strengths = self.plan.steps(self.recipe.steps)
        held = [query["source"] for query in self.source.assets.manifest["queries"] if query["kind"] == "heldout"]
        asked = torch.tensor([item for item in held if item >= 0], dtype=torch.long)
        taken = torch.cat([self.source.train_ids, asked])
        chosen = choose_exemplars(self.source.dataset(), self.source.label, self.plan, taken)
        return [
            Case(index, tuple(items[:k]), steps)
            for index, items in enumerate(chosen)
            for k in self.plan.ks
            for steps in strengths
        ]

    @property
    def runs(self) -> list[list[Case]]:
        """The cases that are snapshots of one tuning, in lists."""
        count = len(self.plan.strengths)
        return [self.cases[start : start + count] for start in range(0, len(self.cases), count)]

    def missing(self) -> list[list[Case]]:
        """Return the tunings of which a case is not derived yet."""
        return [run for run in self.runs if not all(is_derived(self.key(case)) for case in run)]

    def key(self, case: Case) -> str:
        """Return where a case is stored."""
        settings = asdict(case), self.plan.queries, self.plan.share, self.plan.rate, self.guidance, "controls"
        strongest = self.plan.steps(self.recipe.steps)
        return self.source.key(case.name, *settings, [steps for steps in strongest if steps <= case.steps])

    @property
    def identity(self) -> str:
        """A hash of all cases, which are derived: their models, items and samples."""
        return digest([self.assets(case).problem_sha256 for case in self.cases])

    @property
    def provenance(self) -> dict[str, str]:
        """With what the first case's model was tuned."""
        return self.assets(self.cases[0]).manifest["provenance"]

    def assets(self, case: Case) -> Assets:
        """Return a case that was derived."""
        return Assets(derived_store().path(self.key(case)))

    def derive(self, run: Sequence[Case], device: str = "cpu") -> None:
        """Tune the model of one run, and store its cases; raises UserError where another process does."""
        with deriving(f"{self.key(run[-1])}-run"):
            made = Tuned(self, run, device)
            for case in run:
                if not is_derived(self.key(case)):
                    more = {"recipe": made.recipe(case.steps).to_json(), "exemplars": case.k}
                    more["provenance"] = {**provenance(), "device": torch.device(device).type}
                    write_derived(self.key(case), self.source, case.name, made.ids, made.problem(case), more)


@dataclass(frozen=True)
class Job:
    """What a worker needs for one tuning: the truth, its cases, and the device."""

    truth: ExemplarTruth
    run: list[Case]
    device: str = "cpu"


def run_job(job: Job) -> None:
    """Tune one model and store its cases."""
    job.truth.derive(job.run, job.device)


class Tuned:
    """One tuning of a base model, and the problems that its snapshots are."""

    def __init__(self, truth: ExemplarTruth, run: Sequence[Case], device: str = "cpu") -> None:
        self.truth, self.run, self.device = truth, run, device
        self.base, exemplars = truth.source.problem(), torch.tensor(run[-1].items)
        self.ids = torch.cat([truth.source.train_ids, exemplars])
        self.items = truth.source.items(self.ids, self.base)

    @property
    def last(self) -> int:
        """The updates that made the base model."""
        return self.base.checkpoints[-1]

    @property
    def n_before(self) -> int:
        """How many items the base model was trained on."""
        return len(self.base.train)

    def recipe(self, steps: int) -> Recipe:
        """Return the base model's recipe with a tuning of this many updates; its draws are the same for every k."""
        plan, seed = self.truth.plan, derive("exemplars", self.truth.source.label, self.run[0].index)
        return replace(self.truth.recipe, tuning=Tuning(self.n_before, steps, plan.share, plan.rate, seed))

    @cached_property
    def weights(self) -> dict[int, State]:
        """The tuned weights by updates of the tuning."""
        strengths = [case.steps for case in self.run]
        return tune(self.base.model(self.last, self.device), self.items, self.recipe(strengths[-1]), strengths)

    def problem(self, case: Case) -> Problem:
        """Return a case's problem.

        Its weights are the untrained ones, where stored, the base model's end, from which on both kinds of items were
        trained on, and the snapshots so far. Checkpoints before that would say of the exemplars what never was.
        """
        known = {step: self.base.weights[step] for step in self.base.weights if step in (0, self.last)}
        tuned = {self.last + steps: state for steps, state in self.weights.items() if steps <= case.steps}
        tuned_problem = replace(
            self.base,
            train=self.items,
            weights={**known, **tuned},
            recipe=self.recipe(case.steps),
            raw={},
            groups=None,
        )
        return replace(tuned_problem, queries=self._queries(tuned_problem, case))

    def _queries(self, problem: Problem, case: Case) -> Queries:
        """Return samples of the tuned model, then the controls: the base model's, of the same noise and conditions."""
        count = self.truth.plan.queries
        own = self._samples(problem.model(problem.checkpoints[-1], self.device), case.query_ids(count), case.name)
        controls = replace(self._before, ids=case.control_ids(count), roles=(case.name,) * count)
        return concatenate([own, controls])

    @cached_property
    def _before(self) -> Queries:
        """What the base model makes, of which all strengths have the same."""
        return self._samples(self.base.model(self.last, self.device), self.run[0].control_ids(self.truth.plan.queries))

    def _samples(self, model: Denoiser, names: tuple[str, ...], role: str = "") -> Queries:
        """Return samples of a model, each under the conditions of an exemplar in turn.

        Their noise is the same for every k and strength of a case's index.
        """
        (index, k), label = (self.run[0].index, self.run[0].k), self.truth.source.label
        seeds = [derive("exemplar-query", label, index, i) for i in range(len(names))]
        asked, coder = self.items.batch(self.n_before + torch.arange(len(names)) % k), self.base.coder(self.device)
        return generated(model, self.base.spec, asked, seeds, names, role, self.truth.guidance, coder)


def choose_exemplars(data: ImageDataset, label: str, plan: ExemplarPlan, taken: Tensor) -> list[list[int]]:
    """Return the exemplars of each case, as many as the largest k, ids of the dataset; no item is in two cases.

    label: the task's; taken: the ids of training items and queries. Cases are of different values of ``plan.by`` as far
    as these go. Raises UserError where there are too few.
    """
    by_value, wanted = _pool(data, label, plan, taken), max(plan.ks)
    order = torch.randperm(len(by_value), generator=torch_generator("exemplar-values", label)).tolist()
    rounds = range(0, max(map(len, by_value), default=0), wanted)
    parts = [by_value[i][start : start + wanted] for start in rounds for i in order]
    chosen = [items for items in parts if len(items) == wanted][: plan.cases]
    if len(chosen) < plan.cases:
        raise UserError(
            f"{label}: exemplars need {plan.cases} cases of {wanted} items each, alike in {plan.by!r}, and the "
            f"{sum(map(len, by_value))} items that are outside training and queries make {len(chosen)}: "
            "plan fewer in TaskSpec.exemplars, or train on fewer"
        )
    return chosen


def _pool(data: ImageDataset, label: str, plan: ExemplarPlan, taken: Tensor) -> list[list[int]]:
    """Return the items that may be exemplars, in random order, in a list for each value of ``plan.by``."""
    free, values = torch.ones(len(data), dtype=torch.bool), integer_column(data, plan.by)
    free[taken] = False
    free &= ~torch.isin(values, torch.tensor(plan.outside, dtype=values.dtype))
    order = torch.randperm(len(data), generator=torch_generator("exemplars", label))
    order = order[free[order]]
    return [order[values[order] == value].tolist() for value in values[order].unique()]


def exemplar_ids(assets: Assets) -> Tensor:
    """Return the training ids of a case's exemplars [k], the last ones."""
    n, k = assets.manifest["n_train"], assets.manifest["exemplars"]
    return torch.arange(n - k, n)
