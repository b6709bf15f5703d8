"""Unlearning a query from a copy of the model while rehearsing training data, as mirrored-unlearning methods do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...datasets.base import Batch
from ...errors import UserError
from ...models.denoiser import Denoiser
from ...models.draws import Law
from ...models.processes.base import Unit
from ..view import View
from .augmentation import augmented

Frozen = Literal["none", "biases", "paper", "reference"]
Clamp = Literal["constant", "per-level"]
NULL_ITEMS = 256
HEAVIEST = 1000.0  # one level in a hundred weighs up to 140 where a noise predictor is unlearned at EDM's levels

# What sony/mucs trains in its DiT, by the names of diffusers' transformers: weights of MLPs and of the condition.
_TRANSFORMER = r"^transformer_blocks\.\d+\.(ff(_context)?\.net|norm1\.emb\.class_embedder)\..*weight$"
_CONDITION = r"^(caption_projection|context_embedder)\..*weight$"
_UNET = r"resnets\.\d+\.conv[12]\.weight$|class_embedding.*weight$"
# What it freezes, as parts of its own names; of those of its UNet they meet biases only.
_OWN_FROZEN = (
    *("encoder.", "decoder.", "s_embedder.", ".xdrop", "a_embedder.", "x_embedder.", "pos_enc.", ".attention.qkv"),
    *(".attention.proj", ".adapter.", "unpatchify.", "last.", ".bias"),
)


@dataclass(frozen=True)
class Unlearning:
    """How a query is unlearned; every field is a switch of MUCS (sony/mucs, arXiv 2605.17938).

    batch: retain and forget images per step; forget_weight: lambda; learning_rate: of the recipe, times this;
    bounded: clamp each forget loss at the null loss, and stop once their mean is within ``tolerance`` of it (None:
    never, which is what the reference does as soon as it is given a number of steps); clamp: the null loss is one
    constant, or at each level that of a network which answers 0; max_steps: a cap (None: only the stopping rule ends
    it); law: levels of both losses; unit: of both losses (None: that of training); same_noise_unlearning: both losses
    see the same levels and noise; instance_weights: the tenth of a retain batch that is most like the query is not
    rehearsed; augment: both batches are flipped at random, and otherwise changed with this chance.
    """

    batch: int
    forget_weight: float
    learning_rate: float
    bounded: bool
    clamp: Clamp
    tolerance: float | None
    max_steps: int | None
    law: Law
    unit: Unit | None
    frozen: Frozen
    same_noise_unlearning: bool = False
    instance_weights: bool = False
    augment: float = 0.0

    def steps(self) -> Iterable[int]:
        """Return the numbers of the updates that may be made; raises UserError where nothing ends them."""
        if self.max_steps is not None:
            return range(self.max_steps)
        if not self.bounded or self.tolerance is None:
            raise UserError("nothing ends this unlearning: set max_steps, or a tolerance with bounded losses")
        return count()

    def reached(self, ratio: float) -> bool:
        """Say whether a clamped query loss, as a share of the null loss, ends the unlearning."""
        return self.bounded and self.tolerance is not None and ratio >= 1 - self.tolerance


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
    """Say whether a parameter of a network of diffusers is trained.

    ``none`` frozen: all are; ``biases``: what sony/mucs freezes on its own UNet, by name; ``paper``: what it freezes on
    its DiT (embeddings, attention, norms, first and last layers, biases), leaving a transformer's MLP weights, or the
    resnet blocks' convolutions, which are a UNet's counterpart; ``reference``: what its list of names freezes.
    """
    if frozen == "none":
        return True
    if frozen == "biases":
        return not name.endswith(".bias")
    if frozen == "paper":
        return re.search(f"{_UNET}|{_TRANSFORMER}|{_CONDITION}", name) is not None
    return not any(part in name for part in _OWN_FROZEN)


def trained(net: nn.Module, frozen: Frozen) -> set[str]:
    """Return the names of the parameters that are trained; raises UserError where there are none.

    Of a model of which only a part trains, all of that part. ``reference`` is ``paper`` on diffusers' transformers,
    which have other names than that of sony/mucs.
    """
    names = [name for name, parameter in net.named_parameters() if parameter.requires_grad]
    if len(names) < len(list(net.parameters())):
        return set(names)
    if frozen == "reference" and any(name.startswith("transformer_blocks.") for name in names):
        frozen = "paper"
    chosen = {name for name in names if trainable(name, frozen)}
    if not chosen:
        raise UserError(f"frozen={frozen!r} knows no layer of this network, so nothing is left to train")
    return chosen


def null_loss(view: View, law: Law, unit: Unit | None, items: int = NULL_ITEMS) -> float:
    """Return the mean loss of the untrained model over training images at levels of ``law`` (one draw each)."""
    model = view.model("untrained")
    ids = torch.randperm(len(view.train), generator=view.rng("null-loss"))[:items]
    draws = view.draws(1, law, "item", "null-loss")
    with torch.no_grad():
        return float(view.losses(model, view.train.batch(ids), draws, unit).mean())


def check(model: Denoiser, settings: Unlearning) -> None:
    """Raise UserError where a model cannot be unlearned so: nothing to train, no end, or a few levels outweigh all."""
    settings.steps()
    trained(model.net, settings.frozen)
    process, unit = model.process, settings.unit or model.process.unit
    levels = settings.law.levels(1000, process, torch.Generator().manual_seed(0))
    heavy = float(process.weight(levels, unit).quantile(0.99))
    if heavy > HEAVIEST:
        raise UserError(
            f"unit {unit!r} weights levels of unlearn_law {settings.law.kind!r} by {heavy:.0e} and more on this "
            f"network, so that few count: take its training's unit ({process.unit!r}, or null) or another law"
        )


def unlearn(view: View, query: Batch, settings: Unlearning, null: float) -> tuple[Denoiser, Trace]:
    """Return a copy of the model that was made to forget one query, and what happened on the way.

    Each step descends mean(retain losses) - lambda * mean(min(forget losses, null)); as in the reference code the
    stopping rule is checked before the update. Random draws are keyed by (seed, query id, step). Raises UserError as
    ``check`` does.
    """
    unlearner = Unlearner(view, query, settings, null)
    ratios: list[float] = []
    for step in settings.steps():
        loss, ratio = unlearner.loss(step)
        ratios.append(ratio)
        if settings.reached(ratio):
            return unlearner.model, Trace(step, ratios[0], ratio, True)
        unlearner.descend(loss)
    start, end = (ratios[0], ratios[-1]) if ratios else (0.0, 0.0)
    return unlearner.model, Trace(len(ratios), start, end, False)


class Unlearner:
    """One query's copy of the model on its way; ``loss`` and ``descend`` are the two halves of a step."""

    def __init__(self, view: View, query: Batch, settings: Unlearning, null: float) -> None:
        self.view, self.query, self.settings, self.model = view, query, settings, view.model()
        check(self.model, settings)
        names = trained(self.model.net, settings.frozen)
        for name, parameter in self.model.net.named_parameters():
            parameter.requires_grad_(name in names)
        chosen = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = view.optimizer(chosen, settings.learning_rate)
        self.bound = _bound(view, self.model, settings, null)

    def loss(self, step: int) -> tuple[Tensor, float]:
        """Return the scalar loss of a step, and the clamped query loss as a share of the null loss."""
        settings, generator = self.settings, self.view.rng("unlearn", str(self.query.ids[0]), step)
        retained, forgotten = self._batches(generator)
        levels, noise = self._draws(retained, generator)
        retain = self._losses(retained, levels, noise)
        if settings.instance_weights:
            retain = retain * instance_weights(retained, forgotten[:1]).to(retain.device)
        if not settings.same_noise_unlearning:
            levels, noise = self._draws(forgotten, generator)
        losses, bound = self._losses(forgotten, levels, noise), self.bound(levels.to(self.model.device))
        clamped = torch.minimum(losses, bound)
        forget = (clamped if settings.bounded else losses).mean()
        return retain.mean() - settings.forget_weight * forget, float((clamped.detach() / bound).mean())

    def descend(self, loss: Tensor) -> None:
        """Make an update."""
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def _batches(self, generator: torch.Generator) -> tuple[Batch, Batch]:
        settings, train = self.settings, self.view.train
        retained = train.batch(torch.randperm(len(train), generator=generator)[: settings.batch])
        n = len(retained) if settings.same_noise_unlearning else settings.batch
        both = retained, self.query.repeated(n)
        if not settings.augment:
            return both
        return augmented(both[0], settings.augment, generator), augmented(both[1], settings.augment, generator)

    def _draws(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        levels = self.settings.law.levels(len(batch), self.model.process, generator)
        return levels, torch.randn(batch.x.shape, generator=generator)

    def _losses(self, batch: Batch, levels: Tensor, noise: Tensor) -> Tensor:
        device = self.model.device
        batch, levels, noise = batch.to(device), levels.to(device), noise.to(device)
        return self.model.loss_pairs(batch.x, levels, noise, batch.cond, self.settings.unit)


def _bound(view: View, model: Denoiser, settings: Unlearning, null: float) -> Callable[[Tensor], Tensor]:
    if settings.clamp == "constant":
        return lambda logsnr: torch.full_like(logsnr, null)
    process, moment = model.process, second_moment(view)

    def of_silence(logsnr: Tensor) -> Tensor:
        a, b = process.mix(logsnr)
        return (a.square() * moment + b.square()) * process.weight(logsnr, settings.unit or process.unit)

    return of_silence


def second_moment(view: View) -> float:
    """Return the mean square of the training images' values."""
    total = sum(float(batch.x.double().square().flatten(1).mean(1).sum()) for _, batch in view.batches(1024))
    return total / len(view.train)


def instance_weights(retained: Batch, query: Batch, share: float = 0.1) -> Tensor:
    """Return weights [B] of mean 1 that are 0 for the ``share`` of a batch that is most like the query [1].

    Alike by the cosine of pixels (DINO's features in sony/mucs) and, as there, the root of that of conditions.
    """
    alike = functional.cosine_similarity(retained.x.flatten(1), query.x.flatten(1))
    for name, value in retained.cond.items():
        alike = alike + _alike(value, query.cond[name])
    kept = (alike <= alike.quantile(1 - share)).float()
    return kept / kept.mean()


def _alike(cond: Tensor, other: Tensor) -> Tensor:
    if not cond.is_floating_point():  # labels, which sony/mucs has one-hot
        return (cond == other).flatten(1).all(1).float() if cond.ndim > 1 else (cond == other).float()
    return functional.cosine_similarity(cond.flatten(1), other.flatten(1)).clamp(min=0).sqrt()


@torch.no_grad()
def train_losses(view: View, model: Denoiser, losses: Callable[[Denoiser, Batch], Tensor]) -> Tensor:
    """Return ``losses`` [B, S] of all training items, stacked to [N, S] on the CPU."""
    return view.by_id((part, losses(model, batch)) for part, batch in view.batches(1024))
