"""Models of which a part trains: parameters by name, and LoRA, against training and gradients of the whole."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace

import pytest
import torch

from tdabench.datasets.truth import write_assets
from tdabench.errors import UserError
from tdabench.methods.engines.features import per_sample_gradients
from tdabench.methods.engines.unlearning import unlearn
from tdabench.methods.mucs import Mucs
from tdabench.methods.registry import method_class, preset_params
from tdabench.methods.trak import open_traker, trak_batch
from tdabench.methods.view import View
from tdabench.models import problem as problems
from tdabench.models.draws import Law
from tdabench.models.problem import Problem, problem_files, query_list, read_problem
from tdabench.models.recipe import LoRA, Recipe
from tdabench.models.training import build, load, snapshot, train

from .. import tiny

N = 8
PATTERN = r"(mid_block|conv_in)\..*"
ADAPTERS = LoRA(2, r".*\.(to_q|to_v|conv1)", alpha=4)
PARTS = {"pattern": PATTERN, "lora": ADAPTERS}
every_part = pytest.mark.parametrize("part", PARTS)


@pytest.fixture(autouse=True)
def with_peft(request):
    if "part" in request.fixturenames and request.getfixturevalue("part") == "lora":
        pytest.importorskip("peft")


def base():
    return snapshot(tiny.denoiser("text", 5))


def recipe_of(part):
    return replace(tiny.RECIPE, model=replace(tiny.SPECS["text"], trainable=PARTS[part]))


def inputs(n=3):
    return tiny.images(n), torch.full((n,), 300), tiny.conditions("text", n)


@pytest.fixture(scope="module")
def models():
    """Return (trained model, problem) by part, made once."""
    made = {}

    def get(part):
        if part not in made:
            data, recipe = tiny.dataset(N, cond=tiny.conditions("text", N)), recipe_of(part)
            model, kept = train(recipe, data, torch.arange(N), 0, base=base())
            queries = tiny.queries_of(tiny.images(2, 9), {k: v[:2] for k, v in data.cond.items()})
            weights = {**kept, recipe.steps: snapshot(model)}
            made[part] = model, Problem("part", data, queries, recipe.model, weights, recipe, base=base())
        return made[part]

    return get


@every_part
def test_only_that_part_trains(models, part):
    model, problem = models(part)
    before, after = base(), model.net.state_dict()
    frozen = {name: value for name, value in after.items() if name not in problem.weights[12]}
    assert frozen and problem.weights[12]
    for name, value in frozen.items():
        assert torch.equal(value, before[name.replace(".base_layer", "")])
    first, last = problem.weights[0], problem.weights[12]
    assert first.keys() == last.keys() and not any(torch.equal(first[name], last[name]) for name in last)
    if part == "pattern":
        assert set(last) == {name for name in before if re.fullmatch(PATTERN, name)}
    else:
        assert all("lora_" in name for name in last) and len(last) % 2 == 0


@every_part
def test_stored_weights_and_base_make_the_model_again(models, part):
    model, problem = models(part)
    with torch.no_grad():
        assert torch.equal(problem.model(12)(*inputs()), model(*inputs()))
        assert not torch.equal(problem.model(4)(*inputs()), model(*inputs()))


@every_part
def test_training_starts_from_the_base(models, part):
    _, problem = models(part)
    plain = load(tiny.SPECS["text"], base())
    unsaid = replace(problem, weights={step: w for step, w in problem.weights.items() if step})
    with torch.no_grad():
        expected = plain(*inputs())
        assert torch.equal(problem.model(0)(*inputs()), expected)
        assert torch.equal(unsaid.model(0)(*inputs()), expected)


def test_adapters_add_alpha_over_rank_times_b_a(models):
    pytest.importorskip("peft")
    model, problem = models("lora")
    weights, merged = problem.weights[12], base()
    for name in [name for name in weights if ".lora_A." in name]:
        a, b = weights[name], weights[name.replace("lora_A", "lora_B")]
        layer = name.partition(".lora_A")[0] + ".weight"
        if a.ndim == 2:
            merged[layer] = merged[layer] + 2 * b @ a
        else:
            merged[layer] = merged[layer] + 2 * torch.einsum("or,rikl->oikl", b[:, :, 0, 0], a)
    with torch.no_grad():
        tiny.assert_near(model(*inputs()), load(tiny.SPECS["text"], merged)(*inputs()), 1e-5)


@every_part
def test_gradients_are_of_that_part(models, part, tmp_path):
    model, problem = models(part)
    view, batch = View(problem, tmp_path), problem.train.batch(torch.tensor([1, 4]))
    draws = view.draws(2, Law("even"))
    found = per_sample_gradients(view.model(), batch, draws, "loss")
    losses = model.losses(batch, draws).mean(1)
    chosen = list(model.trainable_parameters().values())
    rows = [torch.autograd.grad(loss, chosen, retain_graph=True) for loss in losses]
    expected = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    assert found.shape[1] == sum(value.numel() for value in problem.weights[12].values())
    tiny.assert_near(found, expected, 1e-4)


@every_part
@pytest.mark.parametrize("name", ["d-trak", "grad-sim", "trak", "mucs"])
def test_methods_keep_to_that_part(models, part, name, tmp_path):
    _, problem = models(part)
    view, cls = View(problem, tmp_path), method_class(name)
    method = cls(preset_params(cls, "quick"))
    scores = tiny.joined(method.attribute(view, method.fit(view), problem.queries))
    assert scores.shape == (2, N) and torch.isfinite(scores).all() and scores.std() > 0


@every_part
def test_unlearning_moves_that_part_only(models, part, tmp_path):
    _, problem = models(part)
    settings = Mucs.Params(max_steps=3, batch=4, learning_rate=1.0).unlearning()
    view = View(problem, tmp_path)
    before = view.model().net.state_dict()
    model, trace = unlearn(view, problem.queries.pick([0]).batch, settings, null=10.0)
    moved = {name for name, value in model.net.state_dict().items() if not torch.equal(value, before[name])}
    assert trace.steps == 3 and moved and moved <= set(problem.weights[12])


@every_part
def test_traker_featurises_that_part_only(models, part, tmp_path):
    _, problem = models(part)
    model = View(problem, tmp_path).model()
    traker = open_traker(model, N, 16, 0, tmp_path / "traker", ("encoder_hidden_states",))
    assert traker.num_params_for_grad == sum(value.numel() for value in problem.weights[12].values())
    batch, draws = problem.train.batch(torch.arange(2)), View(problem, tmp_path).draws(2, Law("even"))
    found = traker.gradient_computer.compute_per_sample_grad(trak_batch(model, batch, draws))
    tiny.assert_near(
        torch.cat([found[name].flatten(1) for name in model.trainable_parameters()], 1).detach(),
        per_sample_gradients(model, batch, draws, "loss"),
    )


@every_part
def test_the_views_untrained_model_is_the_problems(models, part, tmp_path):
    _, problem = models(part)
    weights = {step: state for step, state in problem.weights.items() if step}
    found = View(replace(problem, weights=weights), tmp_path).model("untrained").net.state_dict()
    expected = problem.model(0).net.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


@every_part
def test_base_weights_are_stored_once(models, part, tmp_path, monkeypatch):
    model, problem = models(part)
    meta = {"task": "part", "version": 1, "n_train": N, "recipe": problem.recipe.to_json(), "base_seed": 0}
    meta |= {"checkpoints": list(problem.weights), "queries": query_list(problem.queries, problem.train)}
    meta |= {"dataset": {"name": "x", "fingerprint": problem.train.fingerprint()}}
    assets = write_assets(tmp_path, problem_files(problem, torch.arange(N)), meta)
    monkeypatch.setattr(problems, "load_dataset", lambda *_: problem.train)
    with torch.no_grad():
        assert torch.equal(read_problem(tmp_path).model(12)(*inputs()), model(*inputs()))
    stored = [name for file in assets.manifest["files"] for name in assets.arrays(file)]
    assert sum(name.startswith("base/") for name in stored) == len(base())
    names = {name.removeprefix("net.") for name in model.trainable_parameters()}
    assert set(assets.arrays("weights-12.safetensors")) == names


@every_part
def test_a_recipe_survives_json(part):
    recipe = recipe_of(part)
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert "trainable" not in tiny.RECIPE.to_json()["model"]


def test_all_parameters_named_are_all_parameters():
    everything = replace(tiny.RECIPE, model=replace(tiny.SPECS["plain"], trainable=".*"))
    start, data = snapshot(tiny.denoiser()), tiny.dataset(N)
    one, _ = train(everything, data, torch.arange(N), 0, base=start)
    other, _ = train(tiny.RECIPE, data, torch.arange(N), 0, base=start)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_part_without_a_base_is_one_line():
    with pytest.raises(UserError, match="give the base weights"):
        train(recipe_of("pattern"), tiny.dataset(N), torch.arange(N), 0)


@pytest.mark.parametrize(
    ("trainable", "said"),
    [("no_such", "no parameter of UNet2DModel"), ("(", "is no regular expression"), (LoRA(0), "LoRA of .* not fit")],
)
def test_a_part_that_names_nothing_is_one_line(trainable, said):
    if isinstance(trainable, LoRA):
        pytest.importorskip("peft")
    with pytest.raises(UserError, match=said):
        build(replace(tiny.SPECS["plain"], trainable=trainable), 0)


def test_lora_without_peft_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"LoRA needs peft: pip install 'tdabench\[lora\]'"):
        build(replace(tiny.SPECS["text"], trainable=LoRA(2)), 0)
