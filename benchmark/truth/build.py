"""Building and verifying ground truth: base model, queries, and what retrained models make of them."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from torch import Tensor

from ... import __version__
from ...datasets.base import ImageDataset, stratified_halves
from ...datasets.queries import Queries, concatenate
from ...datasets.truth import Arrays, Assets, Role, Truth, truth_arrays, write_assets
from ...models.denoiser import Denoiser
from ...models.draws import Draws, Law
from ...models.problem import load_dataset, problem_arrays, queries_from, query_list, weights_from
from ...models.recipe import Recipe
from ...models.sampling import initial_noise, sample
from ...models.training import State, load, snapshot, train
from ...seeds import derive, digest, torch_generator
from ...store import FolderStore, sha256
from ..processes import run_jobs
from ..tasks.spec import TaskSpec, TruthPlan
from .retraining import Retraining, retrained

BASE_SEED = 0
OnDone = Callable[[int, int], None]


@dataclass(frozen=True)
class Split:
    """Which dataset indices train the model and which are held-out queries (dev, then test)."""

    train: Tensor
    dev: Tensor
    test: Tensor


@dataclass(frozen=True)
class Run:
    """One retraining of the plan: subset ``index`` of a role, or a replicate on everything (role ``full``)."""

    role: Role | Literal["full"]
    index: int
    retraining: Retraining


@dataclass(frozen=True)
class Job:
    """What a worker needs for one run: where to read and write, and what to train."""

    root: Path
    key: str
    recipe: Recipe
    plan: TruthPlan
    dataset: str
    train_ids: tuple[int, ...]
    queries: Queries
    run: Run


def split(spec: TaskSpec, data: ImageDataset) -> Split:
    """Return a stratified split, fixed by the task's name and version."""
    chosen = stratified_halves(data.classes, spec.n_train / len(data), torch_generator("split", spec.label))
    order = torch.randperm(len(data), generator=torch_generator("split-order", spec.label))
    inside = torch.cat([order[chosen[order]], order[~chosen[order]]])
    train_ids, rest = inside[: spec.n_train].sort().values, inside[spec.n_train :]
    return Split(train_ids, rest[: spec.queries.dev], rest[spec.queries.dev :][: spec.queries.test])


def masks(spec: TaskSpec, classes: Tensor, role: Role) -> Tensor:
    """Return the subsets of a role as masks [M, N], stratified by class and different for every role."""
    count = spec.truth.report if role == "report" else spec.truth.open
    generators = (torch_generator("subset", spec.label, role, index) for index in range(count))
    return torch.stack([stratified_halves(classes, spec.truth.share, generator) for generator in generators])


def make_queries(spec: TaskSpec, data: ImageDataset, parts: Split, base: Denoiser) -> Queries:
    """Return held-out queries from the dataset and generated ones and controls sampled from the base model."""
    heldout = [_heldout(data, ids, role) for role, ids in (("dev", parts.dev), ("test", parts.test))]
    counts = {"dev": spec.queries.dev, "test": spec.queries.test, "control": spec.queries.controls}
    return concatenate(heldout + [_generated(spec, base, role, count) for role, count in counts.items()])


def _heldout(data: ImageDataset, ids: Tensor, role: str) -> Queries:
    batch, n = data.batch(ids), len(ids)
    names = tuple(f"heldout-{role}-{i:03d}" for i in range(n))
    empty = torch.zeros_like(batch.x)
    return Queries(
        names, ("heldout",) * n, (role,) * n, batch.x, empty, tuple(ids.tolist()), torch.zeros(n), batch.cond
    )


def _generated(spec: TaskSpec, base: Denoiser, role: str, count: int) -> Queries:
    seeds = [derive("query", spec.label, role, i) for i in range(count)]
    channels, size = spec.recipe.model.config["in_channels"], spec.recipe.model.config["sample_size"]
    noise = torch.stack([initial_noise(seed, (channels, size, size)) for seed in seeds])
    names = tuple(f"generated-{role}-{i:03d}" for i in range(count))
    x = sample(base, noise, spec.recipe.model.sampler)
    return Queries(names, ("generated",) * count, (role,) * count, x, noise, tuple(seeds), torch.zeros(count))


def plan_runs(spec: TaskSpec, classes: Tensor) -> list[Run]:
    """Return all retrainings; replicate r of every subset has seed 1 + r; open subsets and first replicates lead."""
    everything = tuple(range(len(classes)))
    runs = [Run("full", r, Retraining(everything, BASE_SEED + 1 + r)) for r in range(spec.truth.full)]
    ids = {role: [tuple(mask.nonzero().flatten().tolist()) for mask in masks(spec, classes, role)] for role in _ROLES}
    replicates = {"report": spec.truth.report_replicates, "open": spec.truth.open_replicates}
    for r in range(max(replicates.values())):
        for role in _ROLES:
            if r < replicates[role]:
                runs += [Run(role, i, Retraining(members, BASE_SEED + 1 + r)) for i, members in enumerate(ids[role])]
    return runs


_ROLES: tuple[Role, ...] = ("open", "report")


@torch.no_grad()
def measure(model: Denoiser, queries: Queries, plan: TruthPlan) -> np.ndarray:
    """Return the target of every query per noise-level bin [Q, bins]: mean eps-MSE over the bin's draws.

    Draws are keyed by query id and the same for every model, so that their noise cancels in comparisons.
    """
    n = plan.bins * plan.draws_per_bin
    draws = Draws("truth", n, Law("even"), "item", 0, tuple(queries.x.shape[1:]), model.process)
    losses = model.losses(queries.batch, draws)
    return losses.view(len(queries), plan.bins, plan.draws_per_bin).mean(-1).cpu().numpy()


def regenerate(model: Denoiser, queries: Queries, recipe: Recipe) -> np.ndarray:
    """Return the generated queries and controls as this model makes them from their initial noise [G, C, H, W]."""
    generated = queries.where(kind="generated")
    cond = None if generated.cond is None else generated.cond.to(model.device)
    return sample(model, generated.noise, recipe.model.sampler, cond).cpu().numpy()


def attributed(queries: Queries) -> Queries:
    """Return the queries that losses are measured on: all but the controls."""
    return queries.pick([i for i, role in enumerate(queries.roles) if role != "control"])


def run_job(job: Job) -> str:
    """Train (or find) the run's model, measure it, and store the result under its key."""
    store = FolderStore(job.root)
    if not store.exists(job.key):
        data = load_dataset(job.dataset).select(torch.tensor(job.train_ids))
        model = retrained(job.run.retraining, job.recipe, data, data.fingerprint(), store)
        outputs = measure(model, attributed(job.queries), job.plan)
        images = regenerate(model, job.queries, job.recipe).astype(np.float16)
        store.put(job.key, save_arrays({"outputs": outputs, "regenerated": images}))
    return job.key


@dataclass(frozen=True)
class Built:
    """A task's base model and queries, before any subset is retrained."""

    spec: TaskSpec
    parts: Split
    train: ImageDataset
    weights: dict[int, State]
    queries: Queries

    def jobs(self, store: FolderStore) -> list[Job]:
        """Return one job a run, keyed by everything that its result depends on."""
        plan = self.spec.to_json()
        decisive = plan["recipe"], plan["truth"], self.train.fingerprint(), sha256(self.queries.x.numpy().tobytes())
        identity = digest(decisive)
        fields = self.spec.recipe, self.spec.truth, self.spec.dataset, tuple(self.parts.train.tolist()), self.queries
        runs = plan_runs(self.spec, self.train.classes)
        keys = [f"measured/{self.spec.label}-{identity}/{r.role}-{r.index:03d}-seed{r.retraining.seed}" for r in runs]
        return [Job(store.root, f"{key}.safetensors", *fields, run) for key, run in zip(keys, runs, strict=True)]


def prepare_base(spec: TaskSpec, store: FolderStore, on_step: Callable[[int], None] = lambda step: None) -> Built:
    """Train the base model and make the queries, or find both.

    They are stored together: sampling again on another machine would give other bits, so other queries.
    """
    data = load_dataset(spec.dataset)
    parts = split(spec, data)
    train_set = data.select(parts.train)
    identity = digest([spec.label, spec.recipe.to_json(), spec.to_json()["queries"], data.fingerprint()])
    key = f"base/{spec.label}-{identity}"
    if not store.exists(f"{key}.json"):
        weights = _train_base(spec, train_set, on_step)
        queries = make_queries(spec, data, parts, load(spec.recipe.model, weights[spec.recipe.steps]))
        store.put(f"{key}.safetensors", save_arrays(problem_arrays(parts.train, weights, queries)))
        store.put_json(f"{key}.json", {"checkpoints": list(weights), "queries": query_list(queries)})
    arrays, meta = load_arrays(store.get(f"{key}.safetensors")), store.get_json(f"{key}.json")
    weights = {step: weights_from(arrays, step) for step in meta["checkpoints"]}
    return Built(spec, parts, train_set, weights, queries_from(meta, arrays))


def _train_base(spec: TaskSpec, data: ImageDataset, on_step: Callable[[int], None]) -> dict[int, State]:
    model, kept = train(spec.recipe, data, torch.arange(len(data)), BASE_SEED, on_step=on_step)
    return {**kept, spec.recipe.steps: snapshot(model)}


def build_runs(built: Built, store: FolderStore, workers: int, on_done: OnDone = lambda done, total: None) -> list[Job]:
    """Do the jobs that are not done yet, ``workers`` at a time, and return all of them."""
    jobs = built.jobs(store)
    missing = [job for job in jobs if not store.exists(job.key)]
    on_done(len(jobs) - len(missing), len(jobs))
    for count, _ in enumerate(run_jobs(run_job, missing, workers), 1):
        on_done(len(jobs) - len(missing) + count, len(jobs))
    return jobs


def assemble(built: Built, jobs: list[Job], store: FolderStore, folder: Path) -> Assets:
    """Write the assets folder from finished jobs; the manifest, written last, makes it complete."""
    results = {(job.run.role, job.run.retraining.seed, job.run.index): load_arrays(store.get(job.key)) for job in jobs}
    files: dict[str, Arrays] = {"problem.safetensors": problem_arrays(built.parts.train, built.weights, built.queries)}
    for role in _ROLES:
        files[f"truth-{role}.safetensors"] = truth_arrays(_truth(built, role, results))
    return write_assets(folder, files, _manifest(built))


def _truth(built: Built, role: Role, results: dict[tuple[str, int, int], Arrays]) -> Truth:
    plan = built.spec.truth
    chosen = masks(built.spec, built.train.classes, role).numpy()
    replicates = plan.report_replicates if role == "report" else plan.open_replicates

    def stack(name: str) -> np.ndarray:
        rows = [[results[role, BASE_SEED + 1 + r, i][name] for i in range(len(chosen))] for r in range(replicates)]
        return np.stack([np.stack(row) for row in rows])

    def full(name: str) -> np.ndarray:
        return np.stack([results["full", BASE_SEED + 1 + r, r][name] for r in range(plan.full)])

    ids = attributed(built.queries).ids, built.queries.where(kind="generated").ids
    return Truth(role, *ids, chosen, stack("outputs"), full("outputs"), stack("regenerated"), full("regenerated"))


def _manifest(built: Built) -> dict[str, Any]:
    spec, data = built.spec, built.train
    return {
        "task": spec.name,
        "version": spec.version,
        "n_train": len(data),
        "dataset": {"name": spec.dataset, "fingerprint": data.fingerprint(), "revision": data.card.revision},
        "recipe": spec.recipe.to_json(),
        "truth_plan": spec.to_json()["truth"],
        "target": "mean over bins of the eps-MSE, draws keyed by query id and shared by all models",
        "base_seed": BASE_SEED,
        "checkpoints": list(built.weights),
        "queries": query_list(built.queries),
        "query_ids": list(attributed(built.queries).ids),
        "generated_ids": list(built.queries.where(kind="generated").ids),
        "provenance": _provenance(),
    }


def _provenance() -> dict[str, str]:
    packages = {name: version(name).partition("+")[0] for name in ("torch", "diffusers", "numpy", "scikit-learn")}
    return {
        "built_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "tdabench": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **packages,
    }
