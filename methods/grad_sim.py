"""Gradient similarity: dot product or cosine of loss gradients, one checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..datasets.queries import Queries
from .base import Estimate, Method, Sizes, register
from .engines.features import FeatureParams, Features
from .rows import Rows
from .view import View


@dataclass(frozen=True)
class Params(FeatureParams):
    """Those of the features, and similarity: ``cosine`` or ``dot``."""

    draws: int = 10
    similarity: Literal["cosine", "dot"] = "cosine"


class State(NamedTuple):
    """What makes features, and the training set's rows [N, k]."""

    features: Features
    items: Rows


@register("grad-sim")
class GradSim(Method):
    """Similarity of the query's loss gradient to each training image's, averaged over draws.

    Charpiat et al. (NeurIPS 2019), as the baselines "gradient dot/cos" of D-TRAK (arXiv 2311.00500) adapt it.
    """

    needs = ("gradients",)
    citation = "Charpiat et al., NeurIPS 2019; diffusion form of arXiv 2311.00500"
    Params = Params
    presets = {
        "paper": Params(),
        "quick": Params(draws=4, proj_dim=4096),
        "quick-dot": Params(draws=4, proj_dim=4096, similarity="dot"),
    }
    notes = {"quick": "4 draws and k = 4096", "quick-dot": "4 draws and k = 4096"}
    search = {"similarity": ("cosine", "dot"), "scope": ("shared", "item")}

    def fit(self, view: View) -> State:
        """Return the projected training gradients."""
        features = Features.of(view, self.params, "loss")
        return State(features, features.of_training_set(view))

    def attribute(self, view: View, state: State, queries: Queries) -> Iterator[tuple[slice, Tensor]]:
        """Yield (ids, similarities [Q, n]) blockwise."""
        query = state.features.of_queries(view, queries)
        for part, items in state.items.blocks():
            yield part, self._similarity(query, items)

    def _similarity(self, query: Tensor, items: Tensor) -> Tensor:
        if self.params.similarity == "cosine":
            query, items = normalize(query, dim=1), normalize(items, dim=1)
        return torch.matmul(query, items.T)

    def estimate(self, sizes: Sizes) -> Estimate:
        """One gradient per draw of every item and query; features."""
        return self.params.estimate(sizes)
