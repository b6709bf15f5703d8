"""Per-sample gradients of a scalar of the denoiser's output, averaged over draws and projected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...datasets.base import Batch, Conditions
from ...datasets.queries import Queries
from ...models.denoiser import Denoiser, Question
from ...models.draws import Draws, Law, Scope
from ..base import Estimate
from ..view import View
from .projection import Projector

Output = Literal["loss", "mean-square", "mean"]

# Scalars of a network's raw answer: the training loss, and functions of the predicted noise.
OUTPUTS: dict[Output, Callable[[Tensor, Question], Tensor]] = {
    "loss": lambda answer, question: (answer - question.target).square().mean(),
    "mean-square": lambda answer, question: question.noise(answer).square().mean(),
    "mean": lambda answer, question: question.noise(answer).mean(),
}

GRADIENT_BYTES = 256 * 2**20


def per_sample_gradients(model: Denoiser, batch: Batch, draws: Draws, output: Output) -> Tensor:
    """Return d/d(what trains) of the output function averaged over the draws, [B, P] float32, one row per item.

    Equal to one backward pass per item; done for ``model.micro_batch`` (item, draw) pairs at a time by ``vmap``.
    """
    parameters = {name: value.detach() for name, value in model.trainable_parameters().items()}
    size = sum(value.numel() for value in parameters.values())
    items = max(1, min(model.micro_batch // draws.n, GRADIENT_BYTES // (4 * size)))
    parts = [_items(model, parameters, batch[i : i + items], draws, output) for i in range(0, len(batch), items)]
    return torch.cat(parts)


def _items(model: Denoiser, parameters: dict[str, Tensor], batch: Batch, draws: Draws, output: Output) -> Tensor:
    batch = batch.to(model.device)
    logsnr, noise = (part.to(model.device) for part in draws.for_ids(batch.ids))
    total = batch.x.new_zeros(())
    for piece in torch.arange(draws.n).split(model.micro_batch):
        mean = _gradients(model, parameters, batch, logsnr[:, piece], noise[:, piece], output)
        total = total + len(piece) * mean
    return total / draws.n


def _gradients(
    model: Denoiser, parameters: dict[str, Tensor], batch: Batch, logsnr: Tensor, noise: Tensor, output: Output
) -> Tensor:
    items = batch.x[:, None].expand_as(noise).flatten(0, 1)
    flat = model.ask(items, logsnr.flatten(), noise.flatten(0, 1))
    questions = Question(*(part.unflatten(0, logsnr.shape) for part in flat))

    def value(weights: dict[str, Tensor], question: Question, cond: Conditions) -> Tensor:
        repeated = {name: part.expand(len(question.inputs), *part.shape) for name, part in cond.items()}
        answer = functional_call(model, weights, (question.inputs, question.times, repeated))
        return OUTPUTS[output](answer, question)

    with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no batching rule
        rows = vmap(grad(value), (None, 0, 0))(parameters, questions, dict(batch.cond))
    return torch.cat([row.flatten(1) for row in rows.values()], 1)


@dataclass(frozen=True)
class FeatureParams:
    """draws: levels per item, equally spaced over the training law; proj_dim: k, or None for whole gradients.

    scope: whether noise is ``shared`` by all items or drawn per ``item``.
    """

    draws: int = 100
    proj_dim: int | None = 32768
    scope: Scope = "shared"

    def estimate(self, n_items: int, n_queries: int, n_parameters: int, item_bytes: int = 4) -> Estimate:
        """Return the cost of a gradient per draw of every item and query, and of ``item_bytes`` a feature held."""
        width = self.proj_dim or n_parameters
        return Estimate(per_sample=(n_items + n_queries) * self.draws, bytes=item_bytes * n_items * width)


@dataclass(frozen=True)
class Features:
    """Projected gradients of an output function at draws that training images and queries have in common."""

    draws: Draws
    output: Output
    projector: Projector

    @classmethod
    def of(cls, view: View, params: FeatureParams, output: Output) -> Features:
        """Return the features that parameters describe."""
        draws = view.draws(params.draws, Law("even"), params.scope)
        return cls(draws, output, Projector(params.proj_dim, view.seed))

    def of_training_set(self, view: View) -> Tensor:
        """Return the training set's features [N, k], float32 on the CPU."""
        size, model = 128, view.model()
        batches = view.progress(view.batches(size), "gradients", -(-len(view.train) // size))
        return view.by_id((part, self._projected(model, batch)) for part, batch in batches)

    def of_queries(self, view: View, queries: Queries) -> Tensor:
        """Return the queries' features [Q, k], float32 on the CPU."""
        return self._projected(view.model(), queries.batch).cpu()

    def _projected(self, model: Denoiser, batch: Batch) -> Tensor:
        return self.projector(per_sample_gradients(model, batch, self.draws, self.output))
