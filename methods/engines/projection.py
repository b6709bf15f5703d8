"""Random projections of gradients, which keep their inner products in expectation."""

from __future__ import annotations

import torch
from torch import Tensor

from ...seeds import torch_generator


class Projector:
    """A sparse Johnson-Lindenstrauss map R^P -> R^k: every coordinate goes, signed, to ``copies`` of the k buckets.

    Kane and Nelson (arXiv 1012.1577); inner products are kept in expectation. ``k = None`` keeps the gradients as
    they are. The map depends on (seed, P, k) alone.
    """

    def __init__(self, k: int | None, seed: int, copies: int = 2) -> None:
        self.k, self.seed, self.copies = k, seed, copies
        self._maps: list[tuple[Tensor, Tensor]] = []

    def __call__(self, gradients: Tensor) -> Tensor:
        """Return [B, k] for gradients [B, P]."""
        if self.k is None:
            return gradients
        out = gradients.new_zeros(len(gradients), self.k)
        for buckets, signs in self._prepared(gradients.shape[1], gradients.device):
            out.index_add_(1, buckets, gradients * signs)
        return out / self.copies**0.5

    def _prepared(self, size: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
        if not self._maps:
            for copy in range(self.copies):
                generator = torch_generator("projector", self.seed, size, self.k or 0, copy)
                buckets = torch.randint(0, self.k or 1, (size,), generator=generator)
                signs = torch.randint(0, 2, (size,), generator=generator).float() * 2 - 1
                self._maps.append((buckets.to(device), signs.to(device)))
        return self._maps
