"""Trajectories: the sampler's own way, level by level, and the query at its end."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from tdabench.benchmark.contract.tiny import BY_LABEL, BY_TEXT, LATENT, TWIN, tiny_problem
from tdabench.methods.registry import Listing
from tdabench.methods.support import unsupported
from tdabench.methods.view import View
from tdabench.models.recipe import Sampler
from tdabench.models.sampling import sample, trajectory
from tdabench.models.training import build

from .. import tiny

torch.set_num_threads(1)
PROCESSES = {"ddpm": tiny.LINEAR, "edm": {"kind": "edm", "sigma_data": 0.6}, "flow": {"kind": "flow"}}
STEPS = 5


def made(kind):
    spec = replace(tiny.SPECS["plain"], process=PROCESSES[kind], sampler=Sampler(STEPS, clip=False))
    return spec, build(spec, 0), torch.randn(2, 1, 8, 8, generator=tiny.generator(3))


@pytest.mark.parametrize("spec", [TWIN, BY_LABEL, BY_TEXT, LATENT], ids=lambda spec: spec.name)
def test_the_end_is_the_query_bit_for_bit(spec, tmp_path):
    if spec is LATENT:
        pytest.importorskip("peft")
    problem = tiny_problem(0, spec, ("generated",))
    view = View(problem, tmp_path)
    found = view.trajectory(view.model(), problem.queries)
    assert torch.equal(found.end, problem.queries.x)
    assert found.x.shape == (spec.recipe.model.sampler.steps, *problem.queries.x.shape)
    assert not torch.equal(view.trajectory(view.model("untrained"), problem.queries).end, problem.queries.x)


@pytest.mark.parametrize("kind", PROCESSES)
def test_levels_are_those_of_the_sampler(kind):
    from diffusers import DDIMScheduler

    spec, model, noise = made(kind)
    found = trajectory(model, noise, spec)
    if kind == "ddpm":
        scheduler = DDIMScheduler(**tiny.LINEAR)
        scheduler.set_timesteps(STEPS)
        kept = scheduler.alphas_cumprod.double()[scheduler.timesteps]
        expected, start = (kept / (1 - kept)).log(), noise
    elif kind == "edm":
        sigmas = [(80 ** (1 / 7) + i / (STEPS - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(STEPS)]
        expected, start = torch.tensor([-2 * math.log(sigma) for sigma in sigmas]), 80 * noise
    else:
        times = [1 - 1e-4, 0.8, 0.6, 0.4, 0.2]
        expected, start = torch.tensor([2 * math.log((1 - t) / t) for t in times]), noise
    torch.testing.assert_close(found.logsnr.double(), expected.double(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.x[0], start)


@pytest.mark.parametrize("kind", ["ddpm", "flow"])
def test_each_state_leads_to_the_next(kind):
    spec, model, noise = made(kind)
    found = trajectory(model, noise, spec)
    states = [*found.x, found.end]
    for i, level in enumerate(found.logsnr):
        with torch.no_grad():
            eps, x0 = (model.predict(found.x[i], level.expand(2), kind=what) for what in ("eps", "x0"))
        if i + 1 == STEPS:
            scales = 1.0, 0.0
        else:
            scales = [float(scale) for scale in model.process.scales(found.logsnr[i + 1 : i + 2])]
        tolerance = 1e-3 if kind == "flow" else 1e-4  # the flow begins at t = 1, which has no finite log-SNR
        torch.testing.assert_close(states[i + 1], scales[0] * x0 + scales[1] * eps, rtol=tolerance, atol=tolerance * 10)


def test_heuns_trials_are_no_states():
    spec, model, noise = made("edm")
    calls = []
    sample(model, noise, spec, on_step=lambda sigma, x, raw: calls.append(x.clone()))
    found = trajectory(model, noise, spec)
    assert len(calls) == 2 * STEPS - 1 and torch.equal(torch.stack(calls[::2]), found.x)


def test_a_query_without_noise_is_refused(tmp_path):
    view = View(tiny_problem(), tmp_path)
    with pytest.raises(ValueError, match="heldout-test-000 was not generated"):
        view.trajectory(view.model(), view.problem.queries)


def test_what_has_no_trajectory_gives_a_reason():
    problem, listing = tiny_problem(), Listing("m", "m", needs=("trajectory",))
    held = replace(problem, queries=problem.queries.where(kind="heldout"))
    random = replace(problem, spec=replace(problem.spec, sampler=Sampler(5, eta=1.0)))
    assert unsupported(listing, problem) is None
    for lacking in (held, random):
        assert "generated queries with their initial noise" in (unsupported(listing, lacking) or "")
