"""Intervals of a mean over two crossed random factors: retraining seeds [S] and queries [Q]."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

from ...seeds import numpy_generator

Floats = NDArray[np.float64]
REPLICATES = 1000
LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean with its two-sided 95 % interval; the bounds are None where there is nothing to estimate a spread from."""

    mean: float
    low: float | None
    high: float | None


def estimate(values: ArrayLike, *axes: str | int, level: float = LEVEL) -> Estimate:
    """Return the mean of ``values`` [S, Q] and its interval; ``axes`` name the resampling, the same for all methods.

    Raises ValueError for values that are not finite.
    """
    values = _checked(values)
    spread = _spread(values, axes)
    if spread is None:
        return Estimate(float(values.mean()), None, None)
    return Estimate(spread.mean, spread.at((1 - level) / 2), spread.at((1 + level) / 2))


def above_zero(values: ArrayLike, *axes: str | int, level: float = LEVEL) -> bool | None:
    """Say whether the mean of ``values`` [S, Q] is above 0, with errors in at most 1 - ``level`` of all null cases.

    None where there is a single seed, or a single query.
    """
    spread = _spread(_checked(values), axes)
    return None if spread is None else spread.at(1 - level) > 0


def _checked(values: ArrayLike) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 2 or not np.isfinite(found).all():
        raise ValueError(f"values of shape {found.shape} are not finite numbers [seeds, queries]")
    return found


def two_way_variance(values: Floats) -> tuple[float, float]:
    """Return the variance of the mean of ``values`` [S, Q] with both factors random, and its degrees of freedom.

    From the mean squares of seeds, queries and interaction, (MS_s + MS_q - MS_e) / (S Q), and never below either
    factor's own; degrees of freedom by Satterthwaite's formula, at least S - 1 and Q - 1 of the smaller factor.
    """
    n_seed, n_query = values.shape
    mean = values.mean()
    seed, query = values.mean(1) - mean, values.mean(0) - mean
    rest = values - mean - seed[:, None] - query
    free = n_seed - 1, n_query - 1, (n_seed - 1) * (n_query - 1)
    sums = n_query * (seed**2).sum(), n_seed * (query**2).sum(), (rest**2).sum()
    squares = [total / count for total, count in zip(sums, free, strict=True)]
    combined = squares[0] + squares[1] - squares[2]
    spread = sum(square**2 / count for square, count in zip(squares, free, strict=True))
    degrees = combined**2 / spread if combined > 0 and spread > 0 else 0.0
    return max(combined, squares[0], squares[1]) / values.size, max(degrees, min(free[:2]))


@dataclass(frozen=True)
class _Spread:
    """Deviations of the mean [B] from itself, as the crossed bootstrap has them, at the right scale.

    Resampling both factors counts their interaction three times (Owen, The pigeonhole bootstrap, 2007), and few seeds
    give too little: the deviations are scaled to the two-way variance, and from normal to t quantiles.
    """

    mean: float
    deviations: Floats

    def at(self, tail: float) -> float:
        """Return the bound that the mean lies below in a share ``tail`` of resamplings."""
        return self.mean + float(np.quantile(self.deviations, tail))


def _spread(values: Floats, axes: tuple[str | int, ...]) -> _Spread | None:
    if min(values.shape) < 2:
        return None
    seeds, queries = (_weights(size, (*axes, name)) for size, name in zip(values.shape, ("seed", "query"), strict=True))
    replicates = (seeds @ values * queries).sum(1)
    variance, degrees = two_way_variance(values)
    spread = replicates.std()
    widening = np.sqrt(variance) / spread * stdtrit(degrees, 0.975) / ndtri(0.975) if spread > 0 else 0.0
    return _Spread(float(values.mean()), (replicates - replicates.mean()) * widening)


@lru_cache(maxsize=64)
def _weights(size: int, axes: tuple[str | int, ...]) -> Floats:
    """Return how often each of ``size`` levels is drawn in each replicate, as shares [B, size]."""
    counts = numpy_generator("crossed", *axes, size).multinomial(size, np.full(size, 1 / size), REPLICATES)
    return counts / size
