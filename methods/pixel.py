"""Pixel similarity: the model-free baseline that a model-based method should beat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..datasets.queries import Queries
from .base import Estimate, Method, Sizes, register
from .view import View


@dataclass(frozen=True)
class Params:
    """similarity: ``cosine``; ``distance`` (minus the Euclidean one); ``rbf``, exp(-|x - y|^2 / (bandwidth d)).

    bandwidth: as a share of d, the mean squared distance between two training images, so that it means the same for
    images of any size.
    """

    similarity: Literal["cosine", "distance", "rbf"] = "cosine"
    bandwidth: float = 0.1


@register("pixel")
class Pixel(Method):
    """Similarity of the query to each training image as people see them: pixels, also where the model has latents.

    Cosine is the baseline of D-TRAK (arXiv 2311.00500); the RBF kernel weighs near images only, and its bandwidth in
    ``quick`` is `tdabench tune`'s choice on digits.
    """

    encoders = ("pixels",)
    citation = "raw pixel baseline of arXiv 2311.00500"
    Params = Params
    presets = {"paper": Params(), "quick": Params("rbf", 0.2), "distance": Params("distance")}
    search = {"similarity": ("cosine", "distance", "rbf"), "bandwidth": (0.025, 0.05, 0.1, 0.2, 0.4)}

    def fit(self, view: View) -> float:
        """Return the squared distance that bandwidths are shares of, 1 where nothing asks for it or all are alike."""
        if self.params.similarity != "rbf":
            return 1.0
        norms, total = 0.0, torch.zeros(())
        for _, items in self._blocks(view):
            norms, total = norms + float(items.square().sum()), total + items.sum(0)
        count = len(view.train)
        return 2 * (norms / count - float((total / count).square().sum())) or 1.0

    def attribute(self, view: View, state: float, queries: Queries) -> Iterator[tuple[slice, Tensor]]:
        """Yield (ids, similarities [Q, n]) blockwise; distances in float64."""
        query = queries.pixels.double().flatten(1)
        for part, items in self._blocks(view):
            yield part, self._similarity(query, items, self.params.bandwidth * state).float()

    def _blocks(self, view: View) -> Iterator[tuple[slice, Tensor]]:
        for part in torch.arange(len(view.train)).split(8192):
            yield slice(int(part[0]), int(part[-1]) + 1), view.train.pixels(part).double().flatten(1)

    def _similarity(self, query: Tensor, items: Tensor, bandwidth: float) -> Tensor:
        if self.params.similarity == "cosine":
            normalise = torch.nn.functional.normalize
            return normalise(query, dim=1) @ normalise(items, dim=1).T
        distance = torch.cdist(query, items, compute_mode="donot_use_mm_for_euclid_dist")
        if self.params.similarity == "distance":
            return -distance
        return (-distance.square() / bandwidth).exp()

    def estimate(self, sizes: Sizes) -> Estimate:
        """No pass through the model."""
        return Estimate(bytes=8 * sizes.n_items * sizes.n_queries)
