"""Random scores, pixel similarity and ensembles, against SciPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import kstest, rankdata, spearmanr, zscore

from tdabench.datasets.base import ImageDataset
from tdabench.methods.ensemble import Ensemble
from tdabench.methods.ensemble import Params as EnsembleParams
from tdabench.methods.pixel import Params as PixelParams
from tdabench.methods.pixel import Pixel
from tdabench.methods.random import Random
from tdabench.methods.view import View
from tdabench.models.problem import Problem

from .. import tiny

N = 9000  # more than one block of pixel's
NAMES = ("random", "pixel", "other")


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> View:
    """Return a view of 9,000 images of four pixels and of three queries; there is no model."""
    images = torch.rand(N, 1, 2, 2, generator=tiny.generator()) * 2 - 1
    data = ImageDataset(tiny.CARD, images, torch.zeros(N, dtype=torch.long))
    queries = tiny.queries_of(torch.rand(3, 1, 2, 2, generator=tiny.generator(1)) * 2 - 1)
    return View(Problem("many", data, queries, tiny.SPECS["plain"], {}), tmp_path_factory.mktemp("many"))


def whole(blocks) -> torch.Tensor:
    """Return the score matrix of blocks, each id being in exactly one of them."""
    scores, seen = torch.full((3, N), torch.nan), torch.zeros(N, dtype=torch.int)
    for part, block in blocks:
        scores[:, part] = block
        seen[part] += 1
    assert (seen == 1).all()
    return scores


# random


def test_random_scores_are_uniform(many):
    scores = Random().attribute(many, None, many.problem.queries)
    assert scores.shape == (3, N) and scores.dtype == torch.float32
    for row in scores.double().numpy():
        assert abs(row.mean() - 0.5) < 5 * (1 / 12 / N) ** 0.5
        assert abs(row.var() - 1 / 12) < 5 * (1 / 180 / N) ** 0.5
        assert kstest(row, "uniform").pvalue > 1e-6
    correlations = np.corrcoef(scores.numpy())[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < 5 / N**0.5


def test_random_scores_are_keyed_by_query_and_seed(many):
    queries = many.problem.queries
    scores = Random().attribute(many, None, queries)
    assert torch.equal(Random().attribute(many, None, queries.pick([2, 0])), scores[[2, 0]])
    other = Random().attribute(replace(many, seed=1), None, queries)
    assert abs(np.corrcoef(scores.flatten(), other.flatten())[0, 1]) < 5 / (3 * N) ** 0.5


# pixel


@pytest.mark.parametrize("similarity", ["cosine", "distance", "rbf"])
def test_pixel_similarities_are_scipys(many, similarity):
    queries = many.problem.queries
    found = whole(Pixel(PixelParams(similarity, bandwidth=3.0)).attribute(many, None, queries))
    x, y = queries.x.flatten(1).double().numpy(), many.train.images.flatten(1).double().numpy()
    expected = {
        "cosine": 1 - cdist(x, y, "cosine"),
        "distance": -cdist(x, y),
        "rbf": np.exp(-cdist(x, y, "sqeuclidean") * 64 / 4 / 3),
    }[similarity]
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("similarity", ["cosine", "distance", "rbf"])
def test_a_planted_copy_of_the_query_is_the_most_similar(many, similarity):
    queries = replace(many.problem.queries, x=many.train.images[[17, 8500, 3]])
    found = whole(Pixel(PixelParams(similarity)).attribute(many, None, queries))
    assert found.argmax(1).tolist() == [17, 8500, 3]


def test_cosine_ignores_brightness_and_the_others_do_not(many):
    queries = many.problem.queries
    half = replace(queries, x=queries.x / 2)
    for similarity in ("cosine", "distance", "rbf"):
        one, other = (whole(Pixel(PixelParams(similarity)).attribute(many, None, each)) for each in (queries, half))
        assert torch.allclose(one, other, atol=1e-6) == (similarity == "cosine")


def test_a_bandwidth_means_the_same_for_images_of_any_size(many):
    def tiled(images):
        return images.repeat(1, 1, 2, 2)

    queries, train = many.problem.queries, many.train
    larger = replace(many.problem, train=replace(train, images=tiled(train.images)))
    rbf = Pixel(PixelParams("rbf", 8.0))
    one = whole(rbf.attribute(many, None, queries))
    other = whole(rbf.attribute(replace(many, problem=larger), None, replace(queries, x=tiled(queries.x))))
    torch.testing.assert_close(one, other)


# ensembles


def members(*matrices: np.ndarray) -> dict:
    """Return stored scores whose rows are found by query id, as the runner hands them over."""
    names = [f"query-{i}" for i in range(len(matrices[0]))]

    def reader(matrix: np.ndarray):
        return lambda ids: torch.from_numpy(matrix[[names.index(name) for name in ids]]).float()

    return dict(zip(NAMES, map(reader, matrices), strict=False))


def combined(view: View, combine: str, *matrices: np.ndarray) -> np.ndarray:
    with_scores = replace(view, stored_scores=members(*matrices))
    return Ensemble(EnsembleParams(combine)).attribute(with_scores, None, view.problem.queries).numpy()


def matrices(count: int, seed: int = 0) -> list[np.ndarray]:
    scales = np.array([1e-3, 1.0, 1e4])[:count, None, None]
    return list((np.random.default_rng(seed).normal(size=(count, 3, 14)) * scales).astype(np.float32))


def test_the_rank_ensemble_is_the_mean_of_scipys_ranks(many):
    parts = matrices(3)
    parts[0][:, ::2] = 0  # ties
    expected = np.mean([(rankdata(part, axis=1) - 0.5) / 14 for part in parts], axis=0)
    found = combined(many, "rank", *parts)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_z_ensemble_is_the_mean_of_scipys_z_scores(many):
    parts = matrices(3)
    expected = np.mean([zscore(part.astype(np.float64), axis=1) for part in parts], axis=0)
    np.testing.assert_allclose(combined(many, "z", *parts), expected, rtol=1e-5, atol=1e-6)


@given(st.sampled_from([np.exp, np.cbrt, np.arctan, lambda x: 1e3 * x - 7]), st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_ranks_ignore_monotone_transforms_of_a_member(many, transform, seed):
    one, other = matrices(2, seed)
    one = one * 1e3
    np.testing.assert_array_equal(combined(many, "rank", one, other), combined(many, "rank", transform(one), other))


def test_z_scores_ignore_scale_and_shift_but_not_other_transforms(many):
    one, other = matrices(2)
    found = combined(many, "z", one, other)
    np.testing.assert_allclose(combined(many, "z", 50 * one + 3, other), found, rtol=1e-3, atol=1e-4)
    assert not np.allclose(combined(many, "z", np.exp(1e3 * one), other), found, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("combine", ["rank", "z"])
@pytest.mark.parametrize("constant", [0.0, 0.1, -1e6])
def test_a_constant_member_decides_nothing(many, combine, constant):
    [scores] = matrices(1)
    found = combined(many, combine, scores, np.full_like(scores, constant))
    assert np.isfinite(found).all()
    for row, alone in zip(found, scores, strict=True):
        np.testing.assert_allclose(spearmanr(row, alone)[0], 1)
    neutral = {"rank": 0.5, "z": 0.0}[combine]
    np.testing.assert_allclose(2 * found - neutral, combined(many, combine, scores), rtol=1e-5, atol=1e-6)


def test_one_member_alone_keeps_its_order_and_every_query_is_normalised_by_itself(many):
    [scores] = matrices(1)
    scores[1] *= 1e6
    for combine in ("rank", "z"):
        found = combined(many, combine, scores)
        assert (found.argsort(1) == scores.argsort(1)).all()
        np.testing.assert_allclose(found.std(1), found.std(1)[0], rtol=1e-4)


def test_an_ensemble_reads_the_rows_of_the_queries_it_is_asked_for(many):
    parts = matrices(2)
    found = combined(many, "rank", *parts)
    sliced = replace(many, stored_scores=members(*parts))
    again = Ensemble().attribute(sliced, None, many.problem.queries.pick([2, 0]))
    np.testing.assert_array_equal(again.numpy(), found[[2, 0]])
