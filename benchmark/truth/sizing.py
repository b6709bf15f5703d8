"""What a task's truth would cost before anything of it is here: from its specification and its dataset's card alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor

from ...datasets.base import Batch
from ...methods.base import Sizes
from ...models.denoiser import Denoiser
from ...models.networks import make_network
from ...models.processes import open_process
from ...models.trainable import restrict
from ...models.training import build
from ..tasks.spec import TaskSpec

FLOAT = 4  # bytes
SHARE = 0.5  # of the free memory, which a model may take to be measured


@dataclass(frozen=True)
class Sizing:
    """Counts of a task's truth, and bytes.

    models: to train, with the base model; updates: of all; images: forward and backward; asked: images forward, to
    measure queries; made: images to sample; sizes: what methods' costs depend on; pixels, weights, pictures: on disk,
    of the stored dataset, trained weights, and queries made again; memory: of a training, without its activations.
    """

    models: int
    updates: int
    images: int
    asked: int
    made: int
    sizes: Sizes
    pixels: int
    weights: int
    pictures: int
    memory: int


def size_truth(spec: TaskSpec, card: Mapping[str, Any]) -> Sizing:
    """Return what a task's truth and methods would cost, but for models without a group, which only the data counts."""
    model, queries = blank(spec), 2 * (spec.queries.dev + spec.queries.test)
    count = sum(value.numel() for value in model.parameters())
    shape, trained = item_shape(spec), {name: p.numel() for name, p in model.trainable_parameters().items()}
    models = 1 + spec.truth.retrainings
    made = spec.queries.dev + spec.queries.test + spec.queries.controls
    checkpoints = len(spec.recipe.checkpoints) + 1
    kept = sum(trained.values()) * FLOAT
    return Sizing(
        models=models,
        updates=models * spec.recipe.steps,
        images=models * spec.recipe.steps * spec.recipe.batch_size,
        asked=models * queries * spec.truth.bins * spec.truth.draws_per_bin,
        made=models * made,
        sizes=Sizes(spec.n_train, 0, count, trained, checkpoints, 1, shape),
        pixels=card.get("items", 0) * (math.prod(card.get("shape", ())) + _condition_bytes(card)),
        weights=(models + checkpoints) * kept,
        pictures=models * made * math.prod(shape) * 2,
        memory=count * FLOAT + 4 * kept,  # gradients, their two moments, averaged weights
    )


def _condition_bytes(card: Mapping[str, Any]) -> int:
    shapes = card.get("cond", {}).values()
    return sum(8 if not shape else FLOAT * math.prod(shape) for shape in shapes)


def item_shape(spec: TaskSpec) -> tuple[int, int, int]:
    """Return the shape of an item as the network sees it, (C, H, W)."""
    config = spec.recipe.model.config
    return config["in_channels"], config["sample_size"], config["sample_size"]


def blank(spec: TaskSpec) -> Denoiser:
    """Return the model without any numbers in it, which takes no memory."""
    model = spec.recipe.model
    with torch.device("meta"):
        net = make_network(model.architecture, model.config)
        restrict(net, model.trainable)
    return Denoiser(net.eval(), open_process(model.process))


def made_up(spec: TaskSpec, card: Mapping[str, Any], count: int, device: str) -> Batch:
    """Return a batch of items that say nothing, of the shapes of the task's own, and with the card's conditions."""
    cond: dict[str, Tensor] = {}
    for name, shape in card.get("cond", {}).items():
        kind = torch.float32 if shape else torch.long
        cond[name] = torch.zeros(count, *shape, dtype=kind, device=device)
    return Batch(tuple(range(count)), torch.zeros(count, *item_shape(spec), device=device), cond)


def stand_in(spec: TaskSpec, sizing: Sizing, device: str) -> Denoiser | None:
    """Return an untrained model to measure, or None where it and its gradients would not fit into the memory."""
    free = psutil.virtual_memory().available if device == "cpu" else torch.cuda.mem_get_info(device)[0]
    if 2 * sizing.memory > SHARE * free:
        return None
    return build(spec.recipe.model, 0).to(device)
