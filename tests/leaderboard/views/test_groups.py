"""Groups left out as a table: methods of groups beside summed item methods, with ranks, limits and coverage."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from tdabench.errors import UserError
from tdabench.leaderboard.rows.groups import GroupScore
from tdabench.leaderboard.rows.row import Metrics, Row
from tdabench.leaderboard.views.catalogue import build_view

from ..helpers import cells, failed_row, groups, lds_row, numbers, only, removal_row


def row(method: str, spearman: float, unit: str = "item", own: int = 0, missing: int = 0, **changes) -> Row:
    result = groups({"spearman": spearman}, unit, missing, own)
    metrics = {"top": None, "removal": None, "sanity": None, "groups": {"heldout": result}}
    found = removal_row(method, own=own, **metrics, **changes)
    return found.model_copy(update={"status": "partial", "reason": "x"}) if missing else found


def rows() -> list[Row]:
    return [
        row("trak", 0.3, own=1),
        row("mean", 0.6, "group", own=2),
        row("near", 0.6001, own=3),
        row("random", 0.0, own=4),
        row("some", 0.9, missing=2),
        failed_row("broken", key=removal_row("broken").key),
    ]


def test_groups_beside_summed_items_marked_and_ranked_by_what_is_significant() -> None:
    found = cells(only("groups", rows()))
    assert {name: (line["Rank"], line["Scores"]) for name, line in found.items()} == {
        "some@1": ("-", "items, summed"),
        "near@1": ("1-2", "items, summed"),
        "mean@1": ("1-2", "groups"),
        "trak@1": ("3", "items, summed"),
        "random@1": ("4", "items, summed"),
    }
    assert [line["Status"] for line in found.values()] == ["6 of 8", "ok", "ok", "ok", "ok"]
    assert [line["Beats random"] for line in found.values()] == ["-", "yes", "yes", "yes", "-"]


def test_entries_are_held_against_the_groups_sizes() -> None:
    sized = {
        name: removal_row(name, top=None, groups={"heldout": groups({"spearman": mean}, noise=own, size=0.25)})
        for own, (name, mean) in enumerate({"trak": 0.4, "pixel": 0.2, "random": 0.25}.items())
    }
    sheet = only("groups", list(sized.values()))
    found = cells(sheet)
    assert {name: line["Beats size"] for name, line in found.items()} == {
        "trak@1": "yes",
        "pixel@1": "no",
        "random@1": "no",
        "group size": "-",
    }
    assert numbers(found["group size"]["Spearman×100"])[0] == pytest.approx(25.0, abs=0.1)
    assert sheet.data["group_size"]["spearman"]["mean"] == pytest.approx(0.25, abs=1e-3)
    assert {line["method"]: line["beats_size"] for line in sheet.data["lines"]}["trak@1"] is True


def test_rows_of_before_there_were_sizes_have_no_line_of_them_and_are_written_as_they_were() -> None:
    sheet = only("groups", [row("trak", 0.3)])
    assert "group size" not in cells(sheet) and sheet.data["group_size"] is None
    assert "sizes" not in groups({}).model_dump_json() and "sizes" in groups({}, size=0.1).model_dump_json()
    damaged = groups({}, size=0.1).model_dump()
    damaged["scores"]["spearman"]["sizes"].pop()
    with pytest.raises(ValidationError, match="not every measure has a value"):
        type(groups({})).model_validate(damaged)


def test_intervals_are_nearly_t_intervals_and_stay_within_the_measure() -> None:
    sheet = only("groups", rows())
    (line,) = [one for one in sheet.data["lines"] if one["method"] == "trak@1"]
    values = [value for value in groups({"spearman": 0.3}, noise=1).scores["spearman"].values if value is not None]
    low, high = stats.t.interval(0.95, 7, np.mean(values), np.std(values, ddof=1) / np.sqrt(8))
    assert line["spearman"]["low"] == pytest.approx(low, abs=0.02)
    assert line["spearman"]["high"] == pytest.approx(high, abs=0.02)
    (low_one,) = only("groups", [row("top", -0.99)]).data["lines"]
    assert low_one["spearman"]["low"] == -1.0


def test_the_caption_has_limits_and_says_who_is_missing() -> None:
    sheet = only("groups", [*rows(), lds_row("lds-only", key=removal_row("lds-only").key)])
    assert numbers(sheet.notes[0].partition(";")[0])[:3] == [8, 3, 2]
    assert "Spearman×100: ceiling 73.0 [68.0, 77.0], control 10.0" in sheet.notes[0]
    assert sheet.notes[-1] == "Without results of groups: lds-only@1 quick."
    assert [failure.method for failure in sheet.failures] == ["broken@1"]


def test_seeds_are_averaged_and_kinds_and_truths_are_tables_of_their_own() -> None:
    (line,) = only("groups", [row("a", 0.2), row("a", 0.4, seed=1)]).data["lines"]
    assert line["seeds"] == [0, 1] and line["spearman"]["mean"] == pytest.approx(0.3, abs=1e-3)
    both = {"heldout": groups({}), "generated": groups({})}
    sheets = build_view("groups", [removal_row("a", groups=both), removal_row("b", truth="b" * 64)])
    assert [sheet.title.rpartition(", ")[2] for sheet in sheets] == ["generated", "heldout", "heldout"]


def test_rows_that_score_groups_are_no_part_of_the_lds() -> None:
    (sheet,) = build_view("lds", [lds_row("trak"), row("mean", 0.6, "group")])
    assert list(cells(sheet)) == ["trak@1"] and not sheet.failures


def test_without_groups_the_view_says_what_to_run() -> None:
    with pytest.raises(UserError, match="on a task that leaves groups out"):
        build_view("groups", [lds_row()])


@pytest.mark.parametrize(
    "changes", [{"mean": 0.4}, {"mean": None}, {"values": [None, None]}, {"values": ["high", 0.5]}]
)
def test_a_mean_that_is_not_of_the_values_is_refused(changes: dict) -> None:
    fields = {"values": [0.25, 0.75], "mean": 0.5, "shuffled": 0.0}
    assert GroupScore.model_validate(fields).ceiling is None
    with pytest.raises(ValidationError):
        GroupScore.model_validate(fields | changes)


def test_a_measure_needs_a_value_for_every_query() -> None:
    result = groups({}).model_dump()
    with pytest.raises(ValidationError, match="distinct query ids"):
        Metrics.model_validate({"groups": {"heldout": result | {"query_ids": result["query_ids"][1:]}}})
