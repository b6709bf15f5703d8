"""Folders of pictures as people keep them: image files, captions in a metadata.jsonl, classes as subfolders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, brief, shown
from ..store import files_below
from .base import Card, ImageDataset

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
CAPTIONS = ("text", "caption", "prompt")
MODES = {1: "L", 3: "RGB"}
UNREADABLE = Exception  # PIL's decoders raise more kinds for damaged files than it says


@dataclass(frozen=True)
class Listed:
    """The image files of a folder: paths by their names within it; captions and groups as of ``Pictures``."""

    paths: dict[str, Path]
    captions: tuple[str, ...] | None
    groups: tuple[str, ...] | None


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


def list_pictures(folder: Path) -> Listed:
    """Return what a folder holds, as Hugging Face's imagefolder has it; no image is opened.

    ``metadata.jsonl`` names files under ``file_name`` and their captions under ``text``, ``caption`` or ``prompt``;
    without a ``label`` there, the subfolder is the class. Raises UserError for what is not of that form.
    """
    paths = _files(folder)
    rows = _metadata(folder, paths)
    listed = [rows.get(name, {}) for name in paths]
    return Listed(paths, _captions(listed), _groups(tuple(paths), listed))


def read_pictures(folder: Path, channels: int, size: tuple[int, int] | None) -> Pictures:
    """Return the pictures of a folder as ``list_pictures`` takes it, every one of ``channels`` and ``size``.

    size: None is that of the first. Nothing is resized or converted. Raises UserError for what cannot be read, or is
    not of that form.
    """
    check_channels(channels)
    listed, images = list_pictures(folder), []
    for path in listed.paths.values():
        images.append(_pixels(path, channels, size))
        size = size or (images[0].shape[1], images[0].shape[2])
    return Pictures(tuple(listed.paths), torch.stack(images), listed.captions, listed.groups)


def check_channels(channels: int) -> None:
    """Raise UserError for a number of channels that no image file has."""
    if channels not in MODES:
        raise UserError(f"the model takes {channels} channels, which no image file has: give an ImageDataset")


@contextmanager
def decoding(what: str, advice: str) -> Iterator[None]:
    """Raise UserError for whatever decoders raise inside; of what is wrong with a picture that they read, say so."""
    try:
        yield
    except UserError:
        raise
    except UNREADABLE as error:
        raise UserError(f"{what} cannot be read as an image ({brief(str(error))}): {advice}") from None


def fit_picture(picture: Any, channels: int, size: tuple[int, int]) -> tuple[np.ndarray, set[str]]:
    """Return a picture as a model takes it, uint8 [C, H, W], and what had to be done: ``resized``, ``converted``.

    Turned as its camera says; what shows through is laid on white. Raises what PIL does where it cannot be decoded.
    """
    from PIL import Image, ImageOps

    picture, done = ImageOps.exif_transpose(picture), set()
    if picture.mode != MODES[channels]:
        done |= set() if (channels, picture.mode) == (3, "P") and "transparency" not in picture.info else {"converted"}
        if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        picture = picture.convert(MODES[channels])
    if (picture.height, picture.width) != size:
        picture, done = middle(picture, size), done | {"resized"}
    return np.asarray(picture).reshape(*size, channels).transpose(2, 0, 1), done


def middle(picture: Any, size: tuple[int, int]) -> Any:
    """Return a picture with its shorter side resized, bilinearly, and its middle cut out: (height, width) ``size``."""
    from PIL import Image

    scale = max(size[0] / picture.height, size[1] / picture.width)
    width, height = max(size[1], int(picture.width * scale)), max(size[0], int(picture.height * scale))
    return cut(picture.resize((width, height), Image.Resampling.BILINEAR), size)


def cut(picture: Any, size: tuple[int, int]) -> Any:
    """Return a picture's middle, (height, width) ``size``; black where the picture is smaller."""
    left, top = round((picture.width - size[1]) / 2), round((picture.height - size[0]) / 2)
    return picture.crop((left, top, left + size[1], top + size[0]))


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
    pictures = (path for path in sorted(files_below(folder)) if path.suffix.lower() in SUFFIXES)
    inside = {path.relative_to(folder): path for path in pictures}
    files = {name.as_posix(): path for name, path in inside.items() if not any(p.startswith(".") for p in name.parts)}
    if not files:
        raise UserError(f"{folder} holds no image files ({', '.join(sorted(SUFFIXES))})")
    for name in files:
        if not _is_text(name):
            raise UserError(f"{folder} holds {shown(name)}, whose name is no UTF-8: rename it")
    return files


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _metadata(folder: Path, files: dict[str, Path]) -> dict[str, dict[str, Any]]:
    path, rows = folder / "metadata.jsonl", {}
    if not path.is_file():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # as JSON lines are: texts may hold other line ends
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            row = _row(path, number, line)
            if row["file_name"] not in files:
                raise UserError(f"{path}, line {number}: there is no {shown(row['file_name'])} beside it")
            if row["file_name"] in rows:
                raise UserError(f"{path}, line {number}: {shown(row['file_name'])} has a line already")
            rows[row["file_name"]] = row
    without = [name for name in files if name not in rows]
    if without:
        raise UserError(f"{path} says nothing of {len(without)} image files, such as {without[0]}: add or move them")
    return rows


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}, line {number}: not JSON ({brief(str(error))})") from None
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

    with decoding(str(path), "replace or remove it"), Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
        mode, plain = image.mode, image.convert(MODES[channels])
    if mode != MODES[channels] and (channels, mode) != (3, "P"):
        raise UserError(f"{path} is an image of mode {mode}, and the model takes {MODES[channels]}: convert it")
    if size and (plain.height, plain.width) != size:
        found, wanted = f"{plain.width} x {plain.height}", f"{size[1]} x {size[0]}"
        raise UserError(f"{path} is {found} pixels, and the model takes {wanted}: crop or resize it")
    values = torch.from_numpy(np.array(plain, dtype=np.float32) / 127.5 - 1)
    return values.view(*plain.size[::-1], channels).movedim(2, 0)
