"""The discrete variance-preserving process of DDPM (arXiv 2006.11239)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .base import Process, Unit

UNITS: dict[str, Unit] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}


class DDPMProcess(Process):
    """DDPM behind a diffusers scheduler's settings; the network predicts noise, image or v (arXiv 2202.00512).

    Log-SNRs snap to the nearest of the ``num_train_timesteps`` grid points; the training law is uniform over them.
    set_alpha_to_one: whether DDIM's last step ends at the image, or at the grid's cleanest point, as Stable Diffusion's
    does. Raises ValueError for another ``prediction_type``, or a grid that ends at pure noise.
    """

    def __init__(self, set_alpha_to_one: bool = True, **config: Any) -> None:
        from diffusers import DDPMScheduler

        self.config, self.ends_clean = config, set_alpha_to_one
        scheduler = DDPMScheduler(**config)
        kind = scheduler.config["prediction_type"]
        if kind not in UNITS:
            raise ValueError(f"prediction_type must be one of {', '.join(UNITS)}, not {kind!r}")
        if scheduler.config["rescale_betas_zero_snr"]:
            raise ValueError("with rescale_betas_zero_snr the grid would end at pure noise: not supported")
        self.unit = UNITS[kind]
        self.alphas_cumprod: Tensor = scheduler.alphas_cumprod.double()
        self.grid: Tensor = (self.alphas_cumprod.log() - (-self.alphas_cumprod).log1p()).float()
        if len(self.grid) < 2:
            raise ValueError(f"num_train_timesteps must be 2 or more, not {len(self.grid)}")
        if not self.grid.isfinite().all():
            raise ValueError("its last levels are pure noise (alpha = 0), which have no log-SNR: take another schedule")
        self._ascending = self.grid.flip(0).contiguous()

    def quantile(self, u: Tensor) -> Tensor:
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
        """Return (alpha, sigma) at snapped log-SNRs."""
        snapped = self.snap(logsnr)
        return snapped.sigmoid().sqrt(), (-snapped).sigmoid().sqrt()

    def mix(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """Return (a, b): (0, 1) for noise, (1, 0) for the image, (-sigma, alpha) for v."""
        if self.unit == "v":
            alpha, sigma = self.scales(logsnr)
            return -sigma, alpha
        ones = torch.ones_like(logsnr)
        return (ones, ones - 1) if self.unit == "x0" else (ones - 1, ones)

    def inputs(self, noisy: Tensor, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noisy images as they are, and timesteps, int64."""
        return noisy, self.timesteps(logsnr)
