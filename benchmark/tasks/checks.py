"""Whether a dataset has what a task asks of it: enough images, and the conditions that its network takes."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...datasets.base import ImageDataset, whole
from ...datasets.checks import whole_numbers
from ...datasets.groups import items_where
from ...errors import UserError
from ...models.conditions import null_of
from ...models.denoiser import Denoiser
from ...models.training import build
from .spec import TaskSpec


def check_task(spec: TaskSpec, data: ImageDataset) -> None:
    """Raise UserError where the dataset does not fit the task: before anything is trained or written."""
    _check_counts(spec, data)
    if min(spec.truth.report, spec.truth.open) < 1:
        raise UserError(f"{spec.label} plans no report or no open subsets: its truth needs at least one of each")
    model = build(replace(spec.recipe.model, trainable=""), 0)
    _check_conditions(spec, data, model)
    if spec.recipe.cond_drop or spec.queries.guidance not in (0, 1):
        null_of(data.batch(torch.tensor([0])).cond, {**spec.recipe.model.null, **data.null})
    if spec.recipe.model.autoencoder is None:  # or the network takes latents, which are not made yet
        _try(spec, data, model)


def held_out(spec: TaskSpec, data: ImageDataset) -> Tensor:
    """Return which items are held-out queries only, bool [N]; raises UserError where the dataset does not say."""
    if not spec.heldout:
        return torch.zeros(len(data), dtype=torch.bool)
    if spec.heldout not in data.groups:
        raise UserError(f"{spec.label} holds out by {spec.heldout!r}, which dataset {spec.dataset!r} has not")
    return data.groups[spec.heldout] == 1


def _check_counts(spec: TaskSpec, data: ImageDataset) -> None:
    queries, inside = spec.queries.dev + spec.queries.test, items_where(data, spec.where)
    apart = int(held_out(spec, data)[inside].sum())
    enough = len(inside) >= spec.n_train + queries
    if spec.heldout:
        enough = len(inside) - apart >= spec.n_train and apart >= queries
    if spec.n_train < 1 or not enough:
        counts = f"{spec.n_train} training images and {spec.queries.dev} + {spec.queries.test} held-out queries"
        which = " of the kind that it is about" if spec.where else ""
        apart_too = f", {apart} of them held out" if spec.heldout else ""
        found = f"{len(inside)} images{which}{apart_too}"
        raise UserError(f"{spec.label} wants {counts}, and dataset {spec.dataset!r} has {found}")


def _check_conditions(spec: TaskSpec, data: ImageDataset, model: Denoiser) -> None:
    kind, given = spec.recipe.model.architecture, data.batch(torch.tensor([0])).cond
    for name, size in _wanted(model.net).items():
        if name not in given:
            raise UserError(
                f"{spec.label}: {kind} takes {name}, which dataset {spec.dataset!r} has not: name them in its `cond`"
            )
        _check_condition(spec, name, size, data)
    unknown = sorted(set(given) - set(inspect.signature(model.net.forward).parameters))
    if unknown:
        raise UserError(
            f"{spec.label}: dataset {spec.dataset!r} has {', '.join(unknown)}, which {kind} does not take: "
            "name conditions as the network's arguments"
        )


def _check_condition(spec: TaskSpec, name: str, size: int, data: ImageDataset) -> None:
    column, what = data.cond[name], f"{spec.label}: the {name} of dataset {spec.dataset!r}"
    if name == "class_labels":
        value = whole(column)
        if not whole_numbers(value):
            raise UserError(f"{what} are {list(value.shape)} {value.dtype}: they must be whole numbers [N]")
        if not 0 <= int(value.min()) <= int(value.max()) < size:
            found = f"{int(value.min())} to {int(value.max())}"
            raise UserError(f"{what} go from {found}, and the network's from 0 to {size - 1}")
    elif len(column.shape) != 3 or column.shape[-1] != size:
        raise UserError(f"{what} are {list(column.shape)}: the network takes [N, L, {size}]")


def _wanted(net: Any) -> dict[str, int]:
    """Return the conditions that a known network takes, with the number of labels or the width of embeddings."""
    config, wanted = net.config, {}
    width = {"UNet2DConditionModel": "cross_attention_dim", "PixArtTransformer2DModel": "caption_channels"}
    if type(net).__name__ in width:
        wanted["encoder_hidden_states"] = config[width[type(net).__name__]]
    labels = config.get("num_embeds_ada_norm") or config.get("num_class_embeds")
    takes = "class_labels" in inspect.signature(net.forward).parameters
    return {**wanted, "class_labels": labels} if labels and takes else wanted


@torch.no_grad()
def _try(spec: TaskSpec, data: ImageDataset, model: Denoiser) -> None:
    batch = data.batch(torch.arange(min(2, len(data))))
    level = model.process.quantile(torch.full((len(batch),), 0.5))
    try:
        model.loss_pairs(batch.x, level, torch.zeros_like(batch.x), batch.cond)
    except Exception as error:  # whatever diffusers and torch raise for arguments that do not fit
        gives = [f"images {list(batch.x.shape[1:])}", *(f"{n} {list(v.shape[1:])}" for n, v in batch.cond.items())]
        raise UserError(
            f"{spec.label}: {spec.recipe.model.architecture} does not take what dataset {spec.dataset!r} gives, "
            f"{' and '.join(gives)} an item: {str(error)[:200] or type(error).__name__}"
        ) from error
