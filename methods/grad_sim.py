"""Gradient similarity: dot product or cosine of loss gradients, one checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..datasets.queries import Queries
from ..models.draws import Draws, Law
from .base import Estimate, Method, register
from .engines.gradients import Projector, per_sample_gradients, train_features
from .view import View


@dataclass(frozen=True)
class Params:
    """draws: levels per item, equally spaced over the training law; proj_dim: k, or None for whole gradients.

    similarity: ``cosine`` or ``dot``; scope: whether noise is ``shared`` by all items or drawn per ``item``.
    """

    draws: int = 10
    proj_dim: int | None = 32768
    similarity: Literal["cosine", "dot"] = "cosine"
    scope: Literal["shared", "item"] = "shared"


@dataclass(frozen=True)
class State:
    """Projected training gradients [N, k] and what made them."""

    features: Tensor
    draws: Draws
    projector: Projector


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
        draws = view.draws(self.params.draws, Law("even"), self.params.scope)
        projector = Projector(self.params.proj_dim, view.seed)
        return State(train_features(view, view.model(), draws, "loss", projector), draws, projector)

    def attribute(self, view: View, state: State, queries: Queries) -> Tensor:
        """Return similarities [Q, N]."""
        gradients = per_sample_gradients(view.model(), queries.batch, state.draws, "loss")
        query, items = state.projector(gradients).cpu(), state.features
        if self.params.similarity == "cosine":
            query, items = normalize(query, dim=1), normalize(items, dim=1)
        return torch.matmul(query, items.T)

    def estimate(self, n_items: int, n_queries: int, n_parameters: int) -> Estimate:
        """One gradient per draw of every item and query; features and their kernel in memory."""
        width = self.params.proj_dim or n_parameters
        passes = (n_items + n_queries) * self.params.draws
        return Estimate(per_sample=passes, bytes=4 * n_items * width)
