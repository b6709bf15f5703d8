"""The score, its bootstrap and its ceiling, against SciPy, dattri and synthetic truths of known reliability."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from tdabench.benchmark.metrics import lds as metrics
from tdabench.benchmark.metrics.scores import lds_metrics, query_ids, top_items
from tdabench.datasets.truth import Truth

SEEDS = st.integers(0, 2**32 - 1)


def scipy_spearman(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.asarray(spearmanr(one, other))[0])


def random_masks(rng: np.random.Generator, subsets: int, ids: int) -> np.ndarray:
    return np.argsort(rng.random((subsets, ids)), axis=1) < ids // 2


@pytest.mark.parametrize(("spread", "low", "high"), [(0.0, 1.6, 1.8), (0.15, 1.1, 1.35)])
def test_percentiles_are_wider_than_the_noise_by_the_interactions_share(spread: float, low: float, high: float) -> None:
    """Up to a factor of the root of 3, where queries differ in nothing but noise (docs/metrics.md)."""
    rng = np.random.default_rng(0)
    predicted, noise = rng.normal(size=(2, 500, 64, 20))
    share = rng.normal(0.35, spread, size=(500, 1, 20)).clip(0, 0.9)
    outputs = share * predicted + np.sqrt(1 - share**2) * noise
    true = np.std([metrics.lds(*pair).mean() for pair in zip(predicted, outputs, strict=True)])
    draws = [metrics.resampling("t", i, "k", 20, 64, 200) for i in range(20)]
    pairs = zip(predicted, outputs, draws, strict=False)
    widths = [np.subtract(*metrics.interval(metrics.bootstrap_lds(*pair))[::-1]) for pair in pairs]
    assert low < np.mean(widths) / (2 * 1.96 * true) < high


def noisy_truth(repeats: int, subsets: int, queries: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([repeats, subsets, queries])
    signal = rng.normal(size=(subsets, queries))
    return signal, signal + noise * rng.normal(size=(repeats, subsets, queries))


def test_subset_scores_sum_the_excluded_ids() -> None:
    scores = np.array([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    masks = np.array([[True, False, False], [False, False, True]])
    assert metrics.subset_scores(scores, masks).tolist() == [[6.0, 48.0], [3.0, 24.0]]


def test_predicted_loss_rises_with_the_score_of_what_was_removed() -> None:
    rng = np.random.default_rng(0)
    scores, masks = rng.normal(size=(4, 30)), random_masks(rng, 25, 30)
    loss = (scores[None] * ~masks[:, None]).sum(axis=2)
    np.testing.assert_allclose(metrics.lds(metrics.subset_scores(scores, masks), loss), 1.0)
    np.testing.assert_allclose(metrics.lds(metrics.subset_scores(-scores, masks), loss), -1.0)


@given(SEEDS, st.lists(st.integers(1, 29), unique=True, max_size=4), st.randoms())
@settings(max_examples=25, deadline=None)
def test_blocks_in_any_order_add_up_to_the_whole(seed: int, cuts: list[int], shuffler) -> None:
    rng = np.random.default_rng(seed)
    scores, masks = rng.normal(size=(3, 30)), random_masks(rng, 12, 30)
    edges = [0, *sorted(cuts), 30]
    blocks = [(slice(a, b), scores[:, a:b]) for a, b in pairwise(edges)]
    shuffler.shuffle(blocks)
    whole = metrics.subset_scores(scores, masks)
    np.testing.assert_allclose(metrics.accumulate_subset_scores(iter(blocks), masks), whole, atol=1e-9)


@pytest.mark.parametrize("slices", [[], [(0, 3)], [(0, 3), (2, 4)], [(0, 4), (0, 4)]])
def test_blocks_that_miss_or_repeat_ids_are_refused(slices: list[tuple[int, int]]) -> None:
    blocks = [(slice(a, b), np.ones((2, b - a))) for a, b in slices]
    with pytest.raises(ValueError, match="exactly once"):
        metrics.accumulate_subset_scores(blocks, np.ones((5, 4), dtype=bool))


def test_block_of_the_wrong_width_is_refused() -> None:
    with pytest.raises(ValueError, match="does not hold 4 training ids"):
        metrics.subset_scores(np.ones((2, 5)), np.ones((3, 4), dtype=bool))


def test_a_block_of_more_than_two_axes_is_refused() -> None:
    with pytest.raises(ValueError, match="does not hold 5 training ids"):
        metrics.accumulate_subset_scores([(slice(0, 5), np.ones((2, 5, 3)))], np.ones((4, 5), dtype=bool))


def test_lds_equals_scipy_with_ties() -> None:
    rng = np.random.default_rng(1)
    predicted, outputs = rng.integers(0, 6, (40, 7)), rng.integers(0, 6, (40, 7))
    expected = [scipy_spearman(p, o) for p, o in zip(predicted.T, outputs.T, strict=True)]
    np.testing.assert_allclose(metrics.lds(predicted, outputs), expected, atol=1e-12)


def test_lds_equals_dattri() -> None:
    pytest.importorskip("dattri")
    import torch
    from dattri.metric import lds

    rng = np.random.default_rng(2)
    scores, masks, losses = rng.normal(size=(5, 60)), random_masks(rng, 32, 60), rng.normal(size=(32, 5))
    included = torch.tensor(np.stack([np.flatnonzero(mask) for mask in masks]))
    theirs, _ = lds(torch.tensor(scores.T), (torch.tensor(-losses), included))
    np.testing.assert_allclose(metrics.lds(metrics.subset_scores(scores, masks), losses), theirs.numpy(), atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_score_costs_its_own_query_only(bad: float) -> None:
    rng = np.random.default_rng(3)
    scores, masks, losses = rng.normal(size=(3, 20)), random_masks(rng, 16, 20), rng.normal(size=(16, 3))
    good = metrics.lds(metrics.subset_scores(scores, masks), losses)
    scores[1, 4] = bad
    damaged = metrics.lds(metrics.subset_scores(scores, masks), losses)
    assert np.isnan(damaged).tolist() == [False, True, False]
    assert damaged[[0, 2]].tolist() == good[[0, 2]].tolist()


@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 1e-30, 1e20])
def test_constant_scores_have_no_lds_whatever_the_rounding(value: float) -> None:
    rng = np.random.default_rng(4)
    predicted = metrics.subset_scores(np.full((2, 1500), value), random_masks(rng, 24, 1500))
    assert np.isnan(metrics.lds(predicted, rng.normal(size=(24, 2)))).all()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_unit_of_scores_is_of_no_account(scale: float) -> None:
    rng = np.random.default_rng(4)
    scores, masks, losses = rng.normal(size=(3, 40)), random_masks(rng, 16, 40), rng.normal(size=(16, 3))
    one, other = (metrics.lds(metrics.subset_scores(each, masks), losses) for each in (scores, scale * scores))
    np.testing.assert_allclose(one, other, atol=1e-12)


def test_a_row_holds_what_these_functions_return() -> None:
    rng, ids = np.random.default_rng(8), ("a", "b", "c")
    scores, masks, outputs = rng.normal(size=(3, 40)), random_masks(rng, 24, 40), rng.normal(size=(3, 24, 3, 2))
    outputs += rng.normal(size=(24, 3, 1))
    queries = [{"id": query, "kind": "heldout", "role": "test"} for query in ids]
    assets: Any = SimpleNamespace(manifest={"task": "digits", "version": 1, "queries": queries})
    truth = Truth("report", ids, masks, outputs, outputs[:, 0])
    [result] = lds_metrics(assets, truth, [(ids[:2], scores[:2])], ids).lds.values()
    predicted, plan = metrics.subset_scores(scores, masks), metrics.resampling("digits", 1, "heldout", 3, 24)
    predicted[:, 2] = np.nan  # of the query without scores
    target, replicates = truth.target(ids), truth.replicates(ids)
    values, resampled = metrics.lds(predicted, target), metrics.bootstrap_lds(predicted, target, plan)
    assert result.values == [*values[:2].tolist(), None] and (result.n_nan, result.n_subsets) == (1, 24)
    assert (result.mean, result.low, result.high) == pytest.approx((values[:2].mean(), *metrics.interval(resampled)))
    limits = (metrics.ceiling(replicates), *metrics.interval(metrics.bootstrap_ceiling(replicates, plan)))
    assert (result.ceiling, result.ceiling_low, result.ceiling_high) == pytest.approx(limits)
    assert limits[1] < limits[0] < limits[2]
    assert result.shuffled_mean == pytest.approx(np.nanmean(metrics.shuffled_control(predicted, target)))
    once = lds_metrics(assets, replace(truth, outputs=outputs[:1]), [(ids, scores)], ids).lds["heldout"]
    assert (once.n_nan, once.ceiling, once.ceiling_low, once.ceiling_high) == (0, None, None, None)


def test_the_best_items_of_a_querys_set_are_by_score_then_id() -> None:
    roles = {"a": "dev", "b": "test", "c": "test", "d": "control", "e": "test"}
    queries = [{"id": query, "kind": "heldout", "role": role} for query, role in roles.items()]
    assets: Any = SimpleNamespace(manifest={"n_train": 5, "queries": queries})
    ids = query_ids(assets.manifest, "".join(["te", "st"]))  # equal, not the same object
    assert ids == ("b", "c", "e")
    scores = np.array([[1.0, 3.0, 3.0, -9.0, 2.0], [0.0, 1.0, 2.0, np.inf, 4.0]])
    top = top_items(assets, [(("b", "c"), scores)], ids, 3)
    assert (top.query_ids, top.ids, top.n_train) == (list(ids), [[1, 2, 4], None, None], 5)


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_lds_sees_ranks_only(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, outputs = rng.integers(-9, 10, (20, 3)).astype(float), rng.normal(size=(20, 3))
    np.testing.assert_array_equal(metrics.lds(predicted**3 + 5, outputs), metrics.lds(predicted, outputs))


@given(SEEDS, st.permutations(range(15)))
@settings(max_examples=25, deadline=None)
def test_lds_ignores_the_order_of_subsets(seed: int, order: list[int]) -> None:
    rng = np.random.default_rng(seed)
    predicted, outputs = rng.integers(0, 9, (15, 3)), rng.normal(size=(15, 3))
    np.testing.assert_allclose(
        metrics.lds(predicted[order], outputs[order]), metrics.lds(predicted, outputs), atol=1e-12
    )


def test_shuffled_control_averages_the_other_queries() -> None:
    rng = np.random.default_rng(5)
    predicted, outputs = rng.normal(size=(30, 4)), rng.normal(size=(30, 4))
    expected = [np.mean([scipy_spearman(predicted[:, p], outputs[:, o]) for p in range(4) if p != o]) for o in range(4)]
    np.testing.assert_allclose(metrics.shuffled_control(predicted, outputs), expected, atol=1e-12)
    assert np.isnan(metrics.shuffled_control(predicted[:, :1], outputs[:, :1])).all()


def test_shuffled_control_tells_specific_from_shared() -> None:
    signal, _ = noisy_truth(1, 200, 10, 0.0)
    shared = signal.mean(axis=1, keepdims=True) + np.zeros((1, 10))
    assert abs(metrics.shuffled_control(signal, signal).mean()) < 0.05
    np.testing.assert_allclose(metrics.shuffled_control(shared, shared), 1.0)


def test_every_method_and_kind_shares_the_subset_indices() -> None:
    heldout = metrics.resampling("digits", 1, "heldout", 20, 96)
    generated = metrics.resampling("digits", 1, "generated", 12, 96)
    assert heldout.query.shape == (1000, 20) and heldout.subset.shape == (1000, 96)
    assert heldout.query.max() == 19 and heldout.query.min() == 0
    np.testing.assert_array_equal(heldout.subset, generated.subset)
    np.testing.assert_array_equal(heldout.query, metrics.resampling("digits", 1, "heldout", 20, 96).query)
    assert (heldout.subset != metrics.resampling("digits", 2, "heldout", 20, 96).subset).any()


def test_resampling_never_changes() -> None:
    # Rows written at different times are paired by replicate: should NumPy's stream ever change, they no longer match.
    indices = metrics.resampling("digits", 1, "heldout", 5, 7, replicates=50)
    stream = b"".join(part.astype("<i8").tobytes() for part in indices)
    assert hashlib.sha256(stream).hexdigest()[:16] == "657b572114c69f20"


@pytest.mark.parametrize("levels", [4, 10**6])
def test_bootstrap_equals_scipy_on_explicitly_resampled_arrays(levels: int) -> None:
    rng = np.random.default_rng(6)
    predicted, outputs = rng.integers(0, levels, (24, 5)), rng.integers(0, levels, (24, 5))
    indices = metrics.resampling("t", 1, "k", 5, 24, replicates=20)
    expected = [
        np.mean([scipy_spearman(predicted[rows, q], outputs[rows, q]) for q in columns])
        for columns, rows in zip(*indices, strict=True)
    ]
    np.testing.assert_allclose(metrics.bootstrap_lds(predicted, outputs, indices), expected, atol=1e-12)


def test_bootstrap_leaves_out_queries_without_an_lds() -> None:
    signal, (truth,) = noisy_truth(1, 40, 3, 1.0)
    broken = np.column_stack([signal, np.full(40, np.nan)])
    indices = metrics.Resampling(np.array([[0, 1, 2, 3], [3, 3, 3, 3]]), np.tile(np.arange(40), (2, 1)))
    replicates = metrics.bootstrap_lds(broken, np.column_stack([truth, truth[:, 0]]), indices)
    np.testing.assert_allclose(replicates[0], metrics.lds(signal, truth).mean())
    assert np.isnan(replicates[1])


def test_a_replicate_of_one_subset_has_no_lds() -> None:
    signal, (truth,) = noisy_truth(1, 40, 3, 1.0)
    once = metrics.Resampling(np.array([[0, 1, 2]]), np.zeros((1, 40), dtype=int))
    assert np.isnan(metrics.bootstrap_lds(signal, truth, once)).all()


def test_bootstrap_refuses_indices_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"\(24, 5\)"):
        metrics.bootstrap_lds(np.ones((24, 4)), np.ones((24, 4)), metrics.resampling("t", 1, "k", 5, 24, 3))


def test_bootstrap_is_fast() -> None:
    signal, (truth,) = noisy_truth(1, 96, 20, 1.0)
    indices = metrics.resampling("digits", 1, "heldout", 20, 96)
    start = time.process_time()
    metrics.bootstrap_lds(signal, truth, indices)
    assert time.process_time() - start < 3.0


def test_interval_is_the_percentile_interval() -> None:
    low, high = metrics.interval([*np.linspace(0, 1, 101), np.nan])
    assert (low, high) == pytest.approx((0.025, 0.975))
    assert metrics.interval(np.linspace(0, 1, 101), level=0.5) == pytest.approx((0.25, 0.75))
    assert np.isnan(metrics.interval([np.nan])).all()


@pytest.mark.parametrize(("repeats", "noise"), [(2, 1.0), (2, 1.5), (4, 1.0), (4, 2.0)])
def test_ceiling_interval_holds_a_known_reliability(repeats: int, noise: float) -> None:
    _, outputs = noisy_truth(repeats, 96, 20, noise)
    indices = metrics.resampling("t", 1, "k", 20, 96, replicates=200)
    low, high = metrics.interval(metrics.bootstrap_ceiling(outputs, indices))
    assert low < metrics.ceiling(outputs) < high
    assert low < np.sqrt(1 / (1 + noise**2 / repeats)) < high
    assert high - low < 0.15


@pytest.mark.parametrize(("repeats", "noise"), [(2, 1.0), (2, 1.5), (4, 1.0), (4, 2.0)])
def test_a_perfect_predictor_reaches_the_ceiling(repeats: int, noise: float) -> None:
    signal, outputs = noisy_truth(repeats, 300, 60, noise)
    assert metrics.reliability(outputs) == pytest.approx(1 / (1 + noise**2 / repeats), abs=0.03)
    assert metrics.lds(signal, outputs.mean(axis=0)).mean() == pytest.approx(metrics.ceiling(outputs), abs=0.02)


def test_replicate_correlation_alone_is_no_ceiling() -> None:
    signal, outputs = noisy_truth(2, 200, 60, 1.5)
    assert metrics.lds(signal, outputs.mean(axis=0)).mean() > metrics.lds(*outputs).mean() + 0.2


def test_without_reliability_the_ceiling_is_zero() -> None:
    _, (truth,) = noisy_truth(1, 50, 4, 1.0)
    indices = metrics.resampling("t", 1, "k", 4, 50, replicates=10)
    opposed = np.stack([truth, -truth])
    assert metrics.ceiling(opposed) == 0.0
    assert metrics.bootstrap_ceiling(opposed, indices).tolist() == [0.0] * 10


def test_one_retraining_says_nothing_about_the_ceiling() -> None:
    _, outputs = noisy_truth(1, 50, 4, 1.0)
    assert np.isnan(metrics.ceiling(outputs))
    assert np.isnan(metrics.bootstrap_ceiling(outputs, metrics.resampling("t", 1, "k", 4, 50, 10))).all()


def test_everything_is_float64() -> None:
    scores, masks = np.ones((3, 8), dtype=np.float32), random_masks(np.random.default_rng(0), 6, 8)
    predicted = metrics.subset_scores(scores, masks)
    truth = np.arange(18, dtype=np.float32).reshape(6, 3)
    indices = metrics.resampling("t", 1, "k", 3, 6, 4)
    for value in (predicted, metrics.lds(truth, truth), metrics.bootstrap_lds(truth, truth, indices)):
        assert value.dtype == np.float64
