"""Datasets: images with stable ids 0..N-1, conditions, one fixed transform and a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from .stored import StoredColumn

# By the network's argument names, such as class_labels [B] and encoder_hidden_states [B, L, D].
Conditions = Mapping[str, Tensor]
Column = Tensor | StoredColumn  # one array per item, in memory or on disk
OWN = "own-"  # how the names begin of datasets that somebody brought: no module loads these


@dataclass(frozen=True)
class Batch:
    """Items as a network sees them: ids (str for queries), x [B, C, H, W] in the model's space, and conditions."""

    ids: tuple[int | str, ...]
    x: Tensor
    cond: Conditions = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice) -> Batch:
        return Batch(self.ids[part], self.x[part], {name: value[part] for name, value in self.cond.items()})

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        return Batch(self.ids, self.x.to(device), {name: value.to(device) for name, value in self.cond.items()})

    def repeated(self, n: int) -> Batch:
        """Return a batch of one item as ``n`` copies that share its memory."""
        cond = {name: value.expand(n, *value.shape[1:]) for name, value in self.cond.items()}
        return Batch(self.ids * n, self.x.expand(n, *self.x.shape[1:]), cond)


HELDOUT = "heldout"  # the group that says, by 1, which items are only ever held-out queries
TEXTS = "encoder_hidden_states"  # the condition that captions become
UNPINNED = "unpinned"  # a revision that nobody could verify; what was fetched is told by its fingerprint


@dataclass(frozen=True)
class Card:
    """What a dataset is: where it is from, under which licence, and which revision of it is meant.

    The package's own are literals, so that listings read them without an import. revision: a commit, or UNPINNED.
    items: how many, ``heldout`` of which never train; shape: (C, H, W) of an image; cond: an item's shape of each
    condition; columns: those read of the source's rows; files: what ``--data`` takes; download: its size in words;
    known: whose pixels are known by hashes (``known.py``); fingerprint: of all items, where it could be computed;
    shareable: whether its licence lets anybody show its images, on a page or in a paper.
    """

    name: str
    title: str
    source: str
    licence: str
    revision: str
    transform: str
    items: int = 0
    heldout: int = 0
    shape: tuple[int, ...] = ()
    cond: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    files: str = ""
    download: str = ""
    known: str = ""
    fingerprint: str = ""
    shareable: bool = False


def fetch_command(name: str, revision: str, cond: Iterable[str] = ()) -> str:
    """Return the command that brings a dataset here, with its conditions' names ``cond``.

    One without a pinned revision comes as a copy of one's own, and captions need their encoder.
    """
    data = " --data PATH" if revision == UNPINNED else ""
    return f"`tdabench data fetch {name}{data}{' --text PATH' if TEXTS in cond else ''}`"


class TrainingSet(Protocol):
    """What is trained on and attributed to: items by id, 0..N-1, in memory or not."""

    def __len__(self) -> int: ...

    @property
    def classes(self) -> Tensor:
        """What subsets are stratified by, int64 [N]."""
        ...

    @property
    def null(self) -> Conditions:
        """What stands for no condition, where the model does not say it: one item's, by name."""
        ...

    def batch(self, ids: Tensor) -> Batch:
        """Return the items as the model sees them."""
        ...

    def pixels(self, ids: Tensor) -> Tensor:
        """Return the items as people see them, [B, C, H, W] in [-1, 1]."""
        ...

    def fingerprint(self) -> str:
        """Return a hash of all that the model sees of the items."""
        ...


@dataclass(frozen=True)
class ImageDataset:
    """Images [N, C, H, W] float32 in [-1, 1] and conditions by the network's argument names, [N, ...] each.

    Any of them may lie on disk (``StoredColumn``). classes: what subsets are stratified by, int64 [N]; the model need
    not see them. null: what stands for no condition, one item's [...] by name, such as the embedding of the empty
    prompt. latents [N, c, h, w]: what the model sees instead of the images, made of them by the autoencoder whose hash
    is ``encoder``. hashes: of every item's stored bytes, uint8 [N, 32], where a store has them. groups: what items may
    be grouped by besides, int64 [N] by name, such as their contributors; no model sees it, so no fingerprint holds it.
    group_names: what the values 0, 1, ... of such a column stand for, where that has a name.
    """

    card: Card
    images: Column
    classes: Tensor
    cond: Mapping[str, Column] = field(default_factory=dict)
    null: Conditions = field(default_factory=dict)
    latents: Tensor | None = None
    encoder: str = ""
    hashes: Tensor | None = None
    groups: Mapping[str, Tensor] = field(default_factory=dict)
    group_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.hashes is not None and not isinstance(self.images, StoredColumn):
            object.__setattr__(self, "hashes", None)  # they are not of these images

    def __len__(self) -> int:
        return len(self.images)

    @property
    def x(self) -> Column:
        """The items as the model sees them: latents, or else images."""
        return self.images if self.latents is None else self.latents

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an item as the model sees it, (C, H, W)."""
        return tuple(self.x.shape[1:])

    def batch(self, ids: Tensor) -> Batch:
        """Return the items with these ids, int64 [B]."""
        cond = {name: value[ids] for name, value in self.cond.items()}
        return Batch(tuple(ids.tolist()), self.x[ids], cond)

    def pixels(self, ids: Tensor) -> Tensor:
        """Return the images with these ids as they are, never decoded latents, [B, C, H, W]."""
        return self.images[ids]

    def select(self, ids: Tensor) -> ImageDataset:
        """Return the items as a dataset of their own, renumbered in the given order; what is on disk stays there."""
        return replace(
            self,
            images=_rows(self.images, ids),
            classes=self.classes[ids],
            cond={name: _rows(value, ids) for name, value in self.cond.items()},
            latents=None if self.latents is None else self.latents[ids],
            hashes=None if self.hashes is None else self.hashes[ids],
            groups={name: value[ids] for name, value in self.groups.items()},
        )

    def fingerprint(self) -> str:
        """Return the SHA-256 of the decoded pixels, classes, conditions (names, shapes) and the autoencoder's hash.

        In the order of ids, which a store gives by the items' own hashes, whatever the order of the source's rows. Not
        of the latents themselves, whose last bits differ from machine to machine.
        """
        digest = hashlib.sha256()
        _update(digest, whole(self.images) if self.hashes is None else self.hashes)
        self._update_beside(digest)
        for name in sorted(self.null):
            digest.update(f"null {name}".encode())
            _update(digest, self.null[name])
        digest.update(self.encoder.encode())
        return digest.hexdigest()

    def _update_beside(self, digest: Any) -> None:
        """Add classes and conditions, but for those on disk, which an item's hash holds."""
        _update(digest, self.classes)
        for name, column in sorted(self.cond.items()):
            digest.update(name.encode())
            if self.hashes is None or not isinstance(column, StoredColumn):
                _update(digest, whole(column))

    def item_hashes(self, ids: Tensor) -> list[str]:
        """Return the SHA-256 of each of these items' pixels, class and conditions: what a query is recognised by."""
        if self.hashes is not None:
            return [bytes(row.tolist()).hex() for row in self.hashes[ids]]
        return [self._item_hash(item) for item in ids.split(1)]

    def _item_hash(self, item: Tensor) -> str:
        digest = hashlib.sha256()
        parts = {"pixels": self.images, "class": self.classes, **self.cond}
        for name in sorted(parts):
            digest.update(name.encode())
            _update(digest, parts[name][item])
        return digest.hexdigest()


def whole(column: Column) -> Tensor:
    """Return all of a column in memory, [N, ...]; one that is there is not copied."""
    return column if isinstance(column, Tensor) else column[slice(None)]


def _rows(column: Column, ids: Tensor) -> Column:
    return column.select(ids) if isinstance(column, StoredColumn) else column[ids]


def _update(digest: Any, part: Tensor) -> None:
    digest.update(repr((tuple(part.shape), str(part.dtype))).encode())
    digest.update(part.contiguous().numpy().reshape(-1).view("uint8").data)


def stratified_halves(classes: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return a mask [N] that holds ``share`` of every class, rounded per class, at random."""
    mask = torch.zeros(len(classes), dtype=torch.bool)
    for label in classes.unique():
        members = (classes == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        mask[members[order[: round(share * len(members))]]] = True
    return mask
