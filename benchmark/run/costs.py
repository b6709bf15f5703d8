"""Costs of cells: from the measurements of fit and slices, and of ensembles from their members'."""

from __future__ import annotations

from typing import Any

from ...leaderboard.rows.row import Cost


def own_cost(
    outcome: dict[str, Any], slices: list[dict[str, Any]], n_queries: int, micro_batch: int, resumed: bool
) -> Cost:
    """Return the cost of a cell from its fit and its slices, whichever start did them."""
    fit, seconds = outcome["fit"], [part["seconds"] for part in slices]
    gpu = [part["peak_gpu_bytes"] for part in slices if part["peak_gpu_bytes"] is not None]
    return Cost(
        setup_s=outcome["setup_s"],
        fit_s=fit["seconds"],
        attribute_s=seconds,
        seconds_per_query=sum(seconds) / n_queries,
        n_queries=n_queries,
        peak_rss_bytes={"fit": fit["peak_rss_bytes"], "attribute": max(part["peak_rss_bytes"] for part in slices)},
        peak_gpu_bytes={"fit": fit["peak_gpu_bytes"], "attribute": max(gpu) if gpu else None},
        forward_passes={"fit": fit["forward"], "attribute": sum(part["forward"] for part in slices)},
        backward_passes={"fit": fit["backward"], "attribute": sum(part["backward"] for part in slices)},
        scratch_bytes=outcome["scratch_bytes"],
        wall_s=outcome["wall_s"],
        micro_batch=micro_batch,
        resumed=resumed,
    )


def add_up(own: Cost, members: list[Cost]) -> Cost:
    """Return an ensemble's cost: its own and its members' cold ones; memory is the largest of them."""
    if not members:
        return own
    every = [own, *members]
    return own.model_copy(
        update={
            "fit_s": sum(cost.fit_s for cost in every),
            "seconds_per_query": sum(cost.seconds_per_query or 0 for cost in every),
            "peak_rss_bytes": {k: max(cost.peak_rss_bytes[k] or 0 for cost in every) for k in own.peak_rss_bytes},
            "forward_passes": {k: sum(cost.forward_passes[k] for cost in every) for k in own.forward_passes},
            "backward_passes": {k: sum(cost.backward_passes[k] for cost in every) for k in own.backward_passes},
            "peak_gpu_bytes": {
                k: max((c.peak_gpu_bytes[k] or 0 for c in every), default=0) or None for k in own.peak_gpu_bytes
            },
            "wall_s": sum(cost.wall_s for cost in every),
            "resumed": any(cost.resumed for cost in every),
        }
    )
