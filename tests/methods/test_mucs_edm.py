"""MUCS on EDM networks, in the unit and at the levels of the paper's code, against a loop written from its formulas."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from tdabench.errors import UserError
from tdabench.methods import Sizes
from tdabench.methods.engines.augmentation import augmented
from tdabench.methods.engines.levels import distance_portion, law_of
from tdabench.methods.engines.unlearning import (
    Unlearner,
    check,
    instance_weights,
    null_loss,
    second_moment,
    trainable,
    trained,
    unlearn,
)
from tdabench.methods.mucs import Mucs, Params
from tdabench.methods.view import View
from tdabench.models.draws import Draws, Law
from tdabench.models.problem import Problem
from tdabench.models.recipe import ModelSpec, Sampler
from tdabench.models.training import snapshot, train

from .. import tiny

EDM = {"kind": "edm", "sigma_data": 0.6, "mean": -1.0, "std": 1.1, "sigma_min": 0.01, "sigma_max": 40.0, "rho": 6.0}
SPEC = ModelSpec("UNet2DModel", tiny.UNET, EDM, Sampler(steps=5))
RECIPE = replace(tiny.RECIPE, model=SPEC)
SMALL = replace(Mucs.presets["edm"], draws=4, batch=5, max_steps=3, tolerance=None, learning_rate=1.0)
NULL = 0.7  # some draws of the barely trained model are above it and others are not


@pytest.fixture(scope="module")
def problem() -> Problem:
    data = tiny.dataset(14)
    model, weights = train(RECIPE, data, torch.arange(14), seed=0)
    weights[RECIPE.steps] = snapshot(model)
    return Problem("tiny-edm", data, tiny.queries_of(tiny.images(3, seed=99)), SPEC, weights, RECIPE)


@pytest.fixture
def edm(problem, tmp_path) -> View:
    return View(problem, tmp_path)


def loss(net: nn.Module, x: torch.Tensor, noise: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return EDM's weighted loss of images [B, C, H, W] from the denoiser D, table 1 of arXiv 2206.00364."""
    data = EDM["sigma_data"]
    total = sigma**2 + data**2
    noisy = x + sigma * noise
    raw = net(noisy / math.sqrt(total), torch.tensor(math.log(sigma) / 4)).sample
    denoised = data**2 / total * noisy + sigma * data / math.sqrt(total) * raw
    return total / (sigma * data) ** 2 * (denoised - x).square().mean((1, 2, 3))


def grid(places: np.ndarray) -> list[float]:
    """Return EDM's levels at places from 0, the noisiest, to 1."""
    ends = EDM["sigma_max"] ** (1 / EDM["rho"]), EDM["sigma_min"] ** (1 / EDM["rho"])
    return ((ends[0] + places * (ends[1] - ends[0])) ** EDM["rho"]).tolist()


@dataclass
class Plain:
    """The paper's code with its switches, one image and one draw at a time."""

    view: View
    params: Params
    null: float = NULL

    def __post_init__(self) -> None:
        self.ratios: list[float] = []
        self.clamped: list[bool] = []

    def draws(self, stream: torch.Generator, n: int) -> list[tuple[float, torch.Tensor]]:
        if self.params.unlearn_law == "edm-grid":
            among = int(n / self.params.unlearn_portion)
            sigmas = grid(np.sort(torch.rand(among, generator=stream).numpy().astype(float))[:n])
        else:
            sigmas = (EDM["mean"] + EDM["std"] * torch.randn(n, generator=stream)).exp().tolist()
        return list(zip(sigmas, torch.randn(n, *tiny.SHAPE, generator=stream), strict=True))

    def bound(self, sigma: float) -> float:
        """Return the null loss, or the mean loss of F = 0 at a level."""
        if self.params.clamp == "constant":
            return self.null
        data, moment = EDM["sigma_data"] ** 2, float(self.view.train.images.double().square().mean())
        # D = c_skip (x + sigma eps) misses x by (c_skip - 1) x + c_skip sigma eps
        skip = data / (sigma**2 + data)
        return (sigma**2 + data) / (sigma**2 * data) * ((1 - skip) ** 2 * moment + skip**2 * sigma**2)

    def weights(self, ids: list[int], x: torch.Tensor) -> np.ndarray:
        if not self.params.instance_weights:
            return np.ones(len(ids))
        rows, query = self.view.train.images[ids].flatten(1).numpy(), x.flatten().numpy()
        alike = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
        kept = (alike <= np.quantile(alike, 0.9)).astype(float)
        return kept / kept.mean()

    def loss(self, net: nn.Module, name: str, x: torch.Tensor, step: int) -> torch.Tensor:
        params, images = self.params, self.view.train.images
        stream = self.view.rng("unlearn", name, step)
        ids = torch.randperm(len(images), generator=stream)[: params.batch].tolist()
        retained = self.draws(stream, params.batch)
        forgotten = retained if params.same_noise_unlearning else self.draws(stream, params.batch)
        total, shares = torch.zeros(()), []
        for i, weight, (sigma, noise) in zip(ids, self.weights(ids, x), retained, strict=True):
            total = total + weight * loss(net, images[i : i + 1], noise, sigma).mean() / params.batch
        for sigma, noise in forgotten:
            one, bound = loss(net, x, noise, sigma).mean(), self.bound(sigma)
            self.clamped.append(one.item() > bound)
            shares.append(min(one.item(), bound) / bound)
            total = total - params.forget_weight * one.clamp(max=bound) / params.batch
        self.ratios.append(float(np.mean(shares)))
        return total

    def unlearn(self, name: str, x: torch.Tensor, steps: int) -> nn.Module:
        net = self.view.model().net
        chosen = [p for n, p in net.named_parameters() if not n.endswith(".bias")]
        adam = torch.optim.AdamW(chosen, lr=3e-3 * self.params.learning_rate, weight_decay=0.01, foreach=False)
        for step in range(steps):
            net.zero_grad()
            self.loss(net, name, x, step).backward()
            adam.step()
        return net

    def train_losses(self, net: nn.Module) -> np.ndarray:
        """Return losses [N, S] at the noisiest 70 % of the grid, under one set of noise."""
        draws = self.view.draws(self.params.draws, Law(), "shared", "score")
        places = np.linspace(0, 1, int(self.params.draws / 0.7))[: self.params.draws]
        images, noises = self.view.train.images, draws_noise(draws, places)
        with torch.no_grad():
            rows = [loss(net, images, noise, sigma) for sigma, noise in zip(grid(places), noises, strict=True)]
        return torch.stack(rows, 1).numpy()

    def scores(self, name: str, x: torch.Tensor) -> np.ndarray:
        before = self.train_losses(self.view.model().net)
        after = self.train_losses(self.unlearn(name, x, self.params.max_steps))
        return ((after - before) / (after + before + 1e-3)).mean(1)


def draws_noise(draws: Draws, places: np.ndarray) -> torch.Tensor:
    """Return the noise [S, C, H, W] of draws whose law, like EDM's grid, takes nothing from their generator."""
    return replace(draws, law=Law("edm-grid")).for_ids([0])[1][0][: len(places)]


def moved(net: nn.Module, other: nn.Module, start: nn.Module) -> float:
    """Return how far two networks are apart, as a share of how far one of them came."""
    parts = [torch.cat([p.detach().flatten() for p in each.parameters()]) for each in (net, other, start)]
    return float((parts[0] - parts[1]).norm() / (parts[1] - parts[2]).norm())


# what the preset computes


def test_losses_are_edms_weighted_losses(edm):
    batch = edm.train.batch(torch.arange(14))
    draws = edm.draws(6, Law("lognormal", mean=EDM["mean"], std=EDM["std"]))
    with torch.no_grad():
        found = edm.losses(edm.model(), batch, draws, "edm")
        levels, noises = (part[0] for part in draws.for_ids([0]))
        sigmas = (-levels.double() / 2).exp().tolist()
        expected = [loss(edm.model().net, batch.x, noise, s) for s, noise in zip(sigmas, noises, strict=True)]
    torch.testing.assert_close(found, torch.stack(expected, 1), rtol=1e-5, atol=0)


def test_the_null_loss_is_the_untrained_networks(edm):
    law = law_of(edm, "lognormal", 0.7, 5, unlearning=True)
    assert (law.mean, law.std) == (EDM["mean"], EDM["std"])
    draws, net = edm.draws(1, law, "item", "null-loss"), edm.model("untrained").net
    with torch.no_grad():
        pairs = [(i, *(part[0, 0] for part in draws.for_ids([i]))) for i in range(14)]
        one = [loss(net, edm.train.images[i : i + 1], noise, math.exp(-level / 2)) for i, level, noise in pairs]
    assert null_loss(edm, law, "edm", 20_000) == pytest.approx(float(torch.cat(one).mean()), rel=1e-5)


def test_the_null_loss_is_measured_on_as_many_images_as_asked(edm):
    law = Law("lognormal")
    assert null_loss(edm, law, "edm", 3) != null_loss(edm, law, "edm", 14)
    before = edm.passes.forward
    null_loss(edm, law, "edm", 3)
    assert edm.passes.forward == before + 3


def test_the_first_gradient_is_that_of_the_plain_loss(edm):
    query = edm.problem.queries.pick([1])
    unlearner = Unlearner(edm, query.batch, SMALL.unlearning(law_of(edm, "lognormal", 0.7, 5)), NULL)
    value, ratio = unlearner.loss(0)
    value.backward()
    plain, net = Plain(edm, SMALL), edm.model().net
    expected = plain.loss(net, query.ids[0], query.x, 0)
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5) and ratio == pytest.approx(plain.ratios[0], 1e-5)
    pairs = [(p.grad, other.grad) for p, other in zip(unlearner.model.net.parameters(), net.parameters(), strict=True)]
    for found, wanted in pairs:
        if found is not None:
            tiny.assert_near(found, wanted, 1e-4)
    assert sum(found is None for found, _ in pairs) == sum(n.endswith(".bias") for n, _ in net.named_parameters())
    assert 0 < sum(plain.clamped) < len(plain.clamped)


VARIANTS = {
    "preset": {},
    "per-level": {"clamp": "per-level"},
    "same-noise": {"same_noise_unlearning": True},
    "instance-weights": {"instance_weights": True, "batch": 12},
    "grid": {"unlearn_law": "edm-grid"},
    "grid-of-half": {"unlearn_law": "edm-grid", "unlearn_portion": 0.5},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_steps_and_scores_equal_a_plain_loop(edm, changes):
    params, query = replace(SMALL, **changes), edm.problem.queries.pick([1])
    law = law_of(edm, params.unlearn_law, params.unlearn_portion, params.batch, unlearning=True)
    model, trace = unlearn(edm, query.batch, params.unlearning(law), NULL)
    plain = Plain(edm, params)
    expected = plain.unlearn(query.ids[0], query.x, params.max_steps)
    assert moved(model.net, expected, edm.model().net) < 1e-3
    assert (trace.steps, trace.converged) == (3, False)
    assert [trace.start, trace.end] == pytest.approx([plain.ratios[0], plain.ratios[-1]], rel=1e-4)
    method = Mucs(params)
    found = method.attribute(edm, replace(method.fit(edm), null=NULL), query)[0]
    tiny.assert_near(found, torch.from_numpy(plain.scores(query.ids[0], query.x)), 1e-3)


def test_the_preset_ends_by_its_own_rule(problem, tmp_path):
    queries = replace(problem.queries, x=problem.train.images[:3] * 1.0)
    view = View(replace(problem, queries=queries), tmp_path)
    method = Mucs(replace(Mucs.presets["edm"], draws=4, batch=14, learning_rate=1.0, forget_weight=1.0))
    scores = method.attribute(view, replace(method.fit(view), null=0.9), view.problem.queries.pick([0]))
    trace = method.diagnostics["unlearning"]["query-0"]
    assert trace["converged"] and trace["steps"] > 0 and trace["end"] >= 0.95 > trace["start"]
    assert scores.isfinite().all() and (scores != 0).any()
    assert method.estimate(Sizes(14, 1, 1000, {})) is None  # nobody knows when


def test_the_skews_epsilon_is_absolute(edm):
    assert Mucs(SMALL).fit(edm).epsilon == 1e-3
    relative = Mucs(replace(SMALL, relative_epsilon=True)).fit(edm)
    assert relative.epsilon == pytest.approx(1e-3 * float(relative.losses.median()))


# stopping


def test_without_a_tolerance_exactly_so_many_steps_are_made(edm):
    query = edm.problem.queries.pick([0]).batch
    law = law_of(edm, "lognormal", 0.7, 5)
    _, trace = unlearn(edm, query, SMALL.unlearning(law), 1e-6)
    assert (trace.steps, trace.end, trace.converged) == (3, 1.0, False)
    _, trace = unlearn(edm, query, replace(SMALL, tolerance=0.05).unlearning(law), 1e-6)
    assert (trace.steps, trace.end, trace.converged) == (0, 1.0, True)


@pytest.mark.parametrize("changes", [{"tolerance": None}, {"tolerance": 0.05, "bounded": False}])
def test_unlearning_without_an_end_is_refused(edm, changes):
    with pytest.raises(UserError, match="nothing ends this unlearning: set max_steps"):
        Mucs(replace(SMALL, max_steps=None, **changes)).fit(edm)


# null losses by level

PROCESSES = {
    "eps": {},
    "x0": {"prediction_type": "sample"},
    "v": {"prediction_type": "v_prediction"},
    "edm": EDM,
    "flow": {"kind": "flow"},
}


@pytest.mark.parametrize("unit", [None, "eps", "edm"])
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
def test_per_level_bounds_are_the_losses_of_a_network_that_answers_nothing(problem, tmp_path, process, unit):
    spec = replace(SPEC, process=process)
    silent = {name: value * (not name.startswith("conv_out")) for name, value in problem.weights[0].items()}
    recipe = replace(RECIPE, model=spec)
    view = View(replace(problem, spec=spec, recipe=recipe, weights={0: silent, 12: silent}), tmp_path)
    params = replace(SMALL, clamp="per-level", unit=unit, frozen="none")
    levels = torch.tensor([-1.0, 0.5, 2.0])
    bound = Unlearner(view, problem.queries.pick([0]).batch, params.unlearning(Law("lognormal", std=0.5)), 5.0).bound
    draws = FixedLevels("fixed", 3, Law(), "item", 0, tiny.SHAPE, view.process)
    losses = [
        view.losses(view.model(), view.train.batch(torch.arange(14)), replace(draws, seed=s), unit) for s in range(30)
    ]
    measured = torch.stack(losses).mean((0, 1)).detach()
    torch.testing.assert_close(bound(levels), measured, rtol=0.05, atol=0)


@dataclass(frozen=True)
class FixedLevels(Draws):
    """Draws at three fixed log-SNRs."""

    def for_ids(self, ids):
        return torch.tensor([[-1.0, 0.5, 2.0]]).expand(len(ids), -1), super().for_ids(ids)[1]


def test_the_second_moment_is_that_of_the_training_images(edm):
    assert second_moment(edm) == pytest.approx(float(np.square(edm.train.images.numpy(), dtype=np.float64).mean()))


# what is trained


def transformer() -> nn.Module:
    from diffusers import DiTTransformer2DModel

    return DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=1, num_layers=2, sample_size=8, num_embeds_ada_norm=3
    )


@pytest.mark.parametrize("frozen", ["paper", "reference"])
def test_on_a_transformer_mlps_and_the_condition_are_trained(frozen):
    net = transformer()
    mlps = [layer for block in net.transformer_blocks for layer in block.ff.modules() if isinstance(layer, nn.Linear)]
    tables = [module for module in net.modules() if isinstance(module, nn.Embedding)]
    expected = {id(module.weight) for module in [*mlps, *tables]}
    assert len(mlps) == 4 and tables
    names = trained(net, frozen)
    assert {id(parameter) for name, parameter in net.named_parameters() if name in names} == expected


@pytest.mark.parametrize("kind", ["plain", "label", "text"])
def test_on_a_unet_the_references_names_freeze_biases_alone(kind):
    net = tiny.denoiser(kind).net
    assert trained(net, "reference") == {n for n, _ in net.named_parameters() if not n.endswith(".bias")}


def test_of_the_references_own_transformer_its_names_leave_mlps_and_the_condition():
    blocks = ["attention.qkv.weight", "attention.proj.weight", "mlp.0.weight", "mlp.0.bias", "adapter.adapter.1.weight"]
    names = [f"dit_backbone.0.{name}" for name in blocks] + ["y_embedder.emb_mlp.0.weight", "y_embedder.xdrop"]
    names += ["encoder.0.conv1.weight", "last.proj.weight", "pos_enc.extra", "s_embedder.mlp.0.weight"]
    assert [name for name in names if trainable(name, "reference")] == [
        "dit_backbone.0.mlp.0.weight",
        "y_embedder.emb_mlp.0.weight",
    ]


def test_a_network_of_other_names_is_refused_before_anything_is_computed(problem, tmp_path):
    view = View(problem, tmp_path)
    model = view.model()
    model.net = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(UserError, match="frozen='paper' knows no layer of this network"):
        check(model, Params().unlearning())
    assert view.passes.forward == 0


# units and levels that do not go together


@pytest.mark.parametrize("law", ["training", "edm-grid"])
def test_edms_unit_at_a_noise_predictors_own_levels_is_refused(view, law):
    with pytest.raises(UserError, match=rf"unit 'edm' weights levels of unlearn_law '{law}' by \de\+04 and more"):
        Mucs(Params(draws=2, batch=2, unit="edm", unlearn_law=law)).fit(view)
    assert view.passes.forward == 0


@pytest.mark.parametrize("changes", [{"unit": "edm", "unlearn_law": "lognormal"}, {"unit": None}, {"unit": "eps"}])
def test_units_that_suit_are_taken(view, changes):
    assert Mucs(Params(draws=2, batch=2, **changes)).fit(view).losses.shape == (14, 2)


def test_no_unit_is_that_of_training(edm, view):
    for each, unit in ((edm, "edm"), (view, "eps")):
        own, named = (Mucs(replace(SMALL, unit=one)).fit(each) for one in (None, unit))
        assert torch.equal(own.losses, named.losses) and own.null == named.null


# levels from the data's own distances


def equidistant(distance: float, problem: Problem) -> Problem:
    """Return the problem with 16 images of which any two are ``distance`` apart, as RMS over pixels."""
    rows = torch.ones(1, 1)
    while len(rows) < 64:
        rows = torch.cat([torch.cat([rows, rows], 1), torch.cat([rows, -rows], 1)])
    images = (distance / 2**0.5 * rows[:16]).view(16, 1, 8, 8)
    return replace(problem, train=replace(tiny.dataset(16), images=images))


@pytest.mark.parametrize("distance", [0.1, 1.0])
def test_the_automatic_portion_is_the_share_of_levels_above_half_the_distance(problem, tmp_path, distance):
    view = View(equidistant(distance, problem), tmp_path)
    expected = np.mean(np.array(grid(np.linspace(0, 1, 20))) > distance / 2)
    law = law_of(view, "edm-grid", "auto", 20)
    assert 0 < expected < 1 and law.portion == pytest.approx(expected)
    assert law_of(view, "edm-grid", "auto", 20, unlearning=True).portion == law.portion


def test_images_further_apart_than_all_levels_are_refused(problem, tmp_path):
    view = View(equidistant(100.0, problem), tmp_path)
    with pytest.raises(UserError, match="set a portion instead of 'auto'"):
        distance_portion(view, law_of(view, "edm-grid", 0.7, 20), 20)


# instance weights and augmentation


def test_the_tenth_that_is_most_like_the_query_is_not_rehearsed(edm):
    batch = edm.train.batch(torch.arange(10))
    weights = instance_weights(batch, batch[4:5])
    assert weights[4] == 0 and (weights > 0).sum() == 9 and float(weights.mean()) == pytest.approx(1)


def test_likeness_counts_conditions():
    batch = replace(tiny.batch_of("label", 6), x=tiny.images(1).expand(6, 1, 8, 8))
    weights = instance_weights(batch, batch[0:1], share=0.5)
    assert weights.tolist() == [0, 1.5, 1.5, 0, 1.5, 1.5]  # labels 0 1 2 0 1 2


def test_without_a_chance_images_are_only_flipped(edm):
    batch = edm.train.batch(torch.arange(14))
    found = augmented(batch, 0.0, tiny.generator()).x
    same = (found - batch.x).abs().amax((1, 2, 3)) < 1e-5
    mirrored = (found - batch.x.flip(3)).abs().amax((1, 2, 3)) < 1e-5
    assert (same ^ mirrored).all() and same.any() and mirrored.any()


def test_augmentation_moves_images_and_adds_nothing(edm):
    batch = edm.train.batch(torch.arange(14))
    found = augmented(batch, 1.0, tiny.generator())
    assert found.ids == batch.ids and found.x.min() >= batch.x.min() and found.x.max() <= batch.x.max()
    changes = [(found.x - other).abs().amax((1, 2, 3)) for other in (batch.x, batch.x.flip(3))]
    assert torch.minimum(*changes).min() > 0.05
    flat = augmented(replace(batch, x=torch.full((14, 1, 8, 8), 0.3)), 1.0, tiny.generator()).x
    torch.testing.assert_close(flat, torch.full_like(flat, 0.3))


def test_augmented_unlearning_differs_and_repeats(edm):
    query, law = edm.problem.queries.pick([0]).batch, law_of(edm, "lognormal", 0.7, 5)
    plain, one, again = (
        unlearn(edm, query, replace(SMALL, augment=share).unlearning(law), NULL)[0].net for share in (0.0, 0.12, 0.12)
    )
    assert moved(one, again, edm.model().net) == 0 and moved(one, plain, edm.model().net) > 0.01


def test_the_same_noise_needs_no_second_draw_for_small_training_sets(edm):
    params = replace(SMALL, batch=20, same_noise_unlearning=True)
    _, trace = unlearn(edm, edm.problem.queries.pick([0]).batch, params.unlearning(), NULL)
    assert trace.steps == 3
