"""Counterfactual removal on a toy whose counterfactual is known in closed form, and its statistics against others'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from tdabench.benchmark.metrics.removal.evidence import (
    Baseline,
    Evidence,
    per_query_result,
    published_statistics,
    union_result,
)
from tdabench.benchmark.metrics.removal.protocol import Protocol
from tdabench.benchmark.metrics.removal.similarities import BUILT_IN, Similarity, cosine, l2, ssim
from tdabench.benchmark.metrics.scores import ranked
from tdabench.benchmark.tasks.spec import RemovalPlan
from tdabench.benchmark.truth.counterfactuals import Counterfactual, Outcome
from tdabench.datasets.queries import Queries
from tdabench.leaderboard.stats.over_seeds_and_queries import above_zero, estimate, two_way_variance

N, TARGETS, CONTROLS = 200, 10, 6
SIDE = 6


@dataclass(frozen=True)
class Toy:
    """The optimal denoiser of a finite training set: a posterior mean, exact for any part of the set.

    Query g is made from a noisy point z_g: its image is the items' mean under weights exp(-|z_g - x_i|^2 / 2 s^2), by
    which every item's share in it is known: the oracle's scores. A retraining adds noise to all images (``common``)
    and to each (``own``).
    """

    items: np.ndarray
    points: np.ndarray
    common: float
    own: float

    def weights(self) -> np.ndarray:
        distance = ((self.points[:, None] - self.items[None]) ** 2).sum(-1)
        return np.exp(-0.5 * (distance - distance.min(1, keepdims=True)) / 1.5)

    def images(self, removed: tuple[int, ...]) -> np.ndarray:
        weights = self.weights()
        weights[:, list(removed)] = 0
        return weights @ self.items / weights.sum(1, keepdims=True)

    def losses(self, images: np.ndarray) -> np.ndarray:
        return ((images - self.images(())) ** 2).mean(1)

    def outcome(self, one: Counterfactual) -> Outcome:
        rng = np.random.default_rng([one.seed, len(one.removed), *one.removed[:3]])
        images = self.images(one.removed)
        noise = self.common * rng.normal(size=(1, SIDE**2)) + self.own * rng.normal(size=images.shape)
        images = images + noise
        return Outcome(images.reshape(-1, 1, SIDE, SIDE).astype(np.float32), self.losses(images))


def make_toy(seed: int = 0, common: float = 0.02, own: float = 0.02) -> Toy:
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.arange(N) % 10)
    centres = rng.normal(size=(10, SIDE**2)) * 0.5
    centres[:3] = centres[0] + 0.3 * (centres[:3] - centres[0])  # what targets do not need is far from all of them
    items = np.tanh(centres[groups] + 0.25 * rng.normal(size=(N, SIDE**2)))
    near_targets, near_controls = np.flatnonzero(groups < 3)[:TARGETS], np.flatnonzero((groups > 2) & (groups < 6))
    chosen = np.r_[near_targets, near_controls[:CONTROLS]]
    return Toy(items, items[chosen] + 0.3 * rng.normal(size=(len(chosen), SIDE**2)), common, own)


def names(prefix: str, n: int) -> tuple[str, ...]:
    return tuple(f"{prefix}-{i}" for i in range(n))


def make_protocol(axis: str | int = "toy") -> Protocol:
    plan = RemovalPlan(top_share=0.02, seeds=5, per_query=3, per_query_shares=(0.02, 0.05))
    return Protocol((axis, 1), N, names("target", TARGETS), names("control", CONTROLS), (1, 2, 3, 4, 5), plan)


def make_evidence(toy: Toy, protocol: Protocol) -> Evidence:
    before = torch.from_numpy(toy.images(())).float().view(-1, 1, SIDE, SIDE)
    ids = protocol.targets + protocol.controls
    n = len(ids)
    roles = ("test",) * TARGETS + ("control",) * CONTROLS
    queries = Queries(ids, ("generated",) * n, roles, before, before, (-1,) * n, torch.zeros(n))
    return Evidence(protocol, queries, toy.outcome)


def ranking_of(scores: np.ndarray) -> dict[str, tuple[int, ...]]:
    orders = [ranked(row) for row in scores]
    assert all(order is not None for order in orders)
    return dict(zip(names("target", TARGETS), orders, strict=True))


def above_random(change) -> np.ndarray:
    return np.array(change.random) - np.array(change.after)


@pytest.fixture(scope="module")
def toy() -> Toy:
    return make_toy()


@pytest.mark.parametrize("name", ["ssim", "cosine", "l2", "loss"])
def test_an_oracle_beats_random_and_its_inverse_does_not(toy: Toy, name: str) -> None:
    evidence = make_evidence(replace(toy, common=0.002, own=0.002), make_protocol())
    oracle, inverted = (
        union_result(evidence, ranking_of(sign * toy.weights()[:TARGETS].astype(np.float32)), BUILT_IN)
        for sign in (1, -1)
    )
    good, bad = (above_random(one.similarities[name].targets) for one in (oracle, inverted))
    assert above_zero(good, "toy")
    assert bad.mean() < 0
    assert not above_zero(bad, "toy")
    assert above_zero(-bad, "toy")
    assert above_zero(good - bad, "toy", level=0.99)


def test_the_oracle_removes_what_the_closed_form_says(toy: Toy) -> None:
    """Without noise, similarities are those of the images that the closed form gives for the union."""
    quiet, protocol = replace(toy, common=0.0, own=0.0), make_protocol()
    ranking = ranking_of(toy.weights()[:TARGETS].astype(np.float32))
    found = union_result(make_evidence(quiet, protocol), ranking, BUILT_IN)
    removed = sorted({item for query in protocol.targets for item in ranking[query][: protocol.top_k]})
    assert found.size == len(removed)
    moved = np.linalg.norm(toy.images(tuple(removed)) - toy.images(()), axis=1)
    for row in found.similarities["l2"].targets.after:
        np.testing.assert_allclose(row, -moved[:TARGETS], atol=2e-6)
    for row in found.similarities["l2"].controls.after:
        np.testing.assert_allclose(row, -moved[TARGETS:], atol=2e-6)
    np.testing.assert_allclose(found.similarities["l2"].targets.floor, 0, atol=1e-6)
    np.testing.assert_allclose(found.similarities["ssim"].controls.floor, 1, atol=1e-6)


def test_random_scores_tie_with_random_removal() -> None:
    evidence, loss = make_evidence(make_toy(common=0.1, own=0.1), make_protocol()), BUILT_IN[3:]
    rng, found, wins = np.random.default_rng(5), [], 0
    for _ in range(40):
        result = union_result(evidence, ranking_of(rng.random((TARGETS, N)).astype(np.float32)), loss)
        assert abs(result.size - evidence.protocol.independent_size) <= 5
        values = above_random(result.similarities["loss"].targets)
        found.append(estimate(values, "toy"))
        wins += bool(above_zero(values, "toy"))
    assert wins <= 6  # 5 per cent of 40, and three standard errors
    assert sum(one.low < 0 < one.high for one in found) >= 34


def test_beats_random_errs_in_about_five_per_cent_of_simulated_retrainings() -> None:
    """Removing nothing that matters, a method differs from random removal by retraining noise alone."""
    loss = [one for one in BUILT_IN if one.name == "loss"]
    evidence, hits, runs = make_evidence(make_toy(), make_protocol()), 0, 250
    image = np.zeros((TARGETS + CONTROLS, 1, SIDE, SIDE), np.float32)
    for run in range(runs):
        rng = np.random.default_rng([run, 1])
        evidence = Evidence(evidence.protocol, evidence.queries, noisy(rng, image))
        scores = rng.random((TARGETS, N)).astype(np.float32)
        result = union_result(evidence, ranking_of(scores), loss)
        hits += bool(above_zero(above_random(result.similarities["loss"].targets), "toy"))
    assert 0.012 < hits / runs < 0.085


def noisy(rng: np.random.Generator, image: np.ndarray) -> Callable[[Counterfactual], Outcome]:
    """Return outcomes that no removal changes: a retraining moves all queries together, and each by itself."""

    @cache
    def read(one: Counterfactual) -> Outcome:
        return Outcome(image, 1 + 0.1 * rng.normal() + 0.1 * rng.normal(size=len(image)))

    return read


def test_intervals_cover_the_truth_with_few_seeds() -> None:
    rng, runs = np.random.default_rng(2), 500
    covered, wrong = 0, 0
    for run in range(runs):
        values = rng.normal(size=(5, 1)) + rng.normal(size=(1, 20)) + rng.normal(size=(5, 20))
        found = estimate(values, run)
        assert found.low is not None and found.high is not None
        covered += found.low < 0 < found.high
        wrong += bool(above_zero(values, run))
    assert 0.92 <= covered / runs <= 0.98
    assert 0.02 <= wrong / runs <= 0.075


def test_the_two_way_variance_is_that_of_the_components() -> None:
    rng = np.random.default_rng(3)
    found = [
        two_way_variance(rng.normal(size=(6, 1)) + 2 * rng.normal(size=(1, 30)) + rng.normal(size=(6, 30)))[0]
        for _ in range(3000)
    ]
    assert np.mean(found) == pytest.approx(1 / 6 + 4 / 30 + 1 / 180, rel=0.05)


def test_a_single_seed_has_no_interval() -> None:
    assert estimate(np.ones((1, 4)), "x") == (1.0, None, None)
    assert above_zero(np.ones((1, 4)), "x") is None
    with pytest.raises(ValueError, match="finite"):
        estimate(np.full((2, 2), np.nan), "x")


def test_values_without_spread_are_their_own_interval() -> None:
    assert estimate(np.full((3, 4), 0.25), "x") == (0.25, 0.25, 0.25)


def test_published_statistics_are_scipys_and_scikit_learns() -> None:
    rng = np.random.default_rng(4)
    own, random = rng.normal(0.5, 0.1, 60).round(1), rng.normal(0.6, 0.1, 60).round(1)  # rounded: with ties
    found = published_statistics(own, random, "less")
    labels = np.r_[np.ones(60), np.zeros(60)]
    assert found.auc == pytest.approx(roc_auc_score(labels, np.r_[random, own]))
    assert found.mann_whitney_p == pytest.approx(stats.mannwhitneyu(own, random, alternative="less").pvalue)
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(own - random, alternative="less").pvalue)
    percent = 100 * (own / np.median(random) - 1)
    assert found.change_percent == pytest.approx(percent.mean())
    assert found.change_margin == pytest.approx(1.98 * np.std(percent) / np.sqrt(60))


def test_published_statistics_of_equal_values_say_nothing() -> None:
    values = np.linspace(0.1, 0.9, 20)
    found = published_statistics(values, values, "less", unsigned=False)
    assert (found.auc, found.wilcoxon_p, found.change_percent) == (0.5, 1.0, None)


def test_a_small_random_median_is_clamped_as_published() -> None:
    assert published_statistics(np.full(4, 0.02), np.full(4, 1e-4), "less").change_percent == pytest.approx(100)


def test_the_baseline_reads_a_loss_of_one_over_the_items_left_exactly_at_every_size() -> None:
    def similarity(size: int) -> float:
        return 0.9 - 40 * (1 / (100 - size) - 1 / 100)

    values = np.array([similarity(size) for size in (0, 10, 40)])[:, None, None] * np.ones((3, 2, 4))
    baseline = Baseline((0, 10, 40), values, n_train=100)
    for size in (0, 5, 10, 25, 40):
        np.testing.assert_allclose(baseline.at(size), similarity(size))
    with pytest.raises(ValueError, match="up to 40 items, not 41"):
        baseline.at(41)


def test_unions_curves_and_seeds_are_the_protocols() -> None:
    protocol = make_protocol()
    assert protocol.top_k == 4
    assert protocol.curve_sizes == [4, 8, 16, 32, 37, 40]
    assert protocol.independent_size == round(200 * (1 - 0.98**10))
    ranking = {query: tuple(range(i, N)) for i, query in enumerate(protocol.targets)}
    assert protocol.union(ranking) == tuple(range(13))
    assert [one.removed for one in protocol.floor()] == [()] * 5
    assert [one.seed for one in protocol.without([3, 1])] == [1, 2, 3, 4, 5]
    assert protocol.without([3, 1])[0].removed == (1, 3)
    assert [len(one.removed) for one in protocol.alone(ranking, 10)] == [10, 10, 10]
    small, large = protocol.random(8), protocol.random(40)
    for one, other in zip(small, large, strict=True):
        assert set(one.removed) < set(other.removed)
    assert len({one.removed for one in small}) == 5


def test_a_retraining_keeps_what_was_not_removed() -> None:
    assert Counterfactual((0, 2, 5), 3).retraining(7).members.ids.tolist() == [1, 3, 4, 6]


def test_per_query_removal_looks_at_the_query_itself(toy: Toy) -> None:
    quiet, protocol = replace(toy, common=0.0, own=0.0), make_protocol()
    ranking = ranking_of(toy.weights()[:TARGETS].astype(np.float32))
    found = per_query_result(make_evidence(quiet, protocol), ranking, BUILT_IN)
    assert found.sizes == [4, 10] and found.seed == 1
    for row, size in zip(found.similarities["l2"].after, found.sizes, strict=True):
        for position, query in enumerate(found.query_ids):
            image = toy.images(ranking[query][:size])[position]
            expected = -np.linalg.norm(image - toy.images(())[position])
            assert row[position] == pytest.approx(expected, abs=2e-6)


def test_circular_similarities_are_marked(toy: Toy) -> None:
    result = union_result(
        make_evidence(toy, make_protocol()),
        ranking_of(toy.weights()[:TARGETS].astype(np.float32)),
        BUILT_IN,
        ("pixels",),
    )
    assert {name for name, one in result.similarities.items() if one.circular} == {"cosine", "l2"}


def test_ranks_fall_with_the_score_and_ties_go_by_id() -> None:
    assert ranked(np.array([0.1, 0.5, 0.5, 0.2], np.float32)) == (1, 2, 3, 0)
    assert ranked(np.array([0.1, np.nan], np.float32)) is None


def plain_ssim(one: np.ndarray, other: np.ndarray, window: int) -> float:
    """Wang et al.'s formula, window by window around every pixel, with a data range of 2."""
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    values = []
    one, other = (np.pad(x, window // 2, mode="reflect") for x in (one, other))
    for i in range(one.shape[0] - window + 1):
        for j in range(one.shape[1] - window + 1):
            a, b = (x[i : i + window, j : j + window].astype(float) for x in (one, other))
            covariance = ((a - a.mean()) * (b - b.mean())).mean()
            top = (2 * a.mean() * b.mean() + c1) * (2 * covariance + c2)
            values.append(top / ((a.mean() ** 2 + b.mean() ** 2 + c1) * (a.var() + b.var() + c2)))
    return float(np.mean(values))


@pytest.mark.parametrize(("side", "window"), [(8, 7), (6, 5), (16, 7), (3, 3)])
def test_ssim_is_the_formula_under_a_window_that_fits(side: int, window: int) -> None:
    generator = torch.Generator().manual_seed(side)
    one = torch.rand(3, 1, side, side, generator=generator) * 2 - 1
    other = (one + 0.3 * torch.randn(one.shape, generator=generator)).clamp(-1, 1)
    expected = [plain_ssim(a[0].numpy(), b[0].numpy(), window) for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(ssim(one, other).numpy(), expected, atol=1e-4)


def test_pixel_similarities_are_cosine_and_distance() -> None:
    one, other = torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([[[[4.0, 3.0]]]])
    assert float(cosine(one, other)) == pytest.approx(24 / 25)
    assert float(l2(one, other)) == pytest.approx(-(2**0.5))


def test_every_built_in_similarity_is_highest_for_equal_images(toy: Toy) -> None:
    image = torch.from_numpy(toy.images(())).float().view(-1, 1, SIDE, SIDE)
    for similarity in BUILT_IN:
        if isinstance(similarity, Similarity) and similarity.compare is not None:
            same, shifted = similarity.compare(image, image), similarity.compare(image, image.flip(0))
            assert (same > shifted).float().mean() > 0.8
