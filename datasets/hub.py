"""Datasets of the Hugging Face hub, or local copies of their files, stored here once and read from there."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, brief
from ..store import home
from .base import Card, ImageDataset
from .folders import MODES
from .stored import Item, open_items, write_items


@dataclass(frozen=True)
class Source:
    """Which rows of a hub dataset are items: its repository, revision and split, and the columns of picture and class.

    keep: the class numbers that are items, in their order, or none for all; size: (height, width), channels: of a
    picture; count: of the items, or 0 for any number.
    """

    repository: str
    revision: str
    split: str
    image: str
    label: str
    size: tuple[int, int]
    channels: int = 3
    keep: tuple[int, ...] = ()
    count: int = 0


def opened(card: Card) -> ImageDataset:
    """Return a dataset that was fetched, its pixels on disk; raises UserError where it was not."""
    folder = _folder(card)
    if not folder.is_dir():
        raise UserError(f"dataset {card.name!r} is not here: get it with `tdabench data fetch {card.name}`")
    found = open_items(folder)
    return ImageDataset(card, found.images, found.classes, found.cond, hashes=found.hashes)


def fetch(
    card: Card,
    source: Source,
    path: Path | None,
    condition: str = "",
    on_item: Callable[[int, int], None] = lambda done, total: None,
) -> ImageDataset:
    """Store a dataset from the hub, or from the parquet files at ``path``, and return it.

    condition: the network's argument that takes the class, if one does; ``on_item`` sees (steps done, of how many).
    Raises UserError where neither network nor files can be had, or rows are not what the source says.
    """
    with _rows(card.name, source, path) as rows:
        _check_columns(rows, source, path)
        labels = np.asarray(rows[source.label])
        chosen = np.flatnonzero(np.isin(labels, source.keep)) if source.keep else np.arange(len(labels))
        if source.count and len(chosen) != source.count:
            counts = f"{len(chosen):,} rows where {card.name} has {source.count:,}"
            raise UserError(f"{path or source.repository} has {counts}: give all of them")
        classes = {label: i for i, label in enumerate(source.keep or np.unique(labels).tolist())}

        def read(i: int) -> Item:
            row = rows[int(chosen[i])]
            label = classes[row[source.label]]
            cond = {condition: np.array(label, dtype=np.int64)} if condition else {}
            return Item(_pixels(row[source.image], source, int(chosen[i])), label, cond)

        write_items(_folder(card), len(chosen), read, lambda done: on_item(done, 2 * len(chosen)))
    return opened(card)


def _folder(card: Card) -> Path:
    return home() / "datasets" / f"{card.name}-{card.revision[:12]}"


@contextmanager
def _rows(name: str, source: Source, path: Path | None) -> Iterator[Any]:
    """Yield the source's rows, pictures as undecoded bytes; what the library keeps meanwhile is deleted."""
    import datasets

    cache, shown = home() / "datasets" / f".source-{name}", datasets.is_progress_bar_enabled()
    try:
        datasets.disable_progress_bars()  # the caller shows its own
        rows = _loaded(source, path, cache)
        if source.image in rows.column_names:
            rows = rows.cast_column(source.image, datasets.Image(decode=False))
        yield rows
    finally:
        datasets.enable_progress_bars() if shown else None
        shutil.rmtree(cache, ignore_errors=True)


def _loaded(source: Source, path: Path | None, cache: Path) -> Any:
    import datasets

    words: dict[str, Any] = {"path": source.repository, "revision": source.revision, "split": source.split}
    if path is not None:
        words = {"path": "parquet", "data_files": _files(path, source.split), "split": "train"}
    try:
        return datasets.load_dataset(**words, cache_dir=str(cache))
    except Exception as error:  # whatever the hub, the network and pyarrow raise
        where = path or f"the hub's {source.repository}"
        hint = "give the files' folder with --data" if path is None else "name parquet files of the hub's schema"
        raise UserError(f"{where} cannot be read ({brief(f'{type(error).__name__}: {error}')}): {hint}") from error


def _files(path: Path, split: str) -> list[str]:
    """Return the parquet files of a split at a path: the file itself, or those whose names or folders say it."""
    if path.is_file():
        return [str(path)]
    inside = sorted(path.rglob("*.parquet")) if path.is_dir() else []
    if not inside:
        raise UserError(f"{path} holds no parquet files: name a file, or a folder with them")
    words = {file: [re.split(r"[-_.]", part)[0] for part in file.relative_to(path).parts] for file in inside}
    named = [file for file in inside if split in words[file]]
    if not named and len(inside) > 1:
        raise UserError(f"{path} holds {len(inside)} parquet files, and none is named {split!r}: name the right one")
    return [str(file) for file in named or inside]


def _check_columns(rows: Any, source: Source, path: Path | None) -> None:
    missing = [name for name in (source.image, source.label) if name not in rows.column_names]
    if missing:
        where, found = path or source.repository, ", ".join(rows.column_names)
        raise UserError(
            f"{where} has no column {' and '.join(missing)}, but {found}: it is another dataset or revision"
        )
    absent = sorted(set(source.keep) - set(np.unique(rows[source.label]).tolist()))
    if absent:
        raise UserError(f"{path or source.repository} has no rows of class {', '.join(map(str, absent))}")


def _pixels(value: Any, source: Source, row: int) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(value["bytes"])) as picture:
            mode, found = picture.mode, np.asarray(picture.convert(MODES[source.channels]))
    except (OSError, SyntaxError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"row {row}: {source.image} cannot be read as an image ({error})") from None
    wanted = (*source.size, source.channels) if source.channels > 1 else source.size
    if found.shape != wanted or mode != MODES[source.channels]:
        raise UserError(f"row {row}: {source.image} is {mode} {found.shape}, not {MODES[source.channels]} {wanted}")
    return found.reshape(*source.size, source.channels).transpose(2, 0, 1)
