"""Building and verifying ground truth: base model, queries, and what retrained models make of them."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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
from ...datasets.groups import Groups, group_items
from ...datasets.queries import no_queries
from ...datasets.truth import Arrays, Assets, whole_assets, write_assets
from ...errors import CorruptFile, UserError
from ...models.latents import Autoencoder, with_latents
from ...models.precision import set_precision
from ...models.problem import Problem, problem_files, query_list, read_problem
from ...models.processes import open_process
from ...models.training import State, snapshot, train
from ...seeds import digest
from ...store import FolderStore, home, sha256
from ..processes import run_jobs
from ..tasks.checks import check_task
from ..tasks.spec import TaskSpec, TruthPlan
from .outcomes import measure, regenerate
from .queries import Split, attributed, make_queries, split
from .retraining import opened, retrained
from .subsets import BASE_SEED, ROLES, Run, masks, plan_runs

OnDone = Callable[[int, int], None]


@dataclass(frozen=True)
class Job:
    """What a worker needs for one run: where to read and write, and what to train."""

    root: Path
    key: str
    base: Path
    plan: TruthPlan
    run: Run
    device: str = "cpu"
    plugins: tuple[Path, ...] = ()


def run_job(job: Job) -> str:
    """Train (or find) the run's model, measure it, and store the result under its key."""
    store = FolderStore(job.root)
    if store.kept(job.key) is None:
        problem = opened(job.base, job.plugins)
        model = retrained(job.run.retraining, problem, store, job.device)
        found = {"outputs": measure(model, attributed(problem.queries), job.plan)}
        if job.plan.regenerated:
            found["regenerated"] = regenerate(model, problem).astype(np.float16)
        store.keep(job.key, save_arrays(found))
    return job.key


@dataclass(frozen=True)
class Built:
    """A task's base model and queries, before any subset is retrained: assets that hold the problem alone."""

    spec: TaskSpec
    base: Assets
    plugins: tuple[Path, ...] = ()

    @cached_property
    def problem(self) -> Problem:
        """What is attributed to."""
        return read_problem(self.base.folder, self.plugins)

    @cached_property
    def identity(self) -> str:
        """What every measurement depends on: recipe, training images and queries, and what is measured."""
        return digest([self.base.problem_sha256, self.spec.to_json()["truth"]])

    @cached_property
    def runs(self) -> list[Run]:
        """All retrainings, in the order in which they are best done."""
        return plan_runs(self.spec, self.problem.train.classes, self.problem.groups)

    def jobs(self, store: FolderStore, device: str = "cpu") -> list[Job]:
        """Return one job a run."""
        kind = torch.device(device).type
        folder = f"measured/{self.spec.label}-{self.identity}" + (f"-{kind}" if kind != "cpu" else "")
        return [self._job(store, folder, run, device) for run in self.runs]

    def _job(self, store: FolderStore, folder: str, run: Run, device: str) -> Job:
        name = f"{run.role}-{run.index:03d}-seed{run.retraining.seed}"
        key = f"{folder}/{name}.safetensors"
        return Job(store.root, key, self.base.folder, self.spec.truth, run, device, self.plugins)


def prepare_base(
    spec: TaskSpec,
    store: FolderStore,
    on_step: Callable[[int], None] = lambda step: None,
    plugins: tuple[Path, ...] = (),
    device: str = "cpu",
) -> Built:
    """Train the base model and make the queries, or find both; plugins: files that may hold the dataset.

    They are stored together: sampling again on another machine would give other bits, so other queries.
    """
    data, parts, groups, key = _planned_base(spec, plugins)
    set_precision("float32")  # as in all retrainings
    base = whole_assets(store, key)
    if base is None:
        problem = replace(_base_problem(spec, data, parts, on_step, device), groups=groups)
        files, manifest = problem_files(problem, parts.train), _problem_manifest(spec, problem, data, plugins)
        base = write_assets(store.path(key), files, manifest)
    return Built(spec, base, plugins)


def find_base(spec: TaskSpec, store: FolderStore, plugins: tuple[Path, ...] = ()) -> Assets | None:
    """Return what ``prepare_base`` made, the problem alone; None where it was not asked for yet."""
    return whole_assets(store, base_key(spec, plugins))


def base_key(spec: TaskSpec, plugins: tuple[Path, ...] = ()) -> str:
    """Return where a task's base model and queries are stored: by recipe, data, split and groups."""
    return _planned_base(spec, plugins)[-1]


def _planned_base(spec: TaskSpec, plugins: tuple[Path, ...]) -> tuple[ImageDataset, Split, Groups | None, str]:
    """Return the dataset, its split, its groups, and where the base is stored: by all that it depends on."""
    data = load_dataset(spec.dataset, plugins)
    check_task(spec, data)
    parts, plain = split(spec, data), spec.to_json()
    frozen, groups = plain.get("weights", {}), grouped(spec, data.select(parts.train))
    named = [[*groups.names, sha256(groups.assignment.numpy().tobytes())]] if groups else []
    parts_of_it = [sha256(parts.train.numpy().tobytes()), spec.label, plain["recipe"], plain["queries"]]
    identity = digest([*parts_of_it, data.fingerprint(), *sorted(frozen.items()), *named])
    return data, parts, groups, f"base/{spec.label}-{identity}"


def grouped(spec: TaskSpec, items: ImageDataset) -> Groups | None:
    """Return the groups of a task's training items, if it has any; raises UserError for a plan that measures none."""
    if spec.groups is None:
        return None
    if spec.groups.replicates < 1 or spec.truth.full < 1:
        raise UserError(f"{spec.label} leaves groups out, so its `replicates` of groups and `full` must be 1 or more")
    return group_items(items, spec.groups.by, spec.groups.names)


def _base_problem(
    spec: TaskSpec, data: ImageDataset, parts: Split, on_step: Callable[[int], None], device: str
) -> Problem:
    model, items = spec.recipe.model, data.select(parts.train)
    coder, base, encoder = spec.frozen("autoencoder"), spec.frozen("base"), None
    _check_frozen(spec, coder, base)
    if model.autoencoder and coder is not None:
        encoder = Autoencoder(model.autoencoder, coder, device)
        items = with_latents(items, encoder, FolderStore(home()))
    raw: dict[int, State] | None = {} if spec.recipe.keep_raw else None
    everything = torch.arange(len(items))
    trained, kept = train(spec.recipe, items, everything, BASE_SEED, device, on_step, base, raw)
    weights = {**kept, spec.recipe.steps: snapshot(trained)}
    nothing, recipe = no_queries(items), spec.recipe
    problem = Problem(spec.name, items, nothing, model, weights, recipe, BASE_SEED, coder, base, raw or {})
    queries = make_queries(spec, data, parts, items, problem.model(recipe.steps, device), encoder)
    return replace(problem, queries=queries)


def _check_frozen(spec: TaskSpec, coder: State | None, base: State | None) -> None:
    wanted = {"autoencoder": bool(spec.recipe.model.autoencoder), "base": bool(spec.recipe.model.trainable)}
    for name, given in (("autoencoder", coder), ("base", base)):
        if wanted[name] != (given is not None):
            lack = "ships without" if wanted[name] else "has no use for"
            raise UserError(f"{spec.label} {lack} the weights {name!r}: mend TaskSpec.weights")


def undone(jobs: list[Job], store: FolderStore) -> list[Job]:
    """Return the jobs whose results are not in the store, or not as they were written."""
    return [job for job in jobs if store.kept(job.key) is None]


def build_runs(jobs: list[Job], store: FolderStore, workers: int, on_done: OnDone = lambda done, total: None) -> None:
    """Do the jobs that are not done yet, ``workers`` at a time."""
    missing = undone(jobs, store)
    on_done(len(jobs) - len(missing), len(jobs))
    for count, _ in enumerate(run_jobs(run_job, missing, workers), 1):
        on_done(len(jobs) - len(missing) + count, len(jobs))


def assemble(built: Built, jobs: list[Job], store: FolderStore, folder: Path) -> Assets:
    """Write the assets folder from finished jobs; the manifest, written last, makes it complete."""
    manifest = {**built.base.manifest, **_truth_manifest(built.spec, jobs)}
    return write_assets(folder, _all_files(built, jobs, store), manifest)


def _all_files(built: Built, jobs: list[Job], store: FolderStore) -> Iterator[tuple[str, Arrays]]:
    """Yield the problem's files and then those of the truth, never more than one replicate in memory."""
    for name in built.base.manifest["files"]:
        yield name, built.base.arrays(name)
    for role in ROLES:
        chosen = masks(built.spec, built.problem.train.classes, role).numpy()
        yield f"truth-{role}.safetensors", {"masks": np.packbits(chosen, axis=1)}
    shards: dict[str, list[Job]] = {}
    for job in jobs:
        shards.setdefault(shard_of(job.run), []).append(job)
    for name, members in shards.items():
        results = [_result(job, store) for job in sorted(members, key=lambda job: job.run.index)]
        yield f"truth-{name}.safetensors", {"outputs": np.stack([one["outputs"] for one in results])}
        if built.spec.truth.regenerated:
            yield f"regenerated-{name}.safetensors", {"images": np.stack([one["regenerated"] for one in results])}


def shard_of(run: Run) -> str:
    """Return which file of a truth has a run, after ``truth-``: that of its role and replicate."""
    return "full" if run.role == "full" else f"{run.role}-{run.retraining.seed - BASE_SEED - 1}"


def _result(job: Job, store: FolderStore) -> Arrays:
    data = store.kept(job.key)
    if data is None:
        raise CorruptFile(f"{store.path(job.key)} was damaged or removed during the build: run it again")
    return load_arrays(data)


def _problem_manifest(
    spec: TaskSpec, problem: Problem, data: ImageDataset, plugins: tuple[Path, ...]
) -> dict[str, Any]:
    return {
        "task": spec.name,
        "version": spec.version,
        "n_train": len(problem.train),
        "dataset": {
            "name": spec.dataset,
            "fingerprint": problem.train.fingerprint(),
            "revision": problem.train.card.revision,
            **dataset_origin(spec.dataset, plugins),
        },
        "recipe": spec.recipe.to_json(),
        "base_seed": BASE_SEED,
        "checkpoints": list(problem.weights),
        "queries": query_list(problem.queries, data),
        "provenance": provenance(),
        **({"groups": {"by": spec.groups.by, "names": problem.groups.names}} if spec.groups and problem.groups else {}),
    }


def _truth_manifest(spec: TaskSpec, jobs: list[Job]) -> dict[str, Any]:
    device = torch.device(jobs[0].device).type if jobs else "cpu"
    return {
        "truth_plan": spec.to_json()["truth"],
        "target": "mean over bins of the training loss, draws keyed by query id and shared by all models",
        "target_unit": open_process(spec.recipe.model.process).unit,
        "provenance": {**provenance(), "device": device},
    }


def provenance() -> dict[str, str]:
    """Return when and with what a truth is made."""
    packages = {name: version(name).partition("+")[0] for name in ("torch", "diffusers", "numpy", "scikit-learn")}
    return {
        "built_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "tdabench": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **packages,
    }
