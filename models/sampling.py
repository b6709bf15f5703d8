"""Sampling: images from recorded initial noise, so that a retrained model can be asked for the same image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..seeds import torch_generator
from .denoiser import Denoiser
from .recipe import Sampler


def initial_noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Return x_T of one query, float32 [*shape], from its own seed."""
    return torch.randn(shape, generator=torch_generator("initial-noise", seed))


@torch.no_grad()
def sample(
    model: Denoiser,
    noise: Tensor,
    sampler: Sampler,
    cond: Tensor | None = None,
    on_step: Callable[[int, Tensor, Tensor], None] = lambda timestep, x, predicted: None,
) -> Tensor:
    """Return images [B, C, H, W] by DDIM from x_T = ``noise``; ``on_step`` sees (timestep, x_t, predicted noise).

    Raises ValueError for eta > 0, whose step noise a query would have to carry too.
    """
    from diffusers import DDIMScheduler, DDPMScheduler

    if sampler.eta:
        raise ValueError("only the deterministic sampler (eta = 0) reproduces an image from its initial noise")
    config = DDPMScheduler(**model.process.config).config
    scheduler: Any = DDIMScheduler.from_config(config, clip_sample=sampler.clip)
    scheduler.set_timesteps(sampler.steps)
    x = noise.to(model.device)
    for timestep in scheduler.timesteps:
        predicted = model(x, timestep.to(model.device), cond)
        on_step(int(timestep), x, predicted)
        x = scheduler.step(predicted, int(timestep), x, return_dict=False)[0]
    return x
