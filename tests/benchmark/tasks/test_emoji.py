"""emoji@1 on pictures of its dataset's form: who trains, who is asked about, what the encoder that ships does."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from tdabench.benchmark.tasks.checks import check_task
from tdabench.benchmark.tasks.find import find_task
from tdabench.benchmark.truth.build import grouped
from tdabench.benchmark.truth.exemplars import choose_exemplars
from tdabench.benchmark.truth.queries import split
from tdabench.datasets.base import ImageDataset
from tdabench.datasets.published.emoji import CARD
from tdabench.models.latents import Autoencoder

TASK = find_task("emoji")
FACES, OTHERS, KINDS = 169, 60, 4  # pictures an artist, of the category and outside it; subcategories of each


@pytest.fixture(scope="module")
def data():
    """Noise in the form of the dataset: two artists, two categories, subcategories of their own."""
    count = FACES + OTHERS
    artist = torch.arange(2).repeat_interleave(count)
    outside = (torch.arange(count) >= FACES).long().repeat(2)
    kind = torch.arange(2 * count) % KINDS + KINDS * outside
    images = torch.rand(2 * count, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    groups = {"category": outside, "artist_subcategory": artist * 2 * KINDS + kind}
    names = {"category": ("Smileys & Emotion", "Flags")}
    return ImageDataset(CARD, images, artist, {"class_labels": artist}, groups=groups, group_names=names)


def test_it_trains_and_asks_within_one_category(data):
    check_task(TASK, data)
    parts = split(TASK, data)
    chosen = torch.cat([parts.train, parts.dev, parts.test])
    assert [len(parts.train), len(parts.dev), len(parts.test)] == [306, 12, 20]
    assert not data.groups["category"][chosen].any() and len(chosen.unique()) == 2 * FACES
    groups = grouped(TASK, data.select(parts.train))
    assert groups is not None and len(groups) == 2 * KINDS


def test_exemplars_are_of_other_categories_and_alike(data):
    parts = split(TASK, data)
    taken = torch.cat([parts.train, parts.dev, parts.test])
    chosen = choose_exemplars(data, TASK.label, TASK.exemplars, taken)
    kinds = [data.groups["artist_subcategory"][items].unique().tolist() for items in chosen]
    assert all(data.groups["category"][items].all() for items in chosen)
    assert all(len(kind) == 1 for kind in kinds) and all(a != b for a, b in combinations(kinds, 2))


def test_the_encoder_that_ships_is_a_projection(data):
    spec, state = TASK.recipe.model.autoencoder, TASK.frozen("autoencoder")
    assert spec is not None and state is not None
    coder, components = Autoencoder(spec, state), state["components"].double()
    torch.testing.assert_close(components @ components.T, torch.eye(10).double(), atol=1e-6, rtol=0)
    once = coder.decode(coder.encode(data.pixels(torch.arange(4))))
    torch.testing.assert_close(coder.decode(coder.encode(once)), once, atol=1e-5, rtol=0)
    assert once.std() > 0.1
