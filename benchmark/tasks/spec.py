"""Tasks: a problem with its protocol and truth, under a version; anything that can change a score is a new version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UserError
from ...models.recipe import LATER, Recipe, compact
from ...store import file_hash

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

    @property
    def retrainings(self) -> int:
        """How many models are retrained on subsets and on everything."""
        return self.full + self.report * self.report_replicates + self.open * self.open_replicates


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
    by one, if any. heldout: a column of the dataset's ``groups`` that is 1 for items which are held-out queries only,
    while all others may train; empty: held-out queries are what training leaves.
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
    heldout: str = field(default="", metadata=LATER)

    @property
    def label(self) -> str:
        """``name@version``, as folders and tables have it."""
        return f"{self.name}@{self.version}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values, of files their hashes: what a build is keyed by."""
        plain = {name: value for name, value in compact(self).items() if name != "weights"}
        hashes = {name: self._hash(name) for name in self.weights}
        return {**plain, "weights": hashes} if hashes else plain

    def _hash(self, name: str) -> str:
        try:
            return file_hash(self.weights[name])
        except OSError as error:
            raise UserError(
                f"the {name} of {self.label} is not here: put its safetensors file at {self.weights[name]}"
            ) from error

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


TINY_TRUTH = TruthPlan(report=3, open=2, report_replicates=2, open_replicates=1, full=1, bins=2, draws_per_bin=2)


def shrunk(spec: TaskSpec, dataset: str, config: Mapping[str, Any], **parts: Any) -> TaskSpec:
    """Return a tiny twin, of seconds, that walks the same code: process, conditions, guidance, latents, adapters.

    dataset: a small one with the same conditions; config: the network's arguments that change; parts: whatever else of
    the model does, such as the autoencoder. Its scores mean nothing.
    """
    recipe, large = spec.recipe, spec.recipe.model
    model = replace(large, config={**large.config, **config}, sampler=replace(large.sampler, steps=4), **parts)
    trained = {"steps": 6, "batch_size": 8, "learning_rate": 3e-3, "warmup_steps": 2, "checkpoints": (3,)}
    return replace(
        spec,
        name=f"{spec.name}-tiny",
        dataset=dataset,
        n_train=24,
        heldout="",
        recipe=replace(recipe, model=model, ema_decay=min(recipe.ema_decay, 0.8), **trained),
        queries=replace(spec.queries, dev=1, test=2, controls=1),
        truth=TINY_TRUTH,
        removal=RemovalPlan(top_share=0.1, seeds=1, per_query=1, per_query_shares=(0.1,)),
    )
