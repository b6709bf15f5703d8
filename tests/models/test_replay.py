"""Training replayed: what `training_step` says an update saw is what `train` showed the network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tdabench.methods.view import View
from tdabench.models.denoiser import Denoiser
from tdabench.models.training import train, training_step

from .. import tiny


@pytest.mark.parametrize(("n", "batch_size"), [(14, 8), (5, 8), (8, 8), (3, 8), (50, 7)])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_replayed_steps_are_those_of_training(n, batch_size, share, monkeypatch):
    data, seen, real = tiny.dataset(n, cond=tiny.conditions("label", n)), [], Denoiser.loss_pairs

    def watched(model, x, logsnr, noise, cond=None, unit=None):
        seen.append((x, logsnr, noise, cond["class_labels"]))
        return real(model, x, logsnr, noise, cond, unit)

    monkeypatch.setattr(Denoiser, "loss_pairs", watched)
    spec = replace(tiny.SPECS["label"], null={"class_labels": 2})
    recipe = replace(tiny.RECIPE, model=spec, batch_size=batch_size, steps=6, checkpoints=(), cond_drop=share)
    train(recipe, data, torch.arange(n), seed=3)
    dropped = 0
    for i, (x, logsnr, noise, labels) in enumerate(seen):
        step = training_step(recipe, n, tiny.SHAPE, 3, i)
        assert torch.equal(data.images[step.ids], x)
        assert torch.equal(step.logsnr, logsnr) and torch.equal(step.noise, noise)
        assert torch.equal(torch.where(step.dropped, 2, data.cond["class_labels"][step.ids]), labels)
        dropped += int(step.dropped.sum())
    assert bool(dropped) == bool(share)


def test_the_view_replays_the_base_model(tiny_problem, tmp_path):
    view = View(tiny_problem, tmp_path)
    step = view.training_step(5)
    expected = training_step(tiny.RECIPE, 14, tiny.SHAPE, 0, 5)
    assert all(torch.equal(a, b) for a, b in zip(step, expected, strict=True))
    with pytest.raises(ValueError, match="updates 0 to 11"):
        view.training_step(12)
    with pytest.raises(ValueError, match="no recipe"):
        View(replace(tiny_problem, recipe=None), tmp_path).training_step(0)
