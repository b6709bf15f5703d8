"""Measures of exemplars against all orders of tied items, scikit-learn, and what chance is."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from tdabench.benchmark.metrics.exemplars import chances, cuts, exemplar_scores, measures


def in_order(order: np.ndarray, exemplars: list[int]) -> dict[str, float]:
    """The measures of one order of the items, by their definitions."""
    found = np.isin(order, exemplars)
    ranks = np.flatnonzero(found) + 1
    n, k = len(order), len(exemplars)
    recalls = {name: found[:cut].mean() * cut / k for name, cut in cuts(n, k).items()}
    below = [(~found[rank:]).sum() / (n - k) for rank in ranks]
    return {"ap": np.mean([found[:rank].mean() for rank in ranks]), **recalls, "percentile": np.mean(below)}


@pytest.mark.parametrize("seed", range(12))
def test_ties_are_averaged_over_all_orders_of_equal_scores(seed) -> None:
    rng = np.random.default_rng(seed)
    n, k = 7, int(rng.integers(1, 4))
    scores, exemplars = rng.integers(0, 3, n).astype(np.float32), rng.choice(n, k, replace=False).tolist()
    orders = [np.array(order) for order in permutations(range(n)) if (np.diff(scores[list(order)]) <= 0).all()]
    every = [in_order(order, exemplars) for order in orders]
    expected = {name: np.mean([one[name] for one in every]) for name in every[0]}
    assert measures(scores, exemplars) == pytest.approx(expected)


def test_without_ties_they_are_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        scores, exemplars = rng.normal(size=300), rng.choice(300, 4, replace=False)
        labels = np.isin(np.arange(300), exemplars)
        found = measures(scores, exemplars)
        assert found["ap"] == pytest.approx(average_precision_score(labels, scores))
        assert found["percentile"] == pytest.approx(roc_auc_score(labels, scores))


@pytest.mark.parametrize(("n", "k"), [(61, 1), (62, 2), (1504, 4), (7, 5), (40_000, 4)])
def test_exemplars_on_top_have_1_in_all_and_at_the_bottom_nothing(n, k) -> None:
    top = np.arange(n)[::-1].copy()
    assert measures(top, np.arange(k)) == pytest.approx(dict.fromkeys(chances(n, k), 1.0))
    bottom = measures(top, np.arange(n - k, n))
    assert bottom["percentile"] == 0 and bottom["recall-k"] == pytest.approx(max(0, 2 * k - n) / k)


@pytest.mark.parametrize(("n", "k"), [(61, 1), (1504, 4)])
def test_equal_scores_are_at_chance_and_random_ones_are_on_average(n, k) -> None:
    assert measures(np.ones(n, np.float32), np.arange(k)) == pytest.approx(chances(n, k))
    rng = np.random.default_rng(0)
    found = [measures(rng.random(n), np.arange(n - k, n)) for _ in range(3000)]
    for name, chance in chances(n, k).items():
        values = np.array([one[name] for one in found])
        assert abs(values.mean() - chance) < 4 * values.std() / len(values) ** 0.5, name


def test_scores_that_are_not_finite_have_no_value_and_cuts_leave_room_for_all() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        assert np.isnan(list(measures([1.0, bad, 0.0], [0]).values())).all()
    assert cuts(1504, 4) == {"recall-k": 4, "recall-10": 10, "recall-1pct": 16}
    assert cuts(61, 2) == {"recall-k": 2, "recall-10": 10, "recall-1pct": 2} and cuts(5, 2)["recall-10"] == 5


def test_queries_without_scores_are_missing_and_not_absent() -> None:
    cases = {"a": 0, "b": 0, "c": 1, "d": 1}
    values = {
        "a": measures([3.0, 2.0, 1.0], [0]),
        "b": measures([np.nan, 2.0, 1.0], [0]),
        "c": measures([1, 2, 3], [0]),
        "C": measures([1, 3, 2], [1]),
    }
    controls = {name: name.upper() for name in cases}
    found = exemplar_scores(1, 5, 3, cases, controls, values)
    assert found.cases == [0, 0, 1, 1] and found.query_ids == ["a", "b", "c", "d"]
    assert found.measures["ap"].values == [1.0, None, pytest.approx(1 / 3), None]
    assert found.measures["ap"].mean == pytest.approx(2 / 3)
    assert found.measures["ap"].chance == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert found.controls["ap"].values == [None, None, 1.0, None] and found.controls["ap"].mean == 1.0
    assert exemplar_scores(1, 5, 3, cases, controls, {}).measures["percentile"].mean is None
