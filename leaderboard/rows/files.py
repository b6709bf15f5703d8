"""Rows as files: strict JSON, one file a row under its key."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from ...errors import CorruptFile, shown
from ...seeds import digest
from ...store import FolderStore, read_file
from .listed import check_listed, json_keys, write_list
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
    if type(value["schema_version"]) is not int or value["schema_version"] != SCHEMA_VERSION:
        raise CorruptFile(
            f"{where} was written by schema version {shown(value['schema_version'])}, this tdabench reads "
            f"{SCHEMA_VERSION}: use the tdabench that wrote it, or run its cell again"
        )
    try:
        row = Row.model_validate(value)
    except ValidationError as error:
        raise CorruptFile(
            f"{where} is no valid row: {first_problem(error)}; correct it or run its cell again"
        ) from error
    if digest(row.key.params, len(row.key.params_hash)) != row.key.params_hash:
        raise CorruptFile(f"{where} is no valid row: params_hash is not that of its params; run its cell again")
    return row


def write_row(store: FolderStore, row: Row, sealed: bool = False) -> Path:
    """Write ``row`` under its key and return its path.

    sealed: with its hash beside it, so that edits are noticed; all rows of a run are.
    """
    write = store.keep if sealed or _is_of_a_run(store) else store.put
    return write(row_key(row.key), row_bytes(row))


def row_bytes(row: Row) -> bytes:
    """Return a row as it is written, a line per section; NaN in free-form sections becomes null."""
    sections = row.model_dump(mode="json")
    lines = [f" {json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in sections.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def load_rows(store: FolderStore | str | Path, task: str | None = None, edited: bool = False) -> list[Row]:
    """Return the rows in a store or folder, of one task (``digits``) or task version (``digits@1``) if named.

    edited: also those whose hash is another's. Raises CorruptFile as ``load_row`` does, and, whichever task is named,
    where the folder is not as the list beside it says, which the committed rows must have.
    """
    store = store if isinstance(store, FolderStore) else FolderStore(store)
    keys = json_keys(store)
    check_listed(store, keys, required=store.root == FolderStore(RESULTS).root)
    found = (find_row(store, key, edited) for key in keys if _is_of(key, task))
    return [row for row in found if row is not None]


def seal_rows(folder: Path) -> tuple[Path, int]:
    """Write the list of the rows in a folder, and return where it lies and how many they are.

    Raises CorruptFile, and writes nothing, where one of them is no valid row.
    """
    store = FolderStore(folder)
    keys = [row_key(load_row(store, key).key) for key in json_keys(store)]
    return write_list(store, keys), len(keys)


def _is_of(key: str, task: str | None) -> bool:
    folder = key.split("/")[0]
    return task is None or task in (folder, folder.split("@")[0])


def load_row(store: FolderStore, key: str, edited: bool = False) -> Row:
    """Return the row under a key.

    Raises CorruptFile where it is no valid row, lies where another cell's belongs, or, unless ``edited`` is meant to
    pass, was edited since it was sealed, or lies in a run's folder without its hash.
    """
    data = read_file(store.path(key))
    row = read_row(data, store.path(key))
    if row_key(row.key) != key:
        raise CorruptFile(f"{store.path(key)} holds the row of another cell; move it to {store.path(row_key(row.key))}")
    if not edited and store.get(key, sealed=_is_of_a_run(store)) != data:
        return load_row(store, key)  # it was written anew meanwhile
    return row


def find_row(store: FolderStore, key: str, edited: bool = False) -> Row | None:
    """Return the row under a key, None where there is none, or none any more: a cell's goes when it runs again.

    Raises CorruptFile as ``load_row`` does.
    """
    with suppress(FileNotFoundError):
        return load_row(store, key, edited)
    return None


def _is_of_a_run(store: FolderStore) -> bool:
    return store.root.name == "rows" and (store.root.parent / "results.json").is_file()
