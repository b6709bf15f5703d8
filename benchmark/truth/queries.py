"""Queries of a task: held-out images, and images that the base model generates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...datasets.base import Batch, ImageDataset, stratified_halves
from ...datasets.groups import items_where
from ...datasets.queries import Queries, concatenate, item_queries
from ...models.denoiser import Denoiser
from ...models.latents import Autoencoder, with_latents
from ...models.recipe import ModelSpec
from ...models.sampling import initial_noise, sample
from ...seeds import derive, torch_generator
from ..tasks.checks import held_out
from ..tasks.spec import TaskSpec


@dataclass(frozen=True)
class Split:
    """Which dataset indices train the model and which are held-out queries (dev, then test)."""

    train: Tensor
    dev: Tensor
    test: Tensor


def split(spec: TaskSpec, data: ImageDataset) -> Split:
    """Return a stratified split, fixed by the task's name and version.

    Of a task with ``heldout``, its items are the held-out queries, and only the others train.
    """
    ids = items_where(data, spec.where)
    apart = held_out(spec, data)[ids]
    pool, chosen = (~apart).nonzero().flatten(), torch.zeros(len(ids), dtype=torch.bool)
    share = spec.n_train / len(pool)
    chosen[pool] = stratified_halves(data.classes[ids[pool]], share, torch_generator("split", spec.label))
    order = torch.randperm(len(ids), generator=torch_generator("split-order", spec.label))
    inside = torch.cat([order[chosen[order]], order[~(chosen | apart)[order]]])
    train_ids = ids[inside[: spec.n_train]].sort().values
    rest = ids[order[apart[order]] if spec.heldout else inside[spec.n_train :]]
    return Split(train_ids, rest[: spec.queries.dev], rest[spec.queries.dev :][: spec.queries.test])


def make_queries(
    spec: TaskSpec,
    data: ImageDataset,
    parts: Split,
    items: ImageDataset,
    base: Denoiser,
    encoder: Autoencoder | None = None,
) -> Queries:
    """Return held-out queries from the dataset and generated ones and controls sampled from the base model.

    Conditions of the latter are those of held-out items where a task sets such apart, so that no training item comes
    with the very caption that is asked for, and else of training items. items: the training items as the model sees
    them; encoder: of a latent model, whose queries are latents with images.
    """
    heldout = [_heldout(data, ids, role, encoder) for role, ids in (("dev", parts.dev), ("test", parts.test))]
    counts = {"dev": spec.queries.dev, "test": spec.queries.test, "control": spec.queries.controls}
    asking = data.select(held_out(spec, data).nonzero().flatten()) if spec.heldout else items
    made = [_generated(spec, items, asking, base, role, count, encoder) for role, count in counts.items()]
    return concatenate(heldout + made)


def _heldout(data: ImageDataset, ids: Tensor, role: str, encoder: Autoencoder | None) -> Queries:
    items, names = data.select(ids), tuple(f"heldout-{role}-{i:03d}" for i in range(len(ids)))
    items = with_latents(items, encoder) if encoder else items
    return item_queries(items, names, "heldout", role, tuple(ids.tolist()))


def _generated(
    spec: TaskSpec,
    items: ImageDataset,
    asking: ImageDataset,
    base: Denoiser,
    role: str,
    count: int,
    encoder: Autoencoder | None,
) -> Queries:
    """Return queries from noise by seed, each under the conditions of an item of ``asking`` that its seed draws."""
    seeds = [derive("query", spec.label, role, i) for i in range(count)]
    chosen = [int(torch.randint(len(asking), (1,), generator=torch_generator("query-cond", seed))) for seed in seeds]
    like, cond = torch.zeros(count, dtype=torch.long), asking.batch(torch.tensor(chosen, dtype=torch.long)).cond
    asked = replace(items.batch(like), cond=cond)
    names = tuple(f"generated-{role}-{i:03d}" for i in range(count))
    return generated(base, spec.recipe.model, asked, seeds, names, role, spec.queries.guidance, encoder)


def generated(
    model: Denoiser,
    spec: ModelSpec,
    asked: Batch,
    seeds: Sequence[int],
    names: tuple[str, ...],
    role: str,
    guidance: float,
    encoder: Autoencoder | None = None,
) -> Queries:
    """Return queries that a model makes from noise by seed, under the conditions of the items ``asked`` [Q]."""
    shape, scale = asked.x.shape[1:], torch.full((len(seeds),), guidance)
    noise = torch.stack([initial_noise(seed, tuple(shape)) for seed in seeds]) if seeds else torch.empty(0, *shape)
    x = sample(model, noise, spec, asked.cond, scale).cpu()
    return Queries(
        ids=names,
        kinds=("generated",) * len(seeds),
        roles=(role,) * len(seeds),
        x=x,
        noise=noise,
        source=tuple(seeds),
        guidance=scale,
        cond=asked.cond,
        images=encoder.decode(x) if encoder else None,
    )


def attributed(queries: Queries) -> Queries:
    """Return the queries that losses are measured on: all but the controls."""
    return queries.pick([i for i, role in enumerate(queries.roles) if role != "control"])
