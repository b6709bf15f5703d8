"""A denoiser: a network with its noise process, asked for predictions and losses at log-SNRs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..datasets.base import Batch, Conditions
from .counting import Passes, counter_of
from .draws import Draws
from .precision import Precision
from .processes.base import Prediction, Process, Unit, shaped


class Question(NamedTuple):
    """P questions to a network, and what it takes to read its raw answers [P, C, H, W].

    inputs [P, C, H, W] and times [P]: what it takes; target [P, C, H, W]: what training wants it to answer; noisy
    [P, C, H, W]; factor, skip [P]: predicted noise is factor times the answer plus skip times noisy.
    """

    inputs: Tensor
    times: Tensor
    target: Tensor
    noisy: Tensor
    factor: Tensor
    skip: Tensor

    def noise(self, answer: Tensor) -> Tensor:
        """Return the predicted noise [P, C, H, W]."""
        return shaped(self.factor, answer) * answer + shaped(self.skip, answer) * self.noisy


class Denoiser(nn.Module):
    """A network and its noise process; parameters are the network's.

    ``passes`` counts every image through ``net``, whoever calls it or a copy of it; ``micro_batch`` bounds the images
    of one forward pass; ``null`` is what stands for no condition beyond what the specification says, one item's.
    Weights and answers are float32 in every ``precision``; with bf16 the network computes in bfloat16 where torch's
    autocast does.
    """

    def __init__(
        self,
        net: nn.Module,
        process: Process,
        micro_batch: int = 512,
        null: Conditions | None = None,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        self.net = net
        self.process = process
        self.micro_batch = micro_batch
        self.null = null or {}
        self.precision: Precision = precision
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

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that train, by their names in this module."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def clone(self) -> Denoiser:
        """Return a private copy of the parameters that shares the pass counter."""
        return Denoiser(copy.deepcopy(self.net), self.process, self.micro_batch, self.null, self.precision)

    def forward(self, inputs: Tensor, times: Tensor, cond: Conditions | None = None) -> Tensor:
        """Return the network's raw answer to ``ask``'s inputs and times [P] (or one for all), given conditions.

        Conditions go to the network's arguments of the same names. Of a network that learned variances too, as DiT
        does, they are left out.
        """
        times = times.expand(len(inputs)) if times.ndim == 0 else times
        coarse = self.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16) if coarse else nullcontext():
            answer = self.net(inputs, timestep=times, return_dict=False, **(cond or {}))[0]
        answer = answer.float() if coarse else answer
        channels = inputs.shape[1]
        return answer if answer.shape[1] == channels else answer[:, :channels]

    def ask(self, x: Tensor, logsnr: Tensor, noise: Tensor) -> Question:
        """Return the questions for P pairs: images [P, C, H, W], log-SNRs [P] and noise [P, C, H, W]."""
        alpha, sigma = self.process.scales(logsnr)
        noisy = shaped(alpha, x) * x + shaped(sigma, x) * noise
        inputs, times = self.process.inputs(noisy, logsnr)
        if self.process.unit == "eps":
            ones = torch.ones_like(logsnr)
            return Question(inputs, times, noise, noisy, ones, ones - 1)
        a, b = self.process.mix(logsnr)
        target = shaped(a, x) * x + shaped(b, x) * noise
        return Question(inputs, times, target, noisy, *self.process.coefficients("eps", logsnr))

    def predict(self, noisy: Tensor, logsnr: Tensor, cond: Conditions | None = None, kind: Prediction = "x0") -> Tensor:
        """Return the predicted image, noise or v [P, C, H, W] for noisy images at log-SNRs [P]; one forward pass."""
        answer = self(*self.process.inputs(noisy, logsnr), cond)
        factor, skip = self.process.coefficients(kind, logsnr)
        return shaped(factor, answer) * answer + shaped(skip, answer) * noisy

    def noise_pairs(self, x: Tensor, logsnr: Tensor, noise: Tensor, cond: Conditions | None = None) -> Tensor:
        """Return predicted noise for P pairs: x [P, C, H, W], log-SNRs [P], noise [P, C, H, W]; one forward pass."""
        question = self.ask(x, logsnr, noise)
        return question.noise(self(question.inputs, question.times, cond))

    def loss_pairs(
        self, x: Tensor, logsnr: Tensor, noise: Tensor, cond: Conditions | None = None, unit: Unit | None = None
    ) -> Tensor:
        """Return the mean squared error of each of P pairs [P] in a unit (None: that of training)."""
        question = self.ask(x, logsnr, noise)
        error = (self(question.inputs, question.times, cond) - question.target).square()
        return error.flatten(1).mean(1) * self.process.weight(logsnr, unit or self.process.unit)

    def losses(self, batch: Batch, draws: Draws, unit: Unit | None = None) -> Tensor:
        """Return losses [B, S] of each item at each draw; differentiable; ``micro_batch`` pairs a forward pass."""
        parts = [self.loss_pairs(*pairs, unit=unit) for pairs in self._pairs(batch, draws)]
        return torch.cat(parts).view(len(batch), draws.n)

    def outputs(self, batch: Batch, draws: Draws) -> Tensor:
        """Return predicted noise [B, S, C, H, W] of each item at each draw."""
        parts = [self.noise_pairs(*pairs) for pairs in self._pairs(batch, draws)]
        return torch.cat(parts).view(len(batch), draws.n, *batch.x.shape[1:])

    def _pairs(self, batch: Batch, draws: Draws) -> Iterator[tuple[Tensor, Tensor, Tensor, Conditions]]:
        batch = batch.to(self.device)
        logsnr, noise = (part.to(self.device) for part in draws.for_ids(batch.ids))
        index = torch.arange(len(batch) * draws.n, device=self.device)
        for chunk in index.split(self.micro_batch):
            item, draw = chunk // draws.n, chunk % draws.n
            cond = {name: value[item] for name, value in batch.cond.items()}
            yield batch.x[item], logsnr[item, draw], noise[item, draw], cond
