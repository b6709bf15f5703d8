"""The command that builds ground truth, whole or in parts, here or from what was begun elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from ....errors import UserError
from ....store import LONG_CLAIM_S, FolderStore, home
from ...processes import cores
from ...run.plan import check_device
from ...tasks.find import find_task
from ...tasks.spec import TaskSpec
from ...truth.begun import WHOLE, Part, open_begun, take_base, take_runs
from ...truth.build import Built, Job, assemble, build_runs, prepare_base, undone
from ...truth.retraining import seconds_per_update
from ..terminal import Bar, console, duration

POLL_S = 1.0


class Asked(NamedTuple):
    """How a truth is to be built; begun: a home in which it was begun, or a truth."""

    workers: int = 0
    out: Path | None = None
    plugins: tuple[Path, ...] = ()
    device: str = "cpu"
    begun: Path | None = None
    part: Part = WHOLE

    def check(self) -> None:
        """Raise UserError for a device that is not there, or less than no workers."""
        check_device(self.device)
        if self.workers < 0:
            raise UserError("--workers must not be negative: 0 means one per core")

    @property
    def at_once(self) -> int:
        """How many models train at a time."""
        return self.workers or (cores() if self.device == "cpu" else 1)


def build(task: str, asked: Asked) -> None:
    """Build a task's truth, or what is missing of it; where a part was asked for, that part of its retrainings."""
    asked.check()
    spec, store = find_task(task, asked.plugins), FolderStore(home())
    folder = _folder(spec, asked)
    torch.set_num_threads(1)
    if asked.part == WHOLE:
        with alone(store, spec):
            built = _base(spec, store, asked)
            jobs = _retrain(built, store, asked)
            _write(built, jobs, store, folder)
        return
    with alone(store, spec, patient=True):  # while the base model is made: all parts ask about the same
        built = _base(spec, store, asked)
    with alone(store, spec, f"-{asked.part.number}-of-{asked.part.count}"):
        _left(spec, undone(_retrain(built, store, asked), store))


def _folder(spec: TaskSpec, asked: Asked) -> Path:
    out = asked.out
    if out is not None and asked.part != WHOLE:
        raise UserError("--out is for a whole truth: parts of one meet in the home's folder")
    if out is not None and out.is_dir() and any(out.iterdir()) and not (out / "manifest.json").is_file():
        raise UserError(f"--out {out} holds other things than a truth: name an empty folder")
    return out or home() / "truth" / spec.label


@contextmanager
def alone(store: FolderStore, spec: TaskSpec, which: str = "", patient: bool = False) -> Iterator[None]:
    """Keep other builds of a task out, or of one part of it; patient: wait where one is at it, else raise UserError."""
    key, told = f"build-{spec.label}{which}", False
    while True:
        with store.claim(key, ttl=LONG_CLAIM_S) as held:
            if held:
                yield
                return
        if not patient:
            raise UserError(f"another process is building {spec.label} in {store.root}: wait for it, or stop it first")
        if not told:
            console.print(f"{spec.label}: waiting for {store.holder(key)}, who builds it", soft_wrap=True, markup=False)
        told = True
        time.sleep(POLL_S)


def _base(spec: TaskSpec, store: FolderStore, asked: Asked) -> Built:
    if asked.begun is not None:
        take_base(spec, open_begun(asked.begun), store, asked.plugins)
    return train_base(spec, store, asked.plugins, asked.device)


def train_base(spec: TaskSpec, store: FolderStore, plugins: tuple[Path, ...], device: str) -> Built:
    """Train a task's base model, or find it, with its progress."""
    with Bar(f"{spec.label} base model") as bar:
        return prepare_base(spec, store, lambda step: bar.update(step, spec.recipe.steps), plugins, device)


def _retrain(built: Built, store: FolderStore, asked: Asked) -> list[Job]:
    """Do what is missing of the part, and return the jobs of the whole truth."""
    jobs, label = built.jobs(store, asked.device), built.spec.label
    if asked.begun is not None:
        taken = take_runs(jobs, open_begun(asked.begun), store)
        console.print(f"{label}: {taken} measured models taken from {asked.begun}", soft_wrap=True, markup=False)
    mine = asked.part.of(jobs)
    missing = len(undone(mine, store))
    workers, recipe = asked.at_once, built.spec.recipe
    seconds = missing * recipe.steps * seconds_per_update(recipe, built.problem, asked.device) / workers
    console.print(f"{label}: {missing} of {len(mine)} models to train, {workers} at a time, about {duration(seconds)}")
    with Bar(f"{label} retrainings") as bar:
        build_runs(mine, store, workers, bar.update)
    return jobs


def _left(spec: TaskSpec, missing: list[Job]) -> None:
    """Say what is left when a part is done."""
    todo = f"{len(missing)} models of other parts are missing" if missing else "all models are there"
    last = "once they are there, " if missing else ""
    console.print(f"{spec.label}: part done, {todo}; {last}`tdabench truth build {spec.name}` puts the truth together")


def _write(built: Built, jobs: list[Job], store: FolderStore, folder: Path) -> None:
    assets = assemble(built, jobs, store, folder)
    size = sum(file["bytes"] for file in assets.manifest["files"].values())
    console.print(
        f"{built.spec.label}: complete, {size / 2**20:.1f} MiB in {assets.folder}", soft_wrap=True, markup=False
    )
