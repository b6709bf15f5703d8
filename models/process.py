"""Noise processes: how an image is noised and what the network is asked for, in terms of log-SNR."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class DDPMProcess:
    """The discrete variance-preserving process of DDPM (arXiv 2006.11239) behind a diffusers scheduler's settings.

    Log-SNRs snap to the nearest of the ``num_train_timesteps`` grid points; the training law is uniform over them.
    """

    def __init__(self, **config: Any) -> None:
        from diffusers import DDPMScheduler

        self.config = config
        scheduler = DDPMScheduler(**config)
        if scheduler.config["prediction_type"] != "epsilon":
            raise ValueError(f"prediction_type must be 'epsilon', not {scheduler.config['prediction_type']!r}")
        self.alphas_cumprod: Tensor = scheduler.alphas_cumprod.double()
        self.grid: Tensor = (self.alphas_cumprod.log() - (-self.alphas_cumprod).log1p()).float()
        self._ascending = self.grid.flip(0).contiguous()

    def training_quantile(self, u: Tensor) -> Tensor:
        """Map u in [0, 1) to the log-SNR of timestep floor(u T); u = 0 is the cleanest."""
        steps = (u * len(self.grid)).long().clamp(0, len(self.grid) - 1)
        return self.grid[steps]

    def timesteps(self, logsnr: Tensor) -> Tensor:
        """Return the timesteps whose log-SNR is nearest, int64, shaped like ``logsnr``."""
        grid = self._ascending.to(logsnr.device)
        right = torch.searchsorted(grid, logsnr.contiguous()).clamp(1, len(grid) - 1)
        left_is_nearer = (logsnr - grid[right - 1]) < (grid[right] - logsnr)
        return len(grid) - 1 - (right - left_is_nearer.long())

    def snap(self, logsnr: Tensor) -> Tensor:
        """Return the nearest log-SNRs on the grid."""
        return self.grid.to(logsnr.device)[self.timesteps(logsnr)]

    def scales(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """Return (alpha, sigma) of x_noisy = alpha x + sigma eps at snapped log-SNRs."""
        snapped = self.snap(logsnr)
        return snapped.sigmoid().sqrt(), (-snapped).sigmoid().sqrt()
