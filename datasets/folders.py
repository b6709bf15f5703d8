"""Folders of pictures as people keep them: image files, captions in a metadata.jsonl, classes as subfolders."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .base import Card, ImageDataset

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
CAPTIONS = ("text", "caption", "prompt")
MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class Pictures:
    """The files of a folder in the order of their names.

    names: paths within the folder; images [N, C, H, W] float32 in [-1, 1]; captions: those of metadata.jsonl; groups:
    the subfolder each lies in, or the ``label`` of metadata.jsonl as a text. None where there are none.
    """

    names: tuple[str, ...]
    images: Tensor
    captions: tuple[str, ...] | None
    groups: tuple[str, ...] | None


def read_pictures(folder: Path, channels: int, size: tuple[int, int] | None) -> Pictures:
    """Return the pictures of a folder, every one of ``channels`` and ``size`` (None: that of the first).

    As Hugging Face's imagefolder has it: ``metadata.jsonl`` names files under ``file_name`` and their captions under
    ``text``, ``caption`` or ``prompt``; without a ``label`` there, the subfolder is the class. Nothing is resized or
    converted. Raises UserError for what cannot be read, or is not of that form.
    """
    if channels not in MODES:
        raise UserError(f"the model takes {channels} channels, which no image file has: give an ImageDataset")
    paths = _files(folder)
    rows = _metadata(folder, paths)
    images = []
    for path in paths.values():
        images.append(_pixels(path, channels, size))
        size = size or (images[0].shape[1], images[0].shape[2])
    names, listed = tuple(paths), [rows.get(name, {}) for name in paths]
    return Pictures(names, torch.stack(images), _captions(listed), _groups(names, listed))


def image_folder(
    folder: Path | str, name: str, channels: int = 3, size: tuple[int, int] | None = None, labelled: bool = False
) -> ImageDataset:
    """Return a folder of pictures as a dataset, as ``read_pictures`` takes it; ids are in the order of files' names.

    Classes are the subfolders (or labels) by name, one for all where there are none; labelled: the model sees them as
    ``class_labels``. Raises UserError for what cannot be read, or labels that are wanted and not there.
    """
    path = Path(folder).expanduser()
    pictures = read_pictures(path, channels, size)
    if labelled and pictures.groups is None:
        raise UserError(f"{path} has no labels: put images into one subfolder a class, or a label into metadata.jsonl")
    numbers = {group: i for i, group in enumerate(sorted(set(pictures.groups or ())))}
    classes = torch.tensor([numbers[group] for group in pictures.groups or ()] or [0] * len(pictures.names))
    card = Card(
        name, f"pictures of {path.name}", str(path), "unknown", "the files as found", "8 bits mapped to [-1, 1]"
    )
    return ImageDataset(card, pictures.images, classes, {"class_labels": classes} if labelled else {})


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name one that holds image files")
    inside = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES}
    files = {name.as_posix(): path for name, path in inside.items() if not any(p.startswith(".") for p in name.parts)}
    if not files:
        raise UserError(f"{folder} holds no image files ({', '.join(sorted(SUFFIXES))})")
    return files


def _metadata(folder: Path, files: dict[str, Path]) -> dict[str, dict[str, Any]]:
    path, rows = folder / "metadata.jsonl", {}
    if not path.is_file():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            row = _row(path, number, line)
            if row["file_name"] not in files:
                raise UserError(f"{path}, line {number}: there is no {row['file_name']} beside it")
            if row["file_name"] in rows:
                raise UserError(f"{path}, line {number}: {row['file_name']} has a line already")
            rows[row["file_name"]] = row
    without = [name for name in files if name not in rows]
    if without:
        raise UserError(f"{path} says nothing of {len(without)} image files, such as {without[0]}: add or move them")
    return rows


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{path}, line {number}: not JSON ({error})") from None
    if not (isinstance(row, dict) and isinstance(row.get("file_name"), str)):
        raise UserError(f"{path}, line {number}: there is no file_name")
    return row


def _captions(rows: list[dict[str, Any]]) -> tuple[str, ...] | None:
    for key in CAPTIONS:
        found = [row.get(key) for row in rows]
        if all(isinstance(caption, str) for caption in found):
            return tuple(map(str, found))
    return None


def _groups(names: tuple[str, ...], rows: list[dict[str, Any]]) -> tuple[str, ...] | None:
    if all(isinstance(row.get("label"), int | str) for row in rows):
        return tuple(str(row["label"]) for row in rows)
    parents = tuple(Path(name).parent.name for name in names)
    return parents if all(parents) else None


def _pixels(path: Path, channels: int, size: tuple[int, int] | None) -> Tensor:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            mode, plain = image.mode, image.convert(MODES[channels])
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as an image ({error}): replace or remove it") from None
    if mode != MODES[channels] and (channels, mode) != (3, "P"):
        raise UserError(f"{path} is an image of mode {mode}, and the model takes {MODES[channels]}: convert it")
    if size and (plain.height, plain.width) != size:
        found, wanted = f"{plain.width} x {plain.height}", f"{size[1]} x {size[0]}"
        raise UserError(f"{path} is {found} pixels, and the model takes {wanted}: crop or resize it")
    values = torch.from_numpy(np.array(plain, dtype=np.float32) / 127.5 - 1)
    return values.view(*plain.size[::-1], channels).movedim(2, 0)
