"""A results folder: rows, score slices, logs and cell records, under one schema version.

<results>/results.json                 schema version of the folder
          rows/<row key>.json          what the leaderboard reads
          cells/<row key>/<identity>/  spec.json, slice-000-004.safetensors and .json, outcome.json
          logs/<row key>.log           what the cell printed
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ...errors import CorruptFile, UserError
from ...leaderboard.rows.row import Key, Row, load_rows, read_row, row_key, write_row
from ...store import FolderStore, sha256

SCHEMA_VERSION = 1


class Results:
    """Rows and scores of a folder; raises UserError for one of another schema version or that cannot be written."""

    def __init__(self, folder: str | Path) -> None:
        self.store = FolderStore(folder)
        self.folder = self.store.root
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"results folder {self.folder} is a file: choose another with --results")
        if not self.store.exists("results.json"):
            if any((self.folder / part).exists() for part in ("rows", "cells")):
                raise UserError(f"{self.folder} has results but no results.json: choose another folder with --results")
            self.store.put_json("results.json", {"schema_version": SCHEMA_VERSION})
        found = self.store.get_json("results.json")
        version = found.get("schema_version") if isinstance(found, dict) else None
        if version != SCHEMA_VERSION:
            raise UserError(
                f"{self.folder} holds results of schema version {version}, this tdabench writes {SCHEMA_VERSION}: "
                "choose another folder with --results"
            )
        self.rows = FolderStore(self.folder / "rows")

    def row(self, key: Key) -> Row | None:
        """Return the row of a cell, or None."""
        name = row_key(key)
        return read_row(self.rows.get(name), self.rows.path(name)) if self.rows.exists(name) else None

    def all_rows(self, task: str | None = None) -> list[Row]:
        """Return all rows, of one task if named."""
        return load_rows(self.rows, task)

    def write(self, row: Row) -> Path:
        """Store a row."""
        return write_row(self.rows, row)

    def add_metrics(self, key: Key, scores_sha256: str | None, **metrics: Any) -> bool:
        """Put ``metrics`` into a cell's row, and say whether its scores are still those they were computed from.

        The row is read anew, because another command may have changed it since.
        """
        row = self.row(key)
        if row is None or row.metrics is None or row.source.scores_sha256 != scores_sha256:
            return False
        self.write(row.model_copy(update={"metrics": row.metrics.model_copy(update=metrics)}))
        return True

    def forget(self, key: Key) -> None:
        """Delete a cell's row, because its scores are about to be replaced."""
        self.rows.delete(row_key(key))

    def log(self, key: Key) -> Path:
        """Return where a cell's output goes."""
        return self.store.path(f"logs/{row_key(key).removesuffix('.json')}.log")

    def cell(self, key: Key, identity: str) -> Cell:
        """Return the record of a cell under an identity (what its scores depend on)."""
        return Cell(FolderStore(self.folder / "cells" / row_key(key).removesuffix(".json") / identity))


class Cell:
    """What a cell left behind: its spec, one file of scores and one of costs per slice of queries, its outcome."""

    def __init__(self, store: FolderStore) -> None:
        self.store = store

    def has(self, part: slice) -> bool:
        """Say whether a slice is complete; its record is written after its scores."""
        return self.store.exists(f"{_name(part)}.json")

    def put(self, part: slice, scores: np.ndarray, record: dict[str, Any]) -> None:
        """Store a slice's scores [q, N] and then its record (costs, diagnostics)."""
        data = save({"scores": np.ascontiguousarray(scores, dtype=np.float32)})
        self.store.put(f"{_name(part)}.safetensors", data)
        self.store.put_json(f"{_name(part)}.json", {**record, "sha256": sha256(data)})

    def parts(self) -> list[slice]:
        """Return the complete slices in order."""
        names = [key for key in self.store.keys() if key.startswith("slice-") and key.endswith(".json")]  # noqa: SIM118
        bounds = [name.removesuffix(".json").split("-")[1:] for name in names]
        return [slice(int(start), int(stop)) for start, stop in bounds]

    def record(self, part: slice) -> dict[str, Any]:
        """Return a slice's record."""
        return self.store.get_json(f"{_name(part)}.json")

    def scores(self, part: slice) -> np.ndarray:
        """Return a slice's scores [q, N]; raises CorruptFile where they are not what was stored."""
        key = f"{_name(part)}.safetensors"
        try:
            data = self.store.get(key)
            if sha256(data) != self.record(part)["sha256"]:
                raise CorruptFile(f"{self.store.path(key)} was truncated or edited: run the cell again with --force")
            return load(data)["scores"]
        except (FileNotFoundError, SafetensorError) as error:
            raise CorruptFile(f"{self.store.path(key)} cannot be read ({error}): run again with --force") from error

    def scores_hash(self) -> str:
        """Return a hash over all slices' hashes."""
        return sha256(json.dumps([self.record(part)["sha256"] for part in self.parts()]).encode())

    def clear(self) -> None:
        """Delete everything."""
        for key in list(self.store.keys()):
            self.store.delete(key)


def _name(part: slice) -> str:
    return f"slice-{part.start:05d}-{part.stop:05d}"
