"""Random scores: what any method has to beat, and the template to copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..datasets.queries import Queries
from .base import Estimate, Method, Sizes, register
from .view import View


@dataclass(frozen=True)
class Params:
    """Random scores have no knobs."""


@register("random")
class Random(Method):
    """Independent uniform scores."""

    query_specific = False
    sign = "arbitrary"
    Params = Params
    presets = {"paper": Params(), "quick": Params()}

    def attribute(self, view: View, state: Any, queries: Queries) -> Tensor:
        """Return uniform scores [Q, N], keyed by query id so that slicing changes nothing."""
        return torch.stack([torch.rand(len(view.train), generator=view.rng("random", query)) for query in queries.ids])

    def estimate(self, sizes: Sizes) -> Estimate:
        """No pass through the model."""
        return Estimate(bytes=8 * sizes.n_items * sizes.n_queries)
