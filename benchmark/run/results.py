"""A results folder: rows, score slices, logs and cell records, under one schema version.

<results>/results.json                 schema version of the folder
          rows/<row key>.json          what the leaderboard reads; its hash lies beside it
          cells/<row key>/<identity>/  the cell's record
          logs/<row key>.log           what the cell printed
          kept/<hash>/                 features for later cells; may be deleted whenever nothing runs
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CorruptFile, UserError, shown
from ...leaderboard.rows.files import find_row, load_rows, write_row
from ...leaderboard.rows.row import Key, Row, row_key
from ...store import FolderStore
from ..sandbox.enclosure import keep_from_methods
from .plan import PlannedCell
from .record import Record

SCHEMA_VERSION = 1
OF_CELLS = ("rows", "cells", "logs", "kept")


def folder_of(key: Key) -> str:
    """Return the folder of a cell below that of all results."""
    return f"cells/{row_key(key).removesuffix('.json')}"


def close_results(folder: Path) -> None:
    """Let no method read what lies in a results folder, which need not be there yet."""
    keep_from_methods(*(folder / part for part in OF_CELLS))


class Results:
    """Rows and scores of a folder; raises UserError for one of another schema version or that cannot be written."""

    def __init__(self, folder: str | Path) -> None:
        self.store = FolderStore(folder)
        self.folder = self.store.root
        close_results(self.folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"results folder {self.folder} is a file: choose another with --results")
        if not self.store.exists("results.json"):
            if any((self.folder / part).exists() for part in ("rows", "cells")):
                raise UserError(f"{self.folder} has results but no results.json: choose another folder with --results")
            self.store.put_json("results.json", {"schema_version": SCHEMA_VERSION})
        found = self.store.get_json("results.json")
        version = found.get("schema_version") if isinstance(found, dict) else None
        if type(version) is not int or version != SCHEMA_VERSION:
            raise UserError(
                f"{self.folder} holds results of schema version {shown(version)}, this tdabench writes "
                f"{SCHEMA_VERSION}: choose another folder with --results"
            )
        self.rows = FolderStore(self.folder / "rows")

    def row(self, key: Key) -> Row | None:
        """Return the row of a cell, or None."""
        name = row_key(key)
        return find_row(self.rows, name) if self.rows.exists(name) else None

    def all_rows(self, task: str | None = None) -> list[Row]:
        """Return all rows, of one task if named."""
        return load_rows(self.rows, task)

    def write(self, row: Row) -> Path:
        """Store a row."""
        return write_row(self.rows, row, sealed=True)

    def add_metrics(self, key: Key, scores_sha256: str | None, **metrics: Any) -> bool:
        """Put ``metrics`` into a cell's row, and say whether its scores are still those they were computed from.

        The row is read anew, because another command may have changed it since; one at a time does so.
        """
        with self.rows.alone("rows"):
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

    def new_log(self, key: Key) -> Path:
        """Empty a cell's log, and return where it lies; raises UserError where it cannot be written."""
        path = self.log(key)
        return self.store.put(path.relative_to(self.folder).as_posix(), b"")

    def scored(self, planned: PlannedCell) -> Row | None:
        """Return the row of a cell that has scores, as they would be computed now; None where there is none."""
        row = self.row(planned.key)
        holds = row is not None and row.status in ("ok", "partial")
        return row if row is not None and holds and row.diagnostics.get("identity") == planned.identity else None

    def states(self, cells: Iterable[PlannedCell]) -> list[list[str | None]]:
        """Return the scores' hashes and the ends of cells that have rows: what is computed from these depends on."""
        rows = [self.row(planned.key) for planned in cells]
        return [[row.source.scores_sha256, row.status, row.reason] for row in rows if row is not None]

    def scores(self, planned: PlannedCell) -> dict[str, np.ndarray]:
        """Return a cell's stored scores [N] by query.

        Raises CorruptFile where they are not those of all queries, or not those whose hash its row has.
        """
        record = self.scored_record(planned)
        found = record.matrix()
        if len(found) != len(planned.attributed_ids):
            raise CorruptFile(
                f"{record.store.root} has scores of {len(found)} queries, not {len(planned.attributed_ids)}: run the "
                "cell again with --force"
            )
        return dict(zip(planned.attributed_ids, found, strict=True))

    def scored_record(self, planned: PlannedCell) -> Record:
        """Return the record of a cell that has a row; raises CorruptFile where its scores are not those of the row."""
        record, row = self.record(planned.key, planned.identity), self.row(planned.key)
        if row is None or row.source.scores_sha256 != record.scores_hash():
            raise CorruptFile(f"{record.store.root} has other scores than its row: run the cell again with --force")
        return record

    @property
    def kept(self) -> Path:
        """Where rows of the training set are kept for later cells."""
        return self.folder / "kept"

    def record(self, key: Key, identity: str, longest: int | None = None) -> Record:
        """Return the record of a cell under an identity (what its scores depend on); longest: as ``Record`` has it."""
        return Record(self.folder / folder_of(key) / identity, longest)


def why_not(row: Row | None) -> str | None:
    """Return why a row's scores cannot be used, or None where they can."""
    if row is None:
        return "its row is gone"
    if row.status == "ok":
        return None
    return row.reason or "" if row.status == "skipped" else f"{row.status}: {row.reason}"
