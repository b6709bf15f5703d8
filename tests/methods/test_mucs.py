"""MUCS against a plain re-implementation, its stopping rule, its frozen parameters and what it finds."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from tdabench.benchmark.contract.tiny import tiny_problem as twin
from tdabench.benchmark.tasks.digits import TASK
from tdabench.methods.engines.unlearning import null_loss, trainable, unlearn
from tdabench.methods.mucs import Mucs, Params, State
from tdabench.methods.view import View
from tdabench.models.draws import Law
from tdabench.models.training import build

from .. import tiny

# A tolerance of -1 never stops: what happens before a stop is told apart from the stopping rule.
PARAMS = Params(draws=4, batch=5, max_steps=3, learning_rate=1.0, forget_weight=1.0, tolerance=-1.0)
NULL = 0.6  # close to the barely trained model's losses, so that some draws are clamped and others are not


def learnable(net: nn.Module, frozen: str) -> list[nn.Parameter]:
    """Return the parameters that are trained, found by the types of the modules that own them."""
    if frozen == "none":
        return list(net.parameters())
    if frozen == "biases":
        biases = {id(module.bias) for module in net.modules() if getattr(module, "bias", None) is not None}
        return [parameter for parameter in net.parameters() if id(parameter) not in biases]
    blocks = [module for module in net.modules() if isinstance(module, ResnetBlock2D)]
    embeddings = [module.weight for module in net.modules() if isinstance(module, nn.Embedding)]
    return [conv.weight for block in blocks for conv in (block.conv1, block.conv2)] + embeddings


@dataclass
class Plain:
    """MUCS written out: one image and one draw at a time while unlearning."""

    view: View
    params: Params
    null: float

    def __post_init__(self) -> None:
        self.alphas = DDPMScheduler(**tiny.LINEAR).alphas_cumprod.double()
        self.log_snr = (self.alphas / (1 - self.alphas)).log()
        self.ratios: list[float] = []
        self.clamped: list[bool] = []

    def loss(self, net: nn.Module, x: torch.Tensor, noise: torch.Tensor, timestep: int) -> torch.Tensor:
        """Return the losses of images [B, C, H, W] under one draw."""
        alpha_bar = self.alphas[timestep]
        noisy = (alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise).float()
        error = (net(noisy, timestep).sample - noise).square().mean((1, 2, 3))
        return error * (1 + 4 * self.power(timestep)) if self.params.unit == "edm" else error

    def power(self, timestep: int) -> float:
        return float((1 - self.alphas[timestep]) / self.alphas[timestep])

    def pairs(self, generator: torch.Generator, n: int) -> list[tuple[int, torch.Tensor]]:
        """Return n (timestep, noise) of the unlearning law."""
        if self.params.unlearn_law == "training":
            timesteps = (torch.rand(n, generator=generator) * 1000).long()
        else:
            levels = -2 * (1.2 * torch.randn(n, generator=generator) - 1.2)
            timesteps = (self.log_snr - levels[:, None]).abs().argmin(1)
        return list(zip(timesteps.tolist(), torch.randn(n, *tiny.SHAPE, generator=generator), strict=True))

    def unlearn(self, name: str, x: torch.Tensor) -> nn.Module:
        params, images = self.params, self.view.train.images
        net = self.view.model().net
        adam = torch.optim.AdamW(
            learnable(net, params.frozen), lr=3e-3 * params.learning_rate, weight_decay=0.01, foreach=False
        )
        for step in range(params.max_steps):
            stream = self.view.rng("unlearn", name, step)
            ids = torch.randperm(len(images), generator=stream)[: params.batch].tolist()
            retained = [
                self.loss(net, images[i : i + 1], noise, t).mean()
                for i, (t, noise) in zip(ids, self.pairs(stream, params.batch), strict=True)
            ]
            forgotten, shares = [], []
            for timestep, noise in self.pairs(stream, params.batch):
                loss, bound = self.loss(net, x, noise, timestep).mean(), self.null
                self.clamped.append(loss.item() > bound)
                shares.append(min(loss.item(), bound) / bound)
                forgotten.append(loss.clamp(max=bound) if params.bounded else loss)
            self.ratios.append(float(np.mean(shares)))
            if params.bounded and self.ratios[-1] >= 1 - params.tolerance:
                break
            net.zero_grad()
            (sum(retained) / params.batch - params.forget_weight * sum(forgotten) / params.batch).backward()
            adam.step()
        return net

    def train_losses(self, net: nn.Module, name: str) -> np.ndarray:
        """Return losses [N, S] of the training set at the draws of a name, shared by all items or each item's own."""
        scope = "shared" if self.params.same_noise else "item"
        draws = self.view.draws(self.params.draws, Law(self.params.score_law), scope, name)
        with torch.no_grad():
            return torch.cat([self.item_losses(net, item, *draws.for_ids([item])) for item in self.ids()]).numpy()

    def ids(self) -> range:
        return range(len(self.view.train.images))

    def item_losses(self, net: nn.Module, item: int, levels: torch.Tensor, noises: torch.Tensor) -> torch.Tensor:
        timesteps = (self.log_snr - levels[0][:, None]).abs().argmin(1).tolist()
        image, pairs = self.view.train.images[item : item + 1], zip(timesteps, noises[0], strict=True)
        return torch.stack([self.loss(net, image, noise, timestep) for timestep, noise in pairs], 1)

    def scores(self, name: str, x: torch.Tensor) -> np.ndarray:
        before = self.train_losses(self.view.model().net, "score")
        after = self.train_losses(self.unlearn(name, x), "score" if self.params.same_noise else f"score/{name}")
        epsilon = self.params.epsilon * float(torch.tensor(before).median())
        if not self.params.same_noise:
            before, after = before.mean(1, keepdims=True), after.mean(1, keepdims=True)
        rise = after - before
        return (rise / (after + before + epsilon) if self.params.score == "skew" else rise).mean(1)


@pytest.fixture
def fitted(view) -> tuple[Mucs, State]:
    method = Mucs(PARAMS)
    return method, replace(method.fit(view), null=NULL)


VARIANTS = {
    "bounded-constant-skew": {},
    "unbounded": {"bounded": False},
    "other-noise": {"same_noise": False},
    "difference": {"score": "difference"},
    "other-noise-difference": {"same_noise": False, "score": "difference"},
    "lognormal-biases": {"unlearn_law": "lognormal", "frozen": "biases", "forget_weight": 0.2},
    "edm-units-all-parameters": {"unit": "edm", "frozen": "none", "score": "difference", "unlearn_law": "lognormal"},
    "even-levels-large-epsilon": {"score_law": "even", "epsilon": 1.0},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_scores_equal_a_plain_loop(view, changes):
    params, query = replace(PARAMS, **changes), view.problem.queries.pick([1])
    method, plain = Mucs(params), Plain(view, params, NULL)
    found = method.attribute(view, replace(method.fit(view), null=NULL), query)[0]
    expected = plain.scores(query.ids[0], query.x)
    assert found.shape == (14,) and found.dtype == torch.float32
    tiny.assert_near(found, torch.from_numpy(expected), 5e-3)
    trace = method.diagnostics["unlearning"]["query-1"]
    assert trace["steps"] == 3 and not trace["converged"]
    assert trace["start"] == pytest.approx(plain.ratios[0], rel=1e-3)
    assert trace["end"] == pytest.approx(plain.ratios[-1], rel=1e-3)
    assert 0 < sum(plain.clamped) < len(plain.clamped)


# the stopping rule and the clamp


def test_a_query_already_above_the_null_loss_is_not_unlearned(view, fitted):
    method, state = Mucs(replace(PARAMS, tolerance=0.05)), fitted[1]
    scores = method.attribute(view, replace(state, null=1e-3), view.problem.queries)
    assert (scores == 0).all()
    for trace in method.diagnostics["unlearning"].values():
        assert trace == {"steps": 0, "start": 1.0, "end": 1.0, "converged": True}


def test_unlearning_stops_at_the_first_step_within_tolerance(view):
    query = view.problem.queries.pick([0])
    free = Plain(view, replace(PARAMS, max_steps=6), NULL)
    free.unlearn(query.ids[0], query.x)
    best = int(np.argmax(free.ratios))
    assert best > 0  # so that the rule has something to wait for
    params = replace(PARAMS, max_steps=6, tolerance=1 - free.ratios[best] + 1e-4)
    model, trace = unlearn(view, query.batch, params.unlearning(), NULL)
    assert (trace.steps, trace.converged) == (best, True)
    assert trace.end == pytest.approx(free.ratios[best], rel=1e-3)
    expected = Plain(view, params, NULL).unlearn(query.ids[0], query.x)
    before = view.model().net
    for found, wanted, start in zip(model.net.parameters(), expected.parameters(), before.parameters(), strict=True):
        moved = (wanted - start).detach().abs().max()
        assert (found - wanted).detach().abs().max() <= 1e-2 * moved


def test_unbounded_unlearning_never_stops_early(view):
    settings = replace(PARAMS, bounded=False, tolerance=0.99).unlearning()
    _, trace = unlearn(view, view.problem.queries.pick([0]).batch, settings, 1e-3)
    assert trace.steps == 3 and not trace.converged


def test_no_step_is_made_where_none_is_allowed(view):
    settings = replace(PARAMS, max_steps=0, tolerance=0.05).unlearning()
    model, trace = unlearn(view, view.problem.queries.pick([0]).batch, settings, NULL)
    assert trace.steps == 0
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), view.model().parameters(), strict=True))


def test_clamped_draws_give_no_gradient(view):
    query = view.problem.queries.pick([0]).batch

    def unlearned(**changes):
        return unlearn(view, query, replace(PARAMS, **changes).unlearning(), 1e-3)[0]

    clamped, retained, free = unlearned(), unlearned(forget_weight=0.0), unlearned(bounded=False)
    pairs = list(zip(clamped.parameters(), retained.parameters(), free.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)


def test_per_level_clamps_of_a_noise_predictor_are_one_whatever_the_measured_null_loss(view):
    settings = replace(PARAMS, clamp="per-level").unlearning()
    query = view.problem.queries.pick([0]).batch
    one, other = (unlearn(view, query, settings, null)[0] for null in (1.0, 7.0))
    constant = unlearn(view, query, replace(settings, clamp="constant"), 1.0)[0]
    for a, b, c in zip(one.parameters(), other.parameters(), constant.parameters(), strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)


def test_per_level_clamps_leave_a_trained_query_something_to_forget(view):
    settings = replace(PARAMS, clamp="per-level", tolerance=0.05).unlearning()
    _, trace = unlearn(view, view.problem.queries.pick([0]).batch, settings, 1.0)
    assert trace.steps == 3 and not trace.converged and trace.start < 0.9


def test_the_query_is_forgotten_and_its_loss_rises(view):
    query = view.problem.queries.pick([0])
    draws = view.draws(20, Law("even"))
    settings = replace(PARAMS, bounded=False, max_steps=10).unlearning()
    model, _ = unlearn(view, query.batch, settings, NULL)
    with torch.no_grad():
        before, after = (view.losses(each, query.batch, draws).mean() for each in (view.model(), model))
    assert after > 1.2 * before


def test_the_preset_that_runs_to_the_end_ends_there():
    view = View(twin(), Path("unused"))
    method = Mucs(replace(Mucs.presets["to-the-end"], draws=2))
    method.attribute(view, method.fit(view), view.problem.queries.pick([0]))
    trace = method.diagnostics["unlearning"][view.problem.queries.ids[0]]
    assert trace["converged"] and 0 < trace["steps"] < 200 and trace["end"] >= 0.95 > trace["start"]


# the null loss


def test_the_null_loss_is_the_untrained_models_mean_loss(view):
    draws = view.draws(1, Law("training"), "item", "null-loss")
    losses = tiny.plain_losses(view.model("untrained"), view.train.batch(torch.arange(14)), draws)
    assert null_loss(view, Law("training"), "eps") == pytest.approx(float(losses.mean()), rel=1e-4)


def test_the_null_loss_of_a_silent_network_is_one_in_eps_units(tiny_problem, tmp_path):
    silent = {name: value * (not name.startswith("conv_out")) for name, value in tiny_problem.weights[0].items()}
    view = View(replace(tiny_problem, weights={**tiny_problem.weights, 0: silent}), tmp_path)
    pixels = 14 * 64
    assert abs(null_loss(view, Law("training"), "eps") - 1) < 5 * (2 / pixels) ** 0.5


# frozen parameters


@pytest.mark.parametrize("frozen", ["paper", "biases", "none"])
@pytest.mark.parametrize("spec", [TASK.recipe.model, tiny.SPECS["label"]], ids=["digits", "label"])
def test_the_trained_parameters_are_those_of_the_right_modules(spec, frozen):
    net = build(spec, 0).net
    expected = {id(parameter) for parameter in learnable(net, frozen)}
    found = {id(parameter) for name, parameter in net.named_parameters() if trainable(name, frozen)}
    assert found == expected
    sizes = [sum(p.numel() for p in net.parameters() if id(p) in chosen) for chosen in (found, expected)]
    assert 0 < sizes[0] == sizes[1] <= sum(p.numel() for p in net.parameters())


def test_on_digits_the_paper_trains_two_convolutions_per_block_and_nothing_else():
    net = build(TASK.recipe.model, 0).net
    shapes = [tuple(p.shape) for name, p in net.named_parameters() if trainable(name, "paper")]
    assert len(shapes) == 2 * sum(isinstance(module, ResnetBlock2D) for module in net.modules())
    assert {shape[2:] for shape in shapes} == {(3, 3)}


def test_the_paper_freezes_every_bias():
    names = ["class_embedding.linear_1.bias", "down_blocks.0.resnets.0.conv1.bias", "conv_out.bias"]
    assert [trainable(name, "paper") for name in names] == [False, False, False]
    assert trainable("class_embedding.weight", "paper") and trainable("class_embedding.linear_1.weight", "paper")


@pytest.mark.parametrize("frozen", ["paper", "biases", "none"])
def test_frozen_parameters_keep_their_bits(view, frozen):
    settings = replace(PARAMS, frozen=frozen).unlearning()
    model, _ = unlearn(view, view.problem.queries.pick([0]).batch, settings, NULL)
    before = view.model().net
    trained = {id(parameter) for parameter in learnable(before, frozen)}
    for old, new in zip(before.parameters(), model.net.parameters(), strict=True):
        assert torch.equal(old, new) == (id(old) not in trained)


# the method as a whole


def test_a_planted_copy_of_the_query_gets_the_top_score(tiny_problem, tmp_path):
    view = View(tiny.plant(tiny_problem, {0: 3, 1: 8}), tmp_path)
    method = Mucs(Params(draws=10, batch=14, max_steps=30, learning_rate=0.5, forget_weight=1.0, score_law="even"))
    scores = method.attribute(view, method.fit(view), view.problem.queries.pick([0, 1]))
    assert scores.argmax(1).tolist() == [3, 8]


def test_order_and_slicing_of_queries_change_nothing(view, fitted):
    method, state = fitted
    queries = view.problem.queries
    whole = method.attribute(view, state, queries)
    again = Mucs(PARAMS)
    parts = [again.attribute(view, state, queries.pick(index)) for index in ([2], [1, 0])]
    assert torch.equal(torch.cat(parts)[[2, 1, 0]], whole)
    assert again.diagnostics == method.diagnostics
    assert len({tuple(row.tolist()) for row in whole}) == 3


def test_diagnostics_are_recorded_per_query(view, fitted):
    method, state = fitted
    method.attribute(view, state, view.problem.queries)
    traces = json.loads(json.dumps(method.diagnostics, allow_nan=False))["unlearning"]
    assert set(traces) == {"query-0", "query-1", "query-2"}
    for trace in traces.values():
        assert trace["steps"] == 3 and trace["converged"] is False
        assert 0 < trace["start"] <= 1 and 0 < trace["end"] <= 1
    assert len({trace["start"] for trace in traces.values()}) == 3


def test_micro_batch_and_global_random_state_change_nothing(tiny_problem, view, fitted, tmp_path):
    method, state = fitted
    whole = method.attribute(view, state, view.problem.queries)
    torch.manual_seed(4321)
    before = torch.get_rng_state()
    small, other = View(tiny_problem, tmp_path / "small", micro_batch=8), Mucs(PARAMS)
    tiny.assert_near(other.attribute(small, replace(other.fit(small), null=NULL), view.problem.queries), whole, 1e-3)
    assert torch.equal(before, torch.get_rng_state())


def test_the_seed_changes_the_draws(tiny_problem, view, fitted, tmp_path):
    method, state = fitted
    whole, other = method.attribute(view, state, view.problem.queries), View(tiny_problem, tmp_path, seed=1)
    assert not torch.equal(method.attribute(other, state, view.problem.queries), whole)


def test_the_problem_is_left_as_it_was(view, fitted):
    before = {step: {n: v.clone() for n, v in state.items()} for step, state in view.problem.weights.items()}
    method, state = fitted
    method.attribute(view, state, view.problem.queries.pick([0]))
    for step, weights in before.items():
        assert all(torch.equal(value, view.problem.weights[step][name]) for name, value in weights.items())


@pytest.mark.parametrize("kind", ["label", "text"])
def test_the_query_is_unlearned_under_its_own_condition(tmp_path, kind):
    problem = tiny.make_conditional(kind)
    x, queries = problem.queries.x, problem.queries
    same_image = replace(queries, x=x[:1].expand_as(x), ids=("query-0", "query-0"))
    view = View(problem, tmp_path)
    method = Mucs(replace(PARAMS, bounded=False))
    scores = method.attribute(view, method.fit(view), same_image)
    assert scores.shape == (2, 8) and scores.isfinite().all()
    assert not torch.allclose(scores[0], scores[1], rtol=1e-3, atol=0)


def test_passes_are_counted(tiny_problem, tmp_path):
    view = View(tiny_problem, tmp_path)
    method = Mucs(replace(PARAMS, bounded=False))
    state = method.fit(view)
    assert (view.passes.forward, view.passes.backward) == (14 * 4 + 14, 0)
    method.attribute(view, state, view.problem.queries.pick([0]))
    assert view.passes.forward == 14 * 4 + 14 + 3 * 2 * 5 + 14 * 4
    assert view.passes.backward == 3 * 2 * 5
