"""The 1,797 real 8x8 scans of handwritten digits that ship with scikit-learn."""

from __future__ import annotations

from typing import Any

import torch

from .base import Card, ImageDataset

CARD = Card(
    name="digits",
    title="Optical Recognition of Handwritten Digits (test part)",
    source="UCI ML repository, doi:10.24432/C50P49, as sklearn.datasets.load_digits ships it",
    licence="CC BY 4.0",
    revision="scikit-learn's copy, unchanged since 0.10",
    transform="grey values 0..16 mapped to [-1, 1]",
    items=1_797,
    shape=(1, 8, 8),
    shareable=True,
)


def load() -> ImageDataset:
    """Return all 1,797 images [1797, 1, 8, 8] with their digits as classes; unconditional; no download."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    images = torch.tensor(bunch.images / 8 - 1, dtype=torch.float32)[:, None]
    return ImageDataset(CARD, images, torch.tensor(bunch.target, dtype=torch.long))
