"""What a task's truth would cost before anything of it is here: from its specification and its dataset's card alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ...datasets.base import Batch
from ...datasets.find import card_of, dataset_listings, load_dataset
from ...datasets.groups import group_items, items_where
from ...errors import UserError, unknown
from ...methods.base import Sizes
from ...models.denoiser import Denoiser
from ...models.latents import latent_shape
from ...models.networks import make_network
from ...models.processes import open_process
from ...models.trainable import restrict
from ...models.training import build
from ..tasks.find import known_groups
from ..tasks.spec import TaskSpec

FLOAT, HALF = 4, 2  # bytes of a number
SHARE = 0.5  # of the free memory, which a model may take to be measured


@dataclass(frozen=True)
class Sizing:
    """Counts of a task's truth, bytes, and floating-point operations.

    models: to train, with the base model; updates: of all; images: forward and backward; asked, passes: images forward
    to measure queries, and to make ``made`` images; sizes: what methods' costs depend on; pixels, weights, pictures: on
    disk, of the stored dataset, trained weights, and queries made again; memory: of a training, without what its
    network computes; forward_work, trained_work: operations of one image, forward, and forward and backward.
    """

    models: int
    updates: int
    images: int
    asked: int
    passes: int
    made: int
    sizes: Sizes
    pixels: int
    weights: int
    pictures: int
    memory: int
    forward_work: int
    trained_work: int

    @property
    def work(self) -> int:
        """Floating-point operations of all networks, but for the autoencoder's."""
        return self.images * self.trained_work + (self.asked + self.passes) * self.forward_work


def facts_of(name: str, plugins: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return what a dataset's card says by name; its items and shapes are read from the data where it leaves them out.

    Raises UserError for a dataset that is not known, or that must be read and cannot be.
    """
    known = dataset_listings(plugins)
    if name not in known:
        raise unknown("dataset", name, known)
    card = card_of(known[name])
    if card.get("items") and card.get("shape"):
        return card
    data = load_dataset(name, plugins)
    cond = {name: tuple(column.shape[1:]) for name, column in data.cond.items()}
    return {**card, "items": len(data), "shape": tuple(data.images.shape[1:]), "cond": cond}


def count_groups(spec: TaskSpec, plugins: tuple[Path, ...] = ()) -> int | None:
    """Return how many groups a task leaves out, by its truth or its dataset; None where neither is here."""
    known = known_groups(spec)
    if known is not None or spec.groups is None:
        return known
    try:
        data = load_dataset(spec.dataset, plugins)
        return len(group_items(data.select(items_where(data, spec.where)), spec.groups.by))
    except UserError:
        return None


def size_truth(spec: TaskSpec, facts: Mapping[str, Any], groups: int = 0) -> Sizing:
    """Return what a task's truth and methods would cost; groups: how many are left out, each in models of its own."""
    model, plan, attributed = blank(spec), spec.truth, 2 * (spec.queries.dev + spec.queries.test)
    retrained = spec.retrained(groups)
    count = sum(value.numel() for value in model.parameters())
    trained = {name: value.numel() for name, value in model.trainable_parameters().items()}
    models, makers = 1 + retrained, 1 + retrained * plan.regenerated
    generated = spec.queries.dev + spec.queries.test + spec.queries.controls
    checkpoints, kept = len(spec.recipe.checkpoints) + 1, sum(trained.values()) * FLOAT
    forward, both = _work(spec, facts, model)
    return Sizing(
        models=models,
        updates=models * spec.recipe.steps,
        images=models * spec.recipe.steps * spec.recipe.batch_size,
        asked=retrained * attributed * plan.bins * plan.draws_per_bin,
        passes=makers * generated * passes_per_image(spec, facts),
        made=makers * generated,
        sizes=Sizes(spec.n_train, 0, count, trained, checkpoints, 1, item_shape(spec, facts)),
        pixels=facts["items"] * (math.prod(facts["shape"]) + _condition_bytes(facts)),
        weights=(models + checkpoints) * kept,  # the untrained base model is kept too
        pictures=(makers - 1) * generated * math.prod(facts["shape"]) * HALF,
        memory=2 * count * FLOAT + 3 * kept,  # the model and its average; gradients and their two moments
        forward_work=forward,
        trained_work=both,
    )


def passes_per_image(spec: TaskSpec, facts: Mapping[str, Any]) -> int:
    """Return how many images a network is asked about while it makes one."""
    model = spec.recipe.model
    heun = model.process.get("kind") == "edm"  # asks twice a step, but for the last one
    steps = 2 * model.sampler.steps - 1 if heun else model.sampler.steps
    guided = bool(facts.get("cond")) and spec.queries.guidance not in (0, 1)
    return 2 * steps if guided else steps


def _condition_bytes(facts: Mapping[str, Any]) -> int:
    shapes = facts.get("cond", {}).values()
    return sum(8 if not shape else FLOAT * math.prod(shape) for shape in shapes)


def _work(spec: TaskSpec, facts: Mapping[str, Any], model: Denoiser) -> tuple[int, int]:
    batch = made_up(spec, facts, 1, "meta")
    with FlopCounterMode(display=False) as counter:
        answer = model(batch.x, torch.zeros(1, device="meta"), batch.cond)
        forward = counter.get_total_flops()
        answer.sum().backward()
    return forward, counter.get_total_flops()


def item_shape(spec: TaskSpec, facts: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of an item as the network sees it, (C, H, W)."""
    coder = spec.recipe.model.autoencoder
    return latent_shape(coder, facts["shape"]) if coder else tuple(facts["shape"])


def blank(spec: TaskSpec) -> Denoiser:
    """Return the model without any numbers in it, which takes no memory."""
    model = spec.recipe.model
    with torch.device("meta"):
        net = make_network(model.architecture, model.config)
        restrict(net, model.trainable)
    return Denoiser(net.eval(), open_process(model.process))


def made_up(spec: TaskSpec, facts: Mapping[str, Any], count: int, device: str) -> Batch:
    """Return a batch of items that say nothing, of the shapes of the task's own, with the dataset's conditions."""
    cond: dict[str, Tensor] = {}
    for name, shape in facts.get("cond", {}).items():
        kind = torch.float32 if shape else torch.long
        cond[name] = torch.zeros(count, *shape, dtype=kind, device=device)
    return Batch(tuple(range(count)), torch.zeros(count, *item_shape(spec, facts), device=device), cond)


def stand_in(spec: TaskSpec, sizing: Sizing, device: str) -> Denoiser | None:
    """Return an untrained model to measure, or None where it and its gradients would not fit into the memory."""
    free = psutil.virtual_memory().available if device == "cpu" else torch.cuda.mem_get_info(device)[0]
    if 2 * sizing.memory > SHARE * free:
        return None
    return build(spec.recipe.model, 0).to(device)
