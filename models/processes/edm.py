"""The continuous variance-exploding process of EDM with its preconditioning (Karras et al., arXiv 2206.00364)."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Process, shaped


class EDMProcess(Process):
    """x_noisy = x + sigma eps; the network F is asked for (x - c_skip x_noisy) / c_out, table 1 there.

    sigma_data: standard deviation of the images; mean, std: of log sigma in training, which is normal; sigma_min,
    sigma_max, rho: the sampler's grid. So the squared error of F is EDM's weighted loss, and about 1 for a network
    that answers 0 where the images' second moment is sigma_data^2.
    """

    unit = "edm"

    def __init__(
        self,
        sigma_data: float = 0.5,
        mean: float = -1.2,
        std: float = 1.2,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
    ) -> None:
        if not (sigma_data > 0 and std > 0 and rho > 0 and 0 < sigma_min < sigma_max):
            raise ValueError("sigma_data, std, rho and sigma_min must be positive, and sigma_min below sigma_max")
        self.sigma_data, self.mean, self.std = sigma_data, mean, std
        self.sigma_min, self.sigma_max, self.rho = sigma_min, sigma_max, rho

    def quantile(self, u: Tensor) -> Tensor:
        """Map u in [0, 1) to the log-SNR of that quantile of the lognormal law of sigma."""
        inside = u.clamp(1e-6, 1 - 1e-6)  # the law has no ends
        return -2 * (self.mean + self.std * torch.special.ndtri(inside))

    def scales(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """Return (1, sigma)."""
        return torch.ones_like(logsnr), (-logsnr / 2).exp()

    def mix(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """Return (a, b) of F's target: (1 - c_skip) / c_out and -c_skip sigma / c_out."""
        sigma = (-logsnr / 2).exp()
        total = (sigma.square() + self.sigma_data**2).sqrt()
        return sigma / (self.sigma_data * total), -self.sigma_data / total

    def inputs(self, noisy: Tensor, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """Return c_in x_noisy and c_noise = log(sigma) / 4."""
        total = ((-logsnr).exp() + self.sigma_data**2).sqrt()
        return noisy / shaped(total, noisy), -logsnr / 8

    def sampling_levels(self, steps: int) -> Tensor:
        """Return sigmas [steps + 1] from sigma_max to sigma_min, equation 5 there, and 0, float64."""
        ends = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        spaced = ends[0] + torch.linspace(0, 1, steps, dtype=torch.float64) * (ends[1] - ends[0])
        return torch.cat([spaced**self.rho, spaced.new_zeros(1)])
