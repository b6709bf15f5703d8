"""Measures over groups against scipy, scikit-learn, all orders of ties, and truths whose noise is known."""

from __future__ import annotations

import warnings
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import ndcg_score

from tdabench.benchmark.metrics import groups as metrics
from tdabench.datasets.truth import GroupTruth

SEEDS = st.integers(0, 2**32 - 1)
G, Q = 7, 5


def tied(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties and effects of both signs, [G, Q] each."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 4, (G, Q)).astype(float), rng.normal(size=(G, Q))


def every_pair(one: np.ndarray, other: np.ndarray, measure) -> np.ndarray:
    return np.array([[measure(x, y) for y in other.T] for x in one.T])


def ties_in_all_orders(scores: np.ndarray, value) -> float:
    """Mean of ``value`` of an order over all orders that the scores allow."""
    orders = [o for o in permutations(range(len(scores))) if all(np.diff(scores[list(o)]) <= 0)]
    return float(np.mean([value(list(order)) for order in orders]))


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_spearman_equals_scipy_for_every_pair_of_queries(seed: int) -> None:
    scores, effects = tied(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scipy's, about constant scores
        expected = every_pair(scores, effects, lambda x, y: spearmanr(x, y)[0])
    np.testing.assert_allclose(metrics.spearman(scores, effects), expected, atol=1e-12)


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_ndcg_equals_scikit_learn_with_ties_and_clipped_effects(seed: int) -> None:
    scores, effects = tied(seed)
    expected = every_pair(scores, effects, lambda x, y: ndcg_score([np.maximum(y, 0)], [x]))
    expected[:, (effects <= 0).all(axis=0)] = np.nan
    np.testing.assert_allclose(metrics.ndcg(scores, effects), expected, atol=1e-12)


def test_ndcg_and_top1_share_ties_out_over_all_orders() -> None:
    scores = np.array([2.0, 0.0, 2.0, 1.0, 1.0, 2.0])
    effects = np.array([0.3, 1.0, -0.5, 0.7, 0.1, 2.0])
    gains = np.maximum(effects, 0) / np.log2(2 + np.argsort(np.argsort(-np.maximum(effects, 0))))
    discounted = ties_in_all_orders(scores, lambda o: (np.maximum(effects, 0)[o] / np.log2(np.arange(2, 8))).sum())
    column = scores[:, None], effects[:, None]
    np.testing.assert_allclose(metrics.ndcg(*column), discounted / gains.sum())
    np.testing.assert_allclose(metrics.top1(*column), ties_in_all_orders(scores, lambda o: o[0] == effects.argmax()))
    np.testing.assert_allclose(metrics.top1(*column), 1 / 3)


def test_the_effects_themselves_score_one_and_their_reverse_as_badly_as_can_be() -> None:
    effects = np.random.default_rng(0).normal(size=(G, Q))
    for name, measure in metrics.MEASURES.items():
        np.testing.assert_allclose(np.diag(measure(effects, effects)), 1.0)
        assert (np.diag(measure(-effects, effects)) <= (-1 + 1e-12 if name == "spearman" else 0.8)).all()


def test_a_query_that_is_not_finite_has_no_value_and_leaves_the_others_theirs() -> None:
    scores, effects = np.random.default_rng(0).normal(size=(2, G, Q))
    broken_scores, broken_effects = scores.copy(), effects.copy()
    broken_scores[2, 1], broken_effects[3, 4] = np.inf, np.nan
    for measure in metrics.MEASURES.values():
        found, whole = measure(broken_scores, broken_effects), measure(scores, effects)
        unknown = np.zeros((Q, Q), dtype=bool)
        unknown[1], unknown[:, 4] = True, True
        assert (np.isnan(found) == unknown).all()
        np.testing.assert_allclose(found[~unknown], whole[~unknown])


def test_equal_scores_have_no_correlation_and_what_chance_gets_elsewhere() -> None:
    effects = np.abs(np.random.default_rng(0).normal(size=(G, Q)))
    equal = np.ones((G, Q))
    assert np.isnan(metrics.spearman(equal, effects)).all()
    np.testing.assert_allclose(metrics.top1(equal, effects), 1 / G)
    discounts = 1 / np.log2(np.arange(2, G + 2))
    ideal = discounts @ np.sort(effects, axis=0)[::-1]
    np.testing.assert_allclose(metrics.ndcg(equal, effects)[0], discounts.mean() * effects.sum(axis=0) / ideal)


def test_no_gain_means_no_ndcg() -> None:
    scores, effects = np.random.default_rng(0).normal(size=(2, G, 1))
    assert np.isnan(metrics.ndcg(scores, -np.abs(effects))).all()


def test_group_sums_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    scores, assignment = rng.normal(size=(3, 20)).astype(np.float32), rng.integers(0, 4, 20)
    expected = [[sum(float(row[i]) for i in range(20) if assignment[i] == g) for g in range(4)] for row in scores]
    np.testing.assert_allclose(metrics.group_sums(scores, assignment, 4), expected, rtol=1e-12)
    scores[1, 3] = np.nan
    found = metrics.group_sums(scores, assignment, 4)
    assert np.isnan(found[1]).all() and np.isfinite(found[[0, 2]]).all()


def noisy(repeats: int, noise: float, n_groups: int = 10, n_queries: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(repeats)
    signal = rng.normal(size=(n_groups, n_queries))
    return signal, signal + noise * rng.normal(size=(repeats, n_groups, n_queries))


@pytest.mark.parametrize("repeats", [2, 3, 4])
def test_the_true_signal_reaches_spearmans_ceiling(repeats: int) -> None:
    signal, effects = noisy(repeats, 1.0, n_groups=60)
    result = only(effects, signal.T, "group")
    assert result.scores["spearman"].mean == pytest.approx(result.scores["spearman"].ceiling, abs=0.015)
    pairs = [np.mean([spearmanr(a, b)[0] for a, b in zip(effects[i].T, effects[j].T, strict=True)])
             for i in range(repeats) for j in range(i)]  # fmt: skip
    single = np.mean(pairs)
    assert result.scores["spearman"].ceiling == pytest.approx((repeats * single / (1 + (repeats - 1) * single)) ** 0.5)


@pytest.mark.parametrize("name", ["ndcg", "top1"])
def test_halves_are_judged_by_each_other(name: str) -> None:
    _, effects = noisy(4, 1.0, n_queries=6)
    measure = metrics.MEASURES[name]
    found = [
        np.diag(measure(effects[[*half]].mean(0), effects[[*({0, 1, 2, 3} - {*half})]].mean(0)))
        for half in [(0, 1), (1, 2), (2, 3), (3, 0)]
    ]
    np.testing.assert_allclose(metrics.half_against_half(name, effects), np.mean(found, axis=0))
    two = effects[:2]
    both = [np.diag(measure(two[0], two[1])), np.diag(measure(two[1], two[0]))]
    np.testing.assert_allclose(metrics.half_against_half(name, two), np.mean(both, axis=0))


def labels(effects: np.ndarray, assignment: np.ndarray) -> GroupTruth:
    """A truth with these effects [R, G, Q], in two noise levels."""
    outputs = np.stack([effects + 1.0, effects - 1.0], axis=-1)
    names = tuple(f"g{g}" for g in range(effects.shape[1]))
    ids = tuple(f"q{q}" for q in range(effects.shape[2]))
    return GroupTruth(names, ids, assignment, outputs, np.zeros((len(effects), len(ids), 2)))


def only(effects: np.ndarray, scores: np.ndarray, unit: metrics.Unit, assignment: np.ndarray | None = None):
    """The result of queries of one kind; scores [Q, G] or [Q, N]."""
    truth = labels(effects, np.arange(effects.shape[1]) if assignment is None else assignment)
    queries = [{"id": query, "kind": "heldout"} for query in truth.query_ids]
    assets = SimpleNamespace(manifest={"queries": queries, "task": "t", "version": 1})
    return metrics.group_metrics(assets, truth, [(truth.query_ids, scores)], truth.query_ids, unit)["heldout"]


@pytest.mark.parametrize("name", ["ndcg", "top1"])
def test_the_ceiling_of_a_measure_without_formula_is_what_halves_get(name: str) -> None:
    signal, effects = noisy(3, 1.0, n_queries=40)
    found = only(effects, signal.T, "group").scores[name]
    assert found.ceiling == pytest.approx(np.nanmean(metrics.half_against_half(name, effects)))
    assert 0.0 <= found.ceiling_low < found.ceiling < found.ceiling_high <= 1.0


def test_items_count_by_the_sum_over_their_group() -> None:
    rng = np.random.default_rng(0)
    assignment = np.array([0, 1, 2, 1, 0, 2, 3, 3])
    items, effects = rng.normal(size=(Q, 8)), rng.normal(size=(2, 4, Q))
    summed = np.array([[row[assignment == g].sum() for g in range(4)] for row in items])
    by_item, by_group = only(effects, items, "item", assignment), only(effects, summed, "group", assignment)
    assert by_item.scores == by_group.scores
    assert (by_item.unit, by_group.unit, by_item.n_replicates) == ("item", "group", 2)


def test_sizes_are_what_scores_that_tell_no_item_from_another_get() -> None:
    rng = np.random.default_rng(1)
    assignment = np.repeat(np.arange(5), [4, 1, 3, 6, 2])
    effects = rng.normal(size=(2, 5, Q))
    constant = only(effects, np.full((Q, 16), 0.7), "item", assignment).scores
    for name, score in only(effects, rng.normal(size=(Q, 16)), "item", assignment).scores.items():
        assert score.sizes == pytest.approx(constant[name].values) and constant[name].sizes == score.sizes
    expected = [spearmanr([4, 1, 3, 6, 2], effects.mean(0)[:, q])[0] for q in range(Q)]
    assert constant["spearman"].sizes == pytest.approx(expected)


def test_random_scores_lie_at_the_control_and_the_control_crosses_queries() -> None:
    signal, effects = noisy(2, 0.5, n_queries=60)
    rng = np.random.default_rng(9)
    result = only(effects, rng.normal(size=signal.T.shape), "group")
    for name, score in result.scores.items():
        crossed = metrics.MEASURES[name](rng.normal(size=signal.shape), effects.mean(0))
        assert score.mean == pytest.approx(score.shuffled, abs=0.1)
        assert score.shuffled == pytest.approx(np.nanmean(crossed), abs=0.05)
        assert score.mean < score.ceiling - 0.2
    scores, target = signal[:, :3], effects[:, :, :3]
    expected = np.mean([spearmanr(scores[:, i], target.mean(0)[:, j])[0] for i in range(3) for j in range(3) if i != j])
    assert only(target, scores.T, "group").scores["spearman"].shuffled == pytest.approx(expected)


def test_queries_without_scores_are_missing_and_one_retraining_has_no_ceiling() -> None:
    effects = np.random.default_rng(0).normal(size=(1, 4, Q))
    truth = labels(effects, np.arange(4))
    queries = [{"id": query, "kind": "generated"} for query in truth.query_ids]
    assets = SimpleNamespace(manifest={"queries": queries, "task": "t", "version": 1})
    blocks = [(truth.query_ids[:2], effects[0].T[:2])]
    result = metrics.group_metrics(assets, truth, blocks, truth.query_ids, "group")["generated"]
    assert result.scores["spearman"].values == pytest.approx([1.0, 1.0, None, None, None], nan_ok=True)
    assert result.scores["spearman"].ceiling is None and result.query_ids == list(truth.query_ids)


def test_effects_are_paired_by_seed_where_everything_has_the_seed() -> None:
    outputs = np.array([[[[2.0, 4.0]]], [[[5.0, 5.0]]], [[[7.0, 9.0]]]])  # [R, G, Q, bins]
    full = np.array([[[1.0, 1.0]], [[2.0, 4.0]]])  # [F, Q, bins]
    truth = GroupTruth(("a",), ("q",), np.zeros(1, dtype=int), outputs, full)
    assert truth.effects(("q",)).ravel().tolist() == [3.0 - 1.0, 5.0 - 3.0, 8.0 - 2.0]
