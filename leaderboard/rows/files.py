"""Rows as files: strict JSON, one file a row under its key."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from ...errors import CorruptFile
from ...store import FolderStore
from .row import SCHEMA_VERSION, Row, row_key
from .strict import first_problem, parse_json

RESULTS = Path(__file__).parents[1] / "results"


def read_row(data: bytes, where: str | Path) -> Row:
    """Return the row in ``data``; raises CorruptFile, which names ``where``, if it is not one."""
    try:
        value = parse_json(data)
    except ValueError as error:
        raise CorruptFile(f"{where} is not valid JSON ({error}); delete it and run its cell again") from error
    if not isinstance(value, dict) or "schema_version" not in value:
        raise CorruptFile(f"{where} is no result row: it has no schema_version; move it elsewhere")
    if value["schema_version"] != SCHEMA_VERSION:
        raise CorruptFile(
            f"{where} was written by schema version {value['schema_version']!r}, this tdabench reads {SCHEMA_VERSION}: "
            "use the tdabench that wrote it, or run its cell again"
        )
    try:
        return Row.model_validate(value)
    except ValidationError as error:
        raise CorruptFile(
            f"{where} is no valid row: {first_problem(error)}; correct it or run its cell again"
        ) from error


def write_row(store: FolderStore, row: Row) -> Path:
    """Write ``row`` under its key, a line per section, and return its path; NaN in free-form sections becomes null."""
    sections = row.model_dump(mode="json")
    lines = [f" {json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in sections.items()]
    return store.put(row_key(row.key), ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def load_rows(store: FolderStore | str | Path, task: str | None = None) -> list[Row]:
    """Return the rows in a store or folder, of one task (``digits``) or task version (``digits@1``) if named.

    Raises CorruptFile for a file that is no valid row, or that lies where another cell's row belongs.
    """
    store = store if isinstance(store, FolderStore) else FolderStore(store)
    return [_load(store, key) for key in store.keys() if key.endswith(".json") and _is_of(key, task)]  # noqa: SIM118


def _is_of(key: str, task: str | None) -> bool:
    folder = key.split("/")[0]
    return task is None or task in (folder, folder.split("@")[0])


def _load(store: FolderStore, key: str) -> Row:
    row = read_row(store.get(key), store.path(key))
    if row_key(row.key) != key:
        raise CorruptFile(f"{store.path(key)} holds the row of another cell; move it to {store.path(row_key(row.key))}")
    return row
