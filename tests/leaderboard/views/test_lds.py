"""The table of the LDS: its text, its notes and its numbers in every format."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from tdabench.leaderboard.views.lds import build_tables, cells, headings, lds_sheets
from tdabench.leaderboard.views.sheet import FORMATS, render

from ..helpers import HASH, failed_row, lds_row, lds_rows, make_key


def test_failures_are_shown_with_their_reasons_in_every_format() -> None:
    (table,) = build_tables(lds_rows())
    assert [failure.method for failure in table.failures] == ["clip@1", "mucs@1"]
    for name in FORMATS:
        text = render(lds_sheets(lds_rows()), name)
        assert "killed after 600 s" in text and "needs an encoder" in text, name


def test_failures_alone_still_make_a_table() -> None:
    (table,) = build_tables([failed_row()])
    assert not table.lines
    assert all("killed after 600 s" in render(lds_sheets([failed_row()]), name) for name in FORMATS)


def test_formats_agree_in_numbers() -> None:
    sheets = lds_sheets(lds_rows())
    (data,) = json.loads(render(sheets, "json"))
    records = list(csv.DictReader(io.StringIO(render(sheets, "csv"))))
    markdown = [line.strip("| ").split(" | ") for line in render(sheets, "markdown").splitlines() if "@1 |" in line]
    terminal = [line for line in render(sheets, "table", 200).splitlines() if "@1 " in line]
    assert len(data["lines"]) == len(markdown) == len(records) - 2 == 5
    for line, record, row, text in zip(data["lines"], records, markdown, terminal, strict=False):
        assert line["method"] == record["method"] == row[1] and line["method"] in text
        for column, kind in ((3, "generated"), (4, "heldout")):
            score = line["lds"][kind]
            assert [float(record[f"lds_{kind}_{part}"]) for part in score] == list(score.values())
            expected = [round(100 * number, 1) for number in score.values()]
            assert [float(number) for number in re.findall(r"-?\d+\.\d", row[column])] == expected
            assert row[column] in text
        assert float(record["fit_s"]) == line["fit_s"]


def test_text_of_costs_status_and_ranks() -> None:
    (table,) = build_tables(lds_rows())
    lines = [dict(zip(headings(table), line, strict=True)) for line in cells(table)]
    assert [line["Method"] for line in lines] == ["mucs-retain@1", "d-trak@1", "unlearn@1", "ek-fac@1", "random@1"]
    assert [line["Rank"] for line in lines] == ["1", "2", "-", "3", "4"]
    assert [line["Status"] for line in lines] == ["ok", "ok", "32 of 40", "resumed", "ok"]
    assert [line["Beats random"] for line in lines] == ["yes", "yes", "-", "yes", "-"]
    assert [line["Fit s"] for line in lines][2:4] == ["12.2", "4,321"]
    assert (lines[0]["GPU MiB"], lines[3]["GPU MiB"]) == ("-", "3,072")
    (on_cpu,) = build_tables([lds_row()])
    assert dict(zip(headings(on_cpu), cells(on_cpu)[0], strict=True))["RSS MiB"] == "1,024"
    assert (lines[0]["Fwd"], lines[0]["Bwd"]) == ("1.23M", "1M")


def test_notes_say_where_ceilings_and_costs_come_from() -> None:
    (table,) = build_tables(lds_rows())
    notes = "\n".join(table.notes)
    assert "heldout: 20 queries, 96 subsets, noise ceiling 73.0 [68.0, 77.0]." in notes
    assert "on EPYC 9654 and A100." in notes and "resumed: took several starts" in notes
    (mixed,) = build_tables([lds_row(), lds_row("b", environment={"cpu": "M3"})])
    assert "not all on one known machine" in "\n".join(mixed.notes)


@pytest.mark.parametrize("width", [60, 100, 120])
def test_terminal_table_never_cuts_a_name_or_number(width: int) -> None:
    (table,) = build_tables(lds_rows())
    text = render(lds_sheets(lds_rows()), "table", width)
    for line in table.lines:
        assert line.method in text
    for number in re.findall(r"[^ ]*\d[^ ]*", " ".join(cell for line in cells(table) for cell in line)):
        assert number.strip("[],") in text
    assert width == 60 or max(map(len, text.splitlines())) <= width


def test_presets_of_one_name_are_told_apart() -> None:
    rows = [lds_row("a", 0.4), lds_row("a", 0.5, key=make_key("a", params_hash="f" * 16))]
    assert [line[2] for line in cells(build_tables(rows)[0])] == ["paper-ffffffff", f"paper-{HASH}"]
