"""Problems derived from a task's for sanity checks: ordinary assets without truth, on which ordinary cells run.

planted     the model trained anew with copies of held-out test queries among its training images; these are the queries
self        training images as queries
randomised  a sample of test queries, and at every update count the weights of another untrained model
stability   the same sample and the task's own weights, for cells of another seed
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ...datasets.find import load_dataset
from ...datasets.queries import Queries, item_queries
from ...datasets.truth import FIELDS, Assets, write_assets
from ...errors import UserError
from ...models.latents import with_latents
from ...models.problem import Problem, problem_files, query_list, read_problem
from ...models.training import State, build, snapshot, train
from ...seeds import derive, digest, torch_generator
from ...store import LONG_CLAIM_S, FolderStore, home
from ..processes import one_thread
from ..tasks.spec import TaskSpec

OnUpdate = Callable[[int, int], None]
Plugins = tuple[Path, ...]
DERIVATION = 2  # part of every derived problem's name: bumped when they are derived in another way


def derived(spec: TaskSpec, assets: Assets, variant: str, n: int, on_update: OnUpdate, plugins: Plugins = ()) -> Assets:
    """Return the assets of a variant with at most ``n`` queries, derived now or found where they were put before.

    ``on_update`` sees (updates done, of how many) where a model is trained; plugins: files that may hold the dataset.
    Raises UserError where another process is deriving them.
    """
    store = FolderStore(home() / "derived")
    key = f"{spec.label}-{variant}-{digest([DERIVATION, assets.problem_sha256, n])}"
    with store.claim(key, LONG_CLAIM_S) as held:
        if not held:
            raise UserError(f"another process is deriving {store.path(key)}: wait for it, or stop it first")
        if not store.exists(f"{key}/manifest.json"):
            found = DERIVE[variant](assets, n, on_update, plugins)
            return _write(store, key, assets, variant, *found, plugins)
    return Assets(store.path(key))


def copies(assets: Assets) -> dict[str, int]:
    """Return the training id of the image that each query is a copy of, for ``planted`` and ``self``."""
    train_ids = assets.arrays("problem.safetensors")["train_ids"].tolist()
    ids = {source: i for i, source in enumerate(train_ids)}
    return {query["id"]: ids[query["source"]] for query in assets.manifest["queries"]}


def sampled(kinds: list[str], n: int) -> list[int]:
    """Return the positions of the first ``n`` queries, shared out evenly over the kinds, each as far as it goes."""
    each = n // len(set(kinds))
    return [i for i, kind in enumerate(kinds) if kinds[:i].count(kind) < each]


def _read(assets: Assets, plugins: Plugins) -> tuple[Tensor, Problem]:
    return torch.from_numpy(assets.arrays("problem.safetensors")["train_ids"]), read_problem(assets.folder, plugins)


def _planted(assets: Assets, n: int, on_update: OnUpdate, plugins: Plugins) -> tuple[Tensor, Problem]:
    train_ids, problem = _read(assets, plugins)
    queries = problem.queries.where("test", "heldout")
    queries = queries.pick(list(range(min(n, len(queries)))))
    train_ids = torch.cat([train_ids, torch.tensor(queries.source)])
    items = load_dataset(assets.manifest["dataset"]["name"], plugins).select(train_ids)
    if (coder := problem.coder()) is not None:
        items = with_latents(items, coder, FolderStore(home()))
    larger = replace(problem, train=items, queries=queries, groups=None)
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


def _self(assets: Assets, n: int, on_update: OnUpdate, plugins: Plugins) -> tuple[Tensor, Problem]:
    train_ids, problem = _read(assets, plugins)
    chosen = torch.randperm(len(train_ids), generator=torch_generator("self-attribution", problem.name))[:n]
    names = tuple(f"self-{i:03d}" for i in range(len(chosen)))
    queries = item_queries(problem.train.select(chosen), names, "heldout", "self", tuple(train_ids[chosen].tolist()))
    return train_ids, replace(problem, queries=queries)


def _randomised(assets: Assets, n: int, on_update: OnUpdate, plugins: Plugins) -> tuple[Tensor, Problem]:
    train_ids, problem = _read(assets, plugins)
    weights = {step: _untrained(problem, step) if step else state for step, state in problem.weights.items()}
    return train_ids, replace(problem, queries=_sample(problem.queries, n), weights=weights, raw={})


def _untrained(problem: Problem, step: int) -> State:
    return snapshot(build(problem.spec, derive("randomised", problem.name, step), problem.base))


def _stability(assets: Assets, n: int, on_update: OnUpdate, plugins: Plugins) -> tuple[Tensor, Problem]:
    train_ids, problem = _read(assets, plugins)
    return train_ids, replace(problem, queries=_sample(problem.queries, n))


DERIVE: dict[str, Callable[[Assets, int, OnUpdate, Plugins], tuple[Tensor, Problem]]] = {
    "planted": _planted,
    "self": _self,
    "randomised": _randomised,
    "stability": _stability,
}


def _sample(queries: Queries, n: int) -> Queries:
    test = queries.where("test")
    return test.pick(sampled(list(test.kinds), n))


def _write(
    store: FolderStore, key: str, assets: Assets, variant: str, train_ids: Tensor, problem: Problem, plugins: Plugins
) -> Assets:
    queries = replace(problem.queries, roles=(variant,) * len(problem.queries))
    data = load_dataset(assets.manifest["dataset"]["name"], plugins)
    manifest = {
        **{name: assets.manifest[name] for name in FIELDS},
        **({"groups": assets.manifest["groups"]} if problem.groups else {}),
        "n_train": len(problem.train),
        "dataset": {**assets.manifest["dataset"], "fingerprint": problem.train.fingerprint()},
        "checkpoints": list(problem.weights),
        "queries": query_list(queries, data),
        "derived": {"variant": variant, "problem_sha256": assets.problem_sha256},
    }
    files = problem_files(replace(problem, queries=queries), train_ids)
    return write_assets(store.path(key), files, manifest)
