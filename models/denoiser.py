"""A denoiser: a network with its noise process, asked for outputs and losses at log-SNRs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..datasets.base import Batch
from .counting import Passes, counter_of
from .draws import Draws
from .process import DDPMProcess

Unit = Literal["eps", "edm"]


class Denoiser(nn.Module):
    """A noise-predicting network and its process; parameters are the network's.

    ``passes`` counts every image through ``net``, whoever calls it or a copy of it; ``micro_batch`` bounds the images
    of one forward pass.
    """

    def __init__(self, net: nn.Module, process: DDPMProcess, micro_batch: int = 512, sigma_data: float = 0.5) -> None:
        super().__init__()
        self.net = net
        self.process = process
        self.micro_batch = micro_batch
        self.sigma_data = sigma_data
        counter_of(net)

    @property
    def passes(self) -> Passes:
        """What the network's passes are counted into."""
        return counter_of(self.net).passes

    @passes.setter
    def passes(self, passes: Passes) -> None:
        counter_of(self.net).passes = passes

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.net.parameters()).device

    def clone(self) -> Denoiser:
        """Return a private copy of the parameters that shares the pass counter."""
        return Denoiser(copy.deepcopy(self.net), self.process, self.micro_batch, self.sigma_data)

    def forward(self, noisy: Tensor, timesteps: Tensor, cond: Tensor | None = None) -> Tensor:
        """Return the network's output for noisy images at timesteps [B] (or one for all)."""
        extra: dict[str, Any] = {}
        if cond is not None:
            extra = {"encoder_hidden_states": cond} if cond.is_floating_point() else {"class_labels": cond}
        return self.net(noisy, timesteps, return_dict=False, **extra)[0]

    def noised(self, x: Tensor, logsnr: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return what ``forward`` takes for P pairs: noisy images [P, C, H, W] and timesteps [P]."""
        alpha, sigma = (scale.view(-1, *[1] * (x.ndim - 1)) for scale in self.process.scales(logsnr))
        return alpha * x + sigma * noise, self.process.timesteps(logsnr)

    def output_pairs(self, x: Tensor, logsnr: Tensor, noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """Return predicted noise for P pairs: x [P, C, H, W], log-SNRs [P], noise [P, C, H, W]; one forward pass."""
        return self(*self.noised(x, logsnr, noise), cond)

    def weight(self, logsnr: Tensor, unit: Unit) -> Tensor:
        """Return the factor from eps-MSE to the unit.

        ``eps`` is 1; ``edm`` is 1 + sigma^2 / sigma_data^2, EDM's weighting of the x0 error (arXiv 2206.00364).
        """
        if unit == "eps":
            return torch.ones_like(logsnr)
        return 1 + (-self.process.snap(logsnr)).exp() / self.sigma_data**2

    def loss_pairs(
        self, x: Tensor, logsnr: Tensor, noise: Tensor, cond: Tensor | None = None, unit: Unit = "eps"
    ) -> Tensor:
        """Return the mean squared error of the predicted noise for each of P pairs [P], in the unit."""
        error = (self.output_pairs(x, logsnr, noise, cond) - noise).square()
        return error.flatten(1).mean(1) * self.weight(logsnr, unit)

    def losses(self, batch: Batch, draws: Draws, unit: Unit = "eps") -> Tensor:
        """Return losses [B, S] of each item at each draw; differentiable; ``micro_batch`` pairs a forward pass."""
        parts = [self.loss_pairs(*pairs, unit=unit) for pairs in self._pairs(batch, draws)]
        return torch.cat(parts).view(len(batch), draws.n)

    def outputs(self, batch: Batch, draws: Draws) -> Tensor:
        """Return predicted noise [B, S, C, H, W] of each item at each draw."""
        parts = [self.output_pairs(*pairs) for pairs in self._pairs(batch, draws)]
        return torch.cat(parts).view(len(batch), draws.n, *batch.x.shape[1:])

    def _pairs(self, batch: Batch, draws: Draws) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
        batch = batch.to(self.device)
        logsnr, noise = (part.to(self.device) for part in draws.for_ids(batch.ids))
        index = torch.arange(len(batch) * draws.n, device=self.device)
        for chunk in index.split(self.micro_batch):
            item, draw = chunk // draws.n, chunk % draws.n
            cond = None if batch.cond is None else batch.cond[item]
            yield batch.x[item], logsnr[item, draw], noise[item, draw], cond
