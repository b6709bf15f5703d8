"""Models, problems and views that are small enough for a test, and slow but plain computations to compare with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from tdabench.datasets.base import Batch, Card, ImageDataset
from tdabench.datasets.queries import Queries
from tdabench.methods.base import Scores
from tdabench.models.counting import Passes
from tdabench.models.denoiser import Denoiser
from tdabench.models.draws import Draws
from tdabench.models.problem import Problem
from tdabench.models.recipe import ModelSpec, Recipe, Sampler
from tdabench.models.training import build, snapshot, train

torch.set_num_threads(1)

SHAPE = (1, 8, 8)
UNET = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4,
    "add_attention": False,
}
TEXT_UNET = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "norm_num_groups": 4,
    "cross_attention_dim": 8,
    "attention_head_dim": 4,
}
LINEAR = {"num_train_timesteps": 1000, "beta_schedule": "linear"}
SPECS = {
    "plain": ModelSpec("UNet2DModel", UNET, LINEAR, Sampler(steps=5)),
    "label": ModelSpec("UNet2DModel", {**UNET, "num_class_embeds": 3}, LINEAR, Sampler(steps=5)),
    "text": ModelSpec("UNet2DConditionModel", TEXT_UNET, LINEAR, Sampler(steps=5)),
}
RECIPE = Recipe(SPECS["plain"], 12, 8, 3e-3, 3, 0.9, checkpoints=(4, 8))
CARD = Card("tiny", "blobs", "made here", "CC0", "1", "none")


class LargestPass(Passes):
    """Passes that remember how many images the largest single one held."""

    largest = 0

    def __setattr__(self, name: str, value: int) -> None:
        if name == "forward":
            self.largest = max(self.largest, value - getattr(self, "forward", 0))
        super().__setattr__(name, value)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int, seed: int = 0) -> Tensor:
    """Return n smooth images [n, 1, 8, 8] in [-1, 1], no two alike."""
    coarse = torch.rand(n, 1, 4, 4, generator=generator(seed)) * 2 - 1
    return nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear")


def conditions(kind: str, n: int) -> dict[str, Tensor]:
    if kind == "plain":
        return {}
    if kind == "label":
        return {"class_labels": torch.arange(n) % 3}
    return {"encoder_hidden_states": torch.randn(n, 4, 8, generator=generator(7))}


def batch_of(kind: str, n: int) -> Batch:
    return Batch(tuple(range(n)), images(n), conditions(kind, n))


def denoiser(kind: str = "plain", seed: int = 0) -> Denoiser:
    return build(SPECS[kind], seed)


def dataset(n: int, seed: int = 0, cond: dict[str, Tensor] | None = None) -> ImageDataset:
    return ImageDataset(CARD, images(n, seed), torch.arange(n) % 2, cond or {})


def queries_of(x: Tensor, cond: dict[str, Tensor] | None = None) -> Queries:
    n = len(x)
    names = tuple(f"query-{i}" for i in range(n))
    return Queries(
        names, ("heldout",) * n, ("test",) * n, x, torch.zeros_like(x), (-1,) * n, torch.zeros(n), cond or {}
    )


def make_problem(n: int = 14, n_queries: int = 3) -> Problem:
    """Return a problem with a model trained for a moment, its checkpoints and its untrained weights."""
    data = dataset(n)
    model, weights = train(RECIPE, data, torch.arange(n), seed=0)
    weights[RECIPE.steps] = snapshot(model)
    return Problem("tiny", data, queries_of(images(n_queries, seed=99)), RECIPE.model, weights, RECIPE)


def make_conditional(kind: str, n: int = 8, n_queries: int = 2) -> Problem:
    """Return a conditional problem whose "trained" model is one that was initialised from another seed."""
    cond, data = conditions(kind, n), dataset(n, cond=conditions(kind, n))
    queries = queries_of(images(n_queries, seed=99), {name: value[-n_queries:] for name, value in cond.items()})
    weights = {0: snapshot(denoiser(kind, 0)), 1: snapshot(denoiser(kind, 1))}
    return Problem(kind, data, queries, SPECS[kind], weights, replace(RECIPE, model=SPECS[kind]))


def plant(problem: Problem, copies: dict[int, int]) -> Problem:
    """Return the problem with queries replaced by copies of training images, {query position: training id}."""
    x = problem.queries.x.clone()
    for position, item in copies.items():
        x[position] = problem.train.images[item]
    return replace(problem, queries=replace(problem.queries, x=x))


def predictions(model: Denoiser, batch: Batch, draws: Draws) -> Iterator[tuple[int, int, Tensor, Tensor, Tensor]]:
    """Yield (item, draw, log-SNR, noise, predicted noise) by pair, from the raw network and diffusers' add_noise."""
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(**model.process.config)
    levels, noises = draws.for_ids(batch.ids)
    for i in range(len(batch)):
        for s in range(draws.n):
            timestep = (model.process.grid - levels[i, s]).abs().argmin().view(1)
            noise = noises[i, s][None]
            noisy = scheduler.add_noise(batch.x[i : i + 1], noise, timestep)
            extra = {name: value[i : i + 1] for name, value in batch.cond.items()}
            yield i, s, levels[i, s], noise, model.net(noisy, timestep, **extra).sample


def plain_losses(model: Denoiser, batch: Batch, draws: Draws) -> Tensor:
    """Return eps-MSEs [B, S], one pair at a time."""
    rows = torch.zeros(len(batch), draws.n)
    with torch.no_grad():
        for i, s, _, noise, predicted in predictions(model, batch, draws):
            rows[i, s] = (predicted - noise).square().mean()
    return rows


def plain_gradients(model: Denoiser, batch: Batch, draws: Draws, output: str = "loss") -> Tensor:
    """Return gradients [B, P] of an output function averaged over the draws: one ``backward`` per item."""
    scalar = {
        "loss": lambda predicted, noise: (predicted - noise).square().mean(),
        "mean-square": lambda predicted, noise: predicted.square().mean(),
        "mean": lambda predicted, noise: predicted.mean(),
    }[output]
    rows = []
    for i in range(len(batch)):
        model.zero_grad()
        values = [scalar(predicted, noise) for *_, noise, predicted in predictions(model, batch[i : i + 1], draws)]
        (sum(values) / draws.n).backward()
        rows.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    model.zero_grad()
    return torch.stack(rows)


def joined(scores: Scores) -> Tensor:
    """Return what ``attribute`` gave as one tensor [Q, N]; blocks must cover the ids in order."""
    if isinstance(scores, Tensor):
        return scores
    parts = list(scores)
    assert [part.start for part, _ in parts] == [0, *(part.stop for part, _ in parts[:-1])]
    return torch.cat([block for _, block in parts], 1)


def assert_near(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Assert that two tensors differ by no more than a share of the expected one's largest entry."""
    assert found.shape == expected.shape
    scale = float(expected.double().abs().max())
    error = float((found.double() - expected.double()).abs().max())
    assert scale > 0
    assert error <= tolerance * scale, f"error {error:.3g} at scale {scale:.3g}"
