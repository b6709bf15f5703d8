"""Pixel similarity: the model-free baseline that a model-based method should beat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..datasets.queries import Queries
from .base import Estimate, Method, Sizes, register
from .view import View

VALUES = 64  # of a picture of digits, on which the presets were tuned


@dataclass(frozen=True)
class Params:
    """similarity: ``cosine``; ``distance`` (minus the Euclidean one); ``rbf``, exp(-VALUES m / bandwidth).

    m: the mean squared difference of two images' values in [-1, 1], so that a bandwidth carries over to images of
    any size. It is in the units of an image of ``VALUES`` values, for which this is exp(-|x - y|^2 / bandwidth).
    """

    similarity: Literal["cosine", "distance", "rbf"] = "cosine"
    bandwidth: float = 4.0


@register("pixel")
class Pixel(Method):
    """Similarity of the query to each training image as people see them: pixels, also where the model has latents.

    Cosine is the baseline of D-TRAK (arXiv 2311.00500); the RBF kernel weighs near images only, and its bandwidth in
    ``quick`` is `tdabench tune`'s choice on digits.
    """

    encoders = ("pixels",)
    citation = "raw pixel baseline of arXiv 2311.00500"
    Params = Params
    presets = {"paper": Params(), "quick": Params("rbf", 8.0), "distance": Params("distance")}
    search = {"similarity": ("cosine", "distance", "rbf"), "bandwidth": (1.0, 2.0, 4.0, 8.0, 16.0)}

    def attribute(self, view: View, state: Any, queries: Queries) -> Iterator[tuple[slice, Tensor]]:
        """Yield (ids, similarities [Q, n]) blockwise; distances in float64."""
        query = queries.pixels.double().flatten(1)
        for part in torch.arange(len(view.train)).split(8192):
            items = view.train.pixels(part).double().flatten(1)
            yield slice(int(part[0]), int(part[-1]) + 1), self._similarity(query, items).float()

    def _similarity(self, query: Tensor, items: Tensor) -> Tensor:
        if self.params.similarity == "cosine":
            normalise = torch.nn.functional.normalize
            return normalise(query, dim=1) @ normalise(items, dim=1).T
        distance = torch.cdist(query, items, compute_mode="donot_use_mm_for_euclid_dist")
        if self.params.similarity == "distance":
            return -distance
        return (-distance.square() * (VALUES / query.shape[1]) / self.params.bandwidth).exp()

    def estimate(self, sizes: Sizes) -> Estimate:
        """No pass through the model."""
        return Estimate(bytes=8 * sizes.n_items * sizes.n_queries)
