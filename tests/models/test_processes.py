"""Noise processes: one network under several names is one denoiser, and losses agree once they have one unit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tdabench.datasets.base import Batch
from tdabench.errors import UserError
from tdabench.models.denoiser import Denoiser
from tdabench.models.draws import Draws, Law
from tdabench.models.processes import open_process
from tdabench.models.processes.edm import EDMProcess
from tdabench.models.processes.flow import FlowProcess
from tdabench.models.recipe import ModelSpec, Sampler
from tdabench.models.sampling import sample

from .. import tiny

DDPM = {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}
CONFIGS = {
    "eps": DDPM,
    "x0": {**DDPM, "prediction_type": "sample"},
    "v": {**DDPM, "prediction_type": "v_prediction"},
    "edm": {"kind": "edm", "sigma_data": 0.4},
    "flow": {"kind": "flow"},
}
UNITS = {"eps": "eps", "x0": "x0", "v": "v", "edm": "edm", "flow": "flow"}
every_process = pytest.mark.parametrize("name", CONFIGS)


class Optimal(nn.Module):
    """A network that answers, in a process's own terms, what the best denoiser of Gaussian images N(m, s^2) says."""

    def __init__(self, process, mean=0.3, std=0.6):
        super().__init__()
        self.process, self.mean, self.std = process, mean, std
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, inputs, timestep, return_dict=True):
        logsnr = self.levels(timestep.expand(len(inputs)) if timestep.ndim == 0 else timestep)
        alpha, sigma = (part.double().view(-1, 1, 1, 1) for part in self.process.scales(logsnr))
        noisy = inputs.double()
        if isinstance(self.process, EDMProcess):
            noisy = noisy * (sigma**2 + self.process.sigma_data**2).sqrt()
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        x0 = self.mean + gain * (noisy - alpha * self.mean)
        eps = (noisy - alpha * x0) / sigma
        answers = {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0, "flow": eps - x0}
        if isinstance(self.process, EDMProcess):
            sd = self.process.sigma_data
            skip, out = sd**2 / (sigma**2 + sd**2), sigma * sd / (sigma**2 + sd**2).sqrt()
            answers["edm"] = (x0 - skip * noisy) / out
        return (answers[self.process.unit].to(inputs.dtype),)

    def levels(self, times):
        if isinstance(self.process, EDMProcess):
            return -8 * times
        if isinstance(self.process, FlowProcess):
            t = (times / self.process.scale).clamp(1e-6, 1 - 1e-6)
            return 2 * ((1 - t) / t).log()
        return self.process.grid[times.long()]


def optimal(name):
    process = open_process(CONFIGS[name])
    return Denoiser(Optimal(process), process)


def on_grid(n=9):
    """Return log-SNRs that all processes can have: points of the DDPM grid that are not extreme."""
    grid = open_process(DDPM).grid
    return grid[torch.linspace(30, 960, n).long()]


@every_process
def test_every_answer_is_the_same_denoised_image_at_equal_logsnr(name):
    model, levels = optimal(name), on_grid()
    alpha, sigma = model.process.scales(levels)
    x, noise = tiny.images(9), torch.randn(9, 1, 8, 8, generator=tiny.generator())
    noisy = alpha.view(-1, 1, 1, 1) * x + sigma.view(-1, 1, 1, 1) * noise
    # by hand, in VE terms, where all processes are the same: y = x + s eps
    s = (-levels.double() / 2).exp().view(-1, 1, 1, 1)
    expected = 0.3 + 0.36 / (0.36 + s**2) * (x.double() + s * noise.double() - 0.3)
    tiny.assert_near(model.predict(noisy, levels, kind="x0"), expected, 2e-4)
    error = (x.double() + s * noise.double() - expected) / s
    tiny.assert_near(model.predict(noisy, levels, kind="eps"), error, 2e-3)


@every_process
@pytest.mark.parametrize("unit", UNITS)
def test_losses_agree_in_a_common_unit(name, unit):
    model, levels = optimal(name), on_grid()
    x, noise = tiny.images(9), torch.randn(9, 1, 8, 8, generator=tiny.generator(3))
    s = (-levels.double() / 2).exp()
    denoised = 0.3 + 0.36 / (0.36 + s**2).view(-1, 1, 1, 1) * (x.double() + s.view(-1, 1, 1, 1) * noise.double() - 0.3)
    error = (denoised - x.double()).square().flatten(1).mean(1)
    alpha, sigma = (part.double() for part in model.process.scales(levels))
    sd = model.process.sigma_data
    expected = {
        "x0": error,
        "eps": error / s**2,
        "v": error * ((alpha**2 + sigma**2) / sigma) ** 2,
        "edm": error * (s**2 + sd**2) / (s * sd) ** 2,
        "flow": error * (1 + 1 / s) ** 2,
    }[unit]
    found = model.loss_pairs(x, levels, noise, unit=unit)
    torch.testing.assert_close(found.double(), expected, rtol=5e-3, atol=0)


@every_process
def test_the_training_loss_is_the_error_of_the_raw_answer(name):
    model, levels = optimal(name), on_grid()
    x, noise = tiny.images(9), torch.randn(9, 1, 8, 8, generator=tiny.generator(4))
    question = model.ask(x, levels, noise)
    answer = model(question.inputs, question.times)
    expected = (answer - question.target).square().flatten(1).mean(1)
    torch.testing.assert_close(model.loss_pairs(x, levels, noise), expected)
    assert model.process.unit == UNITS[name]
    tiny.assert_near(question.noise(question.target), noise, 1e-4)


@every_process
def test_the_training_law_has_its_cleanest_level_first(name):
    process = open_process(CONFIGS[name])
    levels = process.quantile((torch.arange(1000) + 0.5) / 1000)
    assert torch.isfinite(levels).all() and (levels.diff() <= 0).all()


def test_edm_draws_lognormal_sigmas():
    process = open_process({"kind": "edm", "mean": -0.4, "std": 1.0})
    u = torch.rand(200_000, generator=tiny.generator())
    logs = (-process.quantile(u) / 2).double()
    assert abs(float(logs.mean()) + 0.4) < 0.01 and abs(float(logs.std()) - 1.0) < 0.01


def test_edm_preconditioning_is_table_1s():
    process, sigma = open_process({"kind": "edm", "sigma_data": 0.5}), torch.tensor([0.01, 0.5, 3.0, 80.0])
    levels = -2 * sigma.log()
    noisy = torch.ones(4, 1, 2, 2)
    inputs, times = process.inputs(noisy, levels)
    torch.testing.assert_close(inputs[:, 0, 0, 0], 1 / (sigma**2 + 0.25).sqrt())
    torch.testing.assert_close(times, sigma.log() / 4)
    factor, skip = process.coefficients("x0", levels)
    torch.testing.assert_close(skip, 0.25 / (sigma**2 + 0.25))
    torch.testing.assert_close(factor, sigma * 0.5 / (sigma**2 + 0.25).sqrt())


def test_a_network_that_answers_nothing_has_edm_loss_one():
    process = open_process({"kind": "edm", "sigma_data": 0.5})
    x = 0.5 * torch.randn(512, 1, 8, 8, generator=tiny.generator(1))
    model = Denoiser(_Silent(), process)
    levels = process.quantile(torch.rand(512, generator=tiny.generator(2)))
    loss = model.loss_pairs(x, levels, torch.randn(x.shape, generator=tiny.generator(3)))
    assert abs(float(loss.mean()) - 1) < 0.02


class _Silent(nn.Module):
    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, inputs, timestep, return_dict=True):
        return (torch.zeros_like(inputs),)


@pytest.mark.parametrize(("name", "steps"), [("eps", 250), ("v", 250), ("edm", 40), ("flow", 400)])
def test_samplers_follow_the_flow_of_gaussian_images(name, steps):
    """The flow of N(m, s^2) maps x_T to m + s (x_T - alpha m) / sqrt(alpha^2 s^2 + sigma^2)."""
    model = optimal(name)
    noise = torch.randn(4, 1, 8, 8, generator=tiny.generator(5))
    spec = ModelSpec("none", {}, CONFIGS[name], Sampler(steps=steps, clip=False))
    found = sample(model, noise, spec)
    last = getattr(model.process, "alphas_cumprod", torch.ones(1))[-1]
    alpha, sigma = {"edm": (1.0, 80.0), "flow": (0.0, 1.0)}.get(name, (math.sqrt(last), 1.0))
    expected = 0.3 + 0.6 * (sigma * noise - alpha * 0.3) / math.sqrt(alpha**2 * 0.36 + sigma**2)
    tiny.assert_near(found, expected, 0.03)


def test_guidance_moves_the_answer_beyond_the_conditional_one():
    model = tiny.denoiser("label")
    noise, cond = torch.randn(3, *tiny.SHAPE, generator=tiny.generator()), {"class_labels": torch.tensor([0, 1, 1])}
    spec = ModelSpec("none", {}, tiny.LINEAR, Sampler(steps=1, clip=False), {"class_labels": 2})
    seen = []
    scales = torch.tensor([0.0, 1.0, 3.0])
    sample(model, noise, spec, cond, scales, on_step=lambda *step: seen.append(step))
    time, x, answer = seen[0]
    with torch.no_grad():
        plain = model(x, torch.tensor(time), cond)
        null = model(x, torch.tensor(time), {"class_labels": torch.full((3,), 2)})
    tiny.assert_near(answer[:2], plain[:2], 1e-5)
    tiny.assert_near(answer[2], null[2] + 3 * (plain[2] - null[2]), 1e-5)


def test_guidance_without_a_null_condition_is_one_line():
    model, noise = tiny.denoiser("label"), torch.zeros(1, *tiny.SHAPE)
    spec = ModelSpec("none", {}, tiny.LINEAR, Sampler(steps=1))
    with pytest.raises(UserError, match="what stands for no class_labels"):
        sample(model, noise, spec, {"class_labels": torch.tensor([0])}, torch.tensor([2.0]))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"kind": "edn"}, "did you mean 'edm'"),
        ({"kind": "edm", "sigma": 1}, "'edm' of this model cannot be made"),
        ({"kind": "edm", "sigma_data": 0.0}, "must be positive"),
        ({"kind": "flow", "law": "cubic"}, "logit-normal"),
        ({"prediction_type": "epsylon"}, "prediction_type"),
        ({"trained_betas": [0.1, 0.5, 1.0]}, "pure noise"),
        ({"num_train_timesteps": 0}, "cannot be made"),
        ({"kind": "edm", "rho": 0.0}, "must be positive"),
        ({"kind": "flow", "scale": 0.0}, "must be positive"),
        ({"kind": ["edm"]}, "unknown noise process"),
    ],
)
def test_a_process_that_cannot_be_made_is_one_line(config, said):
    with pytest.raises(UserError, match=said):
        open_process(config)


def test_draws_reach_every_process():
    for name, config in CONFIGS.items():
        process = open_process(config)
        draws = Draws("d", 6, Law("even"), "item", 0, tiny.SHAPE, process)
        losses = optimal(name).losses(Batch((0, 1), tiny.images(2)), draws)
        assert losses.shape == (2, 6) and torch.isfinite(losses).all()


def test_an_unknown_unit_is_named():
    with pytest.raises(ValueError, match="no unit of losses: eps, x0, v, edm, flow"):
        open_process(DDPM).weight(torch.zeros(1), "epsilon")
