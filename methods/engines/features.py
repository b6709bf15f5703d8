"""Per-sample gradients of a scalar of the denoiser's output: by draw or averaged, by parameter, projected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...datasets.base import Batch, Conditions
from ...datasets.queries import Queries
from ...errors import unknown
from ...models.denoiser import Denoiser, Question
from ...models.draws import Draws, Law, Scope
from ...models.recipe import LATER
from ..base import Estimate, Sizes
from ..rows import BATCH, Rows, held_bytes
from ..view import View
from .projection import Projector

Output = Literal["loss", "mean-square", "mean"]
OutputFunction = Callable[[Tensor, Question], Tensor]
Normalise = Literal["none", "draw", "item"]
Named = dict[str, Tensor]

# Scalars of a network's raw answers [S, C, H, W] to S questions: the training loss, functions of the predicted noise.
OUTPUTS: dict[Output, OutputFunction] = {
    "loss": lambda answer, question: (answer - question.target).square().mean(),
    "mean-square": lambda answer, question: question.noise(answer).square().mean(),
    "mean": lambda answer, question: question.noise(answer).mean(),
}

GRADIENT_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Gradients:
    """Gradients of an output function with respect to what trains in a model, at draws.

    output: a name, or a function of a network's raw answers [S, C, H, W] and the questions to it that returns its mean
    over the S draws. normalise: ``draw`` scales the whole gradient of each draw to length 1 before they are averaged,
    ``item`` the average of an item's draws, both before any projection. per_draw: not averaged; with ``item`` it is
    still the average that has length 1. Raises UserError for another ``normalise``.
    """

    model: Denoiser
    draws: Draws
    output: Output | OutputFunction
    normalise: Normalise = "none"
    per_draw: bool = False

    def __post_init__(self) -> None:
        if self.normalise not in get_args(Normalise):
            raise unknown("normalise", str(self.normalise), get_args(Normalise))

    def parts(self, batch: Batch) -> Iterator[Named]:
        """Yield gradients by parameter, [b, *parameter], or [b, S, *parameter] by draw, of a few items at a time."""
        weights = {name: value.detach() for name, value in self.model.trainable_parameters().items()}
        limit = GRADIENT_BYTES // (4 * sum(value.numel() for value in weights.values()))
        items = max(1, min(self.model.micro_batch // self.draws.n, limit // (self.draws.n if self._split else 1)))
        for start in range(0, len(batch), items):
            yield self._of_items(weights, batch[start : start + items].to(self.model.device), limit)

    @property
    def _split(self) -> bool:
        return self.per_draw or self.normalise == "draw"

    def _of_items(self, weights: Named, batch: Batch, limit: int) -> Named:
        logsnr, noise = (part.to(self.model.device) for part in self.draws.for_ids(batch.ids))
        size = min(self.model.micro_batch, max(1, limit // len(batch))) if self._split else self.model.micro_batch
        total, rows = dict.fromkeys(weights, batch.x.new_zeros(())), []
        for piece in torch.arange(self.draws.n).split(size):
            if self._split:
                rows.append(self._by_draw(weights, batch, logsnr[:, piece], noise[:, piece]))
                means = {name: row.mean(1) for name, row in rows[-1].items()}
            else:
                means = self._mean(weights, batch, logsnr[:, piece], noise[:, piece])
            total = {name: total[name] + len(piece) * mean for name, mean in means.items()}
            rows = rows if self.per_draw else []
        average = {name: value / self.draws.n for name, value in total.items()}
        found = {name: torch.cat([row[name] for row in rows], 1) for name in weights} if self.per_draw else average
        return _scaled(found, lengths(average, 1)) if self.normalise == "item" else found

    def _by_draw(self, weights: Named, batch: Batch, logsnr: Tensor, noise: Tensor) -> Named:
        n = logsnr.shape[1]
        cond = {name: value.repeat_interleave(n, 0) for name, value in batch.cond.items()}
        ids = tuple(item for item in batch.ids for _ in range(n))
        pairs = Batch(ids, batch.x.repeat_interleave(n, 0), cond)
        rows = self._mean(weights, pairs, logsnr.reshape(-1, 1), noise.flatten(0, 1)[:, None])
        rows = _scaled(rows, lengths(rows, 1)) if self.normalise == "draw" else rows
        return {name: row.unflatten(0, (len(batch), n)) for name, row in rows.items()}

    def _mean(self, weights: Named, batch: Batch, logsnr: Tensor, noise: Tensor) -> Named:
        """Return gradients of the mean over draws, log-SNRs [B, S] and noise [B, S, C, H, W]."""
        items = batch.x[:, None].expand_as(noise).flatten(0, 1)
        flat = self.model.ask(items, logsnr.flatten(), noise.flatten(0, 1))
        questions = Question(*(part.unflatten(0, logsnr.shape) for part in flat))
        output = self.output if callable(self.output) else OUTPUTS[self.output]

        def value(weights: Named, question: Question, cond: Conditions) -> Tensor:
            repeated = {name: part.expand(len(question.inputs), *part.shape) for name, part in cond.items()}
            answer = functional_call(self.model, weights, (question.inputs, question.times, repeated))
            return output(answer, question)

        with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no batching rule
            return vmap(grad(value), (None, 0, 0))(weights, questions, dict(batch.cond))


def lengths(rows: Named, leading: int) -> Tensor:
    """Return the Euclidean lengths of whole gradients, over all but the ``leading`` dimensions."""
    return torch.stack([row.flatten(leading).square().sum(leading) for row in rows.values()]).sum(0).sqrt()


def _scaled(rows: Named, by: Tensor) -> Named:
    factor = 1 / by.clamp_min(torch.finfo(by.dtype).tiny)
    return {name: row * factor.view(-1, *[1] * (row.ndim - 1)) for name, row in rows.items()}


def flattened(rows: Named, leading: int = 1) -> Tensor:
    """Return gradients by parameter as whole ones, [..., P], of ``leading`` dimensions before the parameters'."""
    return torch.cat([row.flatten(leading) for row in rows.values()], leading)


def named_gradients(
    model: Denoiser,
    batch: Batch,
    draws: Draws,
    output: Output | OutputFunction,
    normalise: Normalise = "none",
    per_draw: bool = False,
) -> Named:
    """Return gradients by the parameter's name in ``model``, [B, *parameter], or [B, S, *parameter] by draw."""
    parts = list(Gradients(model, draws, output, normalise, per_draw).parts(batch))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def per_sample_gradients(
    model: Denoiser,
    batch: Batch,
    draws: Draws,
    output: Output | OutputFunction,
    normalise: Normalise = "none",
    per_draw: bool = False,
) -> Tensor:
    """Return d/d(what trains) of the output function averaged over the draws, [B, P] float32; or by draw, [B, S, P].

    Equal to one backward pass per item; done for ``model.micro_batch`` (item, draw) pairs at a time by ``vmap``. The
    arguments are those of ``Gradients``.
    """
    parts = Gradients(model, draws, output, normalise, per_draw).parts(batch)
    return torch.cat([flattened(part, 1 + per_draw) for part in parts])


@dataclass(frozen=True)
class FeatureParams:
    """draws: levels per item, equally spaced over the training law; proj_dim: k, or None for whole gradients.

    scope: whether noise is ``shared`` by all items or drawn per ``item``; normalise: that of ``Gradients``.
    """

    draws: int = 100
    proj_dim: int | None = 32768
    scope: Scope = "shared"
    normalise: Normalise = field(default="none", metadata=LATER)

    def width(self, sizes: Sizes) -> int:
        """Return how many numbers a feature has."""
        return self.proj_dim or sizes.n_trained

    def estimate(self, sizes: Sizes) -> Estimate:
        """Return the cost of a gradient per draw of every item and query; features, projector and whole gradients."""
        working = min(GRADIENT_BYTES, 4 * BATCH * sizes.n_trained) + 24 * sizes.n_trained * (self.proj_dim is not None)
        held = held_bytes(sizes.n_items, self.width(sizes)) + working
        return Estimate(per_sample=(sizes.n_items + sizes.n_queries) * self.draws, bytes=held)


@dataclass(frozen=True)
class Features:
    """Projected gradients of an output function at draws that training images and queries have in common.

    [.., k], or [.., S, k] ``per_draw``; normalise: as of ``Gradients``; at: which of the view's models.
    """

    draws: Draws
    output: Output | OutputFunction
    projector: Projector
    normalise: Normalise = "none"
    per_draw: bool = False
    at: Literal["final", "untrained"] | int = "final"

    @classmethod
    def of(
        cls,
        view: View,
        params: FeatureParams,
        output: Output | OutputFunction,
        per_draw: bool = False,
        at: Literal["final", "untrained"] | int = "final",
    ) -> Features:
        """Return the features that parameters describe."""
        draws = view.draws(params.draws, Law("even"), params.scope)
        return cls(draws, output, Projector(params.proj_dim, view.seed), params.normalise, per_draw, at)

    def of_training_set(self, view: View) -> Rows:
        """Return the training set's features, rows [N, k] or [N, S, k]; kept where they are described by values."""
        model = view.model(self.at)
        width = self.projector.k or sum(value.numel() for value in model.trainable_parameters().values())
        shape = (self.draws.n, width) if self.per_draw else (width,)
        return view.kept("gradients", partial(self.of_batch, model), shape, self._inputs(view))

    def of_queries(self, view: View, queries: Queries) -> Tensor:
        """Return the queries' features, [Q, k] or [Q, S, k], float32 on the CPU."""
        return self.of_batch(view.model(self.at), queries.batch).cpu()

    def of_batch(self, model: Denoiser, batch: Batch) -> Tensor:
        """Return a batch's features, [B, k] or [B, S, k], on the model's device."""
        whole = (flattened(part, 1 + self.per_draw) for part in self._parts(model, batch))
        return torch.cat([self.projector(rows) for rows in whole])

    def by_parameter(self, model: Denoiser, batch: Batch) -> Named:
        """Return a batch's features by the parameter's name: each parameter's gradient projected on its own.

        [B, k] or [B, S, k]; those of fewer numbers than k are kept as they are.
        """
        parts = [
            {name: self.projector.named(name)(rows.flatten(1 + self.per_draw)) for name, rows in part.items()}
            for part in self._parts(model, batch)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _parts(self, model: Denoiser, batch: Batch) -> Iterator[Named]:
        return Gradients(model, self.draws, self.output, self.normalise, self.per_draw).parts(batch)

    def _inputs(self, view: View) -> dict[str, Any] | None:
        """Return the values that the features depend on, or None where code from elsewhere has a part in them."""
        draws, projector = self.draws, self.projector
        own = (Features, Draws, Law, Projector)
        known = all(type(part) is kind for part, kind in zip((self, draws, draws.law, projector), own, strict=True))
        if not known or callable(self.output) or draws.process is not view.process:
            return None
        levels = [draws.name, draws.n, asdict(draws.law), draws.scope, draws.seed, list(draws.shape)]
        projection = [projector.k, projector.seed, projector.copies, projector.name]
        return {
            "draws": levels,
            "projection": projection,
            "output": self.output,
            "normalise": self.normalise,
            "per_draw": self.per_draw,
            "at": self.at,
        }
