"""Per-sample gradients, their projection and the kernel, against backward passes and explicit inverses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tdabench.methods import d_trak, grad_sim
from tdabench.methods.engines.features import per_sample_gradients
from tdabench.methods.engines.kernel import GradientKernel
from tdabench.methods.engines.projection import Projector
from tdabench.methods.view import View
from tdabench.models.draws import Draws, Law

from ... import tiny

OUTPUTS = ["loss", "mean-square", "mean"]


def draws_of(model, scope: str, n: int = 3) -> Draws:
    return Draws("loss", n, Law("training"), scope, 0, tiny.SHAPE, model.process)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=tiny.generator(seed))


def explicit_scores(items: torch.Tensor, queries: torch.Tensor, damping: float) -> np.ndarray:
    """Return phi_q (Phi^T Phi + lambda I)^-1 Phi^T by an inverse in float64, lambda relative to tr(Phi Phi^T) / N."""
    phi, query = items.double().numpy(), queries.double().numpy()
    shift = damping * np.trace(phi @ phi.T) / len(phi)
    return query @ np.linalg.inv(phi.T @ phi + shift * np.eye(phi.shape[1])) @ phi.T


# gradients


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("scope", ["shared", "item"])
def test_gradients_equal_one_backward_per_item(output, scope):
    model, batch = tiny.denoiser(), tiny.batch_of("plain", 4)
    draws = draws_of(model, scope)
    found = per_sample_gradients(model, batch, draws, output)
    tiny.assert_near(found, tiny.plain_gradients(model, batch, draws, output), 1e-4)


@pytest.mark.parametrize("kind", ["label", "text"])
def test_gradients_of_conditional_models_equal_one_backward_per_item(kind):
    model, batch = tiny.denoiser(kind), tiny.batch_of(kind, 4)
    draws = draws_of(model, "item")
    found = per_sample_gradients(model, batch, draws, "loss")
    tiny.assert_near(found, tiny.plain_gradients(model, batch, draws), 1e-4)


@pytest.mark.parametrize("micro_batch", [3, 6, 7])
def test_chunks_change_no_gradient(micro_batch):
    model, batch = tiny.denoiser(), tiny.batch_of("plain", 5)
    draws = draws_of(model, "item")
    whole = per_sample_gradients(model, batch, draws, "loss")
    model.micro_batch = micro_batch
    tiny.assert_near(per_sample_gradients(model, batch, draws, "loss"), whole, 1e-5)


def test_more_draws_than_the_micro_batch_change_no_gradient():
    model, batch = tiny.denoiser(), tiny.batch_of("plain", 2)
    draws = draws_of(model, "item", n=5)
    whole = per_sample_gradients(model, batch, draws, "loss")
    model.micro_batch = 2
    tiny.assert_near(per_sample_gradients(model, batch, draws, "loss"), whole, 1e-5)


def test_a_gradient_belongs_to_its_item_whatever_the_batch():
    model, batch = tiny.denoiser(), tiny.batch_of("plain", 4)
    draws = draws_of(model, "item")
    whole = per_sample_gradients(model, batch, draws, "loss")
    tiny.assert_near(per_sample_gradients(model, batch[2:3], draws, "loss"), whole[2:3], 1e-5)


def test_gradients_leave_the_model_as_it_was():
    model = tiny.denoiser()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    per_sample_gradients(model, tiny.batch_of("plain", 2), draws_of(model, "shared"), "loss")
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


# the projection


def dense(k: int, size: int, seed: int = 0) -> torch.Tensor:
    return Projector(k, seed)(torch.eye(size))


def test_no_dimension_keeps_the_gradients():
    gradients = gaussian(3, 50)
    assert torch.equal(Projector(None, 0)(gradients), gradients)


@given(st.floats(-3, 3), st.floats(-3, 3), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_projection_is_linear(a, b, seed):
    one, other, project = gaussian(2, 40), gaussian(2, 40, seed=1), Projector(16, seed)
    expected = a * project(one) + b * project(other)
    torch.testing.assert_close(project(a * one + b * other), expected, rtol=1e-4, atol=1e-4)


def test_the_projection_is_a_sparse_matrix_with_two_signed_copies_of_each_coordinate():
    matrix, gradients = dense(64, 200), gaussian(5, 200)
    tiny.assert_near(Projector(64, 0)(gradients), gradients @ matrix, 1e-5)
    twice = (matrix * 2**0.5).round()  # entries are whole multiples of 1/sqrt(2)
    torch.testing.assert_close(matrix * 2**0.5, twice)
    assert set(twice.abs().sum(1).tolist()) <= {0.0, 2.0}
    assert (twice.abs().sum(1) == 2).float().mean() > 0.9
    assert abs(twice.sum() / 400) < 5 / 400**0.5


def test_the_projection_depends_on_seed_and_size_alone():
    torch.manual_seed(1)
    first = dense(16, 40, seed=3)
    torch.manual_seed(2)
    assert torch.equal(dense(16, 40, seed=3), first)
    assert not torch.equal(dense(16, 40, seed=4), first)
    whole, used = gaussian(6, 40), Projector(16, 3)
    assert torch.equal(torch.cat([used(whole[:1]), used(whole[1:])]), used(whole))


def test_inner_products_are_kept_on_average():
    one, other = gaussian(1, 30), gaussian(1, 30, seed=1)
    pair = torch.cat([one, other + 0.3 * one])
    found = torch.stack([(p @ p.T).flatten() for p in (Projector(16, seed)(pair) for seed in range(3000))]).double()
    error = (found.mean(0) - (pair @ pair.T).flatten().double()).abs()
    assert (error <= 4 * found.std(0) / 3000**0.5).all()
    assert (4 * found.std(0) / 3000**0.5 < 0.05 * (pair @ pair.T).diagonal().max()).all()  # the bound is no formality


def test_a_wider_projection_is_more_exact():
    rows = gaussian(2, 200)
    truth = float(rows[0] @ rows[1])

    def error(k: int) -> float:
        found = [Projector(k, seed)(rows) for seed in range(200)]
        return float(np.mean([(float(p[0] @ p[1]) - truth) ** 2 for p in found]))

    assert error(512) < error(32) / 8  # a sixteenth is expected


# the kernel


@pytest.mark.parametrize(("n", "k"), [(7, 30), (30, 7), (9, 9)])
@pytest.mark.parametrize("damping", [1e-6, 0.1, 10.0])
def test_scores_equal_an_explicit_inverse(n, k, damping):
    items, queries = gaussian(n, k), gaussian(4, k, seed=1)
    found = GradientKernel(items, damping).scores(queries)
    expected = explicit_scores(items, queries, damping)
    assert found.dtype == torch.float64 and found.shape == (4, n)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize(("n", "k"), [(7, 30), (30, 7)])
def test_strong_damping_is_a_scaled_dot_product(n, k):
    items, queries = gaussian(n, k), gaussian(4, k, seed=1)
    shift = 1e9 * float(items.double().square().sum()) / n
    found = GradientKernel(items, 1e9).scores(queries) * shift
    torch.testing.assert_close(found, queries.double() @ items.double().T, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("n", "k"), [(7, 30), (30, 7)])
def test_damping_is_relative_to_the_features_scale(n, k):
    items, queries = gaussian(n, k), gaussian(4, k, seed=1)
    plain, scaled = GradientKernel(items, 0.1).scores(queries), GradientKernel(1e3 * items, 0.1).scores(1e3 * queries)
    torch.testing.assert_close(scaled, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("damping", [0.0, -1.0])
def test_damping_must_be_positive(damping):
    with pytest.raises(ValueError, match="damping"):
        GradientKernel(gaussian(3, 4), damping)


# the methods


@pytest.mark.parametrize(
    ("similarity", "proj_dim", "scope"), [("dot", None, "shared"), ("cosine", None, "item"), ("cosine", 64, "shared")]
)
def test_grad_sim_end_to_end(view, similarity, proj_dim, scope):
    params = grad_sim.Params(draws=2, proj_dim=proj_dim, similarity=similarity, scope=scope)
    method, queries = grad_sim.GradSim(params), view.problem.queries
    scores = tiny.joined(method.attribute(view, method.fit(view), queries))
    draws, project = view.draws(2, Law("even"), scope), Projector(proj_dim, view.seed)
    items = project(tiny.plain_gradients(view.model(), view.train.batch(torch.arange(14)), draws)).double().numpy()
    query = project(tiny.plain_gradients(view.model(), queries.batch, draws)).double().numpy()
    if similarity == "cosine":
        items, query = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (items, query))
    assert scores.dtype == torch.float32
    tiny.assert_near(scores, torch.from_numpy(query @ items.T), 1e-4)


@pytest.mark.parametrize(
    ("output", "proj_dim"), [("mean-square", None), ("mean-square", 8), ("loss", 8), ("mean", None)]
)
def test_d_trak_end_to_end(view, output, proj_dim):
    params = d_trak.Params(draws=2, proj_dim=proj_dim, output=output, damping=0.3, scope="item")
    method, queries = d_trak.DTrak(params), view.problem.queries
    scores = tiny.joined(method.attribute(view, method.fit(view), queries))
    draws, project = view.draws(2, Law("even"), "item"), Projector(proj_dim, view.seed)
    items = tiny.plain_gradients(view.model(), view.train.batch(torch.arange(14)), draws, output)
    query = tiny.plain_gradients(view.model(), queries.batch, draws, output)
    if proj_dim is None:  # the same numbers from the N x N side, an explicit P x P inverse being too large
        phi, q = items.double().numpy(), query.double().numpy()
        gram = phi @ phi.T
        expected = q @ phi.T @ np.linalg.inv(gram + 0.3 * np.trace(gram) / 14 * np.eye(14))
    else:
        expected = explicit_scores(project(items), project(query), 0.3)
    assert scores.dtype == torch.float32
    tiny.assert_near(scores, torch.from_numpy(expected), 1e-3)


@pytest.mark.parametrize("method", [grad_sim.GradSim, d_trak.DTrak])
def test_micro_batch_bounds_every_pass_and_changes_nothing(tiny_problem, tmp_path, method):
    scores, passes = [], [tiny.LargestPass(), tiny.LargestPass()]
    for counter, micro_batch in zip(passes, (512, 4), strict=True):
        view = View(tiny_problem, tmp_path, micro_batch=micro_batch, passes=counter)
        adapter = method(method.Params(draws=2, proj_dim=32))
        scores.append(tiny.joined(adapter.attribute(view, adapter.fit(view), view.problem.queries)))
    tiny.assert_near(scores[1], scores[0], 1e-3)
    assert passes[0].forward == passes[1].forward == 2 * (14 + 3)
    assert passes[1].largest <= 4 < passes[0].largest


def test_a_planted_copy_of_the_query_has_the_very_same_gradient(tiny_problem, tmp_path):
    view = View(tiny.plant(tiny_problem, {0: 5, 2: 9}), tmp_path)
    method = grad_sim.GradSim(grad_sim.Params(draws=4, proj_dim=None, scope="shared"))
    scores = tiny.joined(method.attribute(view, method.fit(view), view.problem.queries))
    assert scores[[0, 2], [5, 9]].min() > 0.9999
    assert scores.argmax(1)[[0, 2]].tolist() == [5, 9]
