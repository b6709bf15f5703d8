"""Rows come back from files as they were written, and a bad file is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tdabench.errors import CorruptFile
from tdabench.leaderboard.rows.files import RESULTS, load_rows, read_row, write_row
from tdabench.leaderboard.rows.row import Row, row_key
from tdabench.store import FolderStore

from ..helpers import lds_row, make_key, removal_row


def altered(**changes: Any) -> bytes:
    return json.dumps(lds_row().model_dump(mode="json") | changes).encode()


def test_row_comes_back_as_it_was_written(tmp_path: Path) -> None:
    store, row = FolderStore(tmp_path), lds_row(diagnostics={"steps": [1, 2]})
    path = write_row(store, row)
    assert path == tmp_path / "digits@1/trak@1/paper-01234567/test-seed0.json"
    assert load_rows(tmp_path) == load_rows(store) == [row]
    assert len(path.read_text().splitlines()) == len(Row.model_fields) + 2


def test_committed_rows_are_written_as_they_lie_there(tmp_path: Path) -> None:
    rows = load_rows(RESULTS)
    assert rows
    for row in rows:
        assert write_row(FolderStore(tmp_path), row).read_bytes() == (RESULTS / row_key(row.key)).read_bytes()


def test_rows_with_groups_come_back_too(tmp_path: Path) -> None:
    row = removal_row("trak")
    write_row(FolderStore(tmp_path), row)
    assert load_rows(tmp_path) == [row] and row.metrics is not None and row.metrics.groups


def test_rows_are_loaded_by_task_and_version(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for task, version in (("digits", 1), ("digits", 2), ("digits-lt", 1)):
        write_row(store, lds_row(key=make_key(task=task, task_version=version)))
    assert len(load_rows(store)) == 3
    assert {row.key.task_version for row in load_rows(store, "digits")} == {1, 2}
    assert [row.key.task_version for row in load_rows(store, "digits@2")] == [2]
    assert load_rows(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x00\xff nonsense", "is not valid JSON"),
        (altered()[:400], "is not valid JSON"),
        (b"", "is not valid JSON"),
        (b"[1, 2]", "is no result row"),
        (altered(schema_version=2), "written by schema version 2, this tdabench reads 1"),
        (altered(surprise=1), "surprise: Extra inputs are not permitted"),
        (altered(status="fine"), "status: Input should be 'ok'"),
        (altered(environment={"load": float("nan")}), "NaN is not allowed, write null"),
        (altered(metrics=None), "a row with status 'ok' needs metrics"),
        (altered(cost=None), "a row with status 'ok' needs a cost"),
        (altered(status="oom"), "a row with status 'oom' needs a reason"),
        (altered(key=make_key().model_dump() | {"seed": "0"}), "key.seed: Input should be a valid integer"),
        (altered(key=make_key().model_dump() | {"preset": "../up"}), "key.preset: String should match pattern"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(data: bytes, message: str) -> None:
    with pytest.raises(CorruptFile) as caught:
        read_row(data, "results/x.json")
    assert message in str(caught.value)
    assert str(caught.value).startswith("results/x.json ") and "\n" not in str(caught.value)


def test_file_under_another_cells_name_is_refused(tmp_path: Path) -> None:
    path = write_row(FolderStore(tmp_path), lds_row())
    path.rename(path.with_name("test-seed1.json"))
    with pytest.raises(CorruptFile, match=r"another cell.*test-seed0\.json"):
        load_rows(tmp_path)


def test_not_a_number_in_a_free_section_becomes_null(tmp_path: Path) -> None:
    write_row(FolderStore(tmp_path), lds_row(diagnostics={"residual": float("nan")}))
    assert load_rows(tmp_path)[0].diagnostics == {"residual": None}
