"""Our use of traker, against traker's own pipeline and against our own gradients."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from trak import TRAKer
from trak.modelout_functions import AbstractModelOutput

from tdabench.methods import trak
from tdabench.methods.engines.features import per_sample_gradients
from tdabench.methods.view import View
from tdabench.models.draws import Law

from .. import tiny

PARAMS = trak.Params(draws=2, proj_dim=130, damping=0.1)


def run(view: View, params: trak.Params = PARAMS) -> tuple[trak.State, torch.Tensor]:
    method = trak.Trak(params)
    state = method.fit(view)
    return state, tiny.joined(method.attribute(view, state, view.problem.queries))


class MeanLoss(AbstractModelOutput):
    """The eps-MSE over an item's draws, for traker used by itself."""

    def __init__(self) -> None:
        pass

    @staticmethod
    def get_output(model, weights, buffers, noisy, timesteps, noise):
        predicted = torch.func.functional_call(model, (weights, buffers), (noisy, timesteps))
        return torch.nn.functional.mse_loss(predicted, noise)

    def get_out_to_loss_grad(self, model, weights, buffers, batch):
        return torch.ones(len(batch[0]), 1)


def traker_scores(view: View, params: trak.Params, shift: float) -> np.ndarray:
    """Return scores [Q, N] by traker from end to end, with an absolute lambda."""
    model, draws, queries = view.model(), view.draws(params.draws, Law("even")), view.problem.queries
    traker = TRAKer(
        model,
        MeanLoss(),
        len(view.train),
        save_dir=str(view.scratch / "oracle"),
        device="cpu",
        proj_dim=params.proj_dim,
        projector_seed=view.seed,
        use_half_precision=False,
        lambda_reg=shift,
        logging_level=logging.ERROR,
    )
    traker.load_checkpoint(model.state_dict(), model_id=0)
    for _, batch in view.batches(5):
        traker.featurize(trak.trak_batch(model, batch, draws), num_samples=len(batch))
    traker.finalize_features()
    traker.start_scoring_checkpoint("queries", model.state_dict(), 0, num_targets=len(queries))
    traker.score(trak.trak_batch(model, queries.batch, draws), num_samples=len(queries))
    return np.array(traker.finalize_scores("queries"), dtype=np.float64).T


@pytest.fixture(scope="module")
def fitted(tiny_problem, tmp_path_factory):
    view = View(tiny_problem, tmp_path_factory.mktemp("trak"), seed=3)
    return view, *run(view)


@pytest.mark.parametrize(
    "params",
    [PARAMS, trak.Params(draws=3, proj_dim=130, damping=3.0), trak.Params(draws=2, proj_dim=104, damping=0.01)],
    ids=["damped", "strongly-damped", "weakly-damped"],
)
def test_scores_are_those_of_trakers_own_pipeline_up_to_one_factor(tiny_problem, tmp_path, params):
    view = View(tiny_problem, tmp_path)
    state, scores = run(view, params)
    expected = traker_scores(view, params, state.kernel.shift)
    found = scores.double().numpy()
    for ours, theirs in zip(found, expected, strict=True):
        assert float(np.asarray(spearmanr(ours, theirs))[0]) > 0.999
    factor = (found * expected).sum() / (expected**2).sum()
    assert factor > 0
    np.testing.assert_allclose(factor * expected, found, rtol=0, atol=2e-3 * np.abs(found).max())


def test_features_are_our_gradients_in_trakers_projection(fitted):
    view, state, _ = fitted
    model, draws = view.model(), view.draws(2, Law("even"))
    train = view.train.batch(torch.arange(len(view.train)))
    for batch, found in [
        (train, state.kernel.rows.whole()),
        (view.problem.queries.batch, trak.query_features(state.traker, view.problem.queries.batch, draws)),
    ]:
        gradients = per_sample_gradients(model, batch, draws, "loss")
        projected = state.traker.projector.project(gradients, model_id=0)
        tiny.assert_near(found, projected / math.sqrt(gradients.shape[1]), 1e-4)


def test_scores_are_the_kernel_of_plain_gradients(fitted):
    view, state, scores = fitted
    draws = view.draws(2, Law("even"))
    items = tiny.plain_gradients(view.model(), view.train.batch(torch.arange(14)), draws)
    query = tiny.plain_gradients(view.model(), view.problem.queries.batch, draws)
    phi, q = (state.traker.projector.project(rows, model_id=0).double().numpy() for rows in (items, query))
    gram = phi @ phi.T
    expected = q @ phi.T @ np.linalg.inv(gram + 0.1 * np.trace(gram) / 14 * np.eye(14))
    tiny.assert_near(scores, torch.from_numpy(expected), 1e-3)


@pytest.mark.parametrize("kind", ["label", "text"])
def test_conditional_models_are_featurised_with_their_conditions(tmp_path, kind):
    view = View(tiny.make_conditional(kind), tmp_path)
    state, scores = run(view)
    draws, project = view.draws(2, Law("even")), state.traker.projector.project
    gradients = tiny.plain_gradients(view.model(), view.train.batch(torch.arange(len(view.train))), draws)
    tiny.assert_near(state.kernel.rows.whole(), project(gradients, model_id=0) / math.sqrt(gradients.shape[1]), 1e-4)
    query = tiny.plain_gradients(view.model(), view.problem.queries.batch, draws)
    expected = state.kernel.scores(project(query, model_id=0) / math.sqrt(gradients.shape[1]))
    tiny.assert_near(scores, expected, 1e-3)


def test_micro_batch_bounds_every_pass_and_changes_nothing(fitted, tmp_path):
    view, _, scores = fitted
    passes = tiny.LargestPass()
    small = View(view.problem, tmp_path, seed=3, micro_batch=4, passes=passes)
    tiny.assert_near(run(small)[1], scores, 1e-3)
    assert passes.forward == 2 * (14 + 3)
    assert passes.largest <= 4


def test_slicing_the_queries_changes_nothing(fitted):
    view, state, scores = fitted
    queries, method = view.problem.queries, trak.Trak(PARAMS)
    parts = [tiny.joined(method.attribute(view, state, queries.pick(index))) for index in ([2], [1, 0])]
    tiny.assert_near(torch.cat(parts)[[2, 1, 0]], scores, 1e-4)


def test_global_random_state_is_neither_used_nor_changed(fitted, tmp_path):
    view, state, scores = fitted
    torch.manual_seed(12345)
    np.random.seed(12345)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    again, repeated = run(View(view.problem, tmp_path, seed=3))
    assert torch.equal(again.kernel.rows.whole(), state.kernel.rows.whole())
    assert torch.equal(repeated, scores)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


def test_the_seed_reaches_projection_and_noise(fitted, tmp_path):
    view, state, _ = fitted
    other, _ = run(View(view.problem, tmp_path, seed=4))
    assert not torch.allclose(other.kernel.rows.whole(), state.kernel.rows.whole(), rtol=0.1)
    matrices = [each.traker.projector for each in (state, other)]
    rows = torch.eye(2, matrices[0].grad_dim)
    assert not torch.equal(*(matrix.project(rows, model_id=0) for matrix in matrices))


def test_files_stay_in_scratch(fitted):
    view, *_ = fitted
    assert {path.name for path in view.scratch.iterdir()} == {"traker"}


def test_a_fit_does_not_read_what_an_earlier_one_left(tiny_problem, tmp_path):
    first = run(View(tiny_problem, tmp_path, seed=1))[1]
    second = run(View(tiny_problem, tmp_path, seed=2))[1]
    assert torch.equal(run(View(tiny_problem, tmp_path, seed=1))[1], first)
    assert not torch.equal(first, second)
