"""Rows that a run keeps for later cells, with what they cost: a row reports that cost whether it was paid or not."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

from torch import Tensor

from ..errors import CorruptFile
from ..seeds import digest
from ..store import FolderStore, remove_tree, unwritable
from .rows import BlockFiles, Making, Rows

LIMIT = 16 * 2**30  # bytes that a results folder keeps


class Measured(Protocol):
    """What measuring a block gives."""

    def to_json(self) -> dict[str, Any]:
        """Return seconds, passes and peaks by name."""
        ...


class Share(NamedTuple):
    """Which blocks of the rows of a hash a helper makes, by the first of their ids."""

    key: str
    starts: Sequence[int]


class ShareMade(BaseException):
    """Ends a helper, whose share of blocks is there; no ``Exception``, so that no method catches it."""


class Helpers(Protocol):
    """What makes blocks on several devices at once."""

    def __call__(self, share: Share, watch: Callable[[], None]) -> list[str]:
        """Have all of a share's blocks made, meanwhile calling ``watch``, and return on which devices."""
        ...


@dataclass
class Keeper:
    """Keeps rows of the training set in blocks under ``folder``/<hash of all that they depend on>.

    inputs: what all rows of a cell depend on: problem, machine and packages; code: hashes of modules that compute rows;
    others are covered by ``method_code``; measure: times a block and counts its passes. ``reused``: the costs of blocks
    that were not computed; ``notes``: by hash, how many blocks rows have and how many of them were not computed;
    ``bytes``: of rows that no memory holds. helpers: make blocks where several are missing, if there are any; share:
    of a helper, what it makes, at which it ends by raising ShareMade; ``waited``: seconds that helpers took.
    """

    folder: Path
    inputs: Mapping[str, Any]
    code: Mapping[str, str]
    method_code: str
    measure: Callable[[], AbstractContextManager[Measured]]
    limit: int = LIMIT
    reused: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)
    bytes: int = 0
    helpers: Helpers | None = None
    share: Share | None = None
    waited: float = 0.0

    def rows(self, making: Making, inputs: Mapping[str, Any], scratch: Path) -> Rows:
        """Return the rows, of which blocks that are kept are read; in ``scratch`` where they are too many to keep."""
        asked = [making.name, making.shape, making.size, dict(inputs)]
        key = digest([asked, dict(self.inputs), self._code(making.compute)])
        folder = self.folder / key
        if not self._has_room(folder, 4 * making.shape[0] * making.width):
            return making.made(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)  # least recently used ones go first
        note = self.notes[key] = {"rows": making.name, "blocks": len(making.parts), "reused": 0, "rebuilt": []}
        files = BlockFiles(FolderStore(folder), making)
        if self.share is not None and self.share.key == key:
            self._make_share(files, note, self.share.starts)
        made = self._helped(files, note, key) if self.helpers else set()
        rows = self._filled(files, note, made)
        note["reused"] -= len(made)
        return rows

    def taken(self) -> tuple[list[dict[str, Any]], dict[str, Any], float]:
        """Return the costs of what was reused, the notes, and seconds spent waiting, since this was last asked."""
        found = self.reused, self.notes, self.waited
        self.reused, self.notes, self.waited = [], {}, 0.0
        return found

    def _make_share(self, files: BlockFiles, note: dict[str, Any], starts: Sequence[int]) -> NoReturn:
        for part in files.making.parts:
            if part.start in starts:
                self._block(files, part, note)
        raise ShareMade

    def _helped(self, files: BlockFiles, note: dict[str, Any], key: str) -> set[str]:
        """Have helpers make the blocks where more than one is missing, and return the names of those that they made."""
        missing = {files.stem(part): part for part in files.making.parts if not files.has(part)}
        made: set[str] = set()
        if self.helpers is None or len(missing) < 2:
            return made

        def watch() -> None:
            for stem in [stem for stem, part in missing.items() if stem not in made and files.has(part)]:
                made.add(stem)
                files.making.done(missing[stem].stop - missing[stem].start)

        start = time.perf_counter()
        devices = self.helpers(Share(key, [part.start for part in missing.values()]), watch)
        watch()
        self.waited += (waited := time.perf_counter() - start)
        note |= {"devices": devices, "wall_s": waited}
        return made

    def _filled(self, files: BlockFiles, note: dict[str, Any], seen: Collection[str] = ()) -> Rows:
        """Return all rows; seen: names of blocks whose items have been reported as done."""
        making = files.making
        if making.few:
            return making.made(files.store.root, lambda part: self._block(files, part, note, seen))
        for part in making.parts:
            self._block(files, part, note, seen)
        self.bytes += 4 * making.shape[0] * making.width
        return files.rows()

    def _block(self, files: BlockFiles, part: slice, note: dict[str, Any], seen: Collection[str] = ()) -> Tensor:
        found = _intact(files, part, note)
        if found is None:
            with self.measure() as spent:
                rows = files.making.block(part)
                sha = files.put(part, rows)
            files.close(part, sha, spent.to_json())
            return rows
        rows, costs = found
        note["reused"] += 1
        self.reused.append(costs)
        if files.stem(part) not in seen:
            files.making.done(len(rows))
        return rows

    def _code(self, compute: Callable[..., Any]) -> str:
        """Return the hash of the code that computes rows: of the engine whose method it is, or else of the method.

        A function of an engine, such as a partial one with a method's own output, is not the engine's alone.
        """
        while isinstance(compute, partial):
            compute = compute.func
        owner = getattr(type(getattr(compute, "__self__", None)), "__module__", "")
        own = f"{self.method_code} {getattr(compute, '__qualname__', type(compute).__qualname__)}"
        return self.code.get(owner, own)

    def _has_room(self, folder: Path, needed: int) -> bool:
        if folder.exists():
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        return used(self.folder) + needed <= self.limit and 2 * needed <= shutil.disk_usage(self.folder).free


def _intact(files: BlockFiles, part: slice, note: dict[str, Any]) -> tuple[Tensor, dict[str, Any]] | None:
    """Return a kept block; a damaged one is named in the log and in the note, and is none."""
    try:
        return files.checked(part)
    except CorruptFile as error:
        print(error, flush=True)
        note["rebuilt"].append(files.stem(part))
        return None


def used(folder: Path) -> int:
    """Return the bytes of a folder's files, of which others may come and go meanwhile."""
    total, waiting = 0, [str(folder)]
    while waiting:
        with suppress(OSError):
            for entry in list(os.scandir(waiting.pop())):
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    total += _size(entry)
    return total


def _size(entry: os.DirEntry[str]) -> int:
    with suppress(OSError):
        return entry.stat(follow_symlinks=False).st_size
    return 0


@contextmanager
def in_use(folder: Path, limit: int = LIMIT) -> Iterator[None]:
    """Keep rows from being deleted while cells may read them; before, make room where nobody else keeps them so.

    Raises UserError where the folder cannot be written.
    """
    lock = folder.with_name(f".{folder.name}.lock")
    try:
        file = lock.open("a")
    except OSError as error:
        raise unwritable(lock, error) from error
    with file:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            make_room(folder, limit)
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def make_room(folder: Path, limit: int = LIMIT) -> None:
    """Delete the least recently used rows until half of the limit is free; not while a cell may read them."""
    entries = sorted((path for path in folder.glob("*") if path.is_dir()), key=lambda path: path.stat().st_mtime)
    sizes = {path: used(path) for path in entries}
    while entries and sum(sizes.values()) > limit // 2:
        remove_tree(entries[0])
        sizes.pop(entries.pop(0))
