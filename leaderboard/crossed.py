"""Intervals of a mean over two crossed random factors: retraining seeds [S] and queries [Q]."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

from ..seeds import numpy_generator

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
    low, high = (_bound(values, tail, axes) for tail in ((1 - level) / 2, (1 + level) / 2))
    return Estimate(float(values.mean()), low, high)


def above_zero(values: ArrayLike, *axes: str | int, level: float = LEVEL) -> bool | None:
    """Say whether the mean of ``values`` [S, Q] is above 0, with errors in at most 1 - ``level`` of all null cases.

    None where there is a single seed, or a single query.
    """
    bound = _bound(_checked(values), 1 - level, axes)
    return None if bound is None else bound > 0


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


def _bound(values: Floats, tail: float, axes: tuple[str | int, ...]) -> float | None:
    """Return the mean plus the crossed bootstrap's deviation at ``tail``, widened to the right spread and few seeds.

    Resampling both factors counts their interaction three times (Owen, The pigeonhole bootstrap, 2007), and few seeds
    give too little: the replicates' deviations are scaled to the two-way variance, and from normal to t quantiles.
    """
    if min(values.shape) < 2:
        return None
    replicates = _replicates(values, axes)
    mean, spread = values.mean(), replicates.std()
    variance, degrees = two_way_variance(values)
    if spread == 0 or variance == 0:
        return float(mean)
    widening = np.sqrt(variance) / spread * stdtrit(degrees, 0.975) / ndtri(0.975)
    return float(mean + (np.quantile(replicates, tail) - replicates.mean()) * widening)


def _replicates(values: Floats, axes: tuple[str | int, ...]) -> Floats:
    weights = [_weights(size, (*axes, factor)) for size, factor in zip(values.shape, ("seed", "query"), strict=True)]
    return np.einsum("bs,sq,bq->b", weights[0], values, weights[1])


def _weights(size: int, axes: tuple[str | int, ...]) -> Floats:
    chosen = numpy_generator("crossed", *axes, size).integers(size, size=(REPLICATES, size))
    counts = np.zeros((REPLICATES, size))
    np.add.at(counts, (np.arange(REPLICATES)[:, None], chosen), 1 / size)
    return counts
