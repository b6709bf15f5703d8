"""A cell's record: its spec, one file of scores and one of costs per slice of queries, its fit and its outcome.

<record>/spec.json                        what was asked for
         inputs.json                      what scores depend on besides the identity
         fit.json                         costs and diagnostics of fit
         slice-00000-00004.safetensors    scores [q, N], or [q, G] of a method of groups
         slice-00000-00004.json           costs and diagnostics of the slice
         outcome.json                     how it ended
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from ...datasets.truth import arrays_in
from ...errors import CorruptFile, brief
from ...store import DAMAGED, FolderStore, remove_tree, sha256, unwritable

LONGEST_NOTES = 2**24  # bytes of a file of JSON, for which the runner may need 30 times as much memory
SLICE = re.compile(r"slice-(\d{5,})-(\d{5,})\.json")
SCRATCH, HELPERS = "scratch", "helpers"  # the folders in it, of what is needed while the cell runs


class Record:
    """What a cell left behind in its folder."""

    def __init__(self, folder: str | Path, longest: int | None = None) -> None:
        """Take a folder; longest: bytes that a slice's scores may have, if that is known."""
        self.folder = Path(folder)
        self.store = FolderStore(folder)
        self._longest = longest

    def has(self, part: slice) -> bool:
        """Say whether a slice is complete; its costs are written after its scores."""
        return self.store.exists(f"{_name(part)}.json")

    def put(self, part: slice, scores: np.ndarray, costs: dict[str, Any]) -> None:
        """Store a slice's scores [q, N] and then its costs and diagnostics."""
        data = save({"scores": np.ascontiguousarray(scores, dtype=np.float32)})
        self.store.put(scores_file(part), data)
        self.store.put_json(f"{_name(part)}.json", {**costs, "sha256": sha256(data)}, sealed=True)

    def parts(self) -> list[slice]:
        """Return the complete slices in order."""
        found = filter(None, map(SLICE.fullmatch, self.store.keys()))
        return [slice(*bounds) for bounds in sorted(tuple(map(int, match.groups())) for match in found)]

    def _apart(self) -> list[slice]:
        """Return the complete slices; raises CorruptFile where two hold the same query."""
        found = self.parts()
        if any(before.stop > after.start for before, after in pairwise(found)):
            raise CorruptFile(f"{self.folder} holds scores of a query twice: run the cell again with --force")
        return found

    def costs(self, part: slice) -> dict[str, Any]:
        """Return a slice's costs and diagnostics, and the hash of its scores; raises as ``read`` does."""
        return self.store.get_json(f"{_name(part)}.json", LONGEST_NOTES, sealed=True)

    def read(self, name: str) -> Any:
        """Return ``name``.json, or None where there is none; raises CorruptFile where its hash is wrong or gone."""
        key = f"{name}.json"
        return self.store.get_json(key, LONGEST_NOTES, sealed=True) if os.path.lexists(self.folder / key) else None

    def notes(self) -> Iterator[dict[str, Any]]:
        """Yield the diagnostics of fit, where it ended, and of every complete slice."""
        yield from (noted["diagnostics"] for noted in self._noted())

    def kept(self) -> Iterator[dict[str, Any]]:
        """Yield the notes on what was kept by, or for, other cells, of fit and of every complete slice."""
        yield from (noted.get("kept", {}) for noted in self._noted())

    def _noted(self) -> Iterator[dict[str, Any]]:
        return (noted for noted in [self.read("fit"), *map(self.costs, self.parts())] if noted is not None)

    def data(self, part: slice) -> bytes:
        """Return the file of a slice's scores; raises CorruptFile where it is not what was stored."""
        key = scores_file(part)
        try:
            data, expected = self.store.get(key, longest=self._longest), self.costs(part)["sha256"]
        except FileNotFoundError as error:
            raise self._unreadable(part, error) from error
        if sha256(data) != expected:
            raise CorruptFile(f"{self.store.path(key)} was truncated or edited: run the cell again with --force")
        return data

    def scores(self, part: slice) -> np.ndarray:
        """Return a slice's scores [q, N]; raises CorruptFile where they are not what was stored."""
        try:
            return arrays_in(self.data(part))["scores"]
        except (KeyError, ValueError) as error:
            raise self._unreadable(part, error) from error

    def _unreadable(self, part: slice, error: Exception) -> CorruptFile:
        return CorruptFile(f"{self.store.path(scores_file(part))} cannot be read ({error}): run again with --force")

    def blocks(self, ids: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
        """Yield (query ids, scores [q, N]) of the complete slices, where ``ids`` are all that the cell attributes."""
        for part in self._apart():
            if part.stop > len(ids):
                raise CorruptFile(f"{self.folder} holds scores of more than {len(ids)} queries: run again with --force")
            yield ids[part], self.scores(part)

    def matrix(self) -> np.ndarray:
        """Return the scores of all complete slices, [q, N]; [0, 0] of none."""
        found = [self.scores(part) for part in self._apart()]
        return np.concatenate(found) if found else np.empty((0, 0), np.float32)

    def damage(self) -> str | None:
        """Return what is wrong with a file of the record, None where all are as they were stored."""
        try:
            self._check_entries()
            for name in ("fit", "spec", "inputs", "outcome"):
                self.read(name)
            for part in self._apart():
                self.scores(part)
        except CorruptFile as error:
            return str(error)
        except Exception as error:  # a method writes into its record what it likes
            return f"{type(error).__name__}: {brief(str(error))}"
        return None

    def _check_entries(self) -> None:
        for path in self.folder.iterdir() if self.folder.exists() else ():
            kind = "folder" if path.name in (SCRATCH, HELPERS) else "file"
            if path.is_symlink() or not (path.is_dir() if kind == "folder" else path.is_file()):
                raise CorruptFile(f"{path} is no plain {kind}")

    def scores_hash(self) -> str:
        """Return a hash over all slices' hashes."""
        return hash_of_slices([self.costs(part)["sha256"] for part in self.parts()])

    def clear(self) -> None:
        """Delete everything, following no link; what cannot be deleted is set aside.

        Raises UserError where neither is possible.
        """
        try:
            self._remove()
        except FileNotFoundError:
            return
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def _remove(self) -> None:
        if self.folder.is_symlink():
            return self.folder.unlink()
        aside = self.folder.with_name(f".{self.folder.name}.{uuid.uuid4().hex}{DAMAGED}")
        self.folder.rename(aside)
        remove_tree(aside)
        return None


def hash_of_slices(hashes: list[str]) -> str:
    """Return the hash that a row has of its scores, from those of the slices' files in order."""
    return sha256(json.dumps(hashes).encode())


def scores_file(part: slice) -> str:
    """Return the name of the file of a slice's scores."""
    return f"{_name(part)}.safetensors"


def _name(part: slice) -> str:
    return f"slice-{part.start:05d}-{part.stop:05d}"
