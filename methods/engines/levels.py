"""Noise levels of unlearning and of its scores, with the constants of the model's own process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ...errors import UserError
from ...models.draws import Law, Quantiles
from ..view import View

LawKind = Literal["training", "lognormal", "edm-grid", "even"]
Portion = float | Literal["auto"]
DISTANCE_ITEMS = 1024


@dataclass(frozen=True)
class SortedGrid(Law):
    """EDM's grid at sorted uniform places instead of even ones, as sony/mucs draws it for unlearning."""

    def levels(self, n: int, process: Quantiles, generator: torch.Generator) -> Tensor:
        """Return n log-SNRs, the noisiest first, float32 [n]."""
        places = torch.rand(max(int(n / self.portion), n), generator=generator).sort().values[:n]
        ends = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        return -2 * self.rho * (ends[0] + places * (ends[1] - ends[0])).log()


def law_of(view: View, kind: LawKind, portion: Portion, n: int, unlearning: bool = False) -> Law:
    """Return a law of n levels with the constants of the model's own process, where it is EDM's.

    portion ``auto``: ``distance_portion``; unlearning: EDM's grid is random there.
    """
    names = ("mean", "std", "sigma_min", "sigma_max", "rho")
    own = {name: getattr(view.process, name) for name in names if hasattr(view.process, name)}
    law = (SortedGrid if unlearning and kind == "edm-grid" else Law)(kind, **own)
    if kind != "edm-grid":
        return law
    share = distance_portion(view, law, n) if portion == "auto" else portion
    if not 0 < share <= 1:
        raise UserError(f"a portion of EDM's grid must be above 0 and at most 1, not {share}")
    return replace(law, portion=share)


def distance_portion(view: View, law: Law, n: int, share: float = 0.05) -> float:
    """Return which share of the n levels of EDM's whole grid is above half of the distance of near images.

    Near: what ``share`` of the pairs among at most 1,024 training images are within, as RMS over pixels; sony/mucs
    takes the pairs of neighbouring batches, but stops with an error. Raises UserError where no level is above.
    """
    ids = torch.randperm(len(view.train), generator=view.rng("distances"))[:DISTANCE_ITEMS]
    x = view.train.batch(ids).x.flatten(1)
    distances = (functional.pdist(x) / x.shape[1] ** 0.5).sort().values
    whole = Law("edm-grid", portion=1.0, sigma_min=law.sigma_min, sigma_max=law.sigma_max, rho=law.rho)
    sigmas = (-whole.levels(n, view.process, torch.Generator()) / 2).exp()
    found = float((sigmas > distances[int(share * len(distances))] / 2).float().mean())
    if found == 0:
        raise UserError("no level of EDM's grid is above the images' distances: set a portion instead of 'auto'")
    return found
