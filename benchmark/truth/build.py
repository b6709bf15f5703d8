"""Building and verifying ground truth: base model, queries, and what retrained models make of them."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from ... import __version__
from ...datasets.base import ImageDataset
from ...datasets.find import dataset_origin, load_dataset
from ...datasets.queries import Queries
from ...datasets.truth import Arrays, Assets, Role, Truth, truth_arrays, write_assets
from ...errors import UserError
from ...models.problem import problem_arrays, queries_from, query_list, weights_from
from ...models.processes import open_process
from ...models.recipe import Recipe
from ...models.training import State, load, snapshot, train
from ...seeds import digest
from ...store import FolderStore, sha256
from ..processes import run_jobs
from ..tasks.checks import check_task
from ..tasks.spec import TaskSpec, TruthPlan
from .outcomes import measure, regenerate
from .queries import Split, attributed, make_queries, split
from .retraining import retrained
from .subsets import BASE_SEED, ROLES, Run, masks, plan_runs

OnDone = Callable[[int, int], None]


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
    plugins: tuple[Path, ...] = ()


def run_job(job: Job) -> str:
    """Train (or find) the run's model, measure it, and store the result under its key."""
    store = FolderStore(job.root)
    if not store.exists(job.key):
        data = load_dataset(job.dataset, job.plugins).select(torch.tensor(job.train_ids))
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
    plugins: tuple[Path, ...] = ()

    @cached_property
    def identity(self) -> str:
        """What every measurement depends on: recipe, plan, training images and queries."""
        plan, queries = self.spec.to_json(), [sha256(self.queries.x.numpy().tobytes())]
        asked = {**self.queries.cond, "guidance": self.queries.guidance} if self.queries.cond else {}
        queries += [sha256(name.encode() + asked[name].numpy().tobytes()) for name in sorted(asked)]
        return digest([plan["recipe"], plan["truth"], self.train.fingerprint(), *queries])

    @cached_property
    def train_ids(self) -> tuple[int, ...]:
        """The dataset's indices of the training set, one tuple for all jobs."""
        return tuple(self.parts.train.tolist())

    def jobs(self, store: FolderStore) -> list[Job]:
        """Return one job a run, in the order in which they are best done."""
        return [self._job(store, run) for run in plan_runs(self.spec, self.train.classes)]

    def _job(self, store: FolderStore, run: Run) -> Job:
        name = f"{run.role}-{run.index:03d}-seed{run.retraining.seed}"
        return Job(
            root=store.root,
            key=f"measured/{self.spec.label}-{self.identity}/{name}.safetensors",
            recipe=self.spec.recipe,
            plan=self.spec.truth,
            dataset=self.spec.dataset,
            train_ids=self.train_ids,
            queries=self.queries,
            run=run,
            plugins=self.plugins,
        )


def prepare_base(
    spec: TaskSpec,
    store: FolderStore,
    on_step: Callable[[int], None] = lambda step: None,
    plugins: tuple[Path, ...] = (),
) -> Built:
    """Train the base model and make the queries, or find both; plugins: files that may hold the dataset.

    They are stored together: sampling again on another machine would give other bits, so other queries.
    """
    if spec.recipe.model.autoencoder or spec.recipe.model.trainable:
        raise UserError(f"{spec.label}: no truth can be built yet for latents or for models of which a part trains")
    data = load_dataset(spec.dataset, plugins)
    check_task(spec, data)
    parts = split(spec, data)
    train_set = data.select(parts.train)
    identity = digest([spec.label, spec.recipe.to_json(), spec.to_json()["queries"], data.fingerprint()])
    key = f"base/{spec.label}-{identity}"
    if not store.exists(f"{key}.json"):
        weights = _train_base(spec, train_set, on_step)
        base = load(spec.recipe.model, weights[spec.recipe.steps])
        base.null = data.null
        queries = make_queries(spec, data, parts, base)
        store.put(f"{key}.safetensors", save_arrays(problem_arrays(parts.train, weights, queries)))
        store.put_json(f"{key}.json", {"checkpoints": list(weights), "queries": query_list(queries)})
    arrays, meta = load_arrays(store.get(f"{key}.safetensors")), store.get_json(f"{key}.json")
    weights = {step: weights_from(arrays, step) for step in meta["checkpoints"]}
    return Built(spec, parts, train_set, weights, queries_from(meta, arrays), plugins)


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
    for role in ROLES:
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
        "dataset": {
            "name": spec.dataset,
            "fingerprint": data.fingerprint(),
            "revision": data.card.revision,
            **dataset_origin(spec.dataset, built.plugins),
        },
        "recipe": spec.recipe.to_json(),
        "truth_plan": spec.to_json()["truth"],
        "target": "mean over bins of the training loss, draws keyed by query id and shared by all models",
        "target_unit": open_process(spec.recipe.model.process).unit,
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
