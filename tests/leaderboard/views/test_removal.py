"""Removal of the union: known effects, ranks by brute force, and the published statistics."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from tdabench.leaderboard.rows.row import Row
from tdabench.leaderboard.stats.over_seeds_and_queries import estimate
from tdabench.leaderboard.views.catalogue import build_view

from ..helpers import NOISE, TARGETS, cells, numbers, only, removal, removal_row, removal_rows, similarity, with_union


def test_oracle_beats_random_and_chance_or_worse_does_not() -> None:
    shown = cells(only("removal"))
    assert list(shown) == ["oracle@1", "near@1", "half@1", "random@1", "inverted@1"]
    assert [line["Beats random"] for line in shown.values()] == ["yes", "yes", "yes", "-", "no"]
    assert [line["Rank"] for line in shown.values()] == ["1-2", "1-2", "3", "4", "5"]
    assert cells(only("removal", [removal_row("chance", own=3)]))["chance@1"]["Beats random"] == "no"


def test_numbers_of_the_removal_table_are_those_of_the_similarities() -> None:
    given = removal_row("oracle", 0.35)
    assert given.metrics and given.metrics.removal and given.metrics.removal.union
    found = given.metrics.removal.union.similarities
    line = cells(only("removal", [given]))["oracle@1"]
    floor, after, random = (np.array(getattr(found["ssim"].targets, name)) for name in ("floor", "after", "random"))
    assert numbers(line["Effect"])[0] == round(100 * (floor - after).mean(), 1)
    assert numbers(line["Random"]) == [round(100 * (floor - random).mean(), 1)]
    expected = estimate(random - after, "digits", 1, "removal", "targets")
    assert numbers(line["Above random"]) == [round(100 * value, 1) for value in expected]  # type: ignore[operator]
    controls = np.subtract(found["ssim"].controls.random, found["ssim"].controls.after)
    assert numbers(line["Controls above random"])[0] == pytest.approx(100 * controls.mean(), abs=0.05)
    loss = np.subtract(found["loss"].targets.random, found["loss"].targets.after)
    assert numbers(line["loss×1000 above random"])[0] == pytest.approx(1000 * loss.mean(), abs=0.005)
    assert line["Union"] == "60 (12.0%)"


def test_ranks_are_counts_of_significant_paired_differences() -> None:
    given = [removal_row(f"m{own}", effect, own) for own, effect in enumerate((0.101, 0.1, 0.098, 0.097, 0.09))]
    above = {}
    for one in given:
        assert one.metrics and one.metrics.removal and one.metrics.removal.union
        targets = one.metrics.removal.union.similarities["ssim"].targets
        above[one.key.method] = np.subtract(targets.random, targets.after)
    wins = dict.fromkeys(above, 0)
    losses = dict(wins)
    for one, other in permutations(above, 2):
        low = estimate(above[one] - above[other], "digits", 1, "removal", "targets").low
        assert low is not None
        wins[one] += low > 0
        losses[other] += low > 0
    lines = {line["method"][:-2]: line for line in only("removal", given).data["lines"]}
    assert {name: (line["rank_best"], line["rank_worst"]) for name, line in lines.items()} == {
        name: (1 + losses[name], len(above) - wins[name]) for name in above
    }
    assert 0 < sum(wins.values()) < 10


def test_loss_as_the_similarity_is_shown_once() -> None:
    sheet = only("removal", similarity="loss")
    assert not [name for name in sheet.headings if name.startswith("loss")]
    assert "loss×1000" in sheet.title
    assert numbers(cells(sheet)["oracle@1"]["Effect"])[0] == pytest.approx(35, abs=10)


def test_notes_give_floor_curve_and_what_is_missing() -> None:
    given = [*removal_rows(), removal_row("late", removal=None), removal_row("oracle", 0.9, seed=1)]
    sheet = only("removal", given)
    notes = "\n".join(sheet.notes)
    assert "8 targets and 6 controls" in notes and "under 5 seeds" in notes
    floor = 100 * (0.8 + NOISE[8][0].mean())
    assert f"ssim×100 is {floor:.1f} [" in notes
    assert "40: 2.1 [1.0, 3.0]; 80: 5.0." in notes
    assert "dino (too | small)" in notes
    assert "Without removal results: late@1 quick." in notes
    assert "the row of the lowest is shown" in notes and len(sheet.rows) == 5
    assert numbers(cells(sheet)["oracle@1"]["Effect"])[0] < 40


def test_a_reading_of_random_removal_that_overstates_it_is_said() -> None:
    notes = ["\n".join(only("removal", [with_union("a", random_by=by)]).notes) for by in ("size", "items left")]
    assert ["where its curve bends upwards" in note for note in notes] == [True, False]


def test_circular_and_meaningless_comparisons_are_marked() -> None:
    union = removal(0.3).union
    assert union is not None
    marked = union.model_copy(update={"similarities": {"clip": similarity(0.3, circular=True, meaningful=False)}})
    sheet = only("removal", [removal_row("clip", removal=removal(0.3, union=marked))], similarity="clip")
    assert cells(sheet)["clip@1"]["Beats random"] == "yes (circular)"
    assert "circular: " in "\n".join(sheet.notes) and "clip×100 is not meaningful" in "\n".join(sheet.notes)


@pytest.mark.parametrize("weights", [{"ssim": "c" * 16}, {}])
def test_numbers_by_other_weights_of_an_encoder_are_not_ranked_together(weights) -> None:
    known = removal_row("a", removal=removal(0.3, encoders={"ssim": "b" * 16}))
    assert known.metrics
    given = [known, removal_row("b", removal=removal(0.3, encoders=weights))]
    for view in ("removal", "published", "per-query"):
        sheets = build_view(view, given)
        assert [len(sheet.rows) for sheet in sheets] == [1, 1], view
        notes = [note for sheet in sheets for note in sheet.notes if "Weights and code" in note]
        named = sorted(["b" * 16, *weights.values()])
        assert sorted(notes) == [f"Weights and code of the encoder: {one}." for one in named], view
        assert len(only(view, [known, removal_row("b", removal=known.metrics.removal)]).rows) == 2
    assert [len(sheet.rows) for sheet in build_view("removal", given, similarity="loss")] == [2]


@pytest.mark.parametrize(
    "other",
    [
        removal_row("b", task_version=2),
        removal_row("b", truth="b" * 64),
        removal_row("b", removal=removal(0.3, top_k=9)),
        with_union("b", seeds=[2, 3, 4, 5, 6]),
        with_union("b", target_ids=TARGETS[::-1]),
        with_union("b", random_by="items left"),
    ],
)
def test_what_is_not_comparable_never_shares_a_table(other: Row) -> None:
    for view in ("removal", "published"):
        assert [len(sheet.rows) for sheet in build_view(view, [removal_row("a"), other])] == [1, 1]


def test_published_statistics_are_shown_for_targets_and_controls_apart() -> None:
    sheet = only("published")
    line = cells(sheet)["oracle@1"]
    for who in ("Targets", "Controls"):
        stated = [line[f"{who} {name}"] for name in ("change %", "AUC", "Mann-Whitney p", "Wilcoxon p")]
        assert stated == ["-12.3 ± 4.6", "0.875", "3.2e-05", "0.04"]
    assert "share one retraining per seed" in "\n".join(sheet.notes)
    assert list(cells(sheet)) == list(cells(only("removal")))


def test_a_distance_is_shown_unscaled_and_without_a_change_in_per_cent() -> None:
    one = similarity(0.3)
    unsigned = one.targets.published.model_copy(update={"change_percent": None, "change_margin": None})
    targets = one.targets.model_copy(update={"published": unsigned})
    given = [with_union("a", similarities={"l2": one.model_copy(update={"targets": targets})})]
    assert only("removal", given, similarity="l2").title.endswith(", l2")
    shown = numbers(cells(only("removal", given, similarity="l2"))["a@1"]["Effect"])[0]
    assert shown == pytest.approx(np.subtract(targets.floor, targets.after).mean(), abs=0.005)
    assert cells(only("removal", given, similarity="l2"))["a@1"]["loss×1000 above random"] == "-"
    assert cells(only("published", given, similarity="l2"))["a@1"]["Targets change %"] == "-"
