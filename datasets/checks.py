"""What every dataset promises, checked on one that came from outside: shapes, lengths, values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from .base import ImageDataset
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
    for start in range(0, len(data), CHUNK):
        _check_pixels(data.pixels(torch.arange(start, min(start + CHUNK, len(data)))), start, what)


def _check_pixels(images: Tensor, start: int, what: str) -> None:
    if not isinstance(images, Tensor) or images.ndim != 4 or images.dtype != torch.float32:
        raise UserError(f"{what} has images {_kind(images)}: they must be [N, C, H, W] float32")
    largest = images.abs().flatten(1).amax(1)
    for i in (~(largest <= EDGE)).nonzero().flatten()[:1].tolist():  # NaN too
        raise UserError(f"{what}: image {start + i} has values up to {float(largest[i]):g}; they must lie in [-1, 1]")


def _check_classes(data: ImageDataset, what: str) -> None:
    classes: Any = data.classes
    if not isinstance(classes, Tensor) or classes.dtype != torch.long or tuple(classes.shape) != (len(data),):
        wanted = f"one int64 class an image, [{len(data)}], as subsets are stratified by them"
        raise UserError(f"{what} has classes {_kind(classes)}: it needs {wanted}")


def _check_conditions(data: ImageDataset, what: str) -> None:
    for name, column in data.cond.items():
        if not isinstance(column, Tensor | StoredColumn) or len(column.shape) < 1 or len(column) != len(data):
            raise UserError(f"{what} has {len(data)} images and {name} {_kind(column)}: give one each")
        if not all(torch.isfinite(column[ids]).all() for ids in torch.arange(len(data)).split(CHUNK)):
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
