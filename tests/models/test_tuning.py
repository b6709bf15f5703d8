"""Tuning: what an update sees, what it does, and that a view replays it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from tdabench.methods.view import View
from tdabench.models.denoiser import Denoiser
from tdabench.models.problem import Problem
from tdabench.models.recipe import Recipe, Tuning
from tdabench.models.training import build, snapshot, training_step, tuning_ids
from tdabench.models.tuning import tune

from .. import tiny

BEFORE, K = 14, 3
TUNING = Tuning(BEFORE, steps=4, share=0.75, rate=0.5, seed=7)
RECIPE = replace(tiny.RECIPE, tuning=TUNING)


def test_exemplars_come_in_turn_and_the_rest_is_the_same_for_any_of_them():
    batches = [tuning_ids(TUNING, BEFORE + K, 8, step) for step in range(50)]
    assert all((ids[:6] >= BEFORE).all() and (ids[6:] < BEFORE).all() for ids in batches)
    counts = torch.bincount(torch.cat(batches), minlength=BEFORE + K)
    assert counts[BEFORE:].tolist() == [100, 100, 100] and (counts[:BEFORE] > 0).all()
    alone = [tuning_ids(TUNING, BEFORE + 1, 8, step) for step in range(50)]
    assert all(torch.equal(one[6:], other[6:]) for one, other in zip(batches, alone, strict=True))
    assert len(tuning_ids(replace(TUNING, share=1e-9), BEFORE + K, 8, 0).gt(BEFORE - 1).nonzero()) == 1


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_replayed_updates_are_those_of_tuning(share, monkeypatch):
    n, seen, real = BEFORE + K, [], Denoiser.loss_pairs

    def watched(model, x, logsnr, noise, cond=None, unit=None):
        seen.append((x, logsnr, noise, cond["class_labels"]))
        return real(model, x, logsnr, noise, cond, unit)

    monkeypatch.setattr(Denoiser, "loss_pairs", watched)
    spec = replace(tiny.SPECS["label"], null={"class_labels": 2})
    recipe, data = replace(RECIPE, model=spec, cond_drop=share), tiny.dataset(n, cond=tiny.conditions("label", n))
    tune(build(spec, 0), data, recipe, [4])
    for i, (x, logsnr, noise, labels) in enumerate(seen):
        step = training_step(recipe, n, tiny.SHAPE, 3, recipe.steps + i)
        assert torch.equal(data.images[step.ids], x)
        assert torch.equal(step.logsnr, logsnr) and torch.equal(step.noise, noise)
        assert torch.equal(torch.where(step.dropped, 2, data.cond["class_labels"][step.ids]), labels)
    assert len(seen) == 4


def test_an_update_is_the_optimisers_on_the_loss_of_what_it_saw():
    data, recipe = tiny.dataset(BEFORE + K), replace(RECIPE, clip_norm=1e9)
    model, by_hand = build(recipe.model, 1), build(recipe.model, 1)
    kept = tune(model, data, recipe, [1])
    step = training_step(recipe, BEFORE + K, tiny.SHAPE, 0, recipe.steps)
    plain = torch.optim.AdamW(by_hand.parameters(), lr=3e-3 * 0.5, weight_decay=0.01)
    by_hand.loss_pairs(data.images[step.ids], step.logsnr, step.noise).mean().backward()
    plain.step()
    for name, value in by_hand.net.state_dict().items():
        torch.testing.assert_close(kept[1][name], value, atol=1e-6, rtol=1e-5)


def test_snapshots_are_of_one_run_and_stop_short_of_nothing():
    data = tiny.dataset(BEFORE + K)
    kept = tune(build(RECIPE.model, 1), data, RECIPE, [2, 4])
    short = tune(build(RECIPE.model, 1), data, replace(RECIPE, tuning=replace(TUNING, steps=2)), [2])
    assert list(kept) == [2, 4] and all(torch.equal(kept[2][name], value) for name, value in short[2].items())
    assert any(not torch.equal(kept[4][name], value) for name, value in short[2].items())
    with pytest.raises(ValueError, match="nothing of tuning"):
        tune(build(RECIPE.model, 1), data, tiny.RECIPE, [1])


def test_only_the_part_that_trains_is_tuned_and_kept():
    whole = build(RECIPE.model, 1)
    spec = replace(RECIPE.model, trainable=r"conv_out\..*")
    model = build(spec, 0, snapshot(whole))
    kept = tune(model, tiny.dataset(BEFORE + K), replace(RECIPE, model=spec), [4])[4]
    assert set(kept) == {"conv_out.weight", "conv_out.bias"}
    changed = {n for n, value in whole.net.state_dict().items() if not torch.equal(value, model.net.state_dict()[n])}
    assert changed == set(kept)


def test_a_recipe_with_a_tuning_goes_through_json_and_another_keeps_its_hash():
    again = Recipe.from_json(json.loads(json.dumps(RECIPE.to_json())))
    assert again == RECIPE and again.updates == 16 and again.learning_rate_at(13) == 3e-3 * 0.5
    assert "tuning" not in tiny.RECIPE.to_json() and tiny.RECIPE.updates == 12
    assert RECIPE.learning_rate_at(5) == tiny.RECIPE.learning_rate_at(5)


def test_a_view_knows_both_parts_of_what_happened(tmp_path):
    data = tiny.dataset(BEFORE + K)
    weights = {step: snapshot(build(RECIPE.model, step)) for step in (0, 12, 14, 16)}
    view = View(Problem("tuned", data, tiny.queries_of(data.images[:1]), RECIPE.model, weights, RECIPE), tmp_path)
    rates = [RECIPE.learning_rate_at(11), 3e-3 * 0.5, 3e-3 * 0.5]
    assert view.checkpoints == tuple(zip((12, 14, 16), rates, strict=True))
    before = training_step(tiny.RECIPE, BEFORE, tiny.SHAPE, 0, 5)
    assert all(torch.equal(a, b) for a, b in zip(view.training_step(5), before, strict=True))
    assert torch.equal(view.training_step(13).ids, tuning_ids(TUNING, BEFORE + K, 8, 1))
    with pytest.raises(ValueError, match="updates 0 to 15"):
        view.training_step(16)
