"""Whether a pair's cells cost more: passes at all, and on equal hardware time and memory beyond a factor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import mannwhitneyu

from ..rows.row import Cost, Row
from ..views.lds import peak
from .finding import Finding, Kind
from .pairing import Pair

ALPHA = 0.05
LEAST_SECONDS = 0.5  # below, it is what starting a timer and an allocation cost
ALONE = 8.0  # a single timing on a machine that others use as well was seen to grow fivefold
LEAST_BYTES = 64 * 2**20
ACROSS_SEEDS = 1.05  # passes of a method that stops by what it sees differ between seeds
HARDWARE = ("os", "cpu", "cpu_count", "gpu", "device", "threads", "concurrent_cells")


@dataclass(frozen=True)
class Limits:
    """By what factors costs may grow where timings are tested, and how much a fraction must fall to count."""

    time: float = 1.5
    memory: float = 1.25
    fall: float = 0.005


def passes(pair: Pair) -> Iterator[Finding]:
    """Compare passes: with the same seeds none may be added, with others only what a stopping rule may add."""
    before, after = _costs(pair.before), _costs(pair.after)
    if {cost.n_queries for cost in before} != {cost.n_queries for cost in after}:
        return
    factor = 1.0 if pair.same_seeds else ACROSS_SEEDS
    how = "any growth fails" if pair.same_seeds else f"with other seeds growth above x{factor:g} fails"
    for way in ("forward_passes", "backward_passes"):
        old, new = (float(np.mean([sum(getattr(cost, way).values()) for cost in side])) for side in (before, after))
        yield Finding("passes", way.replace("_", " "), old, new, new > factor * old, how)


def other_hardware(pair: Pair) -> str | None:
    """Return in what the hardware of both sides differs, or None where it does not."""
    sides = (pair.before, pair.after)
    old, new = ([{name: row.environment.get(name) for name in HARDWARE} for row in rows] for rows in sides)
    differing = [name for name in HARDWARE if {str(one[name]) for one in old} != {str(one[name]) for one in new}]
    return ", ".join(f"{name} {old[0][name]} to {new[0][name]}" for name in differing) or None


def time_and_memory(pair: Pair, limits: Limits) -> Iterator[Finding]:
    """Compare seconds of fit and of queries, and peak memory, of cells that ran on equal hardware."""
    before, after = _costs(pair.before), _costs(pair.after)
    whole = [[cost for cost in side if not cost.resumed] for side in (before, after)]
    if all(whole):
        fit = [[cost.fit_s for cost in side] for side in whole]
        yield _grown("time", "seconds of fit", fit, fit, limits.time)
    totals = [[(cost.seconds_per_query or 0.0) * cost.n_queries for cost in side] for side in (before, after)]
    slices = [[part for cost in side for part in cost.attribute_s] for side in (before, after)]
    alike = {len(cost.attribute_s) for cost in (*before, *after)}
    own = all(math.isclose(sum(parts), sum(side)) for parts, side in zip(slices, totals, strict=True))
    yield _grown("time", "seconds of queries", totals, slices if own and len(alike) == 1 else totals, limits.time)
    for kind, field in (("host", "peak_rss_bytes"), ("GPU", "peak_gpu_bytes")):
        peaks = [[peak(getattr(cost, field)) or 0 for cost in side] for side in whole]
        if all(peaks) and any(peaks[0]):
            yield _grown("memory", f"peak {kind} MiB", peaks, peaks, limits.memory)


def _grown(
    kind: Kind, what: str, values: Sequence[Sequence[float]], repeats: Sequence[Sequence[float]], factor: float
) -> Finding:
    """Judge means by a factor and repeated measurements by a test; where these are too few, by a factor alone."""
    old, new = (float(np.mean(side)) for side in values)
    least, scale = (LEAST_SECONDS, 1.0) if kind == "time" else (LEAST_BYTES, 2.0**-20)
    smallest = 1 / math.comb(len(repeats[0]) + len(repeats[1]), len(repeats[0]))
    if smallest >= ALPHA:
        factor = max(factor, ALONE) if kind == "time" else factor
        how = f"growth above x{factor:g} fails ({len(repeats[1])} measured, too few for a test)"
        return Finding(kind, what, old, new, _beyond(old, new, factor, least), how, scale)
    p = float(mannwhitneyu(repeats[1], repeats[0], alternative="greater").pvalue)
    how = f"growth above x{factor:g} that a Mann-Whitney test confirms fails"
    return Finding(kind, what, old, new, _beyond(old, new, factor, least) and p < ALPHA, how, scale, p=p)


def _beyond(old: float, new: float, factor: float, least: float) -> bool:
    return new > factor * old and new - old > least


def _costs(rows: Sequence[Row]) -> list[Cost]:
    return [row.cost for row in rows if row.cost is not None]
