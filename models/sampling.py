"""Sampling: images from recorded initial noise, so that a retrained model can be asked for the same image."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..datasets.base import Conditions
from ..seeds import torch_generator
from .conditions import null_of
from .denoiser import Denoiser
from .processes.base import shaped
from .processes.ddpm import DDPMProcess
from .processes.edm import EDMProcess
from .processes.flow import END, FlowProcess
from .recipe import ModelSpec, Sampler

OnStep = Callable[[float, Tensor, Tensor], None]
OnState = Callable[[float, Tensor], None]
Answer = Callable[[Tensor, Tensor], Tensor]  # (what the network takes, times) -> its guided raw answer


def initial_noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Return the unit Gaussian noise of one query, float32 [*shape], from its own seed."""
    return torch.randn(shape, generator=torch_generator("initial-noise", seed))


@torch.no_grad()
def sample(
    model: Denoiser,
    noise: Tensor,
    spec: ModelSpec,
    cond: Conditions | None = None,
    guidance: Tensor | None = None,
    on_step: OnStep = lambda time, x, answer: None,
    on_state: OnState = lambda logsnr, x: None,
) -> Tensor:
    """Return images [B, C, H, W] from unit noise [B, C, H, W]; ``on_step`` sees (time, x_t, the network's raw answer).

    on_state: sees (log-SNR, x_t) before each step; of Heun's, not what it tries in between.

    guidance: scale of classifier-free guidance [B] (arXiv 2207.12598), null + scale (conditional - null); 0 and 1 are
    plain conditional sampling. Raises ValueError for eta > 0, whose step noise a query would have to carry too.
    """
    if spec.sampler.eta:
        raise ValueError("only the deterministic sampler (eta = 0) reproduces an image from its initial noise")
    answer = _guided(model, {n: v.to(model.device) for n, v in (cond or {}).items()}, guidance, spec)
    hooks = on_step, on_state
    return _SAMPLERS[type(model.process)](model.process, noise.to(model.device), spec.sampler, answer, *hooks)


class Trajectory(NamedTuple):
    """The way from noise to images in T steps: log-SNRs [T] and x [T, B, C, H, W] before each, and the end [B, ...]."""

    logsnr: Tensor
    x: Tensor
    end: Tensor


def trajectory(
    model: Denoiser,
    noise: Tensor,
    spec: ModelSpec,
    cond: Conditions | None = None,
    guidance: Tensor | None = None,
) -> Trajectory:
    """Return what ``sample`` passes through; the end is what it returns, bit for bit."""
    states: list[tuple[float, Tensor]] = []
    end = sample(model, noise, spec, cond, guidance, on_state=lambda logsnr, x: states.append((logsnr, x.clone())))
    return Trajectory(torch.tensor([level for level, _ in states]), torch.stack([x for _, x in states]), end)


def _guided(model: Denoiser, cond: Conditions, guidance: Tensor | None, spec: ModelSpec) -> Answer:
    if guidance is None or not cond or bool(((guidance == 0) | (guidance == 1)).all()):
        return lambda inputs, times: model(inputs, times, cond)
    blank = null_of(cond, {**spec.null, **model.null})
    scale = guidance.to(model.device).where(guidance.to(model.device) != 0, 1)

    def answer(inputs: Tensor, times: Tensor) -> Tensor:
        without = model(inputs, times, blank)
        return without + shaped(scale, inputs) * (model(inputs, times, cond) - without)

    return answer


def _ddim(
    process: DDPMProcess, x: Tensor, sampler: Sampler, answer: Answer, on_step: OnStep, on_state: OnState
) -> Tensor:
    from diffusers import DDIMScheduler, DDPMScheduler

    config = DDPMScheduler(**process.config).config
    scheduler: Any = DDIMScheduler.from_config(config, clip_sample=sampler.clip, set_alpha_to_one=process.ends_clean)
    scheduler.set_timesteps(sampler.steps)
    for timestep in scheduler.timesteps:
        on_state(float(process.grid[int(timestep)]), x)
        predicted = answer(x, timestep.to(x.device))
        on_step(int(timestep), x, predicted)
        x = scheduler.step(predicted, int(timestep), x, return_dict=False)[0]
    return x


def _heun(
    process: EDMProcess, x: Tensor, sampler: Sampler, answer: Answer, on_step: OnStep, on_state: OnState
) -> Tensor:
    sigmas = process.sampling_levels(sampler.steps).to(x.dtype).tolist()
    x = x * sigmas[0]

    def slope(x: Tensor, sigma: float) -> Tensor:
        logsnr = x.new_full((len(x),), -2 * math.log(sigma))
        raw = answer(*process.inputs(x, logsnr))
        on_step(sigma, x, raw)
        factor, skip = process.coefficients("eps", logsnr)
        return shaped(factor, x) * raw + shaped(skip, x) * x  # dx / dsigma is the predicted noise

    for sigma, following in pairwise(sigmas):
        on_state(-2 * math.log(sigma), x)
        direction = slope(x, sigma)
        moved = x + (following - sigma) * direction
        if following:
            direction = (direction + slope(moved, following)) / 2
            moved = x + (following - sigma) * direction
        x = moved
    return x


def _euler(
    process: FlowProcess, x: Tensor, sampler: Sampler, answer: Answer, on_step: OnStep, on_state: OnState
) -> Tensor:
    times = torch.linspace(1, 0, sampler.steps + 1).tolist()
    for t, following in pairwise(times):
        on_state(_flow_level(t), x)
        velocity = answer(x, x.new_full((len(x),), t * process.scale))
        on_step(t, x, velocity)
        x = x + (following - t) * velocity
    return x


def _flow_level(t: float) -> float:
    inside = min(max(t, END), 1 - END)
    return 2 * math.log((1 - inside) / inside)


_SAMPLERS: dict[type, Callable[..., Tensor]] = {DDPMProcess: _ddim, EDMProcess: _heun, FlowProcess: _euler}
