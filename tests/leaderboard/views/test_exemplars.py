"""Exemplars as tables: a table for each k, ranks by what is significant, and from where on methods see."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from tdabench.errors import UserError
from tdabench.leaderboard.rows.exemplars import ExemplarMeasure, ExemplarScores
from tdabench.leaderboard.rows.row import Row
from tdabench.leaderboard.views.catalogue import build_view

from ..helpers import cells, exemplars, lds_row, numbers, only, removal_row


def row(method: str, weak: float, strong: float, own: int = 0, **changes) -> Row:
    missing = changes.pop("missing", 0)
    return removal_row(method, exemplars=exemplars({(1, 5): weak, (1, 50): strong}, own, missing), **changes)


def rows() -> list[Row]:
    return [
        row("late", 0.03, 0.4, own=1),
        row("early", 0.3, 0.6, own=2),
        row("near", 0.3002, 0.6, own=3),
        row("random", 0.02, 0.02, own=4),
        row("fading", 0.5, 0.02, own=5),
        row("some", 0.9, 0.9, missing=2),
    ]


def test_entries_are_ranked_by_what_is_significant_and_chance_closes_the_table() -> None:
    found = cells(only("exemplars", rows()))
    assert {name: line["Rank"] for name, line in found.items()} == {
        "some@1": "-",
        "near@1": "1-2",
        "early@1": "1-2",
        "fading@1": "3",
        "late@1": "4",
        "random@1": "5",
        "chance": "-",
    }
    assert [line["Status"] for line in found.values()] == ["20 of 24", "ok", "ok", "ok", "ok", "ok", "-"]
    assert [line["Beats random"] for line in found.values()] == ["-", "yes", "yes", "yes", "yes", "-", "-"]
    assert (found["chance"]["5 updates"], found["chance"]["50 updates"]) == ("2.0", "2.0")


def test_a_method_sees_from_the_strength_on_from_which_it_stays_above_chance() -> None:
    found = cells(only("exemplars", rows()))
    seen = {name: line["Sees from"] for name, line in found.items()}
    assert seen == {
        "some@1": "5", "near@1": "5", "early@1": "5", "fading@1": "-", "late@1": "50", "random@1": "-", "chance": "-"
    }  # fmt: skip


def test_intervals_are_nearly_t_intervals_over_the_means_of_cases_cut_at_0_and_1() -> None:
    (line,) = [one for one in only("exemplars", rows()).data["lines"] if one["method"] == "early@1"]
    values = exemplars({(1, 50): 0.6}, 2).scores[0].measures["ap"].values
    means = np.array(values, dtype=float).reshape(6, 2).mean(1)
    low, high = stats.t.interval(0.95, 5, means.mean(), means.std(ddof=1) / np.sqrt(6))
    assert line["map"]["50"]["low"] == pytest.approx(low, abs=0.01)
    assert line["map"]["50"]["high"] == pytest.approx(high, abs=0.01)
    (one,) = only("exemplars", [row("top", 0.01, 0.99)]).data["lines"]
    assert one["map"]["5"]["low"] == 0.0 and one["map"]["50"]["high"] == 1.0


@pytest.mark.parametrize(("value", "hits"), [(1.0, 6), (0.0, 0)])
def test_cases_that_all_are_at_one_end_have_the_exact_interval_of_shares(value, hits) -> None:
    found = exemplars({(1, 5): 0.5, (1, 50): 0.5})
    for scores in found.scores:
        for name in scores.measures:
            scores.measures[name] = ExemplarMeasure(values=[value] * 12, mean=value, chance=0.02)
    line = cells(only("exemplars", [removal_row("all", exemplars=found)]))["all@1"]
    exact = stats.binomtest(hits, 6).proportion_ci(method="exact")
    for column in ("5 updates", "Percentile"):
        assert numbers(line[column])[1:] == pytest.approx([100 * exact.low, 100 * exact.high], abs=0.05)


def test_cases_cover_the_mean_where_cases_or_samples_vary() -> None:
    rng = np.random.default_rng(3)
    for between in (0.0, 1.0):
        covered = []
        for i in range(150):
            values = 0.5 + 0.05 * (between * rng.normal(size=(6, 1)) + rng.normal(size=(6, 2))).ravel()
            measure = ExemplarMeasure(values=values.tolist(), mean=values.mean(), chance=0.1)
            ids, index = [f"q{j}" for j in range(12)], [j // 2 for j in range(12)]
            scores = ExemplarScores(k=1, steps=5, query_ids=ids, cases=index, measures={"ap": measure})
            held = exemplars({(1, 5): 0.5}).model_copy(update={"scores": [scores]})
            (line,) = only("exemplars", [removal_row("a", exemplars=held, task=f"t{i % 10}")]).data["lines"]
            covered.append(line["map"]["5"]["low"] <= 0.5 <= line["map"]["5"]["high"])
        assert np.mean(covered) == pytest.approx(0.95, abs=0.05)


def test_each_k_and_each_set_of_cases_is_a_table_and_seeds_are_averaged() -> None:
    both = removal_row("a", exemplars=exemplars({(1, 5): 0.2, (4, 5): 0.4}))
    other = removal_row("b", exemplars=exemplars({(1, 5): 0.2}).model_copy(update={"truth": "3" * 16}))
    sheets = build_view("exemplars", [both, other])
    assert [(sheet.data["k"], sheet.data["cases"][0]) for sheet in sheets] == [(1, "2"), (4, "2"), (1, "3")]
    (line,) = only("exemplars", [row("a", 0.2, 0.2), row("a", 0.4, 0.4, seed=1)]).data["lines"]
    assert line["seeds"] == [0, 1] and line["map"]["5"]["mean"] == pytest.approx(0.3, abs=1e-3)


def test_other_measures_are_means_over_strengths_with_intervals() -> None:
    sheet = only("exemplars", [row("a", 0.2, 0.6), row("b", 0.5, 0.5, own=1)])
    (line, _) = sheet.data["lines"]
    assert line["method"] == "b@1" and line["measures"]["percentile"]["5"] == line["map"]["5"]
    found = cells(sheet)
    assert found["a@1"]["Recall@k"] == "-" and found["chance"]["Percentile"] == "2.0"
    mean, low, high = numbers(found["a@1"]["Percentile"])
    values = exemplars({(1, 5): 0.2, (1, 50): 0.6}, 0).scores
    means = np.mean([np.array(one.measures["ap"].values, dtype=float) for one in values], axis=0).reshape(6, 2).mean(1)
    expected = stats.t.interval(0.95, 5, means.mean(), means.std(ddof=1) / np.sqrt(6))
    assert mean == pytest.approx(40.0, abs=0.1) and (low, high) == pytest.approx(100 * np.array(expected), abs=1.0)
    high, _ = only("exemplars", [row("top", 0.95, 0.99)]).rows
    assert any(cell.endswith(", 100.0]") for cell in high)


def test_notes_say_what_was_skipped_and_who_is_missing() -> None:
    sheet = only("exemplars", [*rows(), removal_row("bare", exemplars=None)])
    assert "6 cases, 2 samples of each model; 1 exemplar among 500 others." in sheet.notes
    assert "Cases skipped for some@1 quick: timeout: killed | after 600 s" in sheet.notes
    assert "Without exemplar results: bare@1 quick." in sheet.notes
    with pytest.raises(UserError, match="run `tdabench run TASK --metrics exemplars`"):
        build_view("exemplars", [lds_row()])


def test_rows_without_exemplars_are_written_as_before_and_broken_ones_refused() -> None:
    bare = lds_row()
    assert bare.metrics is not None and "exemplars" not in bare.metrics.model_dump()
    found = exemplars({(1, 5): 0.5}).scores[0].model_dump()
    with pytest.raises(ValidationError, match="not every measure"):
        ExemplarScores.model_validate(found | {"cases": found["cases"][1:]})
    with pytest.raises(ValidationError, match="mean is not"):
        ExemplarMeasure(values=[0.5, 1.0], mean=0.5, chance=0.1)


def controlled(own: dict[str, float], control: dict[str, float]) -> list[Row]:
    """Return rows of methods with these average precisions on samples and on controls."""
    found = []
    for i, name in enumerate(own):
        held, other = (exemplars({(1, 5): part[name], (1, 50): part[name]}, i) for part in (own, control))
        scores = [a.model_copy(update={"controls": b.measures}) for a, b in zip(held.scores, other.scores, strict=True)]
        found.append(removal_row(name, exemplars=held.model_copy(update={"scores": scores})))
    return found


def test_a_method_that_names_the_exemplars_of_every_query_is_not_on_top() -> None:
    own = {"always": 0.95, "specific": 0.6, "random": 0.02}
    sheet = only("exemplars", controlled(own, {"always": 0.95, "specific": 0.05, "random": 0.02}))
    found = cells(sheet)
    assert [found[f"{name}@1"]["Rank"] for name in ("specific", "always", "random")] == ["1", "2-3", "2-3"]
    assert numbers(found["specific@1"]["Above control"])[0] == pytest.approx(55.0, abs=0.2)
    assert numbers(found["always@1"]["50 updates"])[0] == pytest.approx(95.0, abs=0.2)
    assert [line["Sees from"] for line in found.values()] == ["5", "-", "-", "-"]
    assert found["always@1"]["Beats random"] == "no" and found["chance"]["Above control"] == "0.0"
    (first, *_) = sheet.data["lines"]
    assert first["above_control"]["5"]["mean"] == pytest.approx(0.55, abs=0.002)
    assert any(note.startswith("Above control") for note in sheet.notes)


def test_rows_of_before_there_were_controls_say_so() -> None:
    sheet = only("exemplars", rows())
    assert "Above control" not in sheet.headings and any(
        note.startswith("Rows without controls") for note in sheet.notes
    )
