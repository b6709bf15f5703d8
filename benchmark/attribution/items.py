"""Images as a pipeline takes them: training images stored once, queries in memory, each with its conditions."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...datasets.base import Card, ImageDataset
from ...datasets.own.items import Beside, Conditions, Own, Reading, bring, in_memory
from ...datasets.own.sources import Given, Images, given
from ...errors import UserError
from ...methods.view import Progress, silent
from ...models.latents import state_hash
from ...models.pipelines.problem import class_numbers, text_encoder
from ...models.pipelines.saved import Pipeline
from ...models.pipelines.text import SIZE, TextEncoder
from ...seeds import digest
from ...store import home

LABEL, TEXT = "class_labels", "encoder_hidden_states"


@dataclass(frozen=True)
class Plain:
    """Nothing that the model sees: groups, where images have some, are told apart as classes."""

    groups: tuple[str, ...] | None
    null: Mapping[str, Tensor] = field(default_factory=dict)
    key: str = "plain"

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {group: i for i, group in enumerate(sorted(set(self.groups or ())))}

    def of(self, i: int) -> tuple[int, Conditions]:
        """Return the class of picture i, 0 where there are no groups, and no conditions."""
        return (self._numbers[self.groups[i]] if self.groups else 0), {}


@dataclass(frozen=True)
class Labelled:
    """Class numbers that the model sees: of each picture's group."""

    groups: tuple[str, ...]
    numbers: Mapping[str, int]
    null: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """A hash of the numbers by group."""
        return digest(dict(self.numbers))

    def of(self, i: int) -> tuple[int, Conditions]:
        """Return the class of picture i, and its label."""
        label = self.numbers[self.groups[i]]
        return label, {LABEL: np.array(label, dtype=np.int64)}


@dataclass(frozen=True)
class Captioned:
    """Embeddings of captions, which lie in a file that is gone once they are stored."""

    encoder: TextEncoder
    captions: tuple[str, ...]
    report: Progress = silent

    @property
    def key(self) -> str:
        """A hash of the encoder; the captions belong to the pictures."""
        return state_hash(self.encoder.encoder.state_dict())

    @property
    def null(self) -> Mapping[str, Tensor]:
        """The empty caption's embedding."""
        return {TEXT: self._empty}

    @cached_property
    def _empty(self) -> Tensor:
        return self.encoder.encode([""])[0]

    def of(self, i: int) -> tuple[int, Conditions]:
        """Return class 0, and the embedding of picture i's caption."""
        rows, places = self._encoded
        return 0, {TEXT: np.asarray(rows[places[self.captions[i]]])}

    @cached_property
    def _encoded(self) -> tuple[Any, dict[str, int]]:
        distinct = list(dict.fromkeys(self.captions))
        home().mkdir(parents=True, exist_ok=True)
        file, shape = tempfile.TemporaryFile(dir=home()), tuple(self._empty.shape)  # noqa: SIM115 - gone with rows
        rows = np.memmap(file, dtype=np.float32, mode="w+", shape=(len(distinct), *shape))
        file.close()
        for start in range(0, len(distinct), SIZE):
            part = distinct[start : start + SIZE]
            rows[start : start + len(part)] = self.encoder.encode(part).float().numpy()
            self.report("captions", start + len(part), len(distinct))
        return rows, {caption: i for i, caption in enumerate(distinct)}


def beside(pipeline: Pipeline, pictures: Given, labels: Mapping[str, int], report: Progress = silent) -> Beside:
    """Return the conditions of pictures as a pipeline wants them; labels: the training images' numbers, by group.

    Raises UserError where pictures lack what it wants.
    """
    if LABEL in pipeline.cond:
        numbers = class_numbers(pipeline, pictures.where, pictures.groups, labels)
        if outside := [n for n in numbers.values() if not 0 <= n < pipeline.cond[LABEL]]:
            limit = pipeline.cond[LABEL] - 1
            raise UserError(f"{pictures.where} has the label {outside[0]}, and the model's are 0 to {limit}")
        return Labelled(pictures.groups or (), numbers)
    if TEXT in pipeline.cond:
        encoder = text_encoder(pipeline, pictures.where, pictures.captions)
        return Captioned(encoder, pictures.captions or (), report)
    return Plain(pictures.groups)


def training_items(pipeline: Pipeline, images: Images, report: Progress = silent) -> tuple[Own, Mapping[str, int]]:
    """Return the training images, stored here as the pipeline takes them, and their class numbers by group.

    Raises UserError where there are none, or they lack conditions.
    """
    pictures = given(images)
    conditions = beside(pipeline, pictures, {}, report)
    own = bring(
        pictures,
        pipeline.channels,
        pipeline.size,
        conditions,
        lambda done, total: report("reading images, each twice", done, total),
    )
    return own, conditions.numbers if isinstance(conditions, Labelled) else {}


@dataclass(frozen=True)
class Pictured:
    """Pictures to explain, in memory: names, data, and why others could not be read, by name."""

    names: tuple[str, ...]
    data: ImageDataset
    skipped: Mapping[str, str]


def pictured(
    pipeline: Pipeline, images: Images, train: ImageDataset, labels: Mapping[str, int], said: Sequence[str] = ()
) -> Pictured:
    """Return pictures as the pipeline takes them, at the size of the training images.

    said: prompts or labels for them in turn, instead of what lies beside them. Raises UserError as ``training_items``.
    """
    pictures = given(images)
    if said:
        words = tuple(islice(cycle(said), len(pictures)))
        pictures = replace(pictures, captions=words, groups=words)
    height, width = train.images.shape[2:]
    read = Reading(pictures, pipeline.channels, (height, width), beside(pipeline, pictures, labels))
    names, found, items = in_memory(read)
    cond = {name: torch.stack([torch.from_numpy(item.cond[name].copy()) for item in items]) for name in items[0].cond}
    classes = torch.tensor([item.label for item in items])
    data = ImageDataset(Card("queries", "queries", "", "unknown", "by content", ""), found, classes, cond, train.null)
    return Pictured(names, data, read.notes["skipped"])


def check_said(pipeline: Pipeline, prompts: Sequence[str], labels: Sequence[str]) -> None:
    """Raise UserError for prompts or labels that the model does not take."""
    for words, wanted, what in ((prompts, TEXT, "prompt"), (labels, LABEL, "label")):
        if words and wanted not in pipeline.cond:
            raise UserError(f"the model of {pipeline.folder} takes no {what}s: leave --{what} out")


def said_conditions(
    pipeline: Pipeline, prompts: Sequence[str], labels: Sequence[str], numbers: Mapping[str, int], count: int
) -> dict[str, Tensor]:
    """Return the conditions of ``count`` pictures under prompts or labels in turn; none where neither is given.

    Raises UserError for labels that the model does not know.
    """
    words = tuple(islice(cycle(prompts or labels), count))
    if not words:
        return {}
    if prompts:
        return {TEXT: text_encoder(pipeline, "--prompt", words).encode(words)}
    known = class_numbers(pipeline, "--label", words, numbers)
    return {LABEL: torch.tensor([known[word] for word in words])}
