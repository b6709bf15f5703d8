"""Tables of the page: a cell's numbers are those in its text, and all of a view's cells are there."""

from __future__ import annotations

import pytest

from tdabench.leaderboard.page.tables import cell, table_of
from tdabench.leaderboard.views.catalogue import build_view

from ..helpers import lds_rows, removal_rows


@pytest.mark.parametrize(
    ("text", "kind", "numbers"),
    [
        ("40.7 [35.2, 45.9]", "interval", [40.7, 35.2, 45.9]),
        ("-0.16 [-1.33, 1.23]", "interval", [-0.16, -1.33, 1.23]),
        ("41.7 [36.0, 46.2], 1-4", "interval", [41.7, 36.0, 46.2]),
        ("-12.3 ± 4.6", "interval", [-12.3, -16.9, -7.7]),
        ("6.16k", "number", [6160.0]),
        ("999T", "number", [999e12]),
        ("4,321", "number", [4321.0]),
        ("3.2e-05", "number", [3.2e-5]),
        ("448 (29.9%)", "number", [448.0]),
        ("-", "number", []),
        ("12 of 20", "number", []),
        ("1-4", "rank", [1.000004]),
        ("7", "rank", [7.000007]),
        ("40.7", "text", []),
    ],
)
def test_numbers_of_a_cell_are_those_of_its_text(text, kind, numbers):
    shown, *found = cell(text, kind)
    assert shown == text
    assert found == pytest.approx(numbers)


@pytest.mark.parametrize(
    "view", ["lds", "removal", "published", "per-query", "overlap", "sanity", "exemplars", "groups", "agreement"]
)
def test_a_table_holds_every_cell_of_its_view(view):
    rows = lds_rows() if view == "lds" else removal_rows()
    for sheet in build_view(view, rows):
        table = table_of(sheet)
        texts = [[one[0] for one in line["cells"]] for line in table["lines"]]
        assert texts[: len(sheet.rows)] == [list(row) for row in sheet.rows]
        assert [column["name"] for column in table["columns"]] == [name.replace("\n", " ") for name in sheet.headings]


def test_what_failed_is_a_line_with_its_status_and_reason():
    (sheet,) = build_view("lds", lds_rows())
    table = table_of(sheet)
    names = [column["name"] for column in table["columns"]]
    failed = table["lines"][len(sheet.rows) :]
    assert [(one["status"], one["cells"][names.index("Method")][0]) for one in failed] == [
        ("skipped", "clip@1"),
        ("timeout", "mucs@1"),
    ]
    assert failed[1]["why"] == "killed after 600 s" and failed[1]["cells"][names.index("Rank")] == ["-"]


def test_kinds_of_columns_follow_their_cells():
    (sheet,) = build_view("lds", lds_rows())
    kinds = {column["name"]: column["kind"] for column in table_of(sheet)["columns"]}
    assert kinds["Rank"] == "rank" and kinds["Method"] == "text" and kinds["Status"] == "text"
    assert kinds["LDS×100 heldout"] == "interval" and kinds["Fit s"] == "number"
