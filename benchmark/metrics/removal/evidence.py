"""What removal does: images under removal beside those under random removal, as rows report it.

Nothing here trains: outcomes come from a function, so that a closed-form toy can stand in for retrained models.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from ....datasets.queries import Queries
from ....leaderboard.rows.removal import Change, CurvePoint, PerQuery, PerQueryChange, Published, Union
from ....leaderboard.rows.removal import Similarity as SimilarityResult
from ....leaderboard.stats.over_seeds_and_queries import estimate
from ...truth.counterfactuals import Counterfactual, Outcome
from .protocol import Protocol, Ranking
from .similarities import SIGNED, Similarity

Floats = NDArray[np.float64]
Read = Callable[[Counterfactual], Outcome]


DECIMALS = 6


@dataclass(frozen=True)
class Baseline:
    """Similarities to the base model's images under random removal, by union size, of ``n_train`` items.

    values [sizes, S, G] for ascending ``sizes``, of which the first is 0: nothing removed.
    """

    sizes: tuple[int, ...]
    values: Floats
    n_train: int

    @property
    def floor(self) -> Floats:
        """The similarities where nothing was removed, [S, G]."""
        return self.values[0]

    def at(self, size: int) -> Floats:
        """Return the similarities [S, G] at a union size, interpolated between the sizes that were tried.

        They are taken to be linear in one over the number of items left, as losses nearly are: read linearly in the
        size, a curve that bends overstates random removal between two sizes. Raises ValueError for a size beyond them.
        """
        if size > self.sizes[-1]:
            raise ValueError(f"random removal was tried up to {self.sizes[-1]} items, not {size}")
        upper = max(1, int(np.searchsorted(self.sizes, size)))
        around = self.sizes[upper - 1], size, self.sizes[upper]
        low, here, high = (1 / (self.n_train - removed) for removed in around)
        share = (here - low) / (high - low)
        return (1 - share) * self.values[upper - 1] + share * self.values[upper]


class Evidence:
    """What all methods of a task are compared with: the images as the base model made them, and random removal.

    queries: targets and controls in the order of the outcomes' images; ``read`` returns outcomes by counterfactual.
    """

    def __init__(self, protocol: Protocol, queries: Queries, read: Read) -> None:
        self.protocol, self.queries, self.read = protocol, queries, read
        self.columns = {query: i for i, query in enumerate(queries.ids)}
        self._baselines: dict[str, Baseline] = {}

    def similar(self, similarity: Similarity, outcomes: Sequence[Counterfactual]) -> Floats:
        """Return how alike each outcome's images are to the base model's, [outcomes, G]."""
        return np.stack([self._similar(similarity, self.read(one)) for one in outcomes])

    def _similar(self, similarity: Similarity, outcome: Outcome) -> Floats:
        if similarity.compare is None:
            return -outcome.losses
        values = similarity.compare(self.queries.pixels, torch.from_numpy(outcome.images))
        return values.double().numpy()

    def baseline(self, similarity: Similarity) -> Baseline:
        """Return random removal's similarities, read once."""
        if similarity.name not in self._baselines:
            sizes = self.protocol.curve_sizes
            sets = [self.protocol.floor(), *(self.protocol.random(size) for size in sizes)]
            values = np.stack([self.similar(similarity, one) for one in sets])
            self._baselines[similarity.name] = Baseline((0, *sizes), values, self.protocol.n_train)
        return self._baselines[similarity.name]

    def pick(self, ids: Sequence[str]) -> list[int]:
        """Return the columns of queries."""
        return [self.columns[query] for query in ids]

    @cached_property
    def targets(self) -> list[int]:
        """The targets' columns."""
        return self.pick(self.protocol.targets)

    @cached_property
    def controls(self) -> list[int]:
        """The controls' columns."""
        return self.pick(self.protocol.controls)


def union_result(
    evidence: Evidence, ranking: Ranking, similarities: Sequence[Similarity], encoders: Collection[str] = ()
) -> Union:
    """Return what removing all targets' top items does; ``encoders`` are those that the method uses itself."""
    protocol = evidence.protocol
    removed = protocol.union(ranking)
    results = {one.name: _similarity(evidence, one, removed, one.encoder in encoders) for one in similarities}
    ids = {"target_ids": list(protocol.targets), "control_ids": list(protocol.controls)}
    return Union(size=len(removed), seeds=list(protocol.seeds), similarities=results, **ids, random_by="items left")


def _similarity(
    evidence: Evidence, similarity: Similarity, removed: tuple[int, ...], circular: bool
) -> SimilarityResult:
    baseline, protocol = evidence.baseline(similarity), evidence.protocol
    grids = Grids(
        floor=baseline.floor,
        after=evidence.similar(similarity, protocol.without(removed)),
        random=baseline.at(len(removed)),
        independent=baseline.at(protocol.independent_size),
    )
    unsigned = similarity.name not in SIGNED
    return SimilarityResult(
        targets=grids.change(evidence.targets, "less", unsigned),
        controls=grids.change(evidence.controls, "two-sided", unsigned),
        curve=[_curve_point(evidence, baseline, size) for size in protocol.curve_sizes],
        circular=circular,
        meaningful=similarity.meaningful,
    )


@dataclass(frozen=True)
class Grids:
    """Similarities [S, G] to the base model's images: nothing removed, a method's union, random sets.

    random: as many items as the union; independent: as many as random scores would remove, as published.
    """

    floor: Floats
    after: Floats
    random: Floats
    independent: Floats

    def change(self, columns: list[int], alternative: str, unsigned: bool) -> Change:
        """Return what a row reports of the queries in ``columns``; ``alternative`` is that of the published tests."""
        own = self.after[:, columns]
        published = self.independent[:, columns]
        return Change(
            floor=_grid(self.floor[:, columns]),
            after=_grid(own),
            random=_grid(self.random[:, columns]),
            published=published_statistics(own.ravel(), published.ravel(), alternative, unsigned),
        )


def _curve_point(evidence: Evidence, baseline: Baseline, size: int) -> CurvePoint:
    effect = (baseline.floor - baseline.at(size))[:, evidence.targets]
    mean, low, high = estimate(effect, *evidence.protocol.axes, "removal")
    return CurvePoint(size=size, mean=mean, low=low, high=high)


def published_statistics(own: Floats, random: Floats, alternative: str, unsigned: bool = True) -> Published:
    """Return the statistics of sony/mucs' eval.py for pooled similarities [S * Q], paired by seed and query.

    Change: 100 (own / max(median of random, 0.01) - 1), its mean with 1.98 standard errors; AUC: P(random > own) with
    ties counted half; Mann-Whitney U as published, and Wilcoxon's signed ranks, because the values are paired.
    """
    percent = 100 * (own / max(float(np.median(random)), 0.01) - 1)
    larger = stats.mannwhitneyu(random, own).statistic
    different = bool((own != random).any())
    paired: Any = stats.wilcoxon(own, random, alternative=alternative) if different else None
    return Published(
        change_percent=float(percent.mean()) if unsigned else None,
        change_margin=float(1.98 * percent.std() / np.sqrt(len(percent))) if unsigned else None,
        auc=float(larger / (len(own) * len(random))),
        mann_whitney_p=float(stats.mannwhitneyu(own, random, alternative=alternative).pvalue),
        wilcoxon_p=float(paired.pvalue) if different else 1.0,
    )


def per_query_result(evidence: Evidence, ranking: Ranking, similarities: Sequence[Similarity]) -> PerQuery:
    """Return what removing one query's top items does to that query, at several sizes."""
    protocol = evidence.protocol
    results = {one.name: _per_query(evidence, one, ranking) for one in similarities}
    sizes, ids = protocol.per_query_sizes, list(protocol.sampled)
    return PerQuery(query_ids=ids, sizes=sizes, seed=protocol.seeds[0], similarities=results)


def _per_query(evidence: Evidence, similarity: Similarity, ranking: Ranking) -> PerQueryChange:
    protocol, baseline = evidence.protocol, evidence.baseline(similarity)
    columns = evidence.pick(protocol.sampled)
    after = [
        np.diag(evidence.similar(similarity, protocol.alone(ranking, k))[:, columns]) for k in protocol.per_query_sizes
    ]
    random = [baseline.at(size)[0, columns] for size in protocol.per_query_sizes]
    floor = _grid(baseline.floor[:1, columns])[0]
    return PerQueryChange(floor=floor, after=_grid(np.stack(after)), random=_grid(np.stack(random)))


def _grid(values: Floats) -> list[list[float]]:
    return np.round(values, DECIMALS).tolist()
