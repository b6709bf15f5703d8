"""What people have their images in: a folder of files, with captions or labels or not, or a Hugging Face dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from ...errors import UserError, brief
from ...seeds import digest
from ..folders import CAPTIONS, list_pictures

LABELS = ("label", "labels", "class")
UNREADABLE = (OSError, SyntaxError, ValueError)  # what PIL raises for files that are no images
Images = Path | str | datasets.Dataset


@dataclass(frozen=True)
class Given:
    """Pictures before they are items, in the order of files' names or of a dataset's rows.

    where: what messages call them; open: picture i, or one of ``UNREADABLE``; captions, groups: one each, or None;
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
