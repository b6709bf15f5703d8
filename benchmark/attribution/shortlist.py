"""A shortlist: where each picture would cost a method passes over all images, it sees the likeliest of them alone.

The likeliest are those that methods which rank all images at once, and run anyway, put first. What it sees is a problem
without the others, so that no method needs to know of shortlists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...datasets.truth import Assets, write_assets
from ...errors import UserError
from ...leaderboard.rows.row import Row, row_key
from ...models.problem import problem_files
from ...seeds import digest
from ..metrics.scores import ranked
from ..run.plan import PlannedCell
from ..run.results import why_not
from .cells import Cells
from .problem import ROLE, Made, stored

FORMAT = 1  # bumped when shortlists are made in another way


class Placed(NamedTuple):
    """A cell as it is run, and the ids of the images that it scores; None for all."""

    cell: PlannedCell
    items: Tensor | None = None


def ran(cells: Cells, run: Callable[[list[PlannedCell]], list[Row]]) -> list[tuple[Placed, Row]]:
    """Run the cells that can run, those with a shortlist after those that make it; raises UserError as ``placed``."""
    before = [cell for cell in cells.possible if cell not in cells.narrowed] if cells.narrowed else []
    rows = dict(zip(map(_name, before), run(before) if before else [], strict=True))
    found = placed(cells)
    left = [one.cell for one in found if _name(one.cell) not in rows]
    rows |= zip(map(_name, left), run(left), strict=True)
    return [(one, rows[_name(one.cell)]) for one in found]


def _name(cell: PlannedCell) -> str:
    return row_key(cell.key)


def placed(cells: Cells) -> list[Placed]:
    """Return the cells that can run, those with a shortlist on it; raises UserError where none of its methods ran."""
    if not cells.narrowed:
        return [Placed(cell) for cell in cells.possible]
    items = torch.tensor(sorted({item for ids in _lists(cells) for item in ids}))
    assets = narrowed_assets(cells.made, items)
    return [Placed(_on(cell, assets), items) if cell in cells.narrowed else Placed(cell) for cell in cells.possible]


def known(cells: Cells) -> list[PlannedCell]:
    """Return the cells as they are run as far as that is known: not where a shortlist is still to be made."""
    waiting = bool(cells.narrowed and cells.runner.due(cells.rankers))
    return cells.possible if waiting else [one.cell for one in placed(cells)]


def shortlisted(scores: Sequence[NDArray[np.float32]], k: int) -> list[int]:
    """Return the ids of the k images that methods' scores [N] of one picture put first, in turn, each once."""
    rankings = [found for found in map(ranked, scores) if found is not None]
    turns = (item for place in zip(*rankings, strict=True) for item in place)
    return list(islice(dict.fromkeys(turns), k))


def _lists(cells: Cells) -> list[list[int]]:
    """Return the shortlist of each picture."""
    found: dict[str, list[NDArray[np.float32]]] = {}
    reasons = {}
    for cell in cells.rankers:
        row = cells.results.row(cell.key)
        reasons[str(cell.entry)] = "has no row" if row is None else why_not(row)
        if reasons[str(cell.entry)] is None:
            scores = cells.results.scores(cell)
            found.setdefault(str(cell.entry), []).append(np.stack([scores[query] for query in cell.query_ids]))
    means = [np.mean(of_seeds, 0) for of_seeds in found.values()]
    lists = [shortlisted(of_picture, cells.listed) for of_picture in zip(*means, strict=True)]
    if not any(lists):
        raise UserError(f"no shortlist: {'; '.join(f'{entry} {reason}' for entry, reason in reasons.items())}")
    return lists


def narrowed_assets(made: Made, items: Tensor) -> Assets:
    """Return the stored problem whose training set are the images of these ids [n], ascending, and no others."""
    name = digest([FORMAT, made.assets.problem_sha256, items.tolist()])

    def write(path: Path) -> Assets:
        problem = made.problem()
        train, former = problem.train.select(items), made.assets.manifest
        manifest = {key: value for key, value in former.items() if key != "training_sha256"} | {
            "task": f"{former['task']}-{name[:8]}",
            "n_train": len(train),
            "dataset": former["dataset"] | {"fingerprint": train.fingerprint()},
        }
        own = islice(problem_files(replace(problem, train=train), items), 1)  # the weights are those of ``made``
        return write_assets(path, own, manifest, made.assets)

    return stored(f"{made.assets.folder.parent.name}/shortlist-{name}", write)


def _on(cell: PlannedCell, assets: Assets) -> PlannedCell:
    key = cell.key.model_copy(update={"task": assets.manifest["task"]})
    return replace(cell, key=key).on(assets, ROLE)
