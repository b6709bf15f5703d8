"""Published numbers are a table of their own, in their authors' order, with source and no rank."""

from __future__ import annotations

import csv
import io
import json

from tdabench.leaderboard.rows.reported import load_reported
from tdabench.leaderboard.views.reported import reported_sheets
from tdabench.leaderboard.views.sheet import render


def test_a_sheet_says_whose_the_numbers_are_and_ranks_nothing() -> None:
    (table,) = load_reported("cifar2@1")
    (sheet,) = reported_sheets([table])
    assert "reported by its authors and not measured here" in sheet.title
    assert [row[0] for row in sheet.rows] == [entry.name for entry in table.entries]
    assert not any("rank" in heading.lower() for heading in sheet.headings)
    text = " ".join(sheet.notes)
    assert table.paper in text and table.source in text and "no rank" in text and "half as many" in text


def test_scores_have_the_digits_of_the_source() -> None:
    (sheet,) = reported_sheets(load_reported("cifar2"))
    rows = {(row[0], row[1]): row[2:] for row in sheet.rows}
    assert rows["D-TRAK", "10 timesteps"] == ["d-trak", "18.82 ± 0.43", "26.79 ± 0.33"]
    assert rows["GAS", "100 timesteps"] == ["-", "3.30 ± 0.68", "5.15 ± 0.87"]
    assert rows["Journey-TRAK", "10 timesteps"] == ["-", "7.73 ± 0.65", "-"]


def test_other_formats_hold_fractions_and_say_that_nothing_was_measured() -> None:
    sheets = reported_sheets(load_reported("cifar2"))
    (data,) = json.loads(render(sheets, "json"))
    assert data["measured_here"] is False and data["lines"][-1]["lds"]["heldout"] == {"mean": 0.1694, "std": 0.005}
    *_, last = csv.DictReader(io.StringIO(render(sheets, "csv")))
    assert (last["measured_here"], last["name"], last["lds_generated_mean"]) == ("False", "Datamodels", "0.1281")


def test_an_address_is_not_broken_at_its_hyphens() -> None:
    (table,) = load_reported("cifar2")
    assert table.source in render(reported_sheets([table]), "table", 120)
