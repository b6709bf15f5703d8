"""Noise levels, draws, losses, pass counts, training and sampling, each against diffusers or a plain loop."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call, grad, vmap

from tdabench.benchmark.tasks.digits import TASK
from tdabench.errors import UserError
from tdabench.methods.engines.features import per_sample_gradients
from tdabench.models.draws import Draws, Law
from tdabench.models.processes.ddpm import DDPMProcess
from tdabench.models.recipe import ModelSpec, Recipe, Sampler, Tuning
from tdabench.models.sampling import initial_noise, sample
from tdabench.models.training import batches, build, descend, load, snapshot, train
from tdabench.seeds import torch_generator

from .. import tiny

SCHEDULES = ["linear", "scaled_linear", "squaredcos_cap_v2"]
KINDS = ["plain", "label", "text"]
PROCESS = DDPMProcess(**tiny.LINEAR)


def draws_of(n: int = 3, kind: str = "even", scope: str = "item", seed: int = 0, name: str = "loss", **law) -> Draws:
    return Draws(name, n, Law(kind, **law), scope, seed, tiny.SHAPE, PROCESS)


def scheduler(schedule: str = "linear"):
    from diffusers import DDPMScheduler

    return DDPMScheduler(num_train_timesteps=1000, beta_schedule=schedule)


def global_states() -> list:
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), [state.tolist() for state in devices]]


def same_weights(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


# the noise process


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_grid_is_the_log_snr_of_diffusers_alphas(schedule):
    process = DDPMProcess(num_train_timesteps=1000, beta_schedule=schedule)
    alphas = scheduler(schedule).alphas_cumprod.double()
    torch.testing.assert_close(process.grid.double(), (alphas / (1 - alphas)).log(), rtol=1e-5, atol=1e-5)
    assert (process.grid.diff() < 0).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_levels_on_the_grid_are_their_own_timesteps(schedule):
    process = DDPMProcess(num_train_timesteps=1000, beta_schedule=schedule)
    assert torch.equal(process.timesteps(process.grid), torch.arange(1000))
    assert torch.equal(process.snap(process.grid.view(10, 100)), process.grid.view(10, 100))


@given(st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=8))
@settings(deadline=None)
def test_timesteps_are_the_nearest(levels):
    values = torch.tensor(levels)
    distance = (PROCESS.grid.double() - values.double()[:, None]).abs()
    chosen = distance.gather(1, PROCESS.timesteps(values)[:, None]).flatten()
    assert (chosen <= distance.min(1).values + 1e-5).all()
    assert torch.equal(PROCESS.snap(values), PROCESS.grid[PROCESS.timesteps(values)])


def test_levels_beyond_the_grid_snap_to_its_ends():
    assert PROCESS.timesteps(torch.tensor([-1e30, -math.inf, 1e30, math.inf])).tolist() == [999, 999, 0, 0]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_scales_preserve_variance_and_are_diffusers(schedule):
    process = DDPMProcess(num_train_timesteps=1000, beta_schedule=schedule)
    alpha, sigma = (part.double() for part in process.scales(process.grid))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(1000).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(alpha, scheduler(schedule).alphas_cumprod.double().sqrt(), rtol=1e-5, atol=1e-6)


def test_training_law_is_uniform_over_timesteps():
    u = (torch.arange(5000) + 0.5) / 5000
    counts = PROCESS.timesteps(PROCESS.quantile(u)).bincount(minlength=1000)
    assert (counts == 5).all()
    ends = PROCESS.quantile(torch.tensor([0.0, 1 - 2**-24]))
    assert PROCESS.timesteps(ends).tolist() == [0, 999]


def test_another_prediction_type_is_refused():
    with pytest.raises(ValueError, match="prediction_type"):
        DDPMProcess(prediction_type="flow_prediction")


# laws of the noise level


def levels_of(kind: str, n: int, **law) -> torch.Tensor:
    return Law(kind, **law).levels(n, PROCESS, tiny.generator())


def test_even_levels_are_the_midpoints_of_equal_slices():
    assert PROCESS.timesteps(levels_of("even", 8)).tolist() == [62, 187, 312, 437, 562, 687, 812, 937]
    assert PROCESS.timesteps(levels_of("even", 2, low=0.5, high=0.75)).tolist() == [562, 687]


def test_training_levels_are_uniform_over_the_slice():
    timesteps = PROCESS.timesteps(levels_of("training", 20_000)).double()
    assert abs(timesteps.mean() - 499.5) < 5 * 289 / 20_000**0.5
    assert abs(timesteps.std() - 288.7) < 5
    part = PROCESS.timesteps(levels_of("training", 2000, low=0.3, high=0.4))
    assert part.min() >= 299 and part.max() <= 400 and part.unique().numel() > 90


def test_lognormal_sigmas_have_edms_mean_and_spread():
    log_sigma = -levels_of("lognormal", 20_000).double() / 2
    error = 1.2 / 20_000**0.5
    assert abs(log_sigma.mean() + 1.2) < 5 * error
    assert abs(log_sigma.std() - 1.2) < 5 * error
    other = -levels_of("lognormal", 20_000, mean=2.0, std=0.5).double() / 2
    assert abs(other.mean() - 2) < 0.02 and abs(other.std() - 0.5) < 0.02


def test_edm_grid_runs_from_80_to_0_310_as_sony_mucs_has_it():
    sigma = (-levels_of("edm-grid", 100).double() / 2).exp().numpy()
    steps = np.arange(100) / 141  # 142 points, of which the 100 noisiest are kept
    expected = (80 ** (1 / 7) + steps * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(sigma, expected, rtol=1e-4)
    assert sigma[0] == pytest.approx(80, rel=1e-4)
    assert round(float(sigma[-1]), 3) == 0.310


def test_edm_grid_hits_the_timesteps_that_the_linear_schedule_gives_it():
    timesteps = PROCESS.timesteps(levels_of("edm-grid", 100))
    known = torch.tensor([930, 882, 827, 765, 692, 604, 494, 357, 206, 91])
    assert (timesteps[::11] - known).abs().max() <= 1


def test_a_whole_edm_grid_ends_at_sigma_min():
    sigma = (-levels_of("edm-grid", 32, portion=1.0).double() / 2).exp()
    assert sigma[0] == pytest.approx(80, rel=1e-4) and sigma[-1] == pytest.approx(0.002, rel=1e-3)
    assert (sigma.diff() < 0).all()


@pytest.mark.parametrize("kind", ["training", "even", "lognormal", "edm-grid"])
def test_random_laws_are_those_that_change_with_the_seed(kind):
    one, other = (Law(kind).levels(5, PROCESS, tiny.generator(seed)) for seed in (0, 1))
    assert len(one) == 5 and one.dtype == torch.float32
    assert torch.equal(one, other) != Law(kind).random


# draws


def test_shared_draws_are_the_same_for_every_item():
    levels, noise = draws_of(4, "training", "shared").for_ids([5, 2, "query-0"])
    assert levels.shape == (3, 4) and noise.shape == (3, 4, *tiny.SHAPE)
    assert (levels == levels[0]).all() and (noise == noise[0]).all()


def test_item_draws_differ_between_items_and_from_draw_to_draw():
    levels, noise = draws_of(4, "training").for_ids([5, 2, "query-0", "5"])
    assert len({tuple(row.tolist()) for row in levels}) == 4
    assert len({tuple(row.flatten().tolist()) for row in noise.flatten(0, 1)}) == 16


@given(st.permutations([3, 1, 4, "q", 5]), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_item_draws_are_keyed_by_id_and_not_by_position_or_batch(ids, cut):
    draws = draws_of(2, "training")
    alone = {item: draws.for_ids([item]) for item in ids}
    for part in (ids[:cut], ids[cut:]):
        for row, item in enumerate(part):
            levels, noise = draws.for_ids(part)
            assert torch.equal(levels[row], alone[item][0][0]) and torch.equal(noise[row], alone[item][1][0])


@pytest.mark.parametrize("scope", ["shared", "item"])
def test_draws_are_keyed_by_seed_and_name(scope):
    variants = [draws_of(scope=scope), draws_of(scope=scope, seed=1), draws_of(scope=scope, name="score")]
    noises = [draws.for_ids([7])[1] for draws in variants]
    assert not any(torch.equal(noises[i], noises[j]) for i, j in [(0, 1), (0, 2), (1, 2)])
    assert torch.equal(draws_of(scope=scope).for_ids([7])[1], noises[0])


def test_drawn_noise_is_standard_normal():
    _, noise = draws_of(50, "training").for_ids(list(range(20)))
    count = noise.numel()
    assert abs(noise.mean()) < 5 / count**0.5
    assert abs(noise.var() - 1) < 5 * (2 / count) ** 0.5


def sampled(model, noise, sampler, *words, **hooks):
    return sample(model, noise, replace(tiny.SPECS["plain"], sampler=sampler), *words, **hooks)


# losses


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scope", ["shared", "item"])
def test_losses_equal_a_loop_over_pairs_through_diffusers(kind, scope):
    model, batch, draws = tiny.denoiser(kind), tiny.batch_of(kind, 4), draws_of(3, "training", scope)
    tiny.assert_near(model.losses(batch, draws).detach(), tiny.plain_losses(model, batch, draws), 1e-5)


@pytest.mark.parametrize("micro_batch", [1, 5, 8])
def test_micro_batch_changes_nothing(micro_batch):
    model, batch, draws = tiny.denoiser(), tiny.batch_of("plain", 4), draws_of()
    with torch.no_grad():
        whole = model.losses(batch, draws), model.outputs(batch, draws)
        model.micro_batch = micro_batch
        parts = model.losses(batch, draws), model.outputs(batch, draws)
    tiny.assert_near(parts[0], whole[0], 1e-5)
    tiny.assert_near(parts[1], whole[1], 1e-5)


def test_outputs_are_the_predictions_that_losses_measure():
    model, batch, draws = tiny.denoiser(), tiny.batch_of("plain", 3), draws_of()
    with torch.no_grad():
        error = model.outputs(batch, draws) - draws.for_ids(batch.ids)[1]
        tiny.assert_near(error.square().flatten(2).mean(2), model.losses(batch, draws), 1e-5)


@pytest.mark.parametrize("sigma_data", [0.5, 0.8])
def test_edm_losses_are_the_weighted_error_of_the_denoised_image(sigma_data):
    model, batch, draws = tiny.denoiser(), tiny.batch_of("plain", 3), draws_of(5, "edm-grid")
    model.process.sigma_data = sigma_data
    expected = torch.zeros(3, 5, dtype=torch.float64)
    with torch.no_grad():
        for i, s, level, noise, predicted in tiny.predictions(model, batch, draws):
            alpha_bar = scheduler().alphas_cumprod.double()[(PROCESS.grid - level).abs().argmin()]
            sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
            x = batch.x[i : i + 1].double()
            denoised = x + sigma * noise.double() - sigma * predicted.double()
            weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
            expected[i, s] = (weight * (denoised - x) ** 2).mean()
        found = model.losses(batch, draws, "edm")
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0)
        factor = (found / model.losses(batch, draws)).double()
    sigma = (-PROCESS.snap(draws.for_ids([0])[0][0]).double() / 2).exp()
    torch.testing.assert_close(factor, (1 + sigma**2 / sigma_data**2).expand(3, 5), rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", ["label", "text"])
def test_conditions_reach_the_network(kind):
    model, batch, draws = tiny.denoiser(kind), tiny.batch_of(kind, 3), draws_of()
    other = replace(batch, cond={name: value.roll(1, 0) for name, value in batch.cond.items()})
    with torch.no_grad():
        assert (model.losses(batch, draws) - model.losses(other, draws)).abs().min() > 1e-7


# counting and copying


def test_passes_count_eager_losses_forward_and_backward():
    model, batch, draws = tiny.denoiser(), tiny.batch_of("plain", 4), draws_of()
    model.micro_batch = 5
    losses = model.losses(batch, draws)
    assert (model.passes.forward, model.passes.backward) == (12, 0)
    losses.mean().backward()
    assert (model.passes.forward, model.passes.backward) == (12, 12)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_passes_count_without_gradients(mode):
    model, batch = tiny.denoiser(), tiny.batch_of("plain", 4)
    with mode():
        model.losses(batch, draws_of())
    assert (model.passes.forward, model.passes.backward) == (12, 0)


def test_passes_count_functional_calls():
    model, x = tiny.denoiser(), tiny.images(6)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    functional_call(model, weights, (x, torch.tensor(3)))
    assert (model.passes.forward, model.passes.backward) == (6, 0)


def test_passes_count_what_vmap_hides():
    model, x = tiny.denoiser(), tiny.images(6).view(3, 2, *tiny.SHAPE)
    weights = {name: value.detach() for name, value in model.named_parameters()}

    def mean_square(weights, x):
        return functional_call(model, weights, (x, torch.tensor(3))).square().mean()

    vmap(mean_square, (None, 0))(weights, x)
    assert (model.passes.forward, model.passes.backward) == (6, 0)
    vmap(grad(mean_square), (None, 0))(weights, x)
    assert (model.passes.forward, model.passes.backward) == (12, 6)


def test_passes_count_per_sample_gradients_however_they_are_chunked():
    for micro_batch in (3, 7, 512):
        model, batch = tiny.denoiser(), tiny.batch_of("plain", 4)
        model.micro_batch = micro_batch
        per_sample_gradients(model, batch, draws_of(), "loss")
        assert (model.passes.forward, model.passes.backward) == (12, 12)


def test_passes_count_sampling_steps():
    model = tiny.denoiser()
    sampled(model, torch.stack([initial_noise(seed, tiny.SHAPE) for seed in range(3)]), Sampler(steps=4))
    assert (model.passes.forward, model.passes.backward) == (12, 0)


def test_a_clone_is_private_but_shares_the_counter():
    model, batch = tiny.denoiser(), tiny.batch_of("plain", 2)
    twin, before = model.clone(), snapshot(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
        twin.losses(batch, draws_of())
    assert all(torch.equal(value, model.net.state_dict()[name]) for name, value in before.items())
    assert not same_weights(model, twin)
    assert model.passes.forward == 6 and twin.passes is model.passes


# training


@given(
    st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1))),
    st.integers(1, 7),
    st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_every_epoch_covers_each_member_once(sizes, batch_size, seed):
    n, members = sizes[0], sorted(sizes[1])
    steps = -(-3 * len(members) // batch_size)
    found = list(batches(n, torch.tensor(members), batch_size, steps, seed))
    assert len(found) == steps and {len(batch) for batch in found} == {batch_size}
    flat = torch.cat(found).tolist()
    for epoch in range(3):
        assert sorted(flat[epoch * len(members) : (epoch + 1) * len(members)]) == members


def test_subsets_of_one_seed_see_common_items_in_the_same_order():
    def first_epoch(members: list[int], seed: int) -> list[int]:
        return torch.cat(list(batches(20, torch.tensor(members), 1, len(members), seed))).tolist()

    everything, half = first_epoch(list(range(20)), 3), first_epoch(list(range(0, 20, 2)), 3)
    assert half == [item for item in everything if item % 2 == 0]
    assert first_epoch(list(range(20)), 4) != everything
    epochs = torch.cat(list(batches(20, torch.arange(20), 20, 2, 3))).view(2, 20)
    assert not torch.equal(epochs[0], epochs[1])


def test_building_is_keyed_by_the_seed_and_leaves_the_global_state_alone():
    before = global_states()
    one, again, other = (build(tiny.SPECS["plain"], seed) for seed in (0, 0, 1))
    assert same_weights(one, again) and not same_weights(one, other)
    assert not one.net.training
    assert global_states() == before


def test_training_is_bit_reproducible_and_leaves_the_global_state_alone():
    data, before, steps = tiny.dataset(10), global_states(), []
    one, kept = train(tiny.RECIPE, data, torch.arange(10), 0, on_step=steps.append)
    assert global_states() == before
    torch.rand(3)
    again, _ = train(tiny.RECIPE, data, torch.arange(10), 0)
    other, _ = train(tiny.RECIPE, data, torch.arange(10), 1)
    assert same_weights(one, again) and not same_weights(one, other)
    assert steps == list(range(1, 13))
    assert sorted(kept) == [0, 4, 8] and not one.net.training


def test_training_with_dropout_is_reproducible_and_leaves_the_global_state_alone():
    spec = replace(tiny.SPECS["plain"], config={**tiny.UNET, "dropout": 0.2})
    recipe, data, before = replace(tiny.RECIPE, model=spec, steps=2, checkpoints=()), tiny.dataset(10), global_states()
    one, _ = train(recipe, data, torch.arange(10), 0)
    unchanged = global_states() == before
    again, _ = train(recipe, data, torch.arange(10), 0)
    assert same_weights(one, again)
    assert unchanged


def test_training_sees_the_members_only():
    data, members = tiny.dataset(10), torch.tensor([1, 4, 5])
    poisoned = replace(data, images=data.images.clone())
    poisoned.images[[0, 2, 3, 6, 7, 8, 9]] = math.nan
    clean, spoilt = (train(tiny.RECIPE, each, members, 0)[0] for each in (data, poisoned))
    assert same_weights(clean, spoilt)
    assert all(parameter.isfinite().all() for parameter in spoilt.parameters())


def test_training_equals_a_plain_loop_with_its_own_average():
    data, recipe = tiny.dataset(10), replace(tiny.RECIPE, ema_decay=0.3)
    found, kept = train(recipe, data, torch.arange(10), 5)
    model = build(recipe.model, 5)
    net, steps = model.net.train(), scheduler()
    average, expected = [p.detach().clone() for p in net.parameters()], {}
    expected[0] = [p.clone() for p in average]
    adam = torch.optim.AdamW(net.parameters(), betas=(0.9, 0.999), weight_decay=0.01, foreach=False)
    for step, ids in enumerate(batches(10, torch.arange(10), 8, 12, 5)):
        warm = (step + 1) / 3 if step < 3 else 0.5 * (1 + math.cos(math.pi * (step - 3) / 9))
        adam.param_groups[0]["lr"] = 3e-3 * warm
        stream = torch_generator("train", 5, step)
        timesteps = (torch.rand(8, generator=stream) * 1000).long()
        noise = torch.randn(8, *tiny.SHAPE, generator=stream)
        noisy = steps.add_noise(data.images[ids], noise, timesteps)
        adam.zero_grad()
        torch.nn.functional.mse_loss(net(noisy, timesteps).sample, noise).backward()
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in net.parameters()))
        for p in net.parameters():
            p.grad *= min(1, 1 / norm)
        adam.step()
        share = max(0.7, 9 / (10 + step))
        average = [(1 - share) * a + share * p.detach() for a, p in zip(average, net.parameters(), strict=True)]
        expected[step + 1] = average
    kept[12] = snapshot(found)
    names = [name for name, _ in net.named_parameters()]
    moved = torch.cat([(a - b).flatten() for a, b in zip(expected[0], expected[12], strict=True)]).abs().max()
    for step, state in kept.items():
        error = max(float((state[n] - e).abs().max()) for n, e in zip(names, expected[step], strict=True))
        assert error < 0.01 * moved, f"{error} at step {step}"


def test_the_schedule_warms_up_and_decays_to_zero():
    recipe = replace(tiny.RECIPE, steps=100, warmup_steps=10, learning_rate=2.0)
    rates = [recipe.learning_rate_at(step) for step in range(100)]
    assert rates[:3] == pytest.approx([0.2, 0.4, 0.6]) and rates[9] == pytest.approx(2)
    assert rates[10 + 45] == pytest.approx(1) and 0 < rates[99] < 0.01
    assert replace(recipe, warmup_steps=0).learning_rate_at(0) == 2


def test_weights_survive_a_snapshot():
    model = tiny.denoiser(seed=3)
    loaded = load(tiny.SPECS["plain"], snapshot(model))
    assert same_weights(model, loaded)
    with pytest.raises(RuntimeError, match="class_embedding"):
        load(tiny.SPECS["label"], snapshot(model))


# recipes


@pytest.mark.parametrize("recipe", [tiny.RECIPE, TASK.recipe], ids=["tiny", "digits"])
def test_recipes_survive_json(recipe):
    again = Recipe.from_json(json.loads(json.dumps(recipe.to_json())))
    assert again == recipe and again.hash() == recipe.hash()
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_every_value_of_a_recipe_is_in_its_hash():
    model = replace(tiny.SPECS["plain"], sampler=Sampler(steps=6))
    changes = {"model": model, "betas": (0.8, 0.999), "checkpoints": (1,), "tuning": Tuning(4, 2, 0.5, 0.1, 0)}
    for field in fields(Recipe):
        value = changes.get(field.name)
        other = replace(tiny.RECIPE, **{field.name: getattr(tiny.RECIPE, field.name) + 1 if value is None else value})
        assert other.hash() != tiny.RECIPE.hash(), field.name


# sampling


def test_sampling_is_diffusers_ddim_pipeline():
    from diffusers import DDIMPipeline, DDIMScheduler

    model = tiny.denoiser()
    pipeline = DDIMPipeline(model.net, DDIMScheduler(num_train_timesteps=1000, beta_schedule="linear"))
    pipeline.set_progress_bar_config(disable=True)
    pictures = pipeline(3, generator=tiny.generator(4), num_inference_steps=7, output_type="np").images
    noise = torch.randn(3, *tiny.SHAPE, generator=tiny.generator(4))
    found = sampled(model, noise, Sampler(steps=7))
    np.testing.assert_allclose((found / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy(), pictures, atol=1e-5)
    assert pictures.std() > 0.05


@pytest.mark.parametrize("clip", [True, False])
def test_sampling_is_a_loop_over_diffusers_scheduler(clip):
    from diffusers import DDIMScheduler

    model, noise, seen = tiny.denoiser("label"), torch.randn(3, *tiny.SHAPE, generator=tiny.generator()), []
    labels = torch.tensor([2, 0, 1])
    steps = DDIMScheduler(num_train_timesteps=1000, beta_schedule="linear", clip_sample=clip)
    steps.set_timesteps(6)
    x = noise
    with torch.no_grad():
        for timestep in steps.timesteps:
            x = steps.step(model.net(x, timestep, class_labels=labels).sample, timestep, x).prev_sample
    found = sampled(
        model, noise, Sampler(steps=6, clip=clip), {"class_labels": labels}, on_step=lambda *step: seen.append(step)
    )
    torch.testing.assert_close(found, x, rtol=1e-5, atol=1e-5)
    assert [timestep for timestep, *_ in seen] == steps.timesteps.tolist()
    assert torch.equal(seen[0][1], noise)
    assert torch.equal(seen[0][2], model(noise, torch.tensor(seen[0][0]), {"class_labels": labels}))


def test_clipping_keeps_images_in_range():
    model, noise = tiny.denoiser(), torch.randn(4, *tiny.SHAPE, generator=tiny.generator())
    clipped, free = (sampled(model, noise, Sampler(steps=6, clip=clip)).abs().max() for clip in (True, False))
    assert clipped <= 1 < free


def test_a_query_is_regenerated_bit_for_bit_from_its_noise():
    noise = torch.stack([initial_noise(seed, tiny.SHAPE) for seed in (3, 4)])
    first = sampled(tiny.denoiser(), noise, Sampler(steps=5))
    torch.rand(5)
    noise = torch.stack([initial_noise(seed, tiny.SHAPE) for seed in (3, 4)])
    assert torch.equal(sampled(tiny.denoiser(), noise, Sampler(steps=5)), first)
    assert not torch.equal(first[0], first[1])


def test_a_sampler_with_fresh_noise_is_refused():
    with pytest.raises(ValueError, match="eta"):
        sampled(tiny.denoiser(), torch.zeros(1, *tiny.SHAPE), Sampler(eta=0.5))


@pytest.mark.parametrize(
    "process",
    [
        {"variance_type": "fixed_large"},
        {"beta_schedule": "squaredcos_cap_v2", "clip_sample": False},
        {"num_train_timesteps": 200},
    ],
    ids=lambda process: "-".join(process),
)
def test_any_scheduler_settings_that_train_also_sample(process):
    from diffusers import DDIMScheduler, DDPMScheduler

    model = build(ModelSpec("UNet2DModel", tiny.UNET, process), 0)
    noise = torch.randn(2, *tiny.SHAPE, generator=tiny.generator())
    steps = DDIMScheduler.from_config(DDPMScheduler(**process).config, clip_sample=True)
    steps.set_timesteps(4)
    x = noise
    with torch.no_grad():
        for timestep in steps.timesteps:
            x = steps.step(model.net(x, timestep).sample, timestep, x).prev_sample
    torch.testing.assert_close(sampled(model, noise, Sampler(steps=4)), x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (ModelSpec("UNet3DNetwork", {}), "diffusers has no network 'UNet3DNetwork'"),
        (ModelSpec("load_image", {}), "diffusers has no network"),
        (ModelSpec("UNet2DModel", {"chanels": 3}), "UNet2DModel cannot be made from its config"),
        (ModelSpec("UNet2DModel", {**tiny.UNET, "up_block_types": ["UpBlock2D"]}), "cannot be made from its config"),
    ],
)
def test_a_network_that_cannot_be_made_is_one_line(spec, said):
    with pytest.raises(UserError, match=said):
        build(spec, 0)


def test_a_transformer_does_not_drop_labels_by_itself():
    from tdabench.benchmark.tasks.digits_tiny_edm import TASK as EDM

    model = build(EDM.recipe.model, 0)
    model.net.train()
    x, times = torch.zeros(64, 1, 8, 8), torch.zeros(64)
    with torch.no_grad():
        found = [model(x, times, {"class_labels": torch.full((64,), 3)}) for _ in range(2)]
    assert torch.equal(*found) and torch.equal(found[0], found[0][:1].expand_as(found[0]))


@pytest.mark.parametrize(("clip_norm", "step"), [(1.0, 0.6), (0.0, 6.0), (20.0, 6.0)])
def test_gradients_are_clipped_by_their_norm_unless_that_is_none(clip_norm, step):
    weight = torch.nn.Parameter(torch.zeros(2))
    descend(weight @ torch.tensor([6.0, 8.0]), torch.optim.SGD([weight], lr=1.0), [weight], clip_norm)
    torch.testing.assert_close(-weight.detach(), torch.tensor([step, step * 8 / 6]), rtol=1e-5, atol=1e-5)
