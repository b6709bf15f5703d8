"""The tiny twin of `digits`: real scans, model and queries by the same code, trained in seconds, for contract checks."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import torch

from ..models.problem import Problem, load_dataset
from ..models.training import load, snapshot, train
from ..seeds import torch_generator
from .task import QueryPlan
from .tasks.digits import TASK
from .truth import Split, attributed, make_queries

N_TRAIN, N_PLANTED, N_HELDOUT = 48, 4, 2

_MODEL = replace(TASK.recipe.model, config={**TASK.recipe.model.config, "block_out_channels": [8, 8]})
_RECIPE = replace(TASK.recipe, model=_MODEL, steps=150, batch_size=16, warmup_steps=15, ema_decay=0.9, checkpoints=(50, 100))
TWIN = replace(
    TASK,
    name="digits-twin",
    title="A tiny digits, whose training set holds copies of queries",
    n_train=N_TRAIN,
    recipe=_RECIPE,
    queries=QueryPlan(dev=1, test=1, controls=1),
)


def tiny_problem(seed: int = 0) -> Problem:
    """Return a private copy of the twin of a seed: 48 training images, 6 held-out and 2 generated queries.

    The first ``N_PLANTED`` held-out queries are images that the model was trained on; ``planted_ids`` says which.
    """
    return copy.deepcopy(_trained(seed))


def planted_ids(problem: Problem) -> dict[str, int]:
    """Return the id of the training image that equals a query, for every query that has one."""
    flat, queries = problem.train.images.flatten(1), problem.queries
    same = (queries.x.flatten(1)[:, None] == flat).all(2)
    return {queries.ids[row]: int(found.nonzero()[0]) for row, found in enumerate(same) if found.any()}


@cache
def _trained(seed: int) -> Problem:
    data = load_dataset(TWIN.dataset)
    order = torch.randperm(len(data), generator=torch_generator("twin", seed))
    chosen, asked = order[:N_TRAIN], order[N_TRAIN - N_PLANTED : N_TRAIN + N_HELDOUT]
    items = data.select(chosen)
    model, weights = train(TWIN.recipe, items, torch.arange(N_TRAIN), seed)
    weights[TWIN.recipe.steps] = snapshot(model)
    base = load(TWIN.recipe.model, weights[TWIN.recipe.steps])
    queries = attributed(make_queries(TWIN, data, Split(chosen, asked[:0], asked), base))
    return Problem(TWIN.name, items, queries, TWIN.recipe.model, weights, TWIN.recipe, seed)
