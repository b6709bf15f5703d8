"""Rows of a source before they are items: parquet of the hub's schema, and what people unpack archives into."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, one_line
from ..store import files_below
from .folders import SUFFIXES

PARQUET = ".parquet"
COMMIT = re.compile(r"@([0-9a-f]{40})(?:/|$)")


@dataclass(frozen=True)
class Rows:
    """Rows of one split: class numbers int64 [n]; a row's picture, as a file's bytes or pixels [H, W]; its caption.

    where: what messages call it; captions: where there are any; commit: of the hub, where it is known.
    """

    where: str
    labels: np.ndarray
    picture: Callable[[int], bytes | np.ndarray]
    captions: Sequence[str] | None = None
    commit: str = ""

    def __len__(self) -> int:
        return len(self.labels)


def parquet_files(path: Path, split: str = "", alone: bool = True) -> list[str]:
    """Return a split's parquet files (or all) at a path: the file itself, or those whose names or folders say it.

    alone: no other split is wanted, so that one file needs no name. Raises UserError where there are none.
    """
    if path.is_file() and alone:
        return [str(path)]
    inside = sorted(file for file in files_below(path) if file.suffix == PARQUET)
    if not inside:
        wanted = "name a file, or a folder with them" if alone else f"name a folder with one named {split}.parquet"
        raise UserError(f"{path} {'is one file' if path.is_file() else 'holds no parquet files'}: {wanted}")
    words = {file: [re.split(r"[-_.]", part)[0] for part in file.relative_to(path).parts] for file in inside}
    named = [file for file in inside if not split or split in words[file]]
    if not named and not alone:
        raise UserError(f"{path} has no parquet file of {split!r}: name it so, as in {split}-00000-of-00001.parquet")
    if not named and len(inside) > 1:
        raise UserError(f"{path} holds {len(inside)} parquet files, and none is named {split!r}: name the right one")
    return [str(file) for file in named or inside]


def table_rows(table: Any, where: str, image: str, label: str) -> Rows:
    """Return the rows of a Hugging Face dataset whose pictures are undecoded; raises UserError for other columns."""
    missing = [name for name in (image, *([label] if label else [])) if name not in table.column_names]
    if missing:
        found = ", ".join(table.column_names)
        raise UserError(
            f"{where} has no column {' and '.join(missing)}, but {found}: it is another dataset or revision"
        )
    labels = np.asarray(_labels(table[label], where, label) if label else [0] * len(table), dtype=np.int64)
    return Rows(where, labels, lambda i: _bytes(table[i][image]), commit=_commit(table))


def _labels(found: Any, where: str, label: str) -> list[int]:
    labels = found[:]
    for row, value in enumerate(labels):
        if not isinstance(value, int):
            raise UserError(f"{where}, row {row}: {label} is no class number: it is another dataset or revision")
    return labels


def _bytes(value: Any) -> bytes:
    return value["bytes"] if isinstance(value, dict) and value.get("bytes") else b""


def _commit(table: Any) -> str:
    """Return the commit in the addresses of the files that were downloaded, if they have one."""
    found = [COMMIT.search(str(address)) for address in table.info.download_checksums or ()]
    return next((match[1] for match in found if match), "")


def file_rows(paths: Sequence[Path], labels: Sequence[int], where: str, captions: Sequence[str] | None = None) -> Rows:
    """Return picture files as rows; raises UserError where there are none."""
    if not paths:
        raise UserError(f"{where} holds no pictures of the expected layout: `tdabench data info` says which")
    return Rows(where, np.asarray(labels, dtype=np.int64), lambda i: read_bytes(paths[i]), captions)


def read_bytes(path: Path) -> bytes:
    """Return a file's content; raises UserError where it cannot be read."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # no file has a name with a zero byte
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{_told(path)} cannot be read ({reason}): unpack the archive again") from error


def _told(path: Path) -> str:
    """Return a path that a file of others may have named as one line, its end where it is long."""
    line = one_line(str(path))
    return line if len(line) < 1000 else f"…{line[-1000:]}"


def read_lines(path: Path) -> list[str]:
    """Return a text file's lines; raises UserError where it is missing or no text."""
    try:
        return read_bytes(path).decode().splitlines()
    except ValueError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}): unpack the archive again") from error


def class_folders(folder: Path, classes: Sequence[str]) -> tuple[list[Path], list[int]]:
    """Return the picture files in a folder's subfolders named after classes, and each one's class number.

    Raises UserError where some of the classes have pictures and others have none.
    """
    found = [(path, i) for i, name in enumerate(classes) for path in sorted((folder / name).glob("*"))]
    chosen = [(path, i) for path, i in found if path.suffix.lower() in SUFFIXES]
    absent = [name for i, name in enumerate(classes) if i not in {number for _, number in chosen}]
    if chosen and absent:
        raise UserError(f"{folder} has no pictures of {', '.join(absent)}: unpack the archive again")
    return [path for path, _ in chosen], [i for _, i in chosen]


def idx_rows(folder: Path, split: str) -> Rows:
    """Return the rows of MNIST's binary files, gzipped or not, grey pictures uint8 [H, W].

    Raises UserError where there are none, or they are damaged.
    """
    part = {"train": "train", "test": "t10k"}[split]
    images, labels = (
        _idx(folder, f"{part}-{kind}-ubyte", dims) for kind, dims in (("images-idx3", 3), ("labels-idx1", 1))
    )
    if len(images) != len(labels):
        raise UserError(f"{folder} has {len(images)} images and {len(labels)} labels of {split}: unpack it again")
    return Rows(str(folder), labels.astype(np.int64), images.__getitem__)


def _idx(folder: Path, name: str, dims: int) -> np.ndarray:
    path = next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)
    if path is None:
        raise UserError(f"{folder} holds neither parquet files nor {name}.gz: name the folder that does")
    try:
        data = gzip.decompress(read_bytes(path)) if path.suffix == ".gz" else read_bytes(path)
        kind, *shape = np.frombuffer(data, ">u4", 1 + dims)
        if kind != 0x800 + dims:
            raise ValueError("it is no IDX file of bytes")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(*map(int, shape))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}): get it again") from error
