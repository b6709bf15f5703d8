"""Agreement of truths: who is before whom by each, counted over the entries that two truths both rank."""

from __future__ import annotations

import pytest

from tdabench.errors import UserError
from tdabench.leaderboard.rows.row import Row
from tdabench.leaderboard.views.catalogue import build_view

from ..helpers import exemplars, groups, lds_row, make_lds, make_source, only, removal, removal_row

# (LDS, Spearman of groups, mAP of exemplars, effect of removal): the first two tie by the LDS, groups turn all around.
SAID = {
    "one": (0.40, 0.10, 0.60, 0.30),
    "two": (0.4001, 0.30, 0.50, 0.20),
    "three": (0.20, 0.50, 0.40, 0.1999),
    "four": (0.10, 0.70, 0.30, 0.10),
    "random": (0.90, 0.90, 0.01, 0.0),
}


def row(method: str, mean: float, spearman: float, found: float, effect: float, **changes) -> Row:
    own = list(SAID).index(method) if method in SAID else 9
    parts = {"groups": {"heldout": groups({"spearman": spearman}, noise=own)}, "removal": removal(effect, own)}
    held = parts | {"exemplars": exemplars({(4, 5): found}, own), "lds": {"heldout": make_lds(mean, offset=own)}}
    return removal_row(method, own=own, **(held | changes))


def rows() -> list[Row]:
    return [row(method, *values) for method, values in SAID.items()]


def lines(given: list[Row]) -> dict[tuple[str, str], dict]:
    return {(line["one"], line["other"]): line for line in only("agreement", given).data["lines"]}


def counts(line: dict) -> tuple[int, int, int, int]:
    return line["entries"], line["decided"], line["same"], len(line["reversals"])


def test_pairs_decided_by_both_are_counted_as_same_or_reversed_without_random_entries() -> None:
    found = lines(rows())
    assert counts(found["LDS, heldout", "exemplars, 4"]) == (4, 5, 5, 0)  # all but the tie of one and two
    assert counts(found["LDS, heldout", "groups, heldout"]) == (4, 5, 0, 5)
    assert counts(found["groups, heldout", "exemplars, 4"]) == (4, 6, 0, 6)
    assert "two@1 quick before three@1 quick" in found["LDS, heldout", "groups, heldout"]["reversals"]
    assert len(found) == 6  # two of four truths


def test_the_correlation_is_spearmans_of_the_mean_scores() -> None:
    found = lines(rows())
    assert found["groups, heldout", "exemplars, 4"]["spearman"] == pytest.approx(-1)
    assert found["LDS, heldout", "exemplars, 4"]["spearman"] == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    same = [row(method, *(0.4, *values[1:])) for method, values in SAID.items() if method != "random"]
    assert lines(same)["LDS, heldout", "exemplars, 4"]["spearman"] is None


def test_removal_is_compared_by_the_loss() -> None:
    name = "removal of top 10, loss"
    found = lines(rows())[name, "exemplars, 4"]
    assert found["spearman"] == pytest.approx(1) and not found["reversals"]
    only_ssim = removal(0.3).model_copy(deep=True)
    del only_ssim.union.similarities["loss"]  # type: ignore[union-attr]
    assert not [pair for pair in lines([row(m, *v, removal=only_ssim) for m, v in SAID.items()]) if name in pair]


def test_entries_that_miss_queries_or_that_one_truth_lacks_are_not_compared() -> None:
    given = rows()
    lacking = row("five", 0.3, 0.2, 0.2, 0.2, exemplars=None, lds={"heldout": make_lds(0.3, missing=3)})
    found = lines([*given, lacking.model_copy(update={"status": "partial", "reason": "x"})])
    assert {line["entries"] for line in found.values()} == {4}


def test_two_entries_are_too_few_and_another_truth_is_another_table() -> None:
    given = rows()
    with pytest.raises(UserError, match="no task has two truths that rank the same entries"):
        build_view("agreement", given[:2])
    with pytest.raises(UserError):
        build_view("agreement", [lds_row("a", 0.1), lds_row("b", 0.2), lds_row("c", 0.3)])
    others = [one.model_copy(update={"source": make_source(truth_sha256="b" * 64)}) for one in given]
    assert len(build_view("agreement", [*given, *others])) == 2
