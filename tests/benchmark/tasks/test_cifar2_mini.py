"""cifar2-mini@1 on images of its dataset's form: who trains, who is asked about, what the encoder that ships does."""

from __future__ import annotations

import torch

from tdabench.benchmark.tasks.checks import check_task
from tdabench.benchmark.tasks.find import find_task
from tdabench.benchmark.truth.queries import split
from tdabench.datasets.base import ImageDataset
from tdabench.datasets.published.cifar2_full import CARD
from tdabench.models.latents import Autoencoder, latent_shape

TASK = find_task("cifar2-mini")


def test_it_trains_on_as_many_of_either_class() -> None:
    labels = torch.arange(400) % 2
    data = ImageDataset(CARD, torch.zeros(400, 3, 32, 32), labels, {"class_labels": labels})
    check_task(TASK, data)
    parts = split(TASK, data)
    assert [len(parts.train), len(parts.dev), len(parts.test)] == [300, 12, 20]
    assert labels[parts.train].sum() == 150


def test_the_encoder_that_ships_brings_smooth_images_back() -> None:
    spec, state = TASK.recipe.model.autoencoder, TASK.frozen("autoencoder")
    assert spec is not None and state is not None
    assert latent_shape(spec, (3, 32, 32)) == (4, 8, 8)
    coarse = (torch.rand(16, 1, 3, 3, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8).expand(-1, 3, -1, -1)
    images = torch.nn.functional.interpolate(coarse, size=32, mode="bicubic").clamp(-1, 1)
    coder = Autoencoder(spec, state)
    latents = coder.encode(images)
    assert 0.5 < latents.std() < 2
    error = (coder.decode(latents) - images).square().mean()
    assert error < 0.1 * images.var()
