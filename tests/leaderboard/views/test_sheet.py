"""Sheets of every view in every format."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from tdabench.errors import UserError
from tdabench.leaderboard.views.catalogue import build_view
from tdabench.leaderboard.views.sheet import render

from ..helpers import OTHER_VIEWS, removal_rows


@pytest.mark.parametrize("view", OTHER_VIEWS)
def test_formats_agree(view: str) -> None:
    sheets = build_view(view, removal_rows())
    data = json.loads(render(sheets, "json"))
    records = list(csv.DictReader(io.StringIO(render(sheets, "csv"))))
    lines = [(sheet, line) for sheet in data for line in sheet["lines"]]
    assert len(lines) == len(records) >= (3 if view == "agreement" else 5)  # pairs of three truths, else entries
    for (sheet, line), record in zip(lines, records, strict=True):
        assert record["view"] == sheet["view"] and record["task"] == "digits@1"
        for name, value in line.items():
            if isinstance(value, dict) and "mean" in value:
                shown = {part: number for part, number in value.items() if number is not None}
                assert {part: float(record[f"{name}_{part}"]) for part in shown} == shown
            elif isinstance(value, list):
                assert record[name] == " ".join(map(str, value))
            elif not isinstance(value, dict):
                assert record[name] == ("" if value is None else str(value))
    markdown = render(sheets, "markdown")
    for sheet in sheets:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in markdown.splitlines() if line.startswith("|")}
        assert f"### {sheet.title}\n" in markdown and len(sheet.headings) + 1 in widths
        assert all(f"| {' | '.join(line)} |" in markdown for line in sheet.rows)


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("view", OTHER_VIEWS)
def test_no_number_is_cut_in_a_terminal(view: str, width: int) -> None:
    for sheet in build_view(view, removal_rows()):
        drawn = render([sheet], "table", width)
        words = re.findall(r"\S+", drawn)
        for cell in (cell for line in sheet.rows for cell in line):
            assert all(word in words for word in cell.split()), cell
        assert "…" not in drawn
        assert width < 120 or max(map(len, drawn.splitlines())) <= width


def test_unknown_format_names_the_nearest() -> None:
    with pytest.raises(UserError, match="'markdown'"):
        render([], "markdwn")
