"""Tasks: a problem with its protocol and truth, under a version; anything that can change a score is a new version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UserError
from ...models.recipe import LATER, Recipe, compact
from ...store import sha256

if TYPE_CHECKING:
    from torch import Tensor


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
class GroupPlan:
    """What items are grouped by, and how often a model is trained without each group.

    by: ``classes``, a condition of the dataset, or a column of its ``groups``, an integer per item; replicates: models
    trained without each group, with the seeds after the base model's; names: of the groups by ascending value, where
    these do not speak for themselves.
    """

    by: str = "classes"
    replicates: int = 2
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskSpec:
    """A task before anything is trained; ``n_train`` items of ``dataset``, stratified, the rest held out.

    weights: safetensors files of the frozen weights that ship with it: ``autoencoder`` of a latent model, and ``base``,
    from which training starts where only a part of the weights trains. groups: which groups of items are left out one
    by one, if any. where: the columns of the dataset's groups, and the names of those that the task's items and
    held-out queries are from; none for all of the dataset.
    """

    name: str
    version: int
    title: str
    dataset: str
    n_train: int
    recipe: Recipe
    queries: QueryPlan
    truth: TruthPlan
    removal: RemovalPlan = RemovalPlan()
    weights: Mapping[str, Path] = field(default_factory=dict)
    groups: GroupPlan | None = field(default=None, metadata=LATER)
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict, metadata=LATER)

    @property
    def label(self) -> str:
        """``name@version``, as folders and tables have it."""
        return f"{self.name}@{self.version}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values, of files their hashes: what a build is keyed by."""
        plain = {name: value for name, value in compact(self).items() if name != "weights"}
        hashes = {name: sha256(path.read_bytes()) for name, path in self.weights.items()}
        return {**plain, "weights": hashes} if hashes else plain

    def frozen(self, name: str) -> dict[str, Tensor] | None:
        """Return the frozen weights of a name, or None where it ships without; raises UserError for a broken file."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if name not in self.weights:
            return None
        try:
            return load_file(self.weights[name])
        except (OSError, SafetensorError) as error:
            raise UserError(f"the {name} of {self.label} cannot be read from {self.weights[name]}: {error}") from None
