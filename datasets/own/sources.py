"""What people have their images in: a folder of files, with captions or labels or not, or a Hugging Face dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets

from ...errors import UserError, brief
from ...seeds import digest
from ..folders import CAPTIONS, list_pictures

LABELS = ("label", "labels", "class")
Images = Path | str | datasets.Dataset


@dataclass(frozen=True)
class Given:
    """Pictures before they are items, in the order of files' names or of a dataset's rows.

    where: what messages call them; open: picture i, or whatever decoders raise; captions, groups: one each, or None;
    stamp: a text that is another one as soon as they are others.
    """

    where: str
    names: tuple[str, ...]
    open: Callable[[int], Any]
    captions: tuple[str, ...] | None
    groups: tuple[str, ...] | None
    stamp: str

    def __len__(self) -> int:
        return len(self.names)


def given(images: Images) -> Given:
    """Return what a folder, a folder that ``save_to_disk`` wrote, or a dataset holds; raises UserError for neither."""
    if isinstance(images, datasets.Dataset):
        return _of_table(images, "the dataset")
    folder = Path(images).expanduser()
    if any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return _of_table(_loaded(folder), str(folder))
    return _of_folder(folder)


def picked(pictures: Given, places: Sequence[int]) -> Given:
    """Return the pictures at these places."""
    return Given(
        pictures.where,
        tuple(pictures.names[i] for i in places),
        lambda i: pictures.open(places[i]),
        tuple(pictures.captions[i] for i in places) if pictures.captions is not None else None,
        tuple(pictures.groups[i] for i in places) if pictures.groups is not None else None,
        digest([pictures.stamp, list(places)]),
    )


def upside_down(pictures: Given) -> Given:
    """Return the pictures turned upside down, as hardly any training has seen them."""
    return replace(
        pictures,
        names=tuple(f"{name}, upside down" for name in pictures.names),
        open=lambda i: _turned(pictures.open(i)),
        stamp=digest([pictures.stamp, "upside down"]),
    )


def _turned(picture: Any) -> Any:
    from PIL import ImageOps

    return ImageOps.flip(ImageOps.exif_transpose(picture))


def joined(one: Given, other: Given) -> Given:
    """Return the pictures of both, called after the other where something is wrong with them."""
    return Given(
        other.where,
        one.names + other.names,
        lambda i: one.open(i) if i < len(one) else other.open(i - len(one)),
        one.captions + other.captions if one.captions is not None and other.captions is not None else None,
        one.groups + other.groups if one.groups is not None and other.groups is not None else None,
        digest([one.stamp, other.stamp]),
    )


def _of_folder(folder: Path) -> Given:
    from PIL import Image

    listed = list_pictures(folder)
    paths, stats = list(listed.paths.values()), [path.stat() for path in listed.paths.values()]
    files = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in zip(listed.paths, stats, strict=True)]
    stamp = digest([str(folder.resolve()), files, listed.captions, listed.groups])
    return Given(
        str(folder), tuple(listed.paths), lambda i: Image.open(paths[i]), listed.captions, listed.groups, stamp
    )


def _loaded(folder: Path) -> datasets.Dataset:
    try:
        found = datasets.load_from_disk(str(folder))
    except Exception as error:  # whatever pyarrow and datasets raise for broken files
        raise UserError(f"{folder} cannot be read as a saved dataset: {brief(str(error))}") from error
    if isinstance(found, datasets.Dataset):
        return found
    if "train" not in found and len(found) != 1:
        raise UserError(
            f"{folder} has the splits {', '.join(map(str, found))}: save the one that the model was trained on"
        )
    return found["train" if "train" in found else next(iter(found))]


def _of_table(table: datasets.Dataset, where: str) -> Given:
    pictures = [name for name, kind in table.features.items() if isinstance(kind, datasets.Image)]
    if not pictures:
        raise UserError(f"{where} has no column of images, but {', '.join(table.column_names)}: cast one to Image()")
    names = tuple(f"row-{i:06d}" for i in range(len(table)))
    captions = next((_texts(table, name) for name in CAPTIONS if name in table.column_names), None)
    groups = next((_texts(table, name) for name in LABELS if name in table.column_names), None)
    stamp = digest([where, table._fingerprint, len(table)])
    return Given(where, names, lambda i: table[i][pictures[0]], captions, groups, stamp)


def _texts(table: datasets.Dataset, column: str) -> tuple[str, ...] | None:
    values: Sequence[Any] = table[column]
    return tuple(map(str, values)) if all(isinstance(value, int | str) for value in values) else None
