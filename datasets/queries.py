"""Queries: the images that are attributed, with all it takes to make the generated ones again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from .base import Batch, Conditions, ImageDataset, whole

Kind = Literal["heldout", "generated", "external"]
KINDS: tuple[Kind, ...] = ("heldout", "generated", "external")


@dataclass(frozen=True)
class Queries:
    """Q queries: ids, kinds, roles (dev | test | control), x [Q, C, H, W] float32 in the model's space.

    cond: as in ``Batch``. guidance: scale of classifier-free guidance [Q]; 0 and 1 are plain conditional sampling.
    noise: initial noise x_T [Q, C, H, W] of generated queries (zeros for others).
    source: the dataset index of a held-out query, the sampling seed of a generated one, -1 for an external one.
    images: the queries as people see them [Q, 3, H, W], where ``x`` are latents.
    """

    ids: tuple[str, ...]
    kinds: tuple[Kind, ...]
    roles: tuple[str, ...]
    x: Tensor
    noise: Tensor
    source: tuple[int, ...]
    guidance: Tensor
    cond: Conditions = field(default_factory=dict)
    images: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def batch(self) -> Batch:
        """The queries as items for losses and outputs; item draws are keyed by query id."""
        return Batch(self.ids, self.x, self.cond)

    @property
    def pixels(self) -> Tensor:
        """The queries as people see them, [Q, C, H, W] in [-1, 1]: ``images``, or else ``x``."""
        return self.x if self.images is None else self.images

    def pick(self, index: list[int]) -> Queries:
        """Return the queries at these positions."""
        rows = torch.tensor(index, dtype=torch.long)
        return Queries(
            tuple(self.ids[i] for i in index),
            tuple(self.kinds[i] for i in index),
            tuple(self.roles[i] for i in index),
            self.x[rows],
            self.noise[rows],
            tuple(self.source[i] for i in index),
            self.guidance[rows],
            {name: value[rows] for name, value in self.cond.items()},
            None if self.images is None else self.images[rows],
        )

    def where(self, role: str | None = None, kind: str | None = None) -> Queries:
        """Return the queries of a role and kind, in order."""
        return self.pick(
            [
                i
                for i in range(len(self))
                if (role is None or self.roles[i] == role) and (kind is None or self.kinds[i] == kind)
            ]
        )

    def anonymous(self) -> Queries:
        """Return the queries without where they came from, which is all that a method may see."""
        return replace(self, source=(-1,) * len(self))


def item_queries(
    data: ImageDataset, ids: tuple[str, ...], kind: Kind, role: str, source: tuple[int, ...] | None = None
) -> Queries:
    """Return all items of a dataset as queries that were not generated; of latents with their images.

    source: as of ``Queries``; None: unknown, -1.
    """
    n = len(data)
    batch = data.batch(torch.arange(n))
    return Queries(
        ids=ids,
        kinds=(kind,) * n,
        roles=(role,) * n,
        x=batch.x,
        noise=torch.zeros_like(batch.x),
        source=(-1,) * n if source is None else source,
        guidance=torch.zeros(n),
        cond=batch.cond,
        images=None if data.latents is None else whole(data.images),
    )


def no_queries(data: ImageDataset) -> Queries:
    """Return no queries, of the shape of a dataset's items."""
    return item_queries(data.select(torch.arange(0)), (), "external", "")


def concatenate(parts: list[Queries]) -> Queries:
    """Return the queries of all parts in order.

    Raises KeyError where one lacks a condition that another has, ValueError where only some are latents with images.
    """
    parts = [part for part in parts if len(part)] or parts[:1]
    names = sorted({name for part in parts for name in part.cond})
    images = [part.images for part in parts if part.images is not None]
    if len(images) not in (0, len(parts)):
        raise ValueError("some of these queries are latents with images, and others are not")
    return Queries(
        tuple(i for part in parts for i in part.ids),
        tuple(k for part in parts for k in part.kinds),
        tuple(r for part in parts for r in part.roles),
        torch.cat([part.x for part in parts]),
        torch.cat([part.noise for part in parts]),
        tuple(s for part in parts for s in part.source),
        torch.cat([part.guidance for part in parts]),
        {name: torch.cat([part.cond[name] for part in parts]) for name in names},
        torch.cat(images) if images else None,
    )
