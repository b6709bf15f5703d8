"""Ensemble: the mean of other methods' scores, made comparable query by query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from scipy.stats import rankdata
from torch import Tensor

from ..datasets.queries import Queries
from .base import Estimate, Method, Sizes, register
from .view import View

Combine = Literal["rank", "z"]


@dataclass(frozen=True)
class Params:
    """combine: average ``rank`` s over the training set, or ``z``-scores; members: entries, if not the class's."""

    combine: Combine = "rank"
    members: tuple[str, ...] = ()


@register("ensemble")
class Ensemble(Method):
    """Mean of the members' stored scores after rank- or z-normalisation per query.

    Raw means would let the member with the largest scale decide, and TRAK's scale is arbitrary.
    """

    needs = ("stored-scores",)
    members = ("grad-sim", "d-trak", "trak", "mucs")
    Params = Params
    presets = {"paper": Params(), "quick": Params(), "z": Params("z")}
    search = {"combine": ("rank", "z")}

    def attribute(self, view: View, state: Any, queries: Queries) -> Tensor:
        """Return mean normalised scores [Q, N]."""
        return combined([read(queries.ids) for read in view.stored_scores.values()], self.params.combine)

    def estimate(self, sizes: Sizes) -> Estimate:
        """No pass through the model."""
        return Estimate(bytes=8 * sizes.n_items * sizes.n_queries)


def combined(parts: Sequence[Tensor], combine: Combine) -> Tensor:
    """Return the mean [Q, N] float32 of scores [Q, N], normalised per query; a constant row counts as all ties."""
    return torch.stack([NORMALISED[combine](scores) for scores in parts]).mean(0).float()


def _ranks(scores: Tensor) -> Tensor:
    return torch.from_numpy((rankdata(scores.double().numpy(), axis=1) - 0.5) / scores.shape[1])


def _z_scores(scores: Tensor) -> Tensor:
    centred = scores.double() - scores.double().mean(1, keepdim=True)
    spread = centred.square().mean(1, keepdim=True).sqrt()
    return centred / spread.where(spread > 0, 1)


NORMALISED: dict[Combine, Callable[[Tensor], Tensor]] = {"rank": _ranks, "z": _z_scores}
