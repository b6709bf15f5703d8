"""Rows of the training set, [N, ...]: computed in blocks, held in memory where they are few and in files otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor

from ..datasets.base import Batch
from ..errors import CorruptFile
from ..seeds import digest
from ..store import FolderStore, sha256

MEMORY = 2 * 2**30  # bytes that rows, and what is computed from them, may take beside the model
BATCH = 128
BLOCK_ITEMS, BLOCK_BYTES = 1024, 64 * 2**20  # of a file, and so of what a kill can lose


def in_memory(n: int, width: int, memory: int = MEMORY) -> bool:
    """Say whether n float32 rows are held in memory: where they take a quarter of it at most."""
    return 4 * n * width <= memory // 4


def block_rows(width: int, memory: int = MEMORY) -> int:
    """Return how many rows are worked on at once: as many as take a quarter of the memory in float64."""
    return max(1, memory // 4 // (8 * width))


def held_bytes(n: int, width: int, memory: int = MEMORY) -> int:
    """Return the bytes that n float32 rows take: those in memory, and a block in single and double precision."""
    return 12 * min(n, block_rows(width, memory)) * width + in_memory(n, width, memory) * 4 * n * width


@dataclass(frozen=True)
class Rows:
    """Float32 rows of N items, of the ``shape`` [N, ...], read in blocks of ``size``, wherever they are held."""

    shape: tuple[int, ...]
    size: int
    read: Callable[[slice], Tensor]

    @classmethod
    def of(cls, values: Tensor, memory: int = MEMORY) -> Rows:
        """Return the rows of a tensor [N, ...]; one block, where that is within the memory."""
        return cls(tuple(values.shape), block_rows(math.prod(values.shape[1:]), memory), values.__getitem__)

    def __len__(self) -> int:
        return self.shape[0]

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield (slice of ids, rows [n, ...]) in the order of ids."""
        for part in parts_of(len(self), self.size):
            yield part, self.read(part)

    def whole(self) -> Tensor:
        """Return all rows, [N, ...]."""
        return self.read(slice(0, len(self)))


def parts_of(stop: int, size: int, first: int = 0) -> list[slice]:
    """Return the slices of at most ``size`` that cover first..stop-1."""
    return [slice(start, min(start + size, stop)) for start in range(first, stop, size)]


@dataclass(frozen=True)
class Making:
    """How rows are made: ``compute`` [n, ...] from batches of ``size`` items, of all N at once or block by block.

    batches: as ``View.batches``; done: told about the items after each batch.
    """

    name: str
    shape: tuple[int, ...]
    compute: Callable[[Batch], Tensor]
    batches: Callable[[int, slice], Iterator[tuple[slice, Batch]]]
    size: int
    memory: int = MEMORY
    done: Callable[[int], None] = lambda items: None

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return math.prod(self.shape[1:])

    @property
    def few(self) -> bool:
        """Whether they are held in memory."""
        return in_memory(self.shape[0], self.width, self.memory)

    @property
    def step(self) -> int:
        """Items of a batch: ``size``, or fewer where their rows would take more than an eighth of the memory."""
        return min(self.size, max(1, self.memory // 8 // (4 * self.width)))

    @property
    def parts(self) -> list[slice]:
        """The blocks: whole batches, so that the blocks change no sum."""
        items = min(BLOCK_ITEMS, BLOCK_BYTES // (4 * self.width)) // self.step * self.step
        return parts_of(self.shape[0], items or self.step)

    def block(self, part: slice) -> Tensor:
        """Return the rows of a block, float32 on the CPU."""
        out = torch.empty(part.stop - part.start, *self.shape[1:])
        for ids, batch in self.batches(self.step, part):
            rows, wanted = self.compute(batch), (len(batch), *self.shape[1:])
            if tuple(rows.shape) != wanted:
                raise ValueError(f"rows {self.name!r} were computed as {list(rows.shape)} where {list(wanted)} are due")
            out[ids.start - part.start : ids.stop - part.start] = rows.detach().cpu()
            self.done(len(batch))
        return out

    def made(self, folder: Path, obtain: Callable[[slice], Tensor] | None = None) -> Rows:
        """Return the rows, in memory if few, or else in files in a folder; ``obtain`` stands in for ``block``."""
        obtain = obtain or self.block
        if self.few:
            out = torch.empty(self.shape)
            for part in self.parts:
                out[part] = obtain(part)
            return Rows.of(out, self.memory)
        files = BlockFiles(FolderStore(folder), self)
        for part in self.parts:
            files.put(part, obtain(part))
        return files.rows()


@dataclass(frozen=True)
class BlockFiles:
    """Blocks of rows in a folder, a file each; beside one that later cells may read, its hash and what it cost."""

    store: FolderStore
    making: Making

    @staticmethod
    def stem(part: slice) -> str:
        """Return the name of a block's files, without its ending."""
        return f"block-{part.start:08d}-{part.stop:08d}"

    def put(self, part: slice, rows: Tensor) -> str:
        """Store a block, and return its hash."""
        data = save({"rows": rows.contiguous()})
        self.store.put(f"{self.stem(part)}.safetensors", data)
        return sha256(data)

    def close(self, part: slice, sha: str, costs: dict[str, Any]) -> None:
        """Store what a block of a hash cost, which makes it one that others may read."""
        self.store.put_json(f"{self.stem(part)}.json", {"costs": costs, "sha256": self._seal(part, sha, costs)})

    def has(self, part: slice) -> bool:
        """Say whether a block is there, damaged or not."""
        return self.store.exists(f"{self.stem(part)}.json")

    def checked(self, part: slice) -> tuple[Tensor, dict[str, Any]] | None:
        """Return a block's rows and costs, or None where there is none; raises CorruptFile where it is damaged."""
        if not self.has(part):
            return None
        stored, key = self.store.get_json(f"{self.stem(part)}.json"), f"{self.stem(part)}.safetensors"
        with suppress(FileNotFoundError, SafetensorError, KeyError, TypeError):
            data, costs = self.store.get(key), stored["costs"]
            whole = stored["sha256"] == self._seal(part, sha256(data), costs)
            if whole and (rows := load(data)["rows"]).shape == self._of(part):
                return rows, costs
        raise CorruptFile(f"{self.store.path(key)} was truncated or edited: it is computed again")

    def rows(self) -> Rows:
        """Return the rows of all blocks, which are read from the files whenever they are asked for."""
        making, step = self.making, self.making.parts[0].stop
        size = max(1, block_rows(making.width, making.memory) // step) * step
        return Rows(making.shape, size, self._read)

    def _read(self, part: slice) -> Tensor:
        touched = [block for block in self.making.parts if block.start < part.stop and block.stop > part.start]
        out = torch.empty(part.stop - part.start, *self.making.shape[1:])
        for block in touched:
            first, last = max(block.start, part.start), min(block.stop, part.stop)
            found = load_file(self.store.path(f"{self.stem(block)}.safetensors"))["rows"]
            out[first - part.start : last - part.start] = found[first - block.start : last - block.start]
        return out

    def _of(self, part: slice) -> tuple[int, ...]:
        return (part.stop - part.start, *self.making.shape[1:])

    def _seal(self, part: slice, sha: str, costs: dict[str, Any]) -> str:
        """Return a hash over rows, their costs, and which they are; the folder's name says what they depend on."""
        return digest([self.store.root.name, self.stem(part), sha, costs], 64)
