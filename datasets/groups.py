"""Groups of items: classes, contributors, or whatever else a dataset has an integer per item for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError, unknown
from .base import ImageDataset, whole
from .stored import StoredColumn


@dataclass(frozen=True)
class Groups:
    """Which items belong together: the groups' names [G], and to which of them each item belongs, int64 [N]."""

    names: tuple[str, ...]
    assignment: Tensor

    def __len__(self) -> int:
        return len(self.names)

    def members(self, group: int) -> Tensor:
        """Return the ids of a group's items, ascending, int64."""
        return (self.assignment == group).nonzero().flatten()


def group_items(data: ImageDataset, by: str, names: Sequence[str] = ()) -> Groups:
    """Return the groups of a dataset, one for each value of ``classes``, of a column of its ``groups``, or a condition.

    names: of the groups by ascending value; else those that the dataset has, or the values themselves. Raises UserError
    where there is no such column of one integer per item, fewer than two groups, or not one name for each.
    """
    values, assignment = integer_column(data, by).unique(return_inverse=True)
    chosen = tuple(names) or tuple(_named(data, by, value) for value in values.tolist())
    if len(values) < 2:
        raise UserError(f"{by!r} of dataset {data.card.name!r} makes {len(values)} group: leaving out takes two")
    if not len(set(chosen)) == len(chosen) == len(values):
        raise UserError(f"{by!r} of dataset {data.card.name!r} makes {len(values)} groups: give each its own name")
    return Groups(chosen, assignment)


def items_where(data: ImageDataset, where: Mapping[str, Sequence[str]]) -> Tensor:
    """Return the ids of the items that are in one of the named groups of every column given, ascending, int64.

    Raises UserError for a column or a group that the dataset does not have.
    """
    chosen = torch.ones(len(data), dtype=torch.bool)
    for by, names in where.items():
        values = integer_column(data, by)
        known = {_named(data, by, value): value for value in values.unique().tolist()}
        for name in names:
            if name not in known:
                raise unknown(f"group by {by!r} of dataset {data.card.name!r}:", name, known)
        chosen &= torch.isin(values, torch.tensor([known[name] for name in names]))
    return chosen.nonzero().flatten()


def _named(data: ImageDataset, by: str, value: int) -> str:
    names = data.group_names.get(by, ())
    return names[value] if 0 <= value < len(names) else str(value)


def integer_column(data: ImageDataset, by: str) -> Tensor:
    """Return ``classes``, a condition or a column of ``groups``, int64 [N]; raises UserError for no integers."""
    columns = {**data.cond, **data.groups, "classes": data.classes}
    if by not in columns:
        raise unknown(f"grouping of dataset {data.card.name!r}:", by, columns)
    values: Any = columns[by]
    values = whole(values) if isinstance(values, StoredColumn) else values
    if not isinstance(values, Tensor) or tuple(values.shape) != (len(data),) or values.is_floating_point():
        raise UserError(f"{by!r} of dataset {data.card.name!r} is no integer per item: group by another column")
    return values
