"""Costs of cells: from the measurements of fit and slices, and of ensembles from their members'."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...leaderboard.rows.row import Cost

PEAKS = ("peak_rss_bytes", "peak_gpu_bytes")
PASSES = ("forward_passes", "backward_passes")


def own_cost(whole: dict[str, Any], fit: dict[str, Any], slices: Sequence[dict[str, Any]], n_queries: int) -> Cost:
    """Return the cost of a cell from its fit and its slices, whichever start did them.

    whole: what is known of the cell as one: seconds of set-up and in all, scratch bytes, micro-batch, resumed or not.
    """
    seconds = [part["seconds"] for part in slices]
    peaks = {name: {"fit": fit[name], "attribute": _peak(part[name] for part in slices)} for name in PEAKS}
    counts = {way: {"fit": fit[way], "attribute": sum(part[way] for part in slices)} for way in ("forward", "backward")}
    return Cost(
        setup_s=whole["setup_s"],
        fit_s=fit["seconds"],
        attribute_s=seconds,
        seconds_per_query=sum(seconds) / n_queries,
        n_queries=n_queries,
        peak_rss_bytes=peaks["peak_rss_bytes"],
        peak_gpu_bytes=peaks["peak_gpu_bytes"],
        forward_passes=counts["forward"],
        backward_passes=counts["backward"],
        scratch_bytes=whole["scratch_bytes"],
        wall_s=whole["wall_s"],
        micro_batch=whole["micro_batch"],
        resumed=whole["resumed"],
    )


def add_up(own: Cost, members: Sequence[Cost]) -> Cost:
    """Return an ensemble's cost: the sum of its own and its members' cold ones; memory is the largest of them."""
    every = [own, *members]
    summed = {"fit_s": sum(cost.fit_s for cost in every), "wall_s": sum(cost.wall_s for cost in every)}
    summed["seconds_per_query"] = sum(cost.seconds_per_query or 0 for cost in every)
    by_phase = {name: _by_phase([getattr(cost, name) for cost in every], _peak) for name in PEAKS}
    by_phase |= {name: _by_phase([getattr(cost, name) for cost in every], sum) for name in PASSES}
    return own.model_copy(update=summed | by_phase | {"resumed": any(cost.resumed for cost in every)})


def _by_phase(costs: Sequence[dict[str, Any]], combine: Callable[[Iterable[Any]], Any]) -> dict[str, Any]:
    return {phase: combine(cost[phase] for cost in costs) for phase in costs[0]}


def _peak(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)
