"""Training replayed: what `training_step` says an update saw is what `train` showed the network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tdabench.methods.view import View
from tdabench.models import training
from tdabench.models.training import train, training_step

from .. import tiny


@pytest.mark.parametrize(("n", "batch_size"), [(14, 8), (5, 8), (8, 8), (3, 8), (50, 7)])
def test_replayed_steps_are_those_of_training(n, batch_size, monkeypatch):
    data, seen, real = tiny.dataset(n), [], training.training_loss

    def watched(model, batch, generator, recipe=None):
        state = generator.get_state()
        seen.append((batch.ids, *training.training_draws(model.process, batch.x.shape, generator)))
        generator.set_state(state)
        return real(model, batch, generator, recipe)

    monkeypatch.setattr(training, "training_loss", watched)
    recipe = replace(tiny.RECIPE, batch_size=batch_size, steps=6, checkpoints=())
    train(recipe, data, torch.arange(n), seed=3)
    for i, (ids, logsnr, noise) in enumerate(seen):
        step = training_step(recipe, n, tiny.SHAPE, 3, i)
        assert tuple(step.ids.tolist()) == ids
        assert torch.equal(step.logsnr, logsnr) and torch.equal(step.noise, noise)


def test_the_view_replays_the_base_model(tiny_problem, tmp_path):
    view = View(tiny_problem, tmp_path)
    step = view.training_step(5)
    expected = training_step(tiny.RECIPE, 14, tiny.SHAPE, 0, 5)
    assert all(torch.equal(a, b) for a, b in zip(step, expected, strict=True))
    with pytest.raises(ValueError, match="updates 0 to 11"):
        view.training_step(12)
    with pytest.raises(ValueError, match="no recipe"):
        View(replace(tiny_problem, recipe=None), tmp_path).training_step(0)
