"""The tiny twins of `digits`: real scans, and models and queries made by the same code, in seconds."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import replace
from functools import cache

import torch

from ...datasets.find import load_dataset
from ...models.problem import Problem
from ...models.recipe import Sampler
from ...models.training import load, snapshot, train
from ...seeds import torch_generator
from ..tasks.digits import TASK
from ..tasks.digits_tiny_edm import TASK as EDM
from ..tasks.spec import QueryPlan
from ..truth.queries import Split, make_queries

N_TRAIN, N_PLANTED, N_HELDOUT = 48, 3, 1

_CONFIG = {"block_out_channels": [8], "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
_MODEL = replace(TASK.recipe.model, config={**TASK.recipe.model.config, **_CONFIG}, sampler=Sampler(steps=5))
_TRAINING = {"steps": 60, "batch_size": 16, "warmup_steps": 6, "ema_decay": 0.9, "checkpoints": (20, 40)}
TWIN = replace(
    TASK,
    name="digits-twin",
    title="A tiny digits, whose training set holds copies of queries",
    n_train=N_TRAIN,
    recipe=replace(TASK.recipe, model=_MODEL, **_TRAINING),
    queries=QueryPlan(dev=1, test=1, controls=1),
)


CONDITIONAL = replace(
    TWIN,
    name="digits-twin-edm",
    title="The same by class, a transformer under EDM",
    dataset=EDM.dataset,
    recipe=replace(TWIN.recipe, model=EDM.recipe.model, learning_rate=EDM.recipe.learning_rate),
)


def conditional_problem(seed: int = 0) -> Problem:
    """Return the like of ``tiny_problem`` with class labels, and a transformer under EDM for a model."""
    return copy.deepcopy(_trained(CONDITIONAL.name, seed))


def tiny_problem(seed: int = 0) -> Problem:
    """Return a private copy of the twin of a seed, trained once per process: 48 training images and 5 queries.

    Four queries are held-out in kind, but the first ``N_PLANTED`` are copies of training images (``planted_ids`` says
    which); the last one was generated.
    """
    return copy.deepcopy(_trained(TWIN.name, seed))


def planted_ids(problem: Problem) -> dict[str, int]:
    """Return the id of the training image that equals a query, for every query that has one."""
    queries = problem.queries
    images = problem.train.pixels(torch.arange(len(problem.train)))
    same = (queries.pixels.flatten(1)[:, None] == images.flatten(1)).all(2)
    return {queries.ids[row]: int(found.nonzero()[0]) for row, found in enumerate(same) if found.any()}


def offering(problem: Problem, needs: Collection[str]) -> Problem:
    """Return the problem with the optional parts that ``needs`` names and no others.

    Optional are the recipe, which brings the untrained weights with it, and the checkpoints between these and the end.
    """
    last = problem.checkpoints[-1]
    kept = {0: "recipe" in needs, last: True}
    weights = {step: state for step, state in problem.weights.items() if kept.get(step, "checkpoints" in needs)}
    return replace(problem, weights=weights, recipe=problem.recipe if "recipe" in needs else None)


TWINS = {spec.name: spec for spec in (TWIN, CONDITIONAL)}


@cache
def _trained(name: str, seed: int) -> Problem:
    spec = TWINS[name]
    data = load_dataset(spec.dataset)
    order = torch.randperm(len(data), generator=torch_generator("twin", seed))
    chosen, asked = order[:N_TRAIN], order[N_TRAIN - N_PLANTED : N_TRAIN + N_HELDOUT]
    items = data.select(chosen)
    model, weights = train(spec.recipe, items, torch.arange(N_TRAIN), seed)
    weights[spec.recipe.steps] = snapshot(model)
    base = load(spec.recipe.model, weights[spec.recipe.steps])
    queries = make_queries(spec, data, Split(chosen, asked[:0], asked), base).where(role="test").anonymous()
    return Problem(spec.name, items, queries, spec.recipe.model, weights, spec.recipe, seed)
