"""Making the cases of a task's exemplar truth, for ``truth build --kind exemplars`` and for runs that lack some."""

from __future__ import annotations

import torch

from ....datasets.find import load_dataset
from ....datasets.truth import Assets
from ....errors import UserError
from ....store import FolderStore, home
from ...processes import one_thread, run_jobs
from ...tasks.checks import check_task
from ...tasks.find import find_task, has_assets, open_assets
from ...tasks.spec import TaskSpec
from ...truth.begun import WHOLE
from ...truth.derived import Plugins, Source, derived_store
from ...truth.exemplars import ExemplarTruth, Job, choose_exemplars, run_job
from ...truth.queries import split
from ...truth.retraining import seconds_per_update
from ..assets.building import Asked, alone, train_base
from ..terminal import Bar, console, duration


def build(task: str, asked: Asked) -> None:
    """Make a task's exemplar truth, or what is missing of it."""
    asked.check()
    spec = find_task(task, asked.plugins)
    if asked.begun is not None or asked.part != WHOLE:
        raise UserError("--begun and --part are for subsets: exemplar truth is a matter of minutes")
    if asked.out is not None:
        raise UserError(
            f"--out is for subsets: exemplars' problems lie in {derived_store().root}, where runs find them"
        )
    truth = truth_of(spec, _assets(spec, asked.plugins, asked.device), asked.plugins)
    make(truth, asked.at_once, asked.device)
    files = [file for case in truth.cases for file in truth.assets(case).manifest["files"].values()]
    size = sum(file["bytes"] for file in files)
    where = f"{len(truth.cases)} cases, {size / 2**20:.1f} MiB in {derived_store().root}/{spec.label}-exemplars-*"
    console.print(f"{spec.label}: exemplar truth complete, {where}", soft_wrap=True, markup=False)


def truth_of(spec: TaskSpec, assets: Assets, plugins: Plugins) -> ExemplarTruth:
    """Return the exemplar truth of a task; raises UserError for a plan that cannot be."""
    return ExemplarTruth(Source(assets, plugins), spec.exemplars, spec.queries.guidance)


def _assets(spec: TaskSpec, plugins: Plugins, device: str) -> Assets:
    """Return the task's assets, or those of its base model alone, trained now where it is not there."""
    if has_assets(spec):
        return open_assets(spec)
    _check(spec, plugins)
    store = FolderStore(home())
    with alone(store, spec), one_thread():
        return train_base(spec, store, plugins, device).base


def _check(spec: TaskSpec, plugins: Plugins) -> None:
    """Raise UserError for a plan that cannot be, before the base model is trained."""
    data = load_dataset(spec.dataset, plugins)
    check_task(spec, data)
    spec.exemplars.check()
    spec.exemplars.steps(spec.recipe.steps)
    parts = split(spec, data)
    choose_exemplars(data, spec.label, spec.exemplars, torch.cat([parts.train, parts.dev, parts.test]))


def make(truth: ExemplarTruth, workers: int, device: str) -> None:
    """Make the cases that are missing, with an estimate before and progress meanwhile."""
    label, missing = truth.source.label, truth.missing()
    if not missing:
        return
    seconds = sum(seconds_of(truth, missing, device)) / workers
    console.print(
        f"{label}: {len(missing)} of {len(truth.runs)} models to tune on exemplars, {workers} at a time, "
        f"about {duration(seconds)}",
        soft_wrap=True,
    )
    with Bar(f"{label} tunings") as bar:
        done = len(truth.runs) - len(missing)
        bar.update(done, len(truth.runs))
        for count, _ in enumerate(run_jobs(run_job, [Job(truth, run, device) for run in missing], workers), 1):
            bar.update(done + count, len(truth.runs))


def seconds_of(truth: ExemplarTruth, runs: list, device: str) -> list[float]:
    """Return about how long each tuning takes here, with the samples of its models."""
    if not runs:
        return []
    with one_thread():
        each = seconds_per_update(truth.recipe, truth.source.problem(), device)
    passes = truth.plan.queries * truth.recipe.model.sampler.steps  # forward alone, a third of an update's
    return [each * (run[-1].steps + len(run) * passes / (3 * truth.recipe.batch_size)) for run in runs]
