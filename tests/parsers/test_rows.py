"""Rows, reported numbers, results folders and the README's markers, whatever is in their files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdabench.benchmark.run.results import SCHEMA_VERSION, Results
from tdabench.benchmark.submission.manifest import read_submitted_row
from tdabench.errors import CorruptFile
from tdabench.leaderboard.readme import SECTIONS, markers, update_readme
from tdabench.leaderboard.rows.files import load_rows, read_row, row_bytes, write_row
from tdabench.leaderboard.rows.reported import REPORTED, load_reported
from tdabench.leaderboard.rows.row import Row, row_key
from tdabench.store import FolderStore

from ..leaderboard import helpers
from .fuzz import documents, many, parsed


def small(row: Row) -> dict:
    """Return a row as JSON, with two replicates of what has a thousand."""
    value = json.loads(row_bytes(row))
    for lds in value["metrics"]["lds"].values():
        lds["replicates"] = lds["replicates"][:2]
    return value


SCORED = small(helpers.lds_row())
ROWS = documents(SCORED) | documents(json.loads(row_bytes(helpers.failed_row())))
TABLE = json.loads(next(REPORTED.glob("*.json")).read_text())
TABLE["entries"] = TABLE["entries"][:3]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("rows")


@given(ROWS)
@many
def test_a_row_is_read_as_it_is_written_or_refused(data):
    row = parsed(read_row, data, "row.json")
    if row is not None:
        again = read_row(row_bytes(row), "again.json")
        assert again == row and row_bytes(again) == row_bytes(row)


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("odd", [{"\ud800": None}, {"a": "\udfff"}, {"a": [{"\ud801": 1}]}, {"a": nested(320)}])
@pytest.mark.parametrize("section", ["environment", "diagnostics"])
def test_a_row_that_could_not_be_written_again_is_refused(section, odd):
    with pytest.raises(CorruptFile, match=f"is no valid row: {section}"):
        read_row(json.dumps(SCORED | {section: odd}).encode(), "row.json")


@given(ROWS, st.booleans())
@many
def test_a_stored_row_is_that_of_its_place_or_refused(place, data, moved):
    store = FolderStore(place)
    row = parsed(read_row, data, "row.json")
    if row is not None and len(row_key(row.key).rpartition("/")[2]) < 200:
        path = write_row(store, row, sealed=True)
        if moved:
            path = path.rename(path.with_name("moved.json"))
        found = parsed(load_rows, store)
        assert found is None if moved else found == [row]
        path.unlink()


@given(ROWS)
@many
def test_a_submitted_row_is_read_or_refused(place, data):
    (place / "submitted").write_bytes(data)
    row = parsed(read_submitted_row, place / "submitted", "rows/a.json")
    assert row is None or read_row(data, "row.json") == row


@given(documents(TABLE))
@many
def test_reported_numbers_are_read_as_they_are_or_refused(place, data):
    folder = place / "reported"
    folder.mkdir(exist_ok=True)
    (folder / "cifar2@1.json").write_bytes(data)
    found = parsed(load_reported, None, folder)
    assert found is None or found[0].model_dump(exclude_unset=True) == json.loads(data)


@given(documents({"schema_version": SCHEMA_VERSION}))
@many
def test_a_results_folder_is_of_this_version_or_refused(place, data):
    (place / "results.json").write_bytes(data)
    if parsed(Results, place) is not None:
        assert json.loads(data)["schema_version"] == SCHEMA_VERSION


LINES = st.sampled_from([line for name in SECTIONS for line in markers(name)] + ["# Title", "<!--", "text | text"])


@given(st.lists(LINES | st.text(max_size=20), max_size=12), st.sampled_from(["\n", "", "\r\n"]))
@many
def test_a_readme_is_filled_the_same_twice_or_refused(lines, end):
    text = end.join(lines)
    filled = parsed(update_readme, text, ROWS_SHOWN)
    if filled is not None:
        assert update_readme(filled, ROWS_SHOWN) == filled
        outside = [line for line in lines if line.strip() and not line.startswith("<!--")]
        assert len(filled) >= len(end.join(outside)) or "begin" in text


ROWS_SHOWN = [Row.model_validate(SCORED)]
