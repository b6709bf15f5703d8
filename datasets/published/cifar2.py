"""CIFAR-2 of D-TRAK (Zheng et al., arXiv 2311.00500): 5,000 automobiles and horses, and 1,000 held-out queries.

The authors' notebook (sail-sg/D-TRAK, e2a0c2e, CIFAR2/00_EDA.ipynb) draws both with ``train_test_split`` of
scikit-learn (seed 42, stratified) from the rows of the hub's cifar10 of 2023, where CIFAR-10's training batches come
in the order 4, 3, 2, 5, 1. Drawn again from the original, it gives the row numbers that the notebook printed, as far
as these can be compared; what was drawn is kept as hashes of its pixels, so that no source's row order matters.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .. import hub
from ..base import Card, ImageDataset
from .cifar2_full import SOURCE as FULL

CARD = Card(
    name="cifar2",
    title="CIFAR-2: the 5,000 automobiles and horses of CIFAR-10 that D-TRAK trains on, and its 1,000 held-out ones",
    source="hugging face hub, uoft-cs/cifar10; Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    licence="none stated by the authors: for research",
    revision="0b2714987fa478483af9968de7c934580d0bb9a2",
    transform="uint8 mapped to [-1, 1]",
    items=6_000,
    heldout=1_000,
    shape=(3, 32, 32),
    columns=("img", "label"),
    files="parquet as the hub has it, of training and test part",
    download="144 MB",
    known="cifar10",
    fingerprint="364b7c8318b74144e4c8bc68c9b6fb7d93e74d1417eabab84dd8c83e4fe79318",
)
SOURCE = replace(FULL, held="test", drawn="cifar2", counts=(5_000, 1_000))


def load() -> ImageDataset:
    """Return the images [6000, 3, 32, 32] that were fetched: class 0 are automobiles, 1 are horses."""
    return hub.opened(CARD)


def fetch(path: Path | None = None, on_item: hub.OnItem = hub.ignore) -> ImageDataset:
    """Store the images from the hub, or from parquet files at ``path``, and return them."""
    return hub.fetch(CARD, SOURCE, path, on_item=on_item)
