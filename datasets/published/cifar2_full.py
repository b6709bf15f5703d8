"""The 10,000 training images of CIFAR-10's automobiles and horses, with their class as condition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .. import hub
from ..base import Card, ImageDataset
from .cifar10 import SOURCE as CIFAR10

CARD = Card(
    name="cifar2_full",
    title="CIFAR-10's automobiles and horses (training part, all 10,000)",
    source="hugging face hub, uoft-cs/cifar10; Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    licence="none stated by the authors: for research",
    revision="0b2714987fa478483af9968de7c934580d0bb9a2",
    transform="uint8 mapped to [-1, 1]",
    items=10_000,
    shape=(3, 32, 32),
    cond={"class_labels": ()},
    columns=("img", "label"),
    files="parquet as the hub has it",
    download="120 MB",
    known="cifar10",
    fingerprint="a562250416f20e87433efce1b2e0b61be6014afedd467c4c5dcbacd759431b77",
)
SOURCE = replace(CIFAR10, keep=(1, 7), counts=(10_000,))


def load() -> ImageDataset:
    """Return the images [10000, 3, 32, 32] that were fetched; of ``class_labels``, 0 are automobiles, 1 are horses."""
    return hub.opened(CARD)


def fetch(path: Path | None = None, on_item: hub.OnItem = hub.ignore) -> ImageDataset:
    """Store the images from the hub, or from parquet files at ``path``, and return them."""
    return hub.fetch(CARD, SOURCE, path, "class_labels", on_item)
