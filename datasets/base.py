"""Datasets: images with stable ids 0..N-1, conditions, one fixed transform and a fingerprint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Items as the network sees them: ids (int, or str for queries), x [B, C, H, W] in the model's space, cond.

    cond: None (unconditional), int64 labels [B], or text embeddings [B, L, D].
    """

    ids: tuple[int | str, ...]
    x: Tensor
    cond: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice) -> Batch:
        return Batch(self.ids[part], self.x[part], None if self.cond is None else self.cond[part])

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        return Batch(self.ids, self.x.to(device), None if self.cond is None else self.cond.to(device))


@dataclass(frozen=True)
class Card:
    """What a dataset is: where it is from, under which licence, and which revision of it is meant."""

    name: str
    title: str
    source: str
    licence: str
    revision: str
    transform: str


@dataclass(frozen=True)
class ImageDataset:
    """Images [N, C, H, W] float32 in [-1, 1] and conditions: labels int64 [N], text embeddings, or None.

    classes: what subsets are stratified by, int64 [N]; the model need not see them.
    """

    card: Card
    images: Tensor
    classes: Tensor
    cond: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, ids: Tensor) -> Batch:
        """Return the items with these ids, int64 [B]."""
        cond = None if self.cond is None else self.cond[ids]
        return Batch(tuple(ids.tolist()), self.images[ids], cond)

    def select(self, ids: Tensor) -> ImageDataset:
        """Return the items as a dataset of their own, renumbered in the given order."""
        cond = None if self.cond is None else self.cond[ids]
        return ImageDataset(self.card, self.images[ids], self.classes[ids], cond)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the decoded pixels, classes and conditions, shapes included."""
        digest = hashlib.sha256()
        for part in (self.images, self.classes, self.cond):
            if part is not None:
                digest.update(repr((tuple(part.shape), str(part.dtype))).encode())
                digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()


def stratified_halves(classes: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return a mask [N] that holds ``share`` of every class, rounded per class, at random."""
    mask = torch.zeros(len(classes), dtype=torch.bool)
    for label in classes.unique():
        members = (classes == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        mask[members[order[: round(share * len(members))]]] = True
    return mask
