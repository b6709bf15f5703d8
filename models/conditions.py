"""Conditions: what stands for none, and leaving them out in training and in guidance."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..datasets.base import Conditions
from ..errors import UserError

# A label, or zeros, or what one item's condition is then, by name.
Null = Mapping[str, int | str | Tensor]


def null_of(cond: Conditions, null: Null) -> dict[str, Tensor]:
    """Return conditions of the same names, shapes and types that say nothing; raises UserError where none is known."""
    return {name: _null(name, value, null) for name, value in cond.items()}


def dropped(cond: Conditions, null: Null, share: float, generator: torch.Generator) -> Conditions:
    """Return the conditions of a batch, those of each item replaced by the null ones with probability ``share``.

    All conditions of an item go together; nothing is drawn where ``share`` is 0.
    """
    if not share or not cond:
        return cond
    gone = drop(len(next(iter(cond.values()))), share, generator)
    blank = null_of(cond, null)
    return {name: torch.where(_shaped(gone, value), blank[name], value) for name, value in cond.items()}


def drop(n: int, share: float, generator: torch.Generator) -> Tensor:
    """Return which of n items go without conditions, bool [n]; nothing is drawn where ``share`` is 0."""
    return torch.rand(n, generator=generator) < share if share else torch.zeros(n, dtype=torch.bool)


def _null(name: str, value: Tensor, null: Null) -> Tensor:
    if name not in null:
        raise UserError(f"this model says nothing of what stands for no {name}: name it in the specification's `null`")
    stands = null[name]
    if isinstance(stands, Tensor):
        return stands.to(value).expand_as(value)
    return torch.zeros_like(value) if stands == "zeros" else torch.full_like(value, int(stands))


def _shaped(mask: Tensor, like: Tensor) -> Tensor:
    return mask.to(like.device).view(-1, *[1] * (like.ndim - 1))
