"""Unlearning a query from a copy of the model while rehearsing training data, as mirrored-unlearning methods do."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Literal

import torch
from torch import Tensor

from ...datasets.base import Batch
from ...models.denoiser import Denoiser
from ...models.draws import Law
from ...models.processes.base import Unit
from ..view import View

Frozen = Literal["none", "biases", "paper"]
Clamp = Literal["constant", "per-level"]
NULL_ITEMS = 256


@dataclass(frozen=True)
class Unlearning:
    """How a query is unlearned; every field is a switch of MUCS (sony/mucs, arXiv 2605.17938).

    batch: retain and forget images per step; forget_weight: lambda; learning_rate: of the recipe, times this;
    bounded: clamp each forget loss at the null loss, and stop once their mean is within ``tolerance`` of it;
    clamp: the null loss is one constant, or kappa(level) = sigma_d^2 / (sigma^2 + sigma_d^2), which in eps-MSE units is
    the untrained EDM model's; max_steps: a cap (None: only the stopping rule ends it); law: levels of both losses.
    """

    batch: int
    forget_weight: float
    learning_rate: float
    bounded: bool
    clamp: Clamp
    tolerance: float
    max_steps: int | None
    law: Law
    unit: Unit
    frozen: Frozen


@dataclass(frozen=True)
class Trace:
    """What one unlearning did: updates made, and the clamped query loss relative to its target at start and end.

    Both are of a batch before its update, so where the cap ended it, ``end`` is one update behind.
    """

    steps: int
    start: float
    end: float
    converged: bool


def trainable(name: str, frozen: Frozen) -> bool:
    """Say whether a parameter of a diffusers UNet is trained.

    ``none`` frozen: all are; ``biases``: what sony/mucs freezes on its own UNet, by name; ``paper``: what it freezes on
    its DiT (embeddings, attention, norms, first and last layers, biases), leaving the resnet blocks' convolutions,
    which are a UNet's counterpart of the MLP weights.
    """
    if frozen == "none":
        return True
    if frozen == "biases":
        return not name.endswith(".bias")
    return re.search(r"resnets\.\d+\.conv[12]\.weight$|class_embedding.*weight$", name) is not None


def null_loss(view: View, law: Law, unit: Unit, items: int = NULL_ITEMS) -> float:
    """Return the mean loss of the untrained model over training images at levels of ``law`` (one draw each)."""
    model = view.model("untrained")
    ids = torch.randperm(len(view.train), generator=view.rng("null-loss"))[:items]
    draws = view.draws(1, law, "item", "null-loss")
    with torch.no_grad():
        return float(view.losses(model, view.train.batch(ids), draws, unit).mean())


def unlearn(view: View, query: Batch, settings: Unlearning, null: float) -> tuple[Denoiser, Trace]:
    """Return a copy of the model that was made to forget one query, and what happened on the way.

    Each step descends mean(retain losses) - lambda * mean(min(forget losses, null)); as in the reference code the
    stopping rule is checked before the update. Random draws are keyed by (seed, query id, step).
    """
    model = view.model()
    names = {name for name, _ in model.net.named_parameters() if trainable(name, settings.frozen)}
    for name, parameter in model.net.named_parameters():
        parameter.requires_grad_(name in names)
    optimizer = view.optimizer([p for p in model.parameters() if p.requires_grad], settings.learning_rate)
    ratios: list[float] = []
    for step in count() if settings.max_steps is None else range(settings.max_steps):
        generator = view.rng("unlearn", str(query.ids[0]), step)
        retain = _retain_loss(view, model, settings, generator)
        forget, ratio = _forget_loss(model, query, settings, null, generator)
        ratios.append(ratio)
        if settings.bounded and ratio >= 1 - settings.tolerance:
            return model, Trace(step, ratios[0], ratio, True)
        optimizer.zero_grad()
        (retain - settings.forget_weight * forget).backward()
        optimizer.step()
    start, end = (ratios[0], ratios[-1]) if ratios else (0.0, 0.0)
    return model, Trace(len(ratios), start, end, False)


def _retain_loss(view: View, model: Denoiser, settings: Unlearning, generator: torch.Generator) -> Tensor:
    ids = torch.randperm(len(view.train), generator=generator)[: settings.batch]
    return _losses(model, view.train.batch(ids), settings, generator)[0].mean()


def _forget_loss(
    model: Denoiser, query: Batch, settings: Unlearning, null: float, generator: torch.Generator
) -> tuple[Tensor, float]:
    losses, logsnr = _losses(model, query.repeated(settings.batch), settings, generator)
    bound = _bound(model, logsnr, settings, null)
    clamped = torch.minimum(losses, bound)
    ratio = float((clamped.detach() / bound).mean())
    return (clamped if settings.bounded else losses).mean(), ratio


def _bound(model: Denoiser, logsnr: Tensor, settings: Unlearning, null: float) -> Tensor:
    if settings.clamp == "constant":
        return torch.full_like(logsnr, null)
    noise_power = (-model.process.snap(logsnr)).exp()
    sigma_data = model.process.sigma_data
    return sigma_data**2 / (noise_power + sigma_data**2) * model.process.weight(logsnr, settings.unit)


def _losses(model: Denoiser, batch: Batch, settings: Unlearning, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    logsnr = settings.law.levels(len(batch), model.process, generator)
    noise = torch.randn(batch.x.shape, generator=generator)
    batch, logsnr, noise = batch.to(model.device), logsnr.to(model.device), noise.to(model.device)
    return model.loss_pairs(batch.x, logsnr, noise, batch.cond, settings.unit), logsnr


@torch.no_grad()
def train_losses(view: View, model: Denoiser, losses: Callable[[Denoiser, Batch], Tensor]) -> Tensor:
    """Return ``losses`` [B, S] of all training items, stacked to [N, S] on the CPU."""
    return view.by_id((part, losses(model, batch)) for part, batch in view.batches(1024))
