"""Tasks: a problem with its protocol and truth, under a version; anything that can change a score is a new version."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...models.recipe import LATER, Recipe, compact


@dataclass(frozen=True)
class QueryPlan:
    """How many queries: ``dev`` and ``test`` of each kind, and generated ``controls`` that are never attributed.

    guidance: scale of classifier-free guidance in making the generated ones; their conditions are those of training
    items drawn at random.
    """

    dev: int
    test: int
    controls: int
    guidance: float = field(default=0.0, metadata=LATER)


@dataclass(frozen=True)
class TruthPlan:
    """Which models are retrained and what is measured on them.

    report, open: numbers of subsets per role; report_replicates, open_replicates: retrainings of each; full:
    retrainings on everything; share: the part of every class that a subset keeps; the target of a query is its loss
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
        return compact(self)
