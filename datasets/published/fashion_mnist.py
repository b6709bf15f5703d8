"""Fashion-MNIST: 70,000 grey pictures of clothes of 28x28 pixels in ten classes, without conditions."""

from __future__ import annotations

from pathlib import Path

from .. import hub
from ..base import Card, ImageDataset
from ..files import idx_rows

CARD = Card(
    name="fashion_mnist",
    title="Fashion-MNIST, training part and test part",
    source="hugging face hub, zalando-datasets/fashion_mnist; Xiao et al., arXiv 1708.07747",
    licence="MIT",
    shareable=True,
    revision="531be5e2ccc9dba0c201ad3ae567a4f3d16ecdd2",
    transform="uint8 mapped to [-1, 1]",
    items=70_000,
    heldout=10_000,
    shape=(1, 28, 28),
    columns=("image", "label"),
    files="parquet as the hub has it, or train- and t10k-images-idx3-ubyte.gz and their labels (Debian's "
    "dataset-fashion-mnist puts them in /usr/share/datasets/fashion-mnist)",
    download="36 MB",
    fingerprint="9625a05217ef09d0306d0611a40b620e4768c91fa6c0ee6eba1a3981f11d20f9",
)
SOURCE = hub.Source(
    "zalando-datasets/fashion_mnist",
    CARD.revision,
    "train",
    "image",
    "label",
    (28, 28),
    channels=1,
    counts=(60_000, 10_000),
    classes=10,
    held="test",
    layout=idx_rows,
)


def load() -> ImageDataset:
    """Return the images [70000, 1, 28, 28] that were fetched, on disk."""
    return hub.opened(CARD)


def fetch(path: Path | None = None, on_item: hub.OnItem = hub.ignore) -> ImageDataset:
    """Store the images from the hub, or from files at ``path``, and return them."""
    return hub.fetch(CARD, SOURCE, path, on_item=on_item)
