"""Gradients by draw, by parameter, normalised and of any output function, against backward passes; features made so."""

from __future__ import annotations

import pytest
import torch

from tdabench.errors import UserError
from tdabench.methods import OUTPUTS, Question, named_gradients, per_sample_gradients
from tdabench.methods.engines.features import FeatureParams, Features, Gradients, lengths
from tdabench.methods.engines.projection import Projector
from tdabench.methods.view import View
from tdabench.models.draws import Draws, Law

from ... import tiny

S = 3


@pytest.fixture
def asked():
    """A model, a batch of four and draws of their own noise."""
    model = tiny.denoiser()
    return model, tiny.batch_of("plain", 4), Draws("loss", S, Law("training"), "item", 0, tiny.SHAPE, model.process)


def by_draw(model, batch, draws):
    """Return gradients [B, S, P] of the eps-MSE by one ``backward`` per pair."""
    rows = []
    for *_, noise, predicted in tiny.predictions(model, batch, draws):
        model.zero_grad()
        (predicted - noise).square().mean().backward()
        rows.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    model.zero_grad()
    return torch.stack(rows).view(len(batch), draws.n, -1)


def unit(rows):
    return rows / rows.norm(dim=-1, keepdim=True)


def expected(rows, normalise, per_draw):
    """Return what gradients [B, S, P] become."""
    rows = unit(rows) if normalise == "draw" else rows
    mean = rows.mean(1)
    if normalise == "item":
        rows, mean = rows / mean.norm(dim=-1)[:, None, None], unit(mean)
    return rows if per_draw else mean


@pytest.mark.parametrize("per_draw", [False, True])
@pytest.mark.parametrize("normalise", ["none", "draw", "item"])
@pytest.mark.parametrize("micro_batch", [512, 7, 2])
def test_gradients_by_draw_and_normalised_are_those_of_backward_passes(asked, normalise, per_draw, micro_batch):
    model, batch, draws = asked
    want = expected(by_draw(*asked), normalise, per_draw)
    model.micro_batch = micro_batch
    tiny.assert_near(per_sample_gradients(model, batch, draws, "loss", normalise, per_draw), want, 1e-4)


@pytest.mark.parametrize("kind", ["label", "text"])
def test_gradients_by_draw_of_conditional_models(kind):
    model, batch = tiny.denoiser(kind), tiny.batch_of(kind, 4)
    draws = Draws("loss", S, Law("training"), "item", 0, tiny.SHAPE, model.process)
    found = per_sample_gradients(model, batch, draws, "loss", per_draw=True)
    tiny.assert_near(found, by_draw(model, batch, draws), 1e-4)


@pytest.mark.parametrize("per_draw", [False, True])
def test_no_pass_exceeds_the_micro_batch_by_draw(asked, per_draw):
    model, batch, draws = asked
    model.passes, model.micro_batch = tiny.LargestPass(), 2
    per_sample_gradients(model, batch, draws, "loss", "draw", per_draw)
    assert model.passes.largest <= 2 and model.passes.forward == model.passes.backward == 4 * S


def test_gradients_have_the_names_of_what_trains(asked):
    model, batch, draws = asked
    found, want = named_gradients(model, batch, draws, "loss"), by_draw(*asked).mean(1)
    parameters = dict(model.named_parameters())
    assert list(found) == list(parameters)
    sizes = [value.numel() for value in parameters.values()]
    for (name, rows), part in zip(found.items(), want.split(sizes, 1), strict=True):
        assert rows.shape == (4, *parameters[name].shape)
        assert float((rows.flatten(1) - part).abs().max()) <= 1e-4 * float(want.abs().max())
    split = named_gradients(model, batch, draws, "loss", per_draw=True)
    assert all(split[name].shape == (4, S, *value.shape) for name, value in parameters.items())


def test_of_a_model_of_which_a_part_trains_only_that_part_is_named(asked):
    model, batch, draws = asked
    whole = named_gradients(*asked, "loss")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("conv_out" in name)
    found = named_gradients(model, batch, draws, "loss")
    assert set(found) == {"net.conv_out.weight", "net.conv_out.bias"}
    for name, rows in found.items():
        tiny.assert_near(rows, whole[name], 1e-4)


def test_an_output_function_may_be_any(asked):
    model, batch, draws = asked

    def clean(answer: torch.Tensor, question: Question) -> torch.Tensor:
        return (question.noise(answer) - question.noisy).abs().mean()

    rows = []
    levels, noises = draws.for_ids(batch.ids)
    for i in range(4):
        model.zero_grad()
        alpha, sigma = (scale.view(-1, 1, 1, 1) for scale in model.process.scales(levels[i]))
        noisy = alpha * batch.x[i] + sigma * noises[i]
        answers = model(*model.process.inputs(noisy, levels[i]))
        (answers - noisy).abs().mean().backward()
        rows.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    tiny.assert_near(per_sample_gradients(model, batch, draws, clean), torch.stack(rows), 1e-4)
    by_name, by_function = (per_sample_gradients(model, batch, draws, f) for f in ("mean", OUTPUTS["mean"]))
    assert torch.equal(by_name, by_function)


def test_an_unknown_way_to_normalise_is_one_line(asked):
    with pytest.raises(UserError, match="unknown normalise 'drow': did you mean 'draw'"):
        per_sample_gradients(*asked, "loss", "drow")


def test_a_gradient_of_zero_stays_zero(asked):
    found = per_sample_gradients(*asked, lambda answer, question: 0 * answer.mean(), "draw")
    assert torch.equal(found, torch.zeros_like(found))


def test_lengths_are_those_of_whole_gradients(asked):
    model, batch, draws = asked
    (part,) = Gradients(model, draws, "loss").parts(batch)
    tiny.assert_near(lengths(part, 1), by_draw(*asked).mean(1).norm(dim=1), 1e-4)


# features


@pytest.mark.parametrize("normalise", ["none", "draw", "item"])
@pytest.mark.parametrize("per_draw", [False, True])
def test_features_are_projected_gradients(view, normalise, per_draw):
    features = Features.of(view, FeatureParams(2, 16, "item", normalise), "loss", per_draw)
    draws = view.draws(2, Law("even"), "item")
    for found, batch in (
        (features.of_training_set(view).whole(), view.train.batch(torch.arange(14))),
        (features.of_queries(view, view.problem.queries), view.problem.queries.batch),
    ):
        want = expected(by_draw(view.model(), batch, draws), normalise, per_draw)
        tiny.assert_near(found, Projector(16, view.seed)(want), 1e-4)


def test_features_are_of_the_model_that_is_asked_for(view):
    params, batch = FeatureParams(2, None), view.train.batch(torch.arange(14))
    for at in ("untrained", 4, "final"):
        found = Features.of(view, params, "loss", at=at).of_training_set(view).whole()
        want = tiny.plain_gradients(view.model(at), batch, view.draws(2, Law("even")))
        tiny.assert_near(found, want, 1e-4)


def test_features_by_parameter_are_projected_apart(asked, view):
    model, batch, _ = asked
    features = Features.of(view, FeatureParams(2, 64), "loss")
    found, whole = features.by_parameter(model, batch), named_gradients(model, batch, features.draws, "loss")
    assert list(found) == list(whole)
    for name, rows in found.items():
        flat = whole[name].flatten(1)
        if flat.shape[1] <= 64:
            assert torch.equal(rows, flat)
        else:
            matrix = features.projector.named(name)(torch.eye(flat.shape[1]))
            assert rows.shape == (4, 64)
            tiny.assert_near(rows, flat @ matrix, 1e-4)
    assert any(rows.shape[1] < 64 for rows in found.values())


def test_parameters_of_one_size_have_projections_of_their_own():
    projector, rows = Projector(8, 0), torch.eye(40)
    one, other = projector.named("a")(rows), projector.named("b")(rows)
    assert not torch.equal(one, other) and not torch.equal(one, projector(rows))
    assert torch.equal(one, Projector(8, 0).named("a")(rows))


def test_one_projector_serves_gradients_of_several_sizes():
    projector = Projector(8, 0)
    for size in (40, 30, 40):
        assert torch.equal(projector(torch.eye(size)), Projector(8, 0)(torch.eye(size)))


@pytest.mark.parametrize("limit", [1, 40_000])
def test_a_limit_on_bytes_changes_no_gradient(asked, limit, monkeypatch):
    want = {split: per_sample_gradients(*asked, "loss", "none", split) for split in (False, True)}
    monkeypatch.setattr("tdabench.methods.engines.features.GRADIENT_BYTES", limit)
    for split, rows in want.items():
        tiny.assert_near(per_sample_gradients(*asked, "loss", "none", split), rows, 1e-5)


@pytest.mark.parametrize("change", ["output", "law", "projector"])
def test_features_that_values_do_not_describe_are_not_kept(change, view):
    features = Features.of(view, FeatureParams(2, 8), "loss")
    assert features._inputs(view) is not None

    class Other(Law):
        pass

    class Mine(Projector):
        pass

    draws = view.draws(2, Other("even"))
    changed = {
        "output": Features(features.draws, OUTPUTS["loss"], features.projector),
        "law": Features(draws, "loss", features.projector),
        "projector": Features(features.draws, "loss", Mine(8, 0)),
    }
    assert changed[change]._inputs(view) is None


def test_what_describes_features_tells_them_apart(tiny_problem, tmp_path):
    view = View(tiny_problem, tmp_path)
    params = [FeatureParams(2, 8), FeatureParams(3, 8), FeatureParams(2, 9), FeatureParams(2, 8, "item")]
    params += [FeatureParams(2, 8, "shared", "draw")]
    found = [Features.of(view, each, "loss") for each in params]
    found += [Features.of(view, params[0], "mean"), Features.of(view, params[0], "loss", at=4)]
    found += [Features.of(view, params[0], "loss", per_draw=True)]
    found += [Features.of(View(tiny_problem, tmp_path, seed=1), params[0], "loss")]
    keys = [str(each._inputs(view) if each is not found[-1] else each.draws.seed) for each in found]
    assert len(set(keys)) == len(found)
