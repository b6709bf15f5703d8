"""CIFAR-10: 50,000 colour photographs of 32x32 pixels in ten classes."""

from __future__ import annotations

from pathlib import Path

from .. import hub
from ..base import Card, ImageDataset

CARD = Card(
    name="cifar10",
    title="CIFAR-10 (training part)",
    source="hugging face hub, uoft-cs/cifar10; Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    licence="none stated by the authors: for research",
    revision="0b2714987fa478483af9968de7c934580d0bb9a2",
    transform="uint8 mapped to [-1, 1]",
    items=50_000,
    shape=(3, 32, 32),
    cond={"class_labels": ()},
    columns=("img", "label"),
    files="parquet as the hub has it",
    download="120 MB",
    known="cifar10",
)
SOURCE = hub.Source("uoft-cs/cifar10", CARD.revision, "train", "img", "label", (32, 32), counts=(50_000,), classes=10)


def load() -> ImageDataset:
    """Return the images [50000, 3, 32, 32] that were fetched, on disk, with their class as ``class_labels``."""
    return hub.opened(CARD)


def fetch(path: Path | None = None, on_item: hub.OnItem = hub.ignore) -> ImageDataset:
    """Store the images from the hub, or from parquet files at ``path``, and return them."""
    return hub.fetch(CARD, SOURCE, path, "class_labels", on_item)
