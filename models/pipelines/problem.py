"""A folder that diffusers' ``save_pretrained`` wrote, and images, as a problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...datasets.base import Card, Column, Conditions, ImageDataset, whole
from ...datasets.checks import all_finite, first_outside, whole_numbers
from ...datasets.folders import Pictures, read_pictures
from ...datasets.queries import Queries, item_queries
from ...datasets.stored import StoredColumn
from ...errors import UserError
from ...store import FolderStore
from ..latents import OnItem, ignore, with_latents
from ..problem import Problem
from ..recipe import LoRA
from ..training import build, snapshot
from .saved import Pipeline, read_pipeline
from .text import TextEncoder

Images = ImageDataset | Path | str


def problem_from_pipeline(
    folder: Path | str,
    images: Images,
    queries: Images | None = None,
    process: Mapping[str, Any] | None = None,
    store: FolderStore | None = None,
    trainable: str | LoRA = "",
) -> Problem:
    """Return a saved pipeline and its training images as a problem without a recipe; nothing is downloaded.

    images, queries: a dataset, or a folder as ``read_pictures`` takes it; captions become embeddings, and the empty
    caption's stands for none. process: as in ``ModelSpec``, for a network that was saved without a scheduler.
    store: where latents are kept, if anywhere. trainable: the parameters that gradients are taken for, as in
    ``ModelSpec``; adapters start from nothing. Samples are DDIM's, whatever the pipeline's scheduler.
    Raises UserError for what is missing, unsupported, or does not fit the model.
    """
    return pipeline_problem(read_pipeline(Path(folder), process), images, queries, store, trainable)


def pipeline_problem(
    pipeline: Pipeline,
    images: Images,
    queries: Images | None = None,
    store: FolderStore | None = None,
    trainable: str | LoRA = "",
    on_item: OnItem = ignore,
) -> Problem:
    """Return a pipeline that was read as ``problem_from_pipeline`` does; its adapters, if it has any, are what trains.

    on_item: sees (images encoded, of how many) of a latent pipeline.
    """
    train = _read(pipeline, images, "training images", {}, store, on_item)
    asked = _Items(train.data.select(torch.arange(0)))
    if queries is not None:
        asked = _read(pipeline, queries, "queries", train.labels, store)
    adapters = pipeline.adapters
    spec = replace(pipeline.spec, trainable=adapters.lora if adapters else trainable)
    trained = adapters.weights if adapters else pipeline.weights
    if spec.trainable and not adapters:
        trained = snapshot(build(spec, 0, pipeline.weights))
    return Problem(
        name=pipeline.folder.resolve().name,
        train=train.data,
        queries=_external(asked),
        spec=spec,
        weights={1: trained},
        autoencoder=pipeline.autoencoder.state if pipeline.autoencoder else None,
        base=pipeline.weights if spec.trainable else None,
    )


@dataclass(frozen=True)
class _Items:
    """Images that fit the model, their names, and the numbers of their classes by the folders' names."""

    data: ImageDataset
    names: tuple[str, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)


def _read(
    pipeline: Pipeline,
    images: Images,
    what: str,
    labels: Mapping[str, int],
    store: FolderStore | None,
    on_item: OnItem = ignore,
) -> _Items:
    if isinstance(images, ImageDataset):
        items = _Items(images, tuple(f"query-{i:03d}" for i in range(len(images))))
    else:
        items = _from_folder(pipeline, Path(images), labels)
    data = _fitted(pipeline, items.data, what)
    coder = pipeline.autoencoder
    return replace(items, data=with_latents(data, coder, store, on_item) if coder else data)


def _from_folder(pipeline: Pipeline, folder: Path, labels: Mapping[str, int]) -> _Items:
    pictures = read_pictures(folder, pipeline.channels, pipeline.size)
    if "class_labels" in pipeline.cond:
        labels = class_numbers(pipeline, str(folder), pictures.groups, labels)
        classes = torch.tensor([labels[group] for group in pictures.groups or ()])
        cond = {"class_labels": classes}
    else:
        order = {group: i for i, group in enumerate(sorted(set(pictures.groups or ())))}
        classes = torch.tensor([order[group] for group in pictures.groups or ()] or [0] * len(pictures.names))
        cond = _embedded(pipeline, folder, pictures)
    name = folder.resolve().name
    card = Card(name, f"images of {name}", str(folder), "unknown", "the files as found", "8 bits mapped to [-1, 1]")
    return _Items(ImageDataset(card, pictures.images, classes, cond), pictures.names, labels)


def class_numbers(
    pipeline: Pipeline, where: str, groups: Sequence[str] | None, labels: Mapping[str, int]
) -> Mapping[str, int]:
    """Return class numbers by folders' names: the training images', their own, the pipeline's, or in order if all.

    groups: what each image is in; labels: the training images'. Raises UserError where there are none, or unknown ones.
    """
    if groups is None:
        raise UserError(f"{where} has no labels, which this model takes: put images into one subfolder a class")
    found, count = sorted(set(groups)), pipeline.cond["class_labels"]
    for known in (labels, {name: int(name) for name in found if name.isdecimal()}, pipeline.labels):
        if set(found) <= set(known):
            return known
    if len(found) == count and not labels:
        return {name: i for i, name in enumerate(found)}
    unknown = next(name for name in found if name not in labels)
    which = f"which of the model's {count} classes is {unknown!r}"
    raise UserError(f"{where}: {which}? Name subfolders by class number, 0 to {count - 1}")


def _embedded(pipeline: Pipeline, folder: Path, pictures: Pictures) -> Conditions:
    if "encoder_hidden_states" not in pipeline.cond:
        return {}
    encoder = text_encoder(pipeline, str(folder), pictures.captions)
    return {"encoder_hidden_states": encoder.encode(pictures.captions or ())}


def text_encoder(pipeline: Pipeline, where: str, captions: Sequence[str] | None) -> TextEncoder:
    """Return a pipeline's text encoder; raises UserError where it has none, or images have no captions."""
    if pipeline.text is None:
        raise UserError(f"{pipeline.folder} has no text encoder for the captions: give an ImageDataset with embeddings")
    if captions is None:
        raise UserError(f"{where} has not a caption for every image, which this model takes: write metadata.jsonl")
    return pipeline.text


def _fitted(pipeline: Pipeline, data: ImageDataset, what: str) -> ImageDataset:
    """Return the dataset with just the conditions that the network takes; raises UserError where it does not fit."""
    if not isinstance(data.images, Tensor | StoredColumn) or len(data.images.shape) != 4:
        raise UserError(f"the {what} must be a tensor [N, C, H, W] in ImageDataset.images, or a folder of files")
    if not len(data):
        raise UserError(f"there are no {what}: give at least one")
    if len(data.classes) != len(data):
        raise UserError(f"the {len(data)} {what} have {len(data.classes)} classes: give one each")
    size = pipeline.size or tuple(data.images.shape[2:])
    if tuple(data.images.shape[1:]) != (pipeline.channels, *size):
        found, wanted = _words(data.images.shape[1:]), _words((pipeline.channels, *size))
        raise UserError(f"the {what} are {found}, and {pipeline.folder} takes {wanted}: crop, resize or convert them")
    if (found := first_outside(data)) is not None:
        raise UserError(f"of the {what}, number {found[0]} has values up to {found[1]:g}: they must lie in [-1, 1]")
    cond = {name: _condition(name, limit, data, what) for name, limit in pipeline.cond.items()}
    null = {name: value for name, value in data.null.items() if name in cond}
    if pipeline.text and "encoder_hidden_states" not in null:
        null["encoder_hidden_states"] = pipeline.text.encode([""])[0]
    for name, value in null.items():
        if value.shape != cond[name].shape[1:]:
            raise UserError(
                f"what stands for no {name} is {list(value.shape)}, and an item's {list(cond[name].shape[1:])}"
            )
    images = data.images.float() if isinstance(data.images, Tensor) else data.images
    return replace(data, images=images, cond=cond, null=null)


def _condition(name: str, limit: int, data: ImageDataset, what: str) -> Column:
    if name not in data.cond:
        raise UserError(f"the {what} have no {name}, which this model takes: name them in ImageDataset.cond")
    column = data.cond[name]
    if len(column) != len(data):
        raise UserError(f"the {len(data)} {what} have {len(column)} {name}: give one each")
    if name == "class_labels":
        labels = _checked_labels(whole(column), limit, what)
        return labels if isinstance(column, Tensor) else column
    shape = tuple(column.shape)
    if len(shape) != 3 or shape[-1] != limit or not all_finite(column):
        raise UserError(f"the {name} of the {what} must be finite [N, L, {limit}], not {list(shape)}")
    return column.float() if isinstance(column, Tensor) else column


def _checked_labels(labels: Tensor, limit: int, what: str) -> Tensor:
    if not whole_numbers(labels):
        raise UserError(f"the class_labels of the {what} must be whole numbers [N], one for each")
    outside = labels[(labels < 0) | (labels >= limit)].tolist()
    if outside:
        raise UserError(f"the {what} have the label {outside[0]}, and the model's are 0 to {limit - 1}")
    return labels.long()


def _words(shape: tuple[int, ...] | torch.Size) -> str:
    channels, height, width = shape
    return f"{width} x {height} pixels of {channels} channel{'s' if channels != 1 else ''}"


def _external(items: _Items) -> Queries:
    return item_queries(items.data, items.names, "external", "test")
