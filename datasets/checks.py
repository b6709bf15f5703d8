"""What every dataset promises, checked on one that came from outside: shapes, lengths, values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from .base import Column, ImageDataset
from .stored import StoredColumn

EDGE = 1.001  # 8-bit values mapped in single precision may pass 1 by a rounding
CHUNK = 1024


def check_dataset(data: Any, name: str) -> None:
    """Raise UserError unless ``data`` is an ImageDataset with images in [-1, 1], classes, and conditions for each."""
    what = f"dataset {name!r}"
    if not isinstance(data, ImageDataset):
        raise UserError(f"{what} is a {type(data).__name__}: its function must return an ImageDataset")
    if not len(data):
        raise UserError(f"{what} has no images: give at least one")
    _check_classes(data, what)
    _check_conditions(data, what)
    first: Any = data.pixels(torch.tensor([0]))
    if not isinstance(first, Tensor) or first.ndim != 4 or first.dtype != torch.float32:
        raise UserError(f"{what} has images {_kind(data.images)}: they must be [N, C, H, W] float32")
    if (found := first_outside(data)) is not None:
        raise UserError(f"{what}: image {found[0]} has values up to {found[1]:g}; they must lie in [-1, 1]")


def first_outside(data: ImageDataset) -> tuple[int, float] | None:
    """Return the id of the first image with a value that is NaN or outside [-1, 1], and that value's size."""
    for ids in torch.arange(len(data)).split(CHUNK):
        largest = data.pixels(ids).abs().flatten(1).amax(1)
        for i in (~(largest <= EDGE)).nonzero().flatten()[:1].tolist():
            return int(ids[i]), float(largest[i])
    return None


def whole_numbers(labels: Tensor) -> bool:
    """Say whether labels are one whole number for each item, [N]."""
    return labels.ndim == 1 and not labels.is_floating_point() and labels.dtype != torch.bool


def all_finite(column: Column) -> bool:
    """Say whether a column holds neither NaN nor infinity."""
    return all(bool(torch.isfinite(column[ids]).all()) for ids in torch.arange(len(column)).split(CHUNK))


def _check_classes(data: ImageDataset, what: str) -> None:
    classes: Any = data.classes
    if not isinstance(classes, Tensor) or classes.dtype != torch.long or tuple(classes.shape) != (len(data),):
        wanted = f"one int64 class an image, [{len(data)}], as subsets are stratified by them"
        raise UserError(f"{what} has classes {_kind(classes)}: it needs {wanted}")


def _check_conditions(data: ImageDataset, what: str) -> None:
    for name, column in data.cond.items():
        if not isinstance(column, Tensor | StoredColumn) or len(column.shape) < 1 or len(column) != len(data):
            raise UserError(f"{what} has {len(data)} images and {name} {_kind(column)}: give one each")
        if not all_finite(column):
            raise UserError(f"{what} has {name} that are NaN or infinite")
    for name, value in data.groups.items():
        if not isinstance(value, Tensor) or tuple(value.shape) != (len(data),) or value.is_floating_point():
            raise UserError(f"{what} has groups {name!r} {_kind(value)}: they must be one integer an image")
    for name, value in data.null.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{what}: what stands for no {name} is {_kind(value)}: it must be a tensor, one image's")
        if name not in data.cond or value.shape != data.cond[name].shape[1:]:
            item = list(data.cond[name].shape[1:]) if name in data.cond else "not there"
            raise UserError(f"{what}: what stands for no {name} is {list(value.shape)}, and an image's is {item}")


def _kind(value: Any) -> str:
    return f"{list(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
