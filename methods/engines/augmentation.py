"""Images flipped, scaled, turned and moved, as EDM augments what it trains on."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from ...datasets.base import Batch


def augmented(batch: Batch, share: float, generator: torch.Generator) -> Batch:
    """Return the images flipped at random, and each scaled, turned, stretched and shifted with a chance of ``share``.

    Strengths are those of EDM's augmentation (arXiv 2206.00364, appendix F.2); bilinear, where it filters as well.
    """
    n = len(batch)

    def at_chance(values: Tensor) -> Tensor:
        return values * (torch.rand(n, generator=generator) < share)

    def normal() -> Tensor:
        return torch.randn(n, generator=generator)

    def angle() -> Tensor:
        return (2 * torch.rand(n, generator=generator) - 1) * math.pi

    size, turn = (0.2 * at_chance(normal())).exp2(), at_chance(angle())
    stretch, axis = (0.2 * at_chance(normal())).exp2(), angle() * (torch.rand(n, generator=generator) < 0.5)
    moved = torch.rand(n, 1, generator=generator) < share
    shift = 0.25 * moved * torch.randn(n, 2, generator=generator)  # an image is 2 wide here
    stretched = _rotation(axis) @ torch.diag_embed(torch.stack([stretch, 1 / stretch], 1)) @ _rotation(-axis)
    turned = _rotation(turn) @ stretched * size[:, None, None]
    flipped = torch.where(torch.rand(n, generator=generator)[:, None, None, None] < 0.5, batch.x.flip(3), batch.x)
    grid = functional.affine_grid(torch.cat([turned, shift[:, :, None]], 2), list(batch.x.shape), align_corners=False)
    x = functional.grid_sample(flipped, grid, padding_mode="reflection", align_corners=False)
    return replace(batch, x=x)


def _rotation(angles: Tensor) -> Tensor:
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
