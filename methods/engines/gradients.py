"""Per-sample gradients of a scalar of the denoiser's output, averaged over draws and projected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...datasets.base import Batch
from ...models.denoiser import Denoiser
from ...models.draws import Draws
from ...seeds import torch_generator
from ..view import View

Output = Literal["loss", "mean-square", "mean"]

OUTPUTS: dict[Output, Callable[[Tensor, Tensor], Tensor]] = {
    "loss": lambda predicted, noise: (predicted - noise).square().mean(),
    "mean-square": lambda predicted, noise: predicted.square().mean(),
    "mean": lambda predicted, noise: predicted.mean(),
}

GRADIENT_BYTES = 256 * 2**20


def per_sample_gradients(model: Denoiser, batch: Batch, draws: Draws, output: Output) -> Tensor:
    """Return d/d(parameters) of the output function averaged over the draws, [B, P] float32, one row per item.

    Equal to one backward pass per item; done for ``model.micro_batch`` (item, draw) pairs at a time by ``vmap``.
    """
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    size = sum(value.numel() for value in parameters.values())
    items = max(1, min(model.micro_batch // draws.n, GRADIENT_BYTES // (4 * size)))
    parts = [_items(model, parameters, batch[i : i + items], draws, output) for i in range(0, len(batch), items)]
    return torch.cat(parts)


def _items(model: Denoiser, parameters: dict[str, Tensor], batch: Batch, draws: Draws, output: Output) -> Tensor:
    batch = batch.to(model.device)
    logsnr, noise = (part.to(model.device) for part in draws.for_ids(batch.ids))
    pieces = torch.arange(draws.n).split(model.micro_batch)
    sums = (len(p) * _gradients(model, parameters, batch, logsnr[:, p], noise[:, p], output) for p in pieces)
    return torch.stack(list(sums)).sum(0) / draws.n if len(pieces) > 1 else next(sums) / draws.n


def _gradients(
    model: Denoiser, parameters: dict[str, Tensor], batch: Batch, logsnr: Tensor, noise: Tensor, output: Output
) -> Tensor:
    items = batch.x[:, None].expand_as(noise).flatten(0, 1)
    noisy, timesteps = model.noised(items, logsnr.flatten(), noise.flatten(0, 1))
    args = noisy.view_as(noise), timesteps.view_as(logsnr), noise

    def value(
        weights: dict[str, Tensor], noisy: Tensor, timesteps: Tensor, noise: Tensor, cond: Tensor | None
    ) -> Tensor:
        repeated = None if cond is None else cond.expand(len(noisy), *cond.shape)
        return OUTPUTS[output](functional_call(model, weights, (noisy, timesteps, repeated)), noise)

    conditioned = None if batch.cond is None else 0
    with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no batching rule
        rows = vmap(grad(value), (None, 0, 0, 0, conditioned))(parameters, *args, batch.cond)
    return torch.cat([row.flatten(1) for row in rows.values()], 1)


class Projector:
    """A sparse Johnson-Lindenstrauss map R^P -> R^k: every coordinate goes, signed, to ``copies`` of the k buckets.

    Kane and Nelson (arXiv 1012.1577); inner products are kept in expectation. ``k = None`` keeps the gradients as
    they are. The map depends on (seed, P, k) alone.
    """

    def __init__(self, k: int | None, seed: int, copies: int = 2) -> None:
        self.k, self.seed, self.copies = k, seed, copies
        self._maps: list[tuple[Tensor, Tensor]] = []

    def __call__(self, gradients: Tensor) -> Tensor:
        """Return [B, k] for gradients [B, P]."""
        if self.k is None:
            return gradients
        out = gradients.new_zeros(len(gradients), self.k)
        for buckets, signs in self._prepared(gradients.shape[1], gradients.device):
            out.index_add_(1, buckets, gradients * signs)
        return out / self.copies**0.5

    def _prepared(self, size: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
        if not self._maps:
            for copy in range(self.copies):
                generator = torch_generator("projector", self.seed, size, self.k or 0, copy)
                buckets = torch.randint(0, self.k or 1, (size,), generator=generator)
                signs = torch.randint(0, 2, (size,), generator=generator).float() * 2 - 1
                self._maps.append((buckets.to(device), signs.to(device)))
        return self._maps


def train_features(view: View, model: Denoiser, draws: Draws, output: Output, projector: Projector) -> Tensor:
    """Return projected gradients of the training set [N, k], float32 on the CPU."""
    size = 128
    total = -(-len(view.train) // size)
    batches = view.progress(view.batches(size), "gradients", total)
    return view.by_id((part, projector(per_sample_gradients(model, batch, draws, output))) for part, batch in batches)
