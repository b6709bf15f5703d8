"""The scans of `digits`, with the digit of each as a class label that the model sees."""

from __future__ import annotations

from dataclasses import replace

from .base import Card, ImageDataset
from .digits import load as load_digits

CARD = Card(
    name="digits_classes",
    title="Optical Recognition of Handwritten Digits (test part)",
    source="UCI ML repository, doi:10.24432/C50P49, as sklearn.datasets.load_digits ships it",
    licence="CC BY 4.0",
    revision="scikit-learn's copy, unchanged since 0.10",
    transform="grey values 0..16 mapped to [-1, 1]",
    items=1_797,
    shape=(1, 8, 8),
    shareable=True,
    cond={"class_labels": ()},
)


def load() -> ImageDataset:
    """Return all 1,797 images [1797, 1, 8, 8] with ``class_labels`` [1797] as their condition; no download."""
    data = load_digits()
    return replace(data, card=CARD, cond={"class_labels": data.classes})
