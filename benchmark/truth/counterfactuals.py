"""Counterfactual models: trained again without some items, asked for the same images from the same noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from ...datasets.truth import Assets
from ...errors import CorruptFile
from ...models.recipe import Recipe
from ...seeds import digest
from ...store import FolderStore, sha256
from ..processes import run_jobs
from ..tasks.spec import TruthPlan
from .outcomes import measure, regenerate
from .retraining import Members, Retraining, opened, retrained, torch_version

VERSION = 1  # of training, sampling and measuring: outcomes of another one are not mixed with these


@dataclass(frozen=True)
class Counterfactual:
    """A model trained from scratch under ``seed`` without the items ``removed`` (ascending ids)."""

    removed: tuple[int, ...]
    seed: int

    def retraining(self, n_items: int) -> Retraining:
        """Return what is trained, of a training set of ``n_items``."""
        kept = np.ones(n_items, dtype=bool)
        kept[list(self.removed)] = False
        return Retraining(Members.of(kept), self.seed)


@dataclass(frozen=True)
class Outcome:
    """What a counterfactual model makes of the generated queries and controls.

    images [G, C, H, W] float32 from their initial noise; losses [G] float64, their loss as the truth measures it.
    """

    images: np.ndarray
    losses: np.ndarray


@dataclass(frozen=True)
class Job:
    """What a worker needs for one counterfactual: where to read and write, and what to train."""

    root: Path
    key: str
    assets: Path
    counterfactual: Counterfactual
    plan: TruthPlan
    device: str
    plugins: tuple[Path, ...] = ()


class Laboratory:
    """Makes and keeps the counterfactual models of a task's assets, whoever asks for them.

    plugins: files that may hold its dataset.
    """

    def __init__(self, assets: Assets, store: FolderStore, device: str = "cpu", plugins: tuple[Path, ...] = ()) -> None:
        self.assets, self.store, self.device, self.plugins = assets, store, device, plugins
        recipe = Recipe.from_json(assets.manifest["recipe"])
        self.provenance = {"torch": torch_version(), "device": torch.device(device).type, "version": VERSION}
        self.identity = digest([recipe.hash(), assets.problem_sha256, assets.manifest["truth_plan"], self.provenance])

    def key(self, counterfactual: Counterfactual) -> str:
        """Return where the outcome is stored: by recipe, problem, seed and removed ids."""
        ids = sha256(repr(counterfactual.removed).encode())[:16]
        name = f"seed{counterfactual.seed}-without{len(counterfactual.removed)}-{ids}"
        return f"counterfactual/{self.assets.label}-{self.identity}/{name}.safetensors"

    def has(self, counterfactual: Counterfactual) -> bool:
        """Say whether the outcome is stored as it was made."""
        return self.store.kept(self.key(counterfactual)) is not None

    def read(self, counterfactual: Counterfactual) -> Outcome:
        """Return a stored outcome; raises CorruptFile where it is damaged."""
        key = self.key(counterfactual)
        data = self.store.kept(key)
        if data is None:
            raise CorruptFile(f"{self.store.path(key)} was damaged or removed: run again, and it is made again")
        arrays = load_arrays(data)
        return Outcome(arrays["images"], arrays["losses"].astype(np.float64).mean(-1))

    def lacking(self, wanted: Iterable[Counterfactual]) -> list[Counterfactual]:
        """Return those without a stored outcome, each once, in order."""
        return [one for one in dict.fromkeys(wanted) if not self.has(one)]

    def make(
        self, wanted: Iterable[Counterfactual], workers: int, on_done: Callable[[int, int], None] = lambda d, t: None
    ) -> None:
        """Train and measure those that are missing, ``workers`` at a time; each is stored as soon as it is done."""
        missing = self.lacking(wanted)
        jobs = [self._job(one) for one in missing]
        on_done(0, len(jobs))
        for count, _ in enumerate(run_jobs(run_job, jobs, workers), 1):
            on_done(count, len(jobs))

    def _job(self, one: Counterfactual) -> Job:
        plan = TruthPlan(**self.assets.manifest["truth_plan"])
        return Job(self.store.root, self.key(one), self.assets.folder, one, plan, self.device, self.plugins)


def run_job(job: Job) -> str:
    """Train (or find) the counterfactual model, measure it, and store the outcome under its key."""
    store = FolderStore(job.root)
    problem = opened(job.assets, job.plugins)
    model = retrained(job.counterfactual.retraining(len(problem.train)), problem, store, job.device)
    generated = problem.queries.where(kind="generated")
    outcome = {"images": regenerate(model, problem), "losses": measure(model, generated, job.plan)}
    store.keep(job.key, save_arrays({name: np.ascontiguousarray(value) for name, value in outcome.items()}))
    return job.key
