"""Published datasets, from the Hugging Face hub or local copies of their files: stored here once, read from there."""

from __future__ import annotations

import io
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import CorruptFile, UserError, brief
from ..store import HOME, files_below, home
from .base import HELDOUT, TEXTS, UNPINNED, Card, ImageDataset, fetch_command
from .files import PARQUET, Rows, parquet_files, table_rows
from .find import store_folder
from .folders import MODES, cut, decoding, middle
from .known import is_original, known_sets, pixel_hash
from .stored import Item, open_items, source_of, write_items

OnItem = Callable[[int, int], None]
SHOWN = 5  # numbers that a message names at most


def ignore(done: int, total: int) -> None:
    """Take no notice of progress."""


@dataclass(frozen=True)
class Encode:
    """Captions to embeddings [n, L, D]; files: of the encoder's weights, with the SHA-256 of each by name."""

    texts: Callable[[Sequence[str]], Tensor]
    files: Mapping[str, str]


@dataclass(frozen=True)
class Source:
    """Which rows are items: of which repository, revision and split, and the columns of picture and class.

    repository: empty where it is on no hub that is known; label: empty for one class; size: (height, width), channels:
    of a picture; keep: the class numbers that are items, in their order, or none for all; counts: of the items of each
    split, or none for any number; classes: how many there are, each with as many items, or 0 for any; held: a further
    split, whose items are only ever held-out queries; resized: the shorter side is resized (bilinear) and the middle
    cut out, where otherwise another size is refused; crop: the side of the square in the middle that is cut out before
    that, or 0 for none; drawn: the items are a named set of the card's ``known`` pixels, and of ``<drawn>-heldout``;
    layout: (folder, split) to rows, of copies that are no parquet files.
    """

    repository: str
    revision: str
    split: str
    image: str
    label: str
    size: tuple[int, int]
    channels: int = 3
    keep: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    classes: int = 0
    held: str = ""
    resized: bool = False
    crop: int = 0
    drawn: str = ""
    layout: Callable[[Path, str], Rows] | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """The split of training items, and that of the others if there is one."""
        return (self.split, self.held) if self.held else (self.split,)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The class numbers that every split has; none where any will do."""
        return self.keep or tuple(range(self.classes))


def opened(card: Card) -> ImageDataset:
    """Return a dataset that was fetched, its pixels on disk; raises UserError where it was not."""
    folder = store_folder(card.name, card.revision)
    if not folder.is_dir():
        command = fetch_command(card.name, card.revision, card.cond)
        raise UserError(f"dataset {card.name!r} is not here: get it with {command}")
    return _dataset(card, folder)


def _dataset(card: Card, folder: Path) -> ImageDataset:
    found = open_items(folder)
    more = {"hashes": found.hashes, "groups": found.groups, "group_names": found.group_names, "null": found.null}
    return ImageDataset(card, found.images, found.classes, found.cond, **more)


def store(
    card: Card, count: int, read: Callable[[int], Item | None], on_item: OnItem, **more: Mapping[str, Any] | None
) -> None:
    """Store a dataset that is fetched, as ``write_items`` does; ``on_item`` sees (done, of how many).

    Raises UserError where that would replace what the card means by another track of it.
    """
    folder = store_folder(card.name, card.revision)

    def check(part: Path) -> None:
        if _is_original(card, folder) and not _is_original(card, part):
            raise UserError(
                f"this is another track of {card.name} than its card's, which is here and stays: to have both, "
                f"name another folder by {HOME}"
            )

    write_items(folder, count, read, lambda done: on_item(done, 2 * count), check=check, **more)


def read_with(card: Card) -> dict[str, str]:
    """Return the SHA-256, by name, of the files of the text encoder that what is stored was made with, if one was."""
    return source_of(store_folder(card.name, card.revision)).get("text_encoder", {})


def _is_original(card: Card, folder: Path) -> bool:
    """Say whether a folder holds what is known to be the card's dataset, whole."""
    try:
        return folder.is_dir() and is_original(_dataset(card, folder)) is True
    except CorruptFile:
        return False


def fetch(
    card: Card,
    source: Source,
    path: Path | None,
    condition: str = "",
    on_item: OnItem = ignore,
    encode: Encode | None = None,
) -> ImageDataset:
    """Store a dataset from the hub, or from a copy of its files at ``path``, and return it.

    condition: the network's argument that takes the class, if one does; encode: what makes ``encoder_hidden_states`` of
    captions; ``on_item`` sees (steps done, of how many). Raises UserError where neither network nor files can be had,
    or rows are not what the source says.
    """
    with source_rows(card, source, path) as parts:
        chosen = [(part, int(i)) for part in range(len(parts)) for i in _chosen(parts[part], card, source, part)]
        numbers = source.keep or sorted({int(label) for part in parts for label in np.unique(part.labels)})
        classes = {label: i for i, label in enumerate(numbers)}
        texts = _texts(parts, chosen, encode)

        def read(i: int) -> Item:
            part, row = chosen[i]
            label = classes[int(parts[part].labels[row])]
            cond = {condition: np.array(label, dtype=np.int64)} if condition else {}
            if texts:
                cond[TEXTS] = texts[_caption(parts[part], row)]
            groups = {HELDOUT: part} if source.held else {}
            return Item(pixels(parts[part], row, source), label, cond, groups)

        null = {TEXTS: torch.from_numpy(texts[""])} if texts else {}
        about = {
            "commit": next((part.commit for part in parts if part.commit), ""),
            "text_encoder": dict(encode.files) if encode else {},
        }
        store(card, len(chosen), read, on_item, null=null, source={name: of for name, of in about.items() if of})
    return opened(card)


def _remedy(card: Card, source: Source) -> str:
    if source.drawn:
        return "its pixels are not the original's, whose hashes say which images those are; see `tdabench data verify`"
    return _whole(card)


def _whole(card: Card) -> str:
    return f"give all of them{f': {card.files}' if card.files else ''}"


def wanted_rows(rows: Rows, source: Source) -> np.ndarray:
    """Return the rows of the classes that are kept, ascending, int64."""
    return np.flatnonzero(np.isin(rows.labels, source.keep)) if source.keep else np.arange(len(rows))


def _chosen(rows: Rows, card: Card, source: Source, part: int) -> np.ndarray:
    """Return the rows that are items; raises UserError where these are not as many as there should be."""
    _check_classes(rows, card, source, source.splits[part])
    kept = wanted_rows(rows, source)
    if source.drawn:
        wanted = known_sets(card.known)[f"{source.drawn}-{HELDOUT}" if part else source.drawn]
        kept = np.array([i for i in kept if pixel_hash(pixels(rows, int(i), source)) in wanted], dtype=np.int64)
    if source.counts:
        _check_counts(rows.labels[kept], rows.where, card, source, part)
    return kept


def _check_classes(rows: Rows, card: Card, source: Source, split: str) -> None:
    """Raise UserError for a class without rows, and for one that the dataset has not."""
    wanted, found = set(source.numbers), set(np.unique(rows.labels).tolist())
    if not found:
        raise UserError(f"{rows.where} has no rows of {split!r}: {_whole(card)}")
    if source.classes and not source.keep and (others := sorted(found - wanted)):
        named = ", ".join(map(str, others[:SHOWN]))
        has = f"rows of class {named} in {split!r}, and {card.name} has 0 to {max(wanted)}"
        raise UserError(f"{rows.where} has {has}: it is another dataset")
    if absent := sorted(wanted - found):
        named = ", ".join(map(str, absent))
        raise UserError(f"{rows.where} has no rows of class {named} in {split!r}: {_whole(card)}")


def _check_counts(labels: np.ndarray, where: str, card: Card, source: Source, part: int) -> None:
    """Raise UserError where a split has not as many items as it should, or a class of it has not."""
    count, split = source.counts[part], source.splits[part]
    found = [("", count, len(labels))]
    if source.classes:
        each = count // len(source.numbers)
        found += [(f" of class {one}", each, int((labels == one).sum())) for one in source.numbers]
    for what, wanted, rows in found:
        if rows != wanted:
            counts = f"{rows:,} rows{what} of {split!r} where {card.name} has {wanted:,}"
            raise UserError(f"{where} has {counts}: {_remedy(card, source)}")


def _texts(parts: list[Rows], chosen: list[tuple[int, int]], encode: Encode | None) -> dict[str, np.ndarray]:
    """Return the embedding [L, D] of every caption, and of none; nothing where there is no encoder."""
    if encode is None:
        return {}
    captions = list(dict.fromkeys(["", *(_caption(parts[part], row) for part, row in chosen)]))
    return dict(zip(captions, encode.texts(captions).float().numpy(), strict=True))


def _caption(rows: Rows, row: int) -> str:
    return rows.captions[row] if rows.captions else ""


@contextmanager
def source_rows(card: Card, source: Source, path: Path | None) -> Iterator[list[Rows]]:
    """Yield the rows of each of the source's splits; raises UserError where they cannot be had."""
    check_place(card, source, path)
    with _library(card) as cache:
        yield [_split_rows(card, source, split, path, cache) for split in source.splits]


@contextmanager
def all_rows(card: Card, source: Source, path: Path) -> Iterator[list[Rows]]:
    """Yield all rows of a local copy, whatever their splits; raises UserError where there are none."""
    check_place(card, source, path)
    with _library(card) as cache:
        if _is_parquet(source, path):
            yield [_table(source, parquet_files(path), str(path), cache)]
        else:
            yield [_split_rows(card, source, split, path, cache) for split in source.splits]


@contextmanager
def _library(card: Card) -> Iterator[Path]:
    """Give the hub's library a folder for what it keeps, which is deleted in the end; it prints nothing meanwhile."""
    import datasets

    cache, shown = home() / "datasets" / f".source-{card.name}", datasets.is_progress_bar_enabled()
    quiet = logging.root.manager.disable
    try:
        datasets.disable_progress_bars()
        logging.disable(logging.CRITICAL)  # what goes wrong is raised, and told in one line
        with warnings.catch_warnings(action="ignore"):
            yield cache
    finally:
        logging.disable(quiet)
        datasets.enable_progress_bars() if shown else None
        shutil.rmtree(cache, ignore_errors=True)


def check_place(card: Card, source: Source, path: Path | None) -> None:
    """Raise UserError where a source's files cannot be had, for want of a hub or of what is at ``path``."""
    if path is None and not source.repository:
        raise UserError(f"{card.name} is on no hub that is known here: get {card.files}, and name the folder by --data")
    if path is not None and not path.exists():
        raise UserError(f"{path} does not exist: check --data")


def _is_parquet(source: Source, path: Path) -> bool:
    there = path.is_file() or any(file.suffix == PARQUET for file in files_below(path))
    return source.layout is None or (bool(source.repository) and there)


def _split_rows(card: Card, source: Source, split: str, path: Path | None, cache: Path) -> Rows:
    if path is not None and not _is_parquet(source, path) and source.layout:
        return source.layout(path, split)
    if path is not None:
        return _table(source, parquet_files(path, split, alone=not source.held), str(path), cache)
    revision = None if source.revision == UNPINNED else source.revision
    return _table(source, {"path": source.repository, "revision": revision, "split": split}, "", cache)


def _table(source: Source, files: list[str] | dict[str, Any], path: str, cache: Path) -> Rows:
    """Return the rows of parquet files at a path, or of what the hub is asked for."""
    import datasets

    try:
        words = files if isinstance(files, dict) else _local(files, path)
        table: Any = datasets.load_dataset(**words, cache_dir=str(cache))
        if source.image in table.column_names:
            table = table.cast_column(source.image, datasets.Image(decode=False))
    except UserError:
        raise
    except Exception as error:  # whatever the hub, the network and pyarrow raise
        where = path or f"the hub's {source.repository}"
        hint = "name parquet files of the hub's schema" if path else "give the files' folder with --data"
        raise UserError(f"{where} cannot be read ({brief(f'{type(error).__name__}: {error}')}): {hint}") from error
    return table_rows(table, path or source.repository, source.image, source.label)


def _local(files: list[str], path: str) -> dict[str, Any]:
    """Return what the hub's library is asked for, of parquet files that have rows: it fails on others."""
    from pyarrow.parquet import read_metadata

    filled = [file for file in files if read_metadata(file).num_rows]
    if not filled:
        raise UserError(f"{path} has no rows: name parquet files of the hub's schema")
    return {"path": "parquet", "data_files": filled, "split": "train"}


def pixels(rows: Rows, row: int, source: Source) -> np.ndarray:
    """Return a row's picture, uint8 [C, H, W]; raises UserError where it is none, or of another kind or size."""
    found, column = rows.picture(row), source.image or "picture"
    if isinstance(found, bytes):
        found = _decoded(found, source, f"{rows.where}, row {row}: {column}")
    mode = MODES.get(1 if found.ndim == 2 else found.shape[2])
    wanted = (*source.size, source.channels) if source.channels > 1 else source.size
    if found.shape != wanted:
        raise UserError(
            f"{rows.where}, row {row}: {column} is {mode} {found.shape}, not {MODES[source.channels]} {wanted}"
        )
    return found.reshape(*source.size, source.channels).transpose(2, 0, 1)


def _decoded(data: bytes, source: Source, what: str) -> np.ndarray:
    from PIL import Image

    if not data:
        raise UserError(f"{what} is empty")
    with decoding(what, "get it again"), Image.open(io.BytesIO(data)) as picture:
        wanted = MODES[source.channels]
        if source.resized:
            whole = picture.convert(wanted)
            return np.asarray(middle(cut(whole, (source.crop, source.crop)) if source.crop else whole, source.size))
        if picture.mode != wanted:
            raise UserError(f"{what} is {picture.mode} {picture.size[::-1]}, not {wanted} {source.size}")
        return np.asarray(picture)
