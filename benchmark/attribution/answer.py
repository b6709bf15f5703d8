"""What an attribution found: scores by method for every picture and training image, and what to think of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...datasets.queries import Queries
from ...leaderboard.rows.row import Row
from ...methods.registry import params_json
from ..run.results import why_not
from .agreement import Agreement, agreements, top
from .cells import Cells
from .copies import Copy, near_copies
from .problem import Made
from .self_check import SelfCheck
from .shortlist import Placed

Scores = NDArray[np.float32]
Ran = tuple[Placed, Row]


@dataclass(frozen=True)
class Top:
    """A training image on top for a picture: its place among ``items``, its score, and the spread of that."""

    item: int
    score: float
    spread: float | None


@dataclass(frozen=True)
class Answer:
    """Scores [Q, N] float32 by entry (``method:preset``): higher = removing that training image hurts the picture more.

    NaN = not scored: images outside a shortlist, and whole pictures that a method has no scores for.

    items [N]: the training images' names, in the order of their names, which is that of the columns; queries [Q]: the
    pictures' names. spread: the standard deviation of scores over seeds, where there were several; missing: why entries
    have no scores; costs: seconds and bytes by entry; copies: the near-copies of each picture; made: what was asked;
    params: of each method; notes: what was given up, and what else to know; self_check: where that was asked for.
    """

    made: Made
    items: tuple[str, ...]
    queries: tuple[str, ...]
    scores: Mapping[str, Scores]
    spread: Mapping[str, Scores]
    missing: Mapping[str, str]
    costs: Mapping[str, Mapping[str, Any]]
    copies: Sequence[Sequence[Copy]]
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    self_check: SelfCheck | None = None

    def top(self, entry: str, query: int) -> list[Top]:
        """Return the images on top for a picture, best first; none where its scores are missing."""
        scores, spread = self.scores[entry][query], self.spread.get(entry)
        chosen = top(scores, self.made.request.top)
        return [Top(i, float(scores[i]), None if spread is None else float(spread[query, i])) for i in chosen]

    @cached_property
    def agreements(self) -> list[Agreement]:
        """How far each pair of entries agrees on its top images."""
        return agreements(self.scores, self.made.request.top)

    def pixels(self, items: Sequence[int]) -> Tensor:
        """Return training images [n, C, H, W] in [-1, 1]."""
        return self.made.own.data.pixels(self.made.own.order[torch.tensor(list(items), dtype=torch.long)])

    @cached_property
    def pictures(self) -> Tensor:
        """The pictures that are explained, [Q, C, H, W], clipped to [-1, 1]."""
        return self.asked.pixels.clamp(-1, 1)

    @cached_property
    def asked(self) -> Queries:
        """The queries of the problem."""
        return self.made.problem().queries


def answer(cells: Cells, ran: Sequence[Ran], self_check: SelfCheck | None = None) -> Answer:
    """Return what cells left that ran, each with its row."""
    made, by_entry = cells.made, _by_entry(ran)
    missing, found = dict(cells.obstacles), {}
    for entry, pairs in by_entry.items():
        reasons = [reason for _, row in pairs if (reason := _failure(row)) is not None]
        if reasons:
            missing[entry] = reasons[0]
        else:
            found[entry] = np.stack([_matrix(cells, one) for one, _ in pairs])
    order, queries = made.own.order.numpy(), made.problem().queries
    several = {entry: stack for entry, stack in found.items() if len(stack) > 1}
    return Answer(
        made,
        tuple(made.own.files[i] for i in order.tolist()),
        queries.ids,
        {entry: stack.mean(0)[:, order] for entry, stack in found.items()},
        {entry: stack.std(0, ddof=1)[:, order] for entry, stack in several.items()},
        missing,
        {entry: _costs([row for _, row in by_entry[entry]]) for entry in found},
        _in_order(near_copies(queries.pixels.clamp(-1, 1), made.own.data), order),
        {entry: params_json(pairs[0][0].cell.params) for entry, pairs in by_entry.items()},
        [*cells.remarks, *_indifferent(found)],
        self_check,
    )


def _indifferent(found: Mapping[str, Scores]) -> list[str]:
    """Return a line for each entry that gives all images of a picture the same score, of scores [seeds, Q, N]."""
    scored = {entry: stack[..., np.isfinite(stack).any((0, 1))] for entry, stack in found.items()}
    equal = {e: int((s == s[..., :1]).all((0, 2)).sum()) for e, s in scored.items() if s.size}
    return [
        f"{entry} scores all images alike for {count} of {found[entry].shape[1]} pictures: that order says nothing"
        for entry, count in equal.items()
        if count
    ]


def _by_entry(ran: Sequence[Ran]) -> dict[str, list[Ran]]:
    found: dict[str, list[Ran]] = {}
    for one in ran:
        found.setdefault(str(one[0].cell.entry), []).append(one)
    return found


def _failure(row: Row) -> str | None:
    """Return why a row has no scores, and what to do about memory."""
    reason = why_not(row)
    if reason is not None and row.status == "oom":
        return f"{reason}: give it more --memory, a smaller --micro-batch, or a preset of fewer numbers"
    return reason


def _matrix(cells: Cells, one: Placed) -> Scores:
    """Return the scores [Q, N] of one cell: NaN for images that are not on its shortlist.

    All NaN for pictures of a kind that the method does not take, or some of whose scores are no finite numbers.
    """
    found, columns = cells.results.scores(one.cell), slice(None) if one.items is None else one.items.numpy()
    scores = np.full((len(one.cell.query_ids), len(cells.made.own.data)), np.nan, np.float32)
    for i, query in enumerate(one.cell.query_ids):
        if query in found and np.isfinite(found[query]).all():
            scores[i, columns] = found[query]
    return scores


def _costs(rows: Sequence[Row]) -> dict[str, Any]:
    costs = [row.cost for row in rows if row.cost is not None]
    peaks = [peak for cost in costs for peak in cost.peak_rss_bytes.values() if peak is not None]
    seconds = [cost.fit_s + sum(cost.attribute_s) for cost in costs]
    shared = [note for row in rows for note in row.diagnostics.get("kept", []) if note.get("devices")]
    more = {"devices": shared[0]["devices"], "shared_s": sum(note["wall_s"] for note in shared)} if shared else {}
    return {"seconds": sum(seconds), "peak_rss_bytes": max(peaks, default=None), **more}


def _in_order(copies: Sequence[Sequence[Copy]], order: NDArray[np.int64]) -> list[list[Copy]]:
    """Return near-copies with the places of their images among sorted names instead of their ids."""
    places = np.argsort(order)
    return [[Copy(int(places[copy.item]), copy.ratio, copy.same) for copy in found] for found in copies]
