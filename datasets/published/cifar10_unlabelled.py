"""CIFAR-10 with its test part for held-out queries, for unconditional models of architectures that need a label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from .. import hub
from ..base import Card, ImageDataset
from .cifar10 import SOURCE as CIFAR10

CARD = Card(
    name="cifar10_unlabelled",
    title="CIFAR-10, training part and test part; one label for all, which says nothing",
    source="hugging face hub, uoft-cs/cifar10; Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    licence="none stated by the authors: for research",
    revision="0b2714987fa478483af9968de7c934580d0bb9a2",
    transform="uint8 mapped to [-1, 1]",
    items=60_000,
    heldout=10_000,
    shape=(3, 32, 32),
    cond={"class_labels": ()},
    columns=("img", "label"),
    files="parquet as the hub has it",
    download="144 MB",
    known="cifar10",
)
SOURCE = replace(CIFAR10, held="test", counts=(50_000, 10_000))


def load() -> ImageDataset:
    """Return the images [60000, 3, 32, 32] that were fetched; ``class_labels`` are 0, the classes those of CIFAR-10."""
    data = hub.opened(CARD)
    return replace(data, cond={"class_labels": torch.zeros_like(data.classes)})


def fetch(path: Path | None = None, on_item: hub.OnItem = hub.ignore) -> ImageDataset:
    """Store the images from the hub, or from parquet files at ``path``, and return them."""
    hub.fetch(CARD, SOURCE, path, on_item=on_item)
    return load()
