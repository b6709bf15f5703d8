"""Random projections of gradients, which keep their inner products in expectation."""

from __future__ import annotations

import torch
from torch import Tensor

from ...seeds import torch_generator


class Projector:
    """A sparse Johnson-Lindenstrauss map R^P -> R^k: every coordinate goes, signed, to ``copies`` of the k buckets.

    Kane and Nelson (arXiv 1012.1577); inner products are kept in expectation. ``k = None`` keeps the gradients as
    they are. The map depends on (seed, P, k) alone, and on the name of a part of the gradients that is projected apart.
    """

    def __init__(self, k: int | None, seed: int, copies: int = 2, name: str = "") -> None:
        self.k, self.seed, self.copies, self.name = k, seed, copies, name
        self._maps: dict[int, list[tuple[Tensor, Tensor]]] = {}
        self._parts: dict[str, Projector] = {}

    def __call__(self, gradients: Tensor) -> Tensor:
        """Return [..., k] for gradients [..., P]."""
        if self.k is None:
            return gradients
        rows = gradients.flatten(0, -2)
        out = rows.new_zeros(len(rows), self.k)
        for buckets, signs in self._prepared(rows.shape[1], rows.device):
            out.index_add_(1, buckets, rows * signs)
        return (out / self.copies**0.5).unflatten(0, gradients.shape[:-1])

    def named(self, name: str) -> Projector:
        """Return the map of a part of the gradients, a parameter's; parts of at most k numbers are kept as they are."""
        return self._parts.setdefault(name, PartProjector(self.k, self.seed, self.copies, name))

    def _prepared(self, size: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
        if size not in self._maps:
            self._maps[size] = [self._map(size, copy, device) for copy in range(self.copies)]
        return self._maps[size]

    def _map(self, size: int, copy: int, device: torch.device) -> tuple[Tensor, Tensor]:
        axes = ("projector", self.seed, size, self.k or 0, copy, *([self.name] if self.name else []))
        generator = torch_generator(*axes)
        buckets = torch.randint(0, self.k or 1, (size,), generator=generator)
        signs = torch.randint(0, 2, (size,), generator=generator).float() * 2 - 1
        return buckets.to(device), signs.to(device)


class PartProjector(Projector):
    """The map of one parameter's gradients, which leaves those alone that have no more than k numbers."""

    def __call__(self, gradients: Tensor) -> Tensor:
        """Return [..., min(k, P)] for gradients [..., P]."""
        return gradients if gradients.shape[-1] <= (self.k or 0) else super().__call__(gradients)
