"""Draws: pairs of a noise level (log-SNR) and Gaussian noise, keyed by names and never by batch order.

Log-SNR is log(alpha^2 / sigma^2) of x_noisy = alpha x + sigma eps; an EDM noise level sigma has log-SNR -2 log sigma.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor

from ..seeds import torch_generator

Scope = Literal["shared", "item"]


class Quantiles(Protocol):
    """Something that knows the training law of the noise level."""

    def quantile(self, u: Tensor) -> Tensor:
        """Map uniforms in [0, 1) to log-SNRs distributed as in training; 0 is the cleanest level."""
        ...


@dataclass(frozen=True)
class Law:
    """How noise levels are chosen.

    kind: ``training`` samples the model's training law; ``even`` takes midpoints of n equal slices of it;
    ``lognormal`` samples log sigma ~ N(mean, std) (EDM, arXiv 2206.00364, table 1); ``edm-grid`` takes the first
    ``portion`` (the noisiest) of EDM's rho-spaced grid over [sigma_min, sigma_max], eq. 5 there.
    low, high: for ``training`` and ``even``, the slice of the training law's quantiles that is used (0 = cleanest).
    """

    kind: Literal["training", "even", "lognormal", "edm-grid"] = "training"
    low: float = 0.0
    high: float = 1.0
    mean: float = -1.2
    std: float = 1.2
    portion: float = 0.7
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    @property
    def random(self) -> bool:
        """Whether the levels differ from seed to seed."""
        return self.kind in ("training", "lognormal")

    def levels(self, n: int, process: Quantiles, generator: torch.Generator) -> Tensor:
        """Return n log-SNRs, float32 [n]."""
        if self.kind == "lognormal":
            return -2 * (self.mean + self.std * torch.randn(n, generator=generator))
        if self.kind == "edm-grid":
            return -2 * self._edm_grid(n).log()
        u = torch.rand(n, generator=generator) if self.kind == "training" else (torch.arange(n) + 0.5) / n
        return process.quantile(self.low + (self.high - self.low) * u)

    def _edm_grid(self, n: int) -> Tensor:
        total = max(int(n / self.portion), 2)
        ends = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        return (ends[0] + torch.linspace(0, 1, total)[:n] * (ends[1] - ends[0])) ** self.rho


@dataclass(frozen=True)
class Draws:
    """S draws of (log-SNR, noise) for images of one shape.

    scope ``shared``: every item sees the same S draws; ``item``: draw s of an item is keyed by its id as well.
    """

    name: str
    n: int
    law: Law
    scope: Scope
    seed: int
    shape: tuple[int, ...]
    process: Quantiles

    def for_ids(self, ids: Sequence[int | str]) -> tuple[Tensor, Tensor]:
        """Return log-SNRs [B, S] and noise [B, S, *shape] for the items (CPU, float32; expanded where shared)."""
        if self.scope == "shared":
            levels, noise = self._shared
            return levels.expand(len(ids), -1), noise.expand(len(ids), *noise.shape)
        pairs = [self._one((item,)) for item in ids]
        return torch.stack([level for level, _ in pairs]), torch.stack([noise for _, noise in pairs])

    @cached_property
    def _shared(self) -> tuple[Tensor, Tensor]:
        return self._one(())

    def _one(self, item: tuple[int | str, ...]) -> tuple[Tensor, Tensor]:
        generator = torch_generator("draws", self.seed, self.name, *item)
        levels = self.law.levels(self.n, self.process, generator)
        return levels, torch.randn(self.n, *self.shape, generator=generator)
