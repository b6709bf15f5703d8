"""The problems of sanity checks, derived from a task's.

planted     the model trained anew with copies of held-out test queries among its training images; these are the queries
self        training images as queries
randomised  a sample of test queries, and at every update count the weights of another untrained model
stability   the same sample and the task's own weights, for cells of another seed
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ...datasets.queries import Queries, item_queries
from ...datasets.truth import Assets
from ...models.problem import Problem
from ...models.training import State, build, snapshot, train
from ...seeds import derive, torch_generator
from ..processes import one_thread
from ..tasks.spec import TaskSpec
from .derived import Plugins, Source, derived_store, deriving, is_derived, write_derived

OnUpdate = Callable[[int, int], None]


def derived(spec: TaskSpec, assets: Assets, variant: str, n: int, on_update: OnUpdate, plugins: Plugins = ()) -> Assets:
    """Return the assets of a variant with at most ``n`` queries, derived now or found where they were put before.

    ``on_update`` sees (updates done, of how many) where a model is trained; plugins: files that may hold the dataset.
    Raises UserError where another process is deriving them.
    """
    source = Source(assets, plugins)
    key = source.key(variant, n)
    with deriving(key):
        if not is_derived(key):
            return write_derived(key, source, variant, *DERIVE[variant](source, n, on_update))
    return Assets(derived_store().path(key))


def copies(assets: Assets) -> dict[str, int]:
    """Return the training id of the image that each query is a copy of, for ``planted`` and ``self``."""
    ids = {item: i for i, item in enumerate(Source(assets).train_ids.tolist())}
    return {query["id"]: ids[query["source"]] for query in assets.manifest["queries"]}


def sampled(kinds: list[str], n: int) -> list[int]:
    """Return the positions of the first ``n`` queries, shared out evenly over the kinds, each as far as it goes."""
    each = n // len(set(kinds))
    return [i for i, kind in enumerate(kinds) if kinds[:i].count(kind) < each]


def _planted(source: Source, n: int, on_update: OnUpdate) -> tuple[Tensor, Problem]:
    problem = source.problem()
    queries = problem.queries.where("test", "heldout")
    queries = queries.pick(list(range(min(n, len(queries)))))
    train_ids = torch.cat([source.train_ids, torch.tensor(queries.source)])
    larger = replace(problem, train=source.items(train_ids, problem), queries=queries, groups=None)
    return train_ids, replace(larger, weights=_trained(larger, on_update), raw={})


def _trained(problem: Problem, on_update: OnUpdate) -> dict[int, State]:
    recipe = problem.recipe
    assert recipe is not None
    everything = torch.arange(len(problem.train))
    with one_thread():
        model, kept = train(
            recipe,
            problem.train,
            everything,
            problem.seed,
            on_step=lambda done: on_update(done, recipe.steps),
            base=problem.base,
        )
    return {**kept, recipe.steps: snapshot(model)}


def _self(source: Source, n: int, on_update: OnUpdate) -> tuple[Tensor, Problem]:
    train_ids, problem = source.train_ids, source.problem()
    chosen = torch.randperm(len(train_ids), generator=torch_generator("self-attribution", problem.name))[:n]
    names = tuple(f"self-{i:03d}" for i in range(len(chosen)))
    queries = item_queries(problem.train.select(chosen), names, "heldout", "self", tuple(train_ids[chosen].tolist()))
    return train_ids, replace(problem, queries=queries)


def _randomised(source: Source, n: int, on_update: OnUpdate) -> tuple[Tensor, Problem]:
    problem = source.problem()
    weights = {step: _untrained(problem, step) if step else state for step, state in problem.weights.items()}
    return source.train_ids, replace(problem, queries=_sample(problem.queries, n), weights=weights, raw={})


def _untrained(problem: Problem, step: int) -> State:
    return snapshot(build(problem.spec, derive("randomised", problem.name, step), problem.base))


def _stability(source: Source, n: int, on_update: OnUpdate) -> tuple[Tensor, Problem]:
    problem = source.problem()
    return source.train_ids, replace(problem, queries=_sample(problem.queries, n))


DERIVE: dict[str, Callable[[Source, int, OnUpdate], tuple[Tensor, Problem]]] = {
    "planted": _planted,
    "self": _self,
    "randomised": _randomised,
    "stability": _stability,
}


def _sample(queries: Queries, n: int) -> Queries:
    test = queries.where("test")
    return test.pick(sampled(list(test.kinds), n))
