"""Tasks: a problem with its protocol and truth, under a version; anything that can change a score is a new version."""

from __future__ import annotations

import importlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...datasets.truth import SHIPPED, Assets
from ...errors import CorruptFile, UserError, unknown
from ...models.recipe import Recipe


@dataclass(frozen=True)
class QueryPlan:
    """How many queries: ``dev`` and ``test`` of each kind, and generated ``controls`` that are never attributed."""

    dev: int
    test: int
    controls: int


@dataclass(frozen=True)
class TruthPlan:
    """Which models are retrained and what is measured on them.

    report, open: numbers of subsets per role; report_replicates, open_replicates: retrainings of each; full:
    retrainings on everything; share: the part of every class that a subset keeps; the target of a query is its eps-MSE
    over ``bins`` equal slices of the training noise law with ``draws_per_bin`` draws each, the same for every model.
    """

    report: int
    open: int
    report_replicates: int
    open_replicates: int
    full: int
    share: float = 0.5
    bins: int = 8
    draws_per_bin: int = 10


@dataclass(frozen=True)
class RemovalPlan:
    """Which retrainings measure counterfactual removal.

    top_share: of the training set, how much each query removes; seeds: retrainings of each union of the targets' top
    items, with the seeds after the base model's; per_query: how many targets are also removed one by one, at each of
    ``per_query_shares`` of the training set, under the first seed.
    """

    top_share: float = 0.02
    seeds: int = 5
    per_query: int = 4
    per_query_shares: tuple[float, ...] = (0.02, 0.1, 0.2)

    def top_k(self, n_train: int) -> int:
        """Return how many items each query removes."""
        return max(1, round(self.top_share * n_train))


@dataclass(frozen=True)
class TaskSpec:
    """A task before anything is trained; ``n_train`` items of ``dataset``, stratified, the rest held out."""

    name: str
    version: int
    title: str
    dataset: str
    n_train: int
    recipe: Recipe
    queries: QueryPlan
    truth: TruthPlan
    removal: RemovalPlan = RemovalPlan()

    @property
    def label(self) -> str:
        """``name@version``, as folders and tables have it."""
        return f"{self.name}@{self.version}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values: what a build is keyed by."""
        return asdict(self)


def task_names() -> list[str]:
    """Return the names of the tasks in ``benchmark/tasks``."""
    return sorted(
        path.stem.replace("_", "-") for path in Path(__file__).parent.glob("[a-z]*.py") if path.stem != "spec"
    )


def find_task(name: str) -> TaskSpec:
    """Return a task by name, or by ``name@version``; raises UserError with the nearest names."""
    bare, _, version = name.partition("@")
    if bare not in task_names():
        raise unknown("task", bare, task_names())
    spec: TaskSpec = importlib.import_module(f".{bare.replace('-', '_')}", __package__).TASK
    if version and version != str(spec.version):
        raise UserError(f"task {bare!r} is at version {spec.version}, not {version}: ask for {spec.label}")
    return spec


def home() -> Path:
    """Return the user's folder for built truths and results: $TDABENCH_HOME, else ~/.cache/tdabench."""
    return Path(os.environ.get("TDABENCH_HOME") or Path.home() / ".cache" / "tdabench").expanduser()


def assets_folder(spec: TaskSpec) -> Path:
    """Return where a task's assets lie: built or imported ones in ``home()`` before those that ship."""
    own = home() / "truth" / spec.label
    for folder in (own, SHIPPED / spec.label):
        if (folder / "manifest.json").is_file():
            return folder
    raise UserError(
        f"task {spec.name!r} has no ground truth here: run `tdabench truth build {spec.name}` or import one"
    )


def open_assets(spec: TaskSpec) -> Assets:
    """Return a task's assets; raises CorruptFile where they are not of the task as it is."""
    assets = Assets(assets_folder(spec))
    if assets.manifest.get("recipe") != json.loads(json.dumps(spec.recipe.to_json())):
        raise CorruptFile(f"{assets.folder} was built from another recipe than {spec.label}'s: rebuild it")
    return assets
