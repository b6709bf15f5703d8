"""Near-copies: training images that a picture is far closer to than to others like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...datasets.base import TrainingSet

NEIGHBOURS, ALPHA = 50, 0.5  # of arXiv 2301.13188, section 5.1
SAME = 2 / 255  # of the range [-1, 1]: one level of 8 bits, up to rounding
CHUNK_BYTES = 2**26  # of training images in double precision at once


@dataclass(frozen=True)
class Copy:
    """A training image that a picture is near: its id, the distance as a share of what is usual, and whether the same.

    ratio: below 1 is a near-copy; same: all values agree up to a level of 8 bits, so that it is in the training set.
    """

    item: int
    ratio: float
    same: bool


def near_copies(pictures: Tensor, train: TrainingSet) -> list[list[Copy]]:
    """Return the near-copies of each picture [Q, C, H, W] among the training images, nearest first.

    After Carlini et al. (Extracting Training Data from Diffusion Models, arXiv 2301.13188): the distance l2 of pixels
    is below ``ALPHA`` times its mean to the ``NEIGHBOURS`` nearest images.
    """
    distances = pixel_distances(pictures, train)
    usual = distances.sort(1).values[:, :NEIGHBOURS].mean(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    ratios = distances / (ALPHA * usual)
    return [_of(pictures[i], train, ratios[i]) for i in range(len(pictures))]


def _of(picture: Tensor, train: TrainingSet, ratios: Tensor) -> list[Copy]:
    near = (ratios < 1).nonzero().flatten()
    near = near[ratios[near].argsort(stable=True)][:NEIGHBOURS]
    gaps = (train.pixels(near) - picture).abs().flatten(1).amax(1).tolist() if len(near) else []
    found = zip(near.tolist(), ratios[near].tolist(), gaps, strict=True)
    return [Copy(item, ratio, gap <= SAME) for item, ratio, gap in found]


def pixel_distances(pictures: Tensor, train: TrainingSet) -> Tensor:
    """Return the distances l2 between pixels, float64 [Q, N]; training images are read in parts."""
    own, parts = pictures.double().flatten(1), []
    for ids in torch.arange(len(train)).split(max(1, CHUNK_BYTES // (8 * own.shape[1]))):
        others = train.pixels(ids).double().flatten(1)
        parts.append(torch.cdist(own, others, compute_mode="donot_use_mm_for_euclid_dist"))
    return torch.cat(parts, 1)


def said(names: Sequence[str], copies: Sequence[Sequence[Copy]], files: Sequence[str]) -> list[str]:
    """Return a line for each picture that has near-copies: which one is nearest."""
    lines = []
    for name, found in zip(names, copies, strict=True):
        if found:
            what = "is itself among the training images, as" if found[0].same else "is a near-copy of"
            more = f", and of {len(found) - 1} more" if len(found) > 1 else ""
            lines.append(f"{name} {what} {files[found[0].item]}{more}")
    return lines
