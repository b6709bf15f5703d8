"""The table over all tasks: which entries and tasks it has, in which order, with which ranks and ceilings."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tdabench.errors import UserError
from tdabench.leaderboard.rows.row import Row
from tdabench.leaderboard.views.across.tasks import task_sheets
from tdabench.leaderboard.views.lds import build_tables
from tdabench.leaderboard.views.sheet import render

from ..helpers import failed_row, lds_row, make_key, make_source


def row(method: str, lds: float, task: str = "digits", **changes: object) -> Row:
    return lds_row(method, lds, lds - 0.1, key=make_key(method, task=task), **changes)


def both() -> list[Row]:
    rows = [row("pixel", 0.5), row("trak", 0.4), row("random", 0.0), row("mucs", 0.6)]
    return [*rows, row("pixel", 0.2, "emoji"), row("trak", 0.5, "emoji"), row("random", 0.0, "emoji")]


def test_each_cell_is_the_mean_over_kinds_and_the_rank_of_its_own_tasks_table() -> None:
    (sheet,) = task_sheets(both())
    assert list(sheet.headings) == ["Method", "Preset", "digits@1", "emoji@1"]
    lines = {cells[0]: cells[2:] for cells in sheet.rows}
    for place, table in enumerate(build_tables(both())):
        for line in table.lines:
            assert line.overall.text() in lines[line.method][place]
            assert lines[line.method][place].endswith(f", {line.rank_best}")
    assert lines["trak@1"][0].startswith("35.0 [") and lines["trak@1"][1].startswith("45.0 [")


def test_entries_on_more_tasks_come_first_then_those_nearer_to_the_ceiling() -> None:
    (sheet,) = task_sheets(both())
    assert [cells[0] for cells in sheet.rows] == ["-", "trak@1", "pixel@1", "random@1", "mucs@1"]
    assert sheet.rows[-1][3] == "-"


def test_the_ceiling_is_the_mean_over_kinds() -> None:
    (sheet,) = task_sheets(both())
    assert list(sheet.rows[0]) == ["-", "noise ceiling", "73.0", "73.0"]


def test_of_a_tasks_truths_the_one_that_most_entries_share_is_shown() -> None:
    other = [row("pixel", 0.9, source=make_source(truth_sha256="b" * 64))]
    (sheet,) = task_sheets([*other, *both()])
    assert next(cells[2] for cells in sheet.rows if cells[0] == "pixel@1").startswith("45.0")


def test_formats_hold_the_numbers_unscaled() -> None:
    (data,) = json.loads(render(task_sheets(both()), "json"))
    records = list(csv.DictReader(io.StringIO(render(task_sheets(both()), "csv"))))
    assert data["ceilings"] == {"digits@1": pytest.approx(0.73), "emoji@1": pytest.approx(0.73)}
    assert data["lines"][0]["lds"]["emoji@1"]["mean"] == pytest.approx(0.45)
    assert float(records[0]["lds_emoji@1_mean"]) == data["lines"][0]["lds"]["emoji@1"]["mean"]


def test_without_an_lds_it_says_what_to_run() -> None:
    with pytest.raises(UserError, match="no row holds an LDS"):
        task_sheets([failed_row()])
