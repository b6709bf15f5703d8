"""Deriving again what a row says, from its scores and the truth: what that is of a row, and where it says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from ...datasets.truth import Assets, GroupTruth, Role, Truth
from ...errors import brief
from ...leaderboard.rows.row import Cost, Metrics, Row
from ...methods.registry import Listing
from ..metrics.scores import Blocks, of_kinds, query_ids
from ..run.costs import own_cost
from ..run.record import Record
from ..run.reporting import TRUTH_OF, Asked, metrics_of, status_by

NOT_RECORDED = "isolation, environment and command of rows are what their run said: nothing here tells"
TOLERANCE = 1e-6  # of numbers derived from the same scores by another version of NumPy
NOT_DERIVED = ("removal", "sanity", "exemplars")


def derivable(row: Row) -> Row:
    """Return a row with those metrics alone that follow from scores and truth."""
    assert row.metrics is not None
    kept = Metrics(lds=row.metrics.lds, top=row.metrics.top, groups=row.metrics.groups)
    return row.model_copy(update={"metrics": kept})


def attributed(assets: Assets, query_set: str, listing: Listing) -> tuple[str, ...]:
    """Return the queries of a set that a method takes."""
    return of_kinds(assets.manifest, query_ids(assets.manifest, query_set), listing.query_kinds)


def width(assets: Assets, listing: Listing) -> int:
    """Return how many scores a method gives a query: one an item, or one a group."""
    return len(assets.manifest["groups"]["names"]) if listing.unit == "group" else assets.manifest["n_train"]


@dataclass
class Deriver:
    """Derives rows' metrics again; truths are read once."""

    _truths: dict[tuple[str, Role], tuple[Truth | None, GroupTruth | None]] = field(default_factory=dict)

    def disagreement(
        self, row: Row, assets: Assets, listing: Listing, k: int, blocks: Callable[[], Blocks]
    ) -> str | None:
        """Return where a row's metrics or status do not follow from its scores, with both figures, or None.

        blocks: yields the scores of all queries that the method takes, anew at each call; k: top items that are kept.
        """
        unit = cast("Literal['item', 'group']", listing.unit)
        ids, query_set = query_ids(assets.manifest, row.key.query_set), row.key.query_set
        asked = Asked(assets, ids, query_set, unit, k)
        found = metrics_of(asked, *self._labels(assets, TRUTH_OF[query_set]), blocks)
        claimed = derivable(row).metrics
        assert claimed is not None
        if odd := difference(claimed.model_dump(mode="json"), found.model_dump(mode="json"), "metrics"):
            return odd
        status = status_by("ok", None, found)[0]
        ended = row.status in ("ok", "partial")
        return f"says {row.status}, and {status} follows from its scores" if ended and row.status != status else None

    def _labels(self, assets: Assets, role: Role) -> tuple[Truth | None, GroupTruth | None]:
        key = assets.sha256, role
        if key not in self._truths:
            truth = assets.truth(role) if assets.has(role) else None
            self._truths[key] = truth, assets.group_truth() if assets.has_groups else None
        return self._truths[key]


def derived_cost(row: Row, record: Record) -> Cost | None:
    """Return a row's cost as its cell's record has it; None for an ensemble, whose members' costs are in it too.

    What the record lacks is taken from the row: whether the cell was resumed, and what a killed later start forgot.
    """
    fit, spec = record.read("fit"), record.read("spec")
    if row.cost is None or fit is None or spec is None or spec["members"]:
        return None
    slices = [record.costs(part)["attribute"] for part in record.parts()]
    told = {"micro_batch": spec["micro_batch"], **(record.read("outcome") or {})}
    return own_cost(row.cost.model_dump() | told, fit["fit"], slices, len(spec["query_ids"]))


def difference(claimed: Any, found: Any, place: str) -> str | None:
    """Return the first place where two JSON values differ by more than TOLERANCE, with both, or None."""
    if isinstance(claimed, dict) and isinstance(found, dict):
        if odd := sorted(claimed.keys() ^ found.keys()):
            return f"{place}.{odd[0]} is claimed or derived, not both"
        return next(filter(None, (difference(claimed[k], found[k], f"{place}.{k}") for k in claimed)), None)
    if isinstance(claimed, list) and isinstance(found, list) and len(claimed) == len(found):
        pairs = enumerate(zip(claimed, found, strict=True))
        return next(filter(None, (difference(a, b, f"{place}.{i}") for i, (a, b) in pairs)), None)
    if isinstance(claimed, float) and isinstance(found, float) and abs(claimed - found) <= TOLERANCE:
        return None
    return (
        None if claimed == found else f"{place} is claimed to be {brief(str(claimed))}, and {brief(str(found))} follows"
    )
