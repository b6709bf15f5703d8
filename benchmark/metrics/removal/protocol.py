"""Counterfactual removal: which retrainings a method's scores ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....datasets.truth import Assets
from ....errors import UserError
from ....seeds import numpy_generator
from ...tasks.spec import RemovalPlan, TaskSpec
from ...truth.counterfactuals import Counterfactual

Floats = NDArray[np.float64]
Ranking = Mapping[str, tuple[int, ...]]  # query id -> training ids, best first


@dataclass(frozen=True)
class Protocol:
    """The removals of one task: its targets and controls, the seeds, and how many items go.

    axes: the names of the task's random draws; the base model's seed is none of ``seeds``.
    """

    axes: tuple[str | int, ...]
    n_train: int
    targets: tuple[str, ...]
    controls: tuple[str, ...]
    seeds: tuple[int, ...]
    plan: RemovalPlan

    @property
    def top_k(self) -> int:
        """How many items a query removes."""
        return self.plan.top_k(self.n_train)

    @property
    def independent_size(self) -> int:
        """The expected union of as many random top sets as there are targets: what random scores would remove."""
        return round(self.n_train * (1 - (1 - self.top_k / self.n_train) ** len(self.targets)))

    @property
    def curve_sizes(self) -> list[int]:
        """The union sizes of random removal: from one query's items to all targets' without any overlap.

        They go as far as any set that it is compared with.
        """
        largest = min(max(self.top_k * len(self.targets), *self.per_query_sizes), self.n_train - 1)
        sizes = {self.top_k * factor for factor in (1, 2, 4, 8)} | {self.independent_size, largest}
        return sorted(size for size in sizes if size <= largest)

    @property
    def sampled(self) -> tuple[str, ...]:
        """The targets that are also removed one by one."""
        return self.targets[: self.plan.per_query]

    @property
    def per_query_sizes(self) -> list[int]:
        """How many items are removed for one query at a time."""
        return sorted({max(1, round(share * self.n_train)) for share in self.plan.per_query_shares})

    def without(self, removed: Sequence[int] | NDArray[np.int64]) -> list[Counterfactual]:
        """Return the removal of a set under every seed."""
        return [_without(removed, seed) for seed in self.seeds]

    def floor(self) -> list[Counterfactual]:
        """Return the retrainings on everything."""
        return self.without(())

    def random(self, size: int) -> list[Counterfactual]:
        """Return random removal of ``size`` items; under one seed a larger set holds the smaller ones."""
        return [_without(self._order(seed)[:size], seed) for seed in self.seeds]

    def _order(self, seed: int) -> NDArray[np.int64]:
        return numpy_generator("removal", *self.axes, "random", seed).permutation(self.n_train)

    def curve(self) -> list[Counterfactual]:
        """Return all random removals."""
        return [one for size in self.curve_sizes for one in self.random(size)]

    def union(self, ranking: Ranking) -> tuple[int, ...]:
        """Return the targets' top items, ascending, each once."""
        return tuple(sorted({item for query in self.targets for item in ranking[query][: self.top_k]}))

    def alone(self, ranking: Ranking, size: int) -> list[Counterfactual]:
        """Return the removal of each sampled query's top ``size`` items under the first seed."""
        return [_without(ranking[query][:size], self.seeds[0]) for query in self.sampled]

    def per_query(self, ranking: Ranking) -> list[Counterfactual]:
        """Return all removals of one query's items."""
        return [one for size in self.per_query_sizes for one in self.alone(ranking, size)]


def _without(removed: Sequence[int] | NDArray[np.int64], seed: int) -> Counterfactual:
    return Counterfactual(tuple(sorted(int(item) for item in removed)), seed)


def protocol_of(spec: TaskSpec, assets: Assets) -> Protocol:
    """Return the task's removals; raises UserError for a task without generated test queries."""
    chosen = {
        role: tuple(q["id"] for q in assets.manifest["queries"] if q["role"] == role and q["kind"] == "generated")
        for role in ("test", "control")
    }
    if not all(chosen.values()):
        raise UserError(
            f"task {spec.name!r} lacks generated test queries or controls, so there is nothing to remove for"
        )
    if spec.removal.seeds < 1 or spec.removal.per_query < 1 or not spec.removal.per_query_shares:
        raise UserError(f"task {spec.name!r} has an empty removal plan: it needs seeds, queries and shares")
    first = assets.manifest["base_seed"] + 1
    seeds = tuple(range(first, first + spec.removal.seeds))
    axes = spec.name, spec.version
    return Protocol(axes, assets.manifest["n_train"], chosen["test"], chosen["control"], seeds, spec.removal)
