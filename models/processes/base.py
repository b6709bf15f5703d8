"""What all noise processes have in common: the linear algebra between images, noise and a network's raw output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor

Prediction = Literal["eps", "x0", "v"]
Unit = Literal["eps", "x0", "v", "edm", "flow"]


class Process(ABC):
    """x_noisy = alpha x + sigma eps at a log-SNR log(alpha^2 / sigma^2), and a network that answers a x + b eps.

    A subclass says alpha and sigma, a and b, and what the network takes; predictions and units follow from these.
    ``unit`` names the unit of the training loss, which is the mean squared error of the raw answer; ``sigma_data`` is
    the standard deviation of the data that EDM's weighting assumes. Log-SNRs are tensors of any shape.
    """

    unit: Unit
    sigma_data: float = 0.5

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """Map u in [0, 1) to log-SNRs distributed as in training; u = 0 is the cleanest."""

    @abstractmethod
    def scales(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """Return (alpha, sigma)."""

    @abstractmethod
    def mix(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """Return (a, b) of the raw answer a x + b eps that training asks for."""

    @abstractmethod
    def inputs(self, noisy: Tensor, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the network takes for noisy images [P, ...] at log-SNRs [P]: scaled images and times [P]."""

    def snap(self, logsnr: Tensor) -> Tensor:
        """Return the log-SNRs that the process really uses: the nearest on its grid, where it has one."""
        return logsnr

    def coefficients(self, kind: Prediction, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """Return (p, q) with which p raw + q x_noisy is the predicted noise, image, or v = alpha eps - sigma x."""
        (alpha, sigma), (a, b) = self.scales(logsnr), self.mix(logsnr)
        determinant = a * sigma - b * alpha
        eps, x0 = (-alpha / determinant, a / determinant), (sigma / determinant, -b / determinant)
        if kind == "v":
            return alpha * eps[0] - sigma * x0[0], alpha * eps[1] - sigma * x0[1]
        return eps if kind == "eps" else x0

    def weight(self, logsnr: Tensor, unit: Unit) -> Tensor:
        """Return the factor from the process's own unit to another.

        eps, x0, v: squared error of the predicted noise, image or v; edm: of the image, weighted as in EDM
        (arXiv 2206.00364), (sigma^2 + sigma_data^2) / (sigma sigma_data)^2; flow: of the velocity eps - x.
        """
        if unit not in get_args(Unit):
            raise ValueError(f"{unit!r} is no unit of losses: {', '.join(get_args(Unit))}")
        if unit == self.unit:
            return torch.ones_like(logsnr)
        (alpha, sigma), (a, b) = self.scales(logsnr), self.mix(logsnr)
        own = ((a * sigma - b * alpha) / alpha).square()
        return self._from_eps(logsnr, unit) / own

    def _from_eps(self, logsnr: Tensor, unit: Unit) -> Tensor:
        ratio = (-self.snap(logsnr)).exp()  # (sigma / alpha)^2
        alpha, sigma = self.scales(logsnr)
        return {
            "eps": lambda: torch.ones_like(logsnr),
            "x0": lambda: ratio,
            "v": lambda: (alpha + sigma.square() / alpha).square(),
            "edm": lambda: 1 + ratio / self.sigma_data**2,
            "flow": lambda: (1 + sigma / alpha).square(),
        }[unit]()


def shaped(scale: Tensor, like: Tensor) -> Tensor:
    """Return scales [P] so that they multiply images [P, C, H, W]."""
    return scale.view(-1, *[1] * (like.ndim - 1))
