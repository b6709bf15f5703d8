"""Near-copies against distances computed one by one, and agreement against counting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from tdabench.benchmark.attribution.agreement import agreements
from tdabench.benchmark.attribution.copies import NEIGHBOURS, near_copies, pixel_distances, said
from tdabench.datasets.base import ImageDataset

from ... import tiny

N = 80


@pytest.fixture(scope="module")
def train():
    return ImageDataset(tiny.CARD, tiny.images(N), torch.zeros(N, dtype=torch.long))


def test_distances_are_those_of_pixels(train, monkeypatch):
    monkeypatch.setattr("tdabench.benchmark.attribution.copies.CHUNK_BYTES", 8 * 64 * 7)  # seven images at a time
    asked = tiny.images(3, seed=9)
    expected = [[float((a - b).double().square().sum().sqrt()) for b in train.images] for a in asked]
    np.testing.assert_allclose(pixel_distances(asked, train).numpy(), expected, rtol=1e-6)


def test_a_copy_and_a_near_copy_are_found_and_nothing_else(train):
    stranger, same = tiny.images(1, seed=77), train.images[5:6]
    near = (train.images[9:10] + 0.05 * torch.randn(1, 1, 8, 8, generator=tiny.generator(1))).clamp(-1, 1)
    found = near_copies(torch.cat([stranger, same, near]), train)
    assert found[0] == []
    assert [(copy.item, copy.same) for copy in found[1]] == [(5, True)] and found[1][0].ratio == 0
    assert [(copy.item, copy.same) for copy in found[2]] == [(9, False)]
    distances = sorted(float((near[0] - image).norm()) for image in train.images)
    expected = distances[0] / (0.5 * np.mean(distances[:NEIGHBOURS]))
    assert found[2][0].ratio == pytest.approx(expected, rel=1e-5)


def test_what_is_said_of_copies(train):
    copies = near_copies(torch.cat([tiny.images(1, seed=77), train.images[5:6]]), train)
    lines = said(("a", "b"), copies, [f"{i}.png" for i in range(N)])
    assert lines == ["b is itself among the training images, as 5.png"]


def test_agreement_is_counted_and_correlated():
    rng = np.random.default_rng(0)
    scores = {name: rng.normal(size=(3, 30)).astype(np.float32) for name in "abc"}
    scores["c"][1, 4] = np.nan
    found = {(pair.one, pair.other): pair for pair in agreements(scores, 10)}
    for one, other in [("a", "b"), ("a", "c"), ("b", "c")]:
        items = [i for i in range(30) if "c" not in (one, other) or i != 4]  # that both score for every query
        first, second = scores[one][:, items], scores[other][:, items]
        tops = [({*np.argsort(-first[q])[:10]}, {*np.argsort(-second[q])[:10]}) for q in range(3)]
        overlap = np.mean([len(a & b) / 10 for a, b in tops])
        correlation = np.mean([spearmanr(first[q], second[q]).statistic for q in range(3)])
        pair = found[one, other]
        assert pair.overlap == pytest.approx(overlap) and pair.correlation == pytest.approx(correlation)
        assert pair.chance == pytest.approx(10 / len(items))


def test_entries_without_scores_agree_with_nothing():
    nothing = np.full((1, 5), np.nan, np.float32)
    (pair,) = agreements({"a": nothing, "b": np.zeros((1, 5), np.float32)}, 2)
    assert pair.overlap is None and pair.correlation is None
