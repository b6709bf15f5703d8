"""Tasks: a problem with its protocol and truth, under a version; anything that can change a score is a new version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
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
    regenerated: whether these models make the generated queries again too, images that are kept with the truth.
    """

    report: int
    open: int
    report_replicates: int
    open_replicates: int
    full: int
    share: float = 0.5
    bins: int = 8
    draws_per_bin: int = 10
    regenerated: bool = field(default=True, metadata=LATER)

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
class ExemplarPlan:
    """Which exemplars the base model is tuned on, and how, to make a truth that needs no retraining.

    ks: numbers of exemplars; cases: how often each, with exemplars of their own, of which a smaller k takes the first;
    queries: samples of each tuned model; strengths: updates, as shares of the recipe's; share: of a batch that are
    exemplars; rate: the learning rate, as a share of the recipe's. Exemplars are held-out items that are no queries;
    those of one case share their value of ``by`` (``classes``, a condition or a column of the dataset's ``groups``),
    which is none of ``outside``.
    """

    ks: tuple[int, ...] = (1, 4)
    cases: int = 5
    queries: int = 4
    strengths: tuple[float, ...] = (0.01, 0.05, 0.4)
    share: float = 0.9
    rate: float = 0.3
    by: str = "classes"
    outside: tuple[int, ...] = ()

    def steps(self, updates: int) -> tuple[int, ...]:
        """Return the strengths in updates, of a recipe that has this many; raises UserError where they do not rise."""
        steps = tuple(max(1, round(strength * updates)) for strength in self.strengths)
        if not steps or min(self.strengths) <= 0 or any(later <= one for one, later in pairwise(steps)):
            raise UserError(f"strengths {self.strengths} of exemplars are {steps} updates: let them rise from above 0")
        return steps

    def check(self) -> None:
        """Raise UserError for numbers that make no plan."""
        rising = all(later > one for one, later in pairwise(self.ks))
        if not self.ks or self.ks[0] < 1 or not rising or min(self.cases, self.queries) < 1:
            raise UserError("exemplars: `ks` must rise from 1 or more, `cases` and `queries` must be 1 or more")
        if not (0 < self.share <= 1 and self.rate > 0):
            raise UserError("exemplars: `share` must lie above 0 and up to 1, `rate` above 0")


@dataclass(frozen=True)
class TaskSpec:
    """A task before anything is trained; ``n_train`` items of ``dataset``, stratified, the rest held out.

    weights: safetensors files of the frozen weights that ship with it: ``autoencoder`` of a latent model, and ``base``,
    from which training starts where only a part of the weights trains. groups: which groups of items are left out one
    by one, if any. where: the columns of the dataset's groups, and the names of those that the task's items and
    held-out queries are from; none for all of the dataset. heldout: a column of the dataset's ``groups`` that is 1 for
    items which are held-out queries only, while all others may train; empty: held-out queries are what training leaves.
    exemplars: what the base model is tuned on, where that is asked for.
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
    heldout: str = field(default="", metadata=LATER)
    exemplars: ExemplarPlan = field(default=ExemplarPlan(), metadata=LATER)

    @property
    def label(self) -> str:
        """``name@version``, as folders and tables have it."""
        return f"{self.name}@{self.version}"

    def retrained(self, groups: int) -> int:
        """Return how many models are retrained beside the base model, where there are so many groups to leave out."""
        return self.truth.retrainings + (groups * self.groups.replicates if self.groups else 0)

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
