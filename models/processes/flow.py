"""Rectified flow: straight lines between images and noise (Liu et al., arXiv 2209.03003)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .base import Process

END = 1e-4  # times nearer to 0 or 1 have no finite log-SNR in single precision worth the name


class FlowProcess(Process):
    """x_t = (1 - t) x + t eps; the network is asked for the velocity eps - x.

    law: of t in training, ``uniform`` or ``logit-normal`` (mean 0, std 1; arXiv 2403.03206); scale: the network's time
    is t times this, 1000 in diffusers' transformers.
    """

    unit = "flow"

    def __init__(self, law: Literal["uniform", "logit-normal"] = "uniform", scale: float = 1000.0) -> None:
        if law not in ("uniform", "logit-normal"):
            raise ValueError(f"law must be uniform or logit-normal, not {law!r}")
        if not scale > 0:
            raise ValueError(f"scale must be positive, not {scale}")
        self.law, self.scale = law, scale

    def quantile(self, u: Tensor) -> Tensor:
        """Map u in [0, 1) to the log-SNR 2 log((1 - t) / t) of that quantile of t."""
        inside = u.clamp(END, 1 - END)
        t = inside if self.law == "uniform" else torch.special.ndtri(inside).sigmoid()
        return -2 * t.logit()

    def scales(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """Return (1 - t, t)."""
        return (logsnr / 2).sigmoid(), (-logsnr / 2).sigmoid()

    def mix(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """Return (-1, 1), the velocity."""
        ones = torch.ones_like(logsnr)
        return -ones, ones

    def inputs(self, noisy: Tensor, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noisy images as they are, and scaled times."""
        return noisy, (-logsnr / 2).sigmoid() * self.scale
