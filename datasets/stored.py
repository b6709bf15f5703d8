"""Items on disk: columns of a memory-mapped Hugging Face dataset, in an order that the items themselves decide."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..errors import CorruptFile, UserError, brief
from ..store import (
    LONGEST_JSON,
    FolderStore,
    file_hash,
    make_folder,
    of_disk,
    read_file,
    remove_tree,
    sha256,
    take_place,
    unreadable,
)

ITEMS, COLUMNS, NULL = "items.arrow", "columns.json", "null.safetensors"
GROUP = "group "  # how the names of columns of groups begin
ROWS = 1000  # written at a time
BYTES = "|u1"  # the type of pixels
TYPES = (BYTES, "|b1", "|i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8")  # what may be stored, as numpy calls it
CHECKED = 2 * 2**30  # bytes of items up to which their hash is checked whenever they are opened


@dataclass(frozen=True)
class Item:
    """One item before it is stored: pixels uint8 [C, H, W], its class, and conditions by the network's names.

    groups: what it may be grouped by besides, which no model sees.
    """

    pixels: np.ndarray
    label: int
    cond: Mapping[str, np.ndarray]
    groups: Mapping[str, int] = field(default_factory=dict)

    def hash(self) -> bytes:
        """Return the SHA-256 of all that a model may see of it."""
        digest = hashlib.sha256(f"class {self.label}".encode())
        for name, value in [("pixels", self.pixels), *sorted(self.cond.items())]:
            digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        return digest.digest()


@dataclass(frozen=True)
class StoredColumn:
    """One array per item, [N, ...], read from a memory-mapped dataset by ids; bytes are images, and come in [-1, 1]."""

    rows: Any
    name: str
    dtype: str
    item: tuple[int, ...]
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    @property
    def shape(self) -> tuple[int, ...]:
        """As a tensor's."""
        return len(self.index), *self.item

    def __getitem__(self, ids: Tensor | slice) -> Tensor:
        chosen = self.index[ids if isinstance(ids, slice) else ids.numpy()]
        buffers = self.rows[chosen.tolist()][self.name].to_pylist()
        values = np.frombuffer(bytearray().join(buffers), dtype=self.dtype).reshape(len(chosen), *self.item)
        found = torch.from_numpy(values)
        return found.float() / 127.5 - 1 if self.dtype == BYTES else found

    def raw(self, i: int) -> np.ndarray:
        """Return what was stored of one item, as it was."""
        value = self.rows[int(self.index[i])][self.name][0].as_py()
        return np.frombuffer(value, dtype=self.dtype).reshape(self.item)

    def select(self, ids: Tensor) -> StoredColumn:
        """Return the rows with these ids, which stay on disk."""
        return StoredColumn(self.rows, self.name, self.dtype, self.item, self.index[ids.numpy()])


@dataclass(frozen=True)
class Stored:
    """An opened store: images and conditions on disk; classes int64 [N], hashes uint8 [N, 32] and groups in memory.

    groups: int64 [N] by name; group_names: what their values stand for, where that was said; null: what stands for no
    condition; source: what is known of where it was read from.
    """

    images: StoredColumn
    classes: Tensor
    cond: dict[str, StoredColumn]
    hashes: Tensor
    groups: dict[str, Tensor]
    group_names: dict[str, tuple[str, ...]]
    null: dict[str, Tensor]
    source: dict[str, Any]


def write_items(
    folder: Path,
    count: int,
    read: Callable[[int], Item | None],
    on_item: Callable[[int], None],
    null: Mapping[str, Tensor] | None = None,
    source: Mapping[str, Any] | None = None,
    group_names: Mapping[str, Sequence[str]] | None = None,
    check: Callable[[Path], None] = lambda part: None,
) -> None:
    """Store items, in the order of their hashes: equal sources in whatever order give equal stores.

    ``read`` returns item i of the source, 0 <= i < count, or None where it is left out, and is asked twice for each;
    ``on_item`` sees how many times it was. null, source, group_names: as of ``Stored``, looked at once all were read.
    check: sees the new store before it takes its place, and may raise. Written whole or not at all. Raises UserError
    where items differ in shape, there are none, or the disk does not take them.
    """
    keys: dict[int, tuple[bytes, list[tuple[str, int]]]] = {}
    like = None
    for i in range(count):
        if (item := read(i)) is not None:
            like = like or item
            _check_alike(i, like, item)
            keys[i] = item.hash(), sorted(item.groups.items())  # equal items may be of different groups
        on_item(i + 1)
    if like is None:
        raise UserError(f"there is nothing to store in {folder}: the source has no rows")
    order = sorted(keys, key=keys.__getitem__)
    with _new(folder) as part:
        _write(part, like, _again(read, keys, order), lambda done: on_item(count + done))
        columns = {"pixels": like.pixels, **like.cond}
        described = {name: {"dtype": value.dtype.str, "shape": list(value.shape)} for name, value in columns.items()}
        groups = {name: list((group_names or {}).get(name, ())) for name in sorted(like.groups)}
        more = {"groups": groups, "source": dict(source or {})}
        about = {"columns": described, "count": len(order), "sha256": file_hash(part / ITEMS)}
        if null:
            FolderStore(part).keep(NULL, save(dict(null)))
        about |= {name: value for name, value in more.items() if value}
        FolderStore(part).put_json(COLUMNS, about, sealed=True)
        check(part)


@contextmanager
def _new(folder: Path) -> Iterator[Path]:
    """Give a folder that takes the place of another in the end; nothing is left of it where that is not reached."""
    part = folder.with_name(f".{folder.name}.part")
    try:
        remove_tree(part)
        make_folder(part)
        yield part
        take_place(part, folder)
    finally:
        remove_tree(part)


def _again(
    read: Callable[[int], Item | None], keys: Mapping[int, tuple[bytes, Any]], order: Sequence[int]
) -> Iterator[tuple[bytes, Item]]:
    """Yield hashes and items; raises UserError where the source cannot be read a second time, or has changed."""
    for i in order:
        try:
            item = read(i)
        except OSError as error:  # else it would be taken for one of the disk that is written to
            raise UserError(f"row {i} of the source cannot be read again ({error}): check the source") from error
        if item is None or item.hash() != keys[i][0]:
            raise UserError(f"row {i} of the source is not what it was when it was read first: run again")
        yield keys[i][0], item


def _check_alike(i: int, like: Item, item: Item) -> None:
    pairs = {"pixels": (like.pixels, item.pixels)}
    pairs |= {name: (like.cond.get(name), item.cond.get(name)) for name in sorted({*like.cond, *item.cond})}
    if like.groups.keys() != item.groups.keys():
        raise UserError(f"row {i} of the source and row 0 are not grouped by the same: {', '.join(like.groups)}")
    for name, (first, value) in pairs.items():
        if first is None or value is None:
            raise UserError(f"row {i} of the source and row 0 do not both have {name}")
        if (first.shape, first.dtype) != (value.shape, value.dtype):
            raise UserError(
                f"{name} of row {i} is {value.dtype} {value.shape}, and of row 0 {first.dtype} {first.shape}"
            )
        if value.dtype.str not in TYPES:
            raise UserError(f"{name} of row {i} is {value.dtype}: give {', '.join(np.dtype(t).name for t in TYPES)}")


def _write(folder: Path, like: Item, items: Iterator[tuple[bytes, Item]], on_item: Callable[[int], None]) -> None:
    from datasets import Features, Value
    from datasets.arrow_writer import ArrowWriter

    kinds = {"class": Value("int64"), "hash": Value("binary"), "pixels": Value("binary")}
    grouped = {GROUP + name: Value("int64") for name in like.groups}
    features = Features({**kinds, **grouped, **{name: Value("binary") for name in like.cond}})
    with (
        FolderStore(folder).writing(ITEMS) as file,
        ArrowWriter(stream=file, features=features, writer_batch_size=ROWS) as writer,  # pyright: ignore[reportArgumentType]
    ):
        for done, (found, item) in enumerate(items, 1):
            cond = {name: np.ascontiguousarray(value).tobytes() for name, value in item.cond.items()}
            pixels = np.ascontiguousarray(item.pixels).tobytes()
            groups = {GROUP + name: value for name, value in item.groups.items()}
            writer.write({"class": item.label, "hash": found, "pixels": pixels, **groups, **cond})
            on_item(done)
        writer.finalize(close_stream=False)


def open_items(folder: Path, again: str = "fetch again", whole: bool = False) -> Stored:
    """Return what ``write_items`` stored; raises CorruptFile where a file of it is missing, broken or without its hash.

    Items above CHECKED bytes are only compared with theirs if that is asked for (``whole``). again: how users get it
    again once it is deleted. Raises UserError where the disk does not let it be read.
    """
    try:
        return _opened(folder, whole)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, SafetensorError) as error:
        if of_disk(error):
            raise unreadable(folder, error) from error
        raise CorruptFile(
            f"{folder} cannot be read as a stored dataset ({brief(str(error))}): delete it and {again}"
        ) from error


def _opened(folder: Path, whole: bool) -> Stored:
    from datasets import Dataset

    described = json.loads(_sealed(folder, COLUMNS))
    rows = Dataset.from_file(str(folder / ITEMS)).with_format("arrow")
    if len(rows) != described["count"]:
        raise ValueError(f"{len(rows)} of {described['count']} items are there")
    checked = whole or (folder / ITEMS).stat().st_size <= CHECKED
    if checked and file_hash(folder / ITEMS) != described["sha256"]:
        raise ValueError(f"{ITEMS} is not what was stored")
    columns = {name: _kind(rows, name, **column) for name, column in described["columns"].items()}
    names = {name: tuple(values) for name, values in described.get("groups", {}).items()}
    index, hashes = np.arange(len(rows)), bytearray().join(rows.data.column("hash").to_pylist())
    found = {name: StoredColumn(rows, name, *column, index) for name, column in columns.items()}
    return Stored(
        images=found.pop("pixels"),
        classes=_integers(rows, "class"),
        cond=found,
        hashes=torch.from_numpy(np.frombuffer(hashes, np.uint8).reshape(len(rows), 32)),
        groups={name: _integers(rows, GROUP + name) for name in names},
        group_names=names,
        null=load(_sealed(folder, NULL)) if (folder / NULL).is_file() else {},
        source=dict(described.get("source", {})),
    )


def source_of(folder: Path) -> dict[str, Any]:
    """Return what is known of where a store that can be opened was read from."""
    return dict(json.loads(_sealed(folder, COLUMNS)).get("source", {}))


def _sealed(folder: Path, name: str) -> bytes:
    """Return a file's bytes; raises ValueError where they are not those that its hash beside it was made of."""
    data = read_file(folder / name, LONGEST_JSON)
    sound = FolderStore(folder).is_sealed(name, sha256(data))
    if sound is None:  # stores of earlier versions have none
        raise ValueError(f"{name} has no hash beside it")
    if not sound:
        raise ValueError(f"{name} is not what was stored")
    return data


def _kind(rows: Any, name: str, dtype: str, shape: list[int]) -> tuple[str, tuple[int, ...]]:
    """Return the type and shape of a column's items; raises ValueError where its first item is no array of these."""
    item = tuple(map(operator.index, shape))
    if dtype not in TYPES or (name == "pixels" and dtype != BYTES):
        raise ValueError(f"{name} has the type {dtype}")
    np.frombuffer(rows.data.column(name)[0].as_py(), dtype).reshape(item)
    if min(item, default=0) < 0:
        raise ValueError(f"{name} has the shape {list(item)}")
    return dtype, item


def spoilt(stored: Stored, on_item: Callable[[int, int], None]) -> int:
    """Return how many items are not what their hashes say; ``on_item`` sees (done, of how many)."""
    wrong, n = 0, len(stored.images)
    for i in range(n):
        cond = {name: column.raw(i) for name, column in stored.cond.items()}
        item = Item(stored.images.raw(i), int(stored.classes[i]), cond)
        wrong += item.hash() != bytes(stored.hashes[i].tolist())
        on_item(i + 1, n)
    return wrong


def _integers(rows: Any, name: str) -> Tensor:
    return torch.from_numpy(rows.data.column(name).to_numpy().copy())
