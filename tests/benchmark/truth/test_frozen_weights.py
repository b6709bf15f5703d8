"""Tasks that ship frozen weights: latents of an autoencoder, and LoRA beside a base model, from building to removal."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tdabench.benchmark.commands import pictures
from tdabench.benchmark.commands.exemplars.cases import truth_of
from tdabench.benchmark.metrics.removal.evidence import Evidence
from tdabench.benchmark.metrics.removal.protocol import protocol_of
from tdabench.benchmark.metrics.removal.similarities import Similarity, l2
from tdabench.benchmark.tasks.find import assets_folder, find_task
from tdabench.benchmark.tasks.spec import ExemplarPlan
from tdabench.benchmark.truth.counterfactuals import Counterfactual, Laboratory
from tdabench.benchmark.truth.variants import derived
from tdabench.datasets.find import load_dataset
from tdabench.datasets.truth import Assets
from tdabench.models.latents import Autoencoder
from tdabench.models.problem import built_on, read_problem
from tdabench.models.sampling import sample
from tdabench.models.training import build, snapshot, train
from tdabench.store import FolderStore

from ... import run_helpers
from ...models import folders

tdabench = run_helpers.tdabench

PLUGIN = """
from dataclasses import replace
from pathlib import Path

from tdabench.benchmark.tasks import QueryPlan, RemovalPlan, TruthPlan
from tdabench.benchmark.tasks.digits_tiny import TASK as TINY
from tdabench.benchmark.tasks.digits_tiny_v import TASK as BY_CLASS
from tdabench.models.recipe import AutoencoderSpec, LoRA

HERE = Path(__file__).parent
SMALL = {{
    "n_train": 24,
    "queries": QueryPlan(dev=1, test=2, controls=1, guidance=1.5),
    "truth": TruthPlan(report=4, open=2, report_replicates=2, open_replicates=1, full=1, bins=2, draws_per_bin=1),
    "removal": RemovalPlan(top_share=0.1, seeds=1, per_query=1, per_query_shares=(0.1,)),
}}
CODER = AutoencoderSpec("AutoencoderKL", {coder!r}, scale=0.7, shift=0.1)
CONFIG = {{**BY_CLASS.recipe.model.config, "sample_size": 4, "in_channels": 2, "out_channels": 2}}
LATENT = replace(
    BY_CLASS,
    name="latent",
    recipe=replace(
        BY_CLASS.recipe,
        model=replace(BY_CLASS.recipe.model, config=CONFIG, autoencoder=CODER),
        steps=6, checkpoints=(3,), keep_raw=True,
    ),
    weights={{"autoencoder": HERE / "coder.safetensors"}},
    **SMALL,
)
LORA = replace(
    BY_CLASS,
    name="adapted",
    recipe=replace(
        BY_CLASS.recipe, model=replace(BY_CLASS.recipe.model, trainable=LoRA(2, r".*\\.(to_q|to_v|conv1)")),
        steps=6, checkpoints=(3,),
    ),
    weights={{"base": HERE / "base.safetensors"}},
    **SMALL,
)
TASKS = [replace(LATENT, name="latent"), replace(LORA, name="adapted")]

"""
CODER = {**folders.AUTOENCODER, "in_channels": 1, "out_channels": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the plugin, its weights, and the truths of both tasks."""
    pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("frozen")
    (folder / "tasks.py").write_text(PLUGIN.format(coder=CODER))
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    save_file(AutoencoderKL(**CODER).state_dict(), folder / "coder.safetensors")
    model = find_task("digits-tiny-v").recipe.model
    save_file(snapshot(build(model, 3)), folder / "base.safetensors")
    return folder


@pytest.fixture
def home(place, monkeypatch):
    monkeypatch.setenv("TDABENCH_HOME", str(place / "home"))
    return place / "home"


@pytest.fixture(params=["latent", "adapted"])
def task(request, place, home, tdabench):
    spec = find_task(request.param, (place / "tasks.py",))
    if not (home / "truth" / spec.label).exists():
        answer = tdabench("truth", "build", spec.name, "--plugin", place / "tasks.py", "--workers", 1)
        assert answer.code == 0, answer
    return spec


def assets_of(spec):
    return Assets(assets_folder(spec))


def test_retrained_models_start_from_the_weights_that_ship(task):
    assets = assets_of(task)
    problem, truth = read_problem(assets.folder), assets.truth("report")
    members = torch.from_numpy(truth.masks[2].nonzero()[0])
    model, _ = train(task.recipe, problem.train, members, 1 + 1, base=problem.base)
    generated = problem.queries.where(kind="generated")
    made = sample(model, generated.noise, problem.spec, generated.cond, generated.guidance)
    images, _ = assets.regenerated("report")
    np.testing.assert_array_equal(images[1, 2], problem.pixels(made).numpy().astype(np.float16))
    kept = {name: value for name, value in model.net.named_parameters() if not value.requires_grad}
    shipped = problem.base or {}
    for name, value in kept.items():
        assert torch.equal(value, shipped[name.replace(".base_layer", "")])
    assert bool(kept) == bool(shipped)


def test_queries_are_latents_with_the_datasets_own_images(place, home, task):
    problem = read_problem(assets_of(task).folder)
    queries = problem.queries
    if task.name == "adapted":
        assert queries.images is None and problem.autoencoder is None
        return
    coder = Autoencoder(task.recipe.model.autoencoder, problem.autoencoder)
    assert queries.x.shape[1:] == (2, 4, 4) and queries.pixels.shape[1:] == (1, 8, 8)
    heldout, made = queries.where(kind="heldout"), queries.where(kind="generated")
    assert torch.equal(coder.encode(heldout.images), heldout.x)
    assert torch.equal(coder.decode(made.x), made.images)
    assert torch.equal(problem.train.x, coder.encode(problem.train.images))
    stored = assets_of(task).arrays("problem.safetensors")
    assert len(stored["queries/x"]) == len(made) and not any("latents" in name for name in stored)


def test_a_truth_says_whether_it_was_built_on_a_dataset_as_it_is_now(task):
    assets = assets_of(task)
    data = load_dataset(task.dataset)
    assert built_on(assets, data)
    images = data.images.clone()
    images[int(assets.arrays("problem.safetensors")["train_ids"][5])] *= -1
    assert not built_on(assets, replace(data, images=images)) and not built_on(assets, data.select(torch.arange(20)))


def test_raw_weights_are_those_before_averaging(task):
    problem = read_problem(assets_of(task).folder)
    if not task.recipe.keep_raw:
        assert not problem.raw
        return
    raw = {}
    _, kept = train(task.recipe, problem.train, torch.arange(task.n_train), 0, raw=raw)
    assert sorted(problem.raw) == [3, 6] == sorted(raw)
    for step in raw:
        assert all(torch.equal(value, problem.raw[step][name]) for name, value in raw[step].items())
    assert all(torch.equal(value, problem.weights[3][name]) for name, value in kept[3].items())
    assert any(not torch.equal(raw[3][name], kept[3][name]) for name in kept[3])
    final = problem.model(6, raw=True).net.state_dict()
    assert all(torch.equal(value, final[name]) for name, value in raw[6].items())


def test_every_method_runs_and_removal_compares_images(place, task, tdabench, tmp_path):
    words = ["run", task.name, "--plugin", place / "tasks.py", "--results", tmp_path / "results"]
    methods = "pixel:paper,grad-sim,random"  # the contract suite runs the others on such a problem
    answer = tdabench(*words, "--methods", methods, "--jobs", 1)
    assert answer.code == 0, answer
    assert tdabench(*words, "--methods", "random", "--metrics", "union", "--jobs", 1).code == 0
    rows = [json.loads(path.read_text()) for path in (tmp_path / "results" / "rows").rglob("*.json")]
    assert {row["key"]["method"]: row["status"] for row in rows} == dict.fromkeys(("pixel", "grad-sim", "random"), "ok")
    problem, lab = read_problem(assets_of(task).folder), Laboratory(assets_of(task), FolderStore(place / "home"))
    outcome = lab.read(Counterfactual((), 1))
    assert outcome.images.shape[1:] == (1, 8, 8)
    evidence = Evidence(protocol_of(task, assets_of(task)), problem.queries.where(kind="generated"), lab.read)
    found = evidence.similar(Similarity("l2", l2), [Counterfactual((), 1)])[0]
    expected = -(torch.from_numpy(outcome.images) - evidence.queries.pixels).flatten(1).norm(dim=1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)


def test_pictures_show_images_and_no_latents(place, task, tdabench, tmp_path):
    answer = tdabench("truth", "samples", task.name, tmp_path / "sheet.png", "--plugin", place / "tasks.py")
    assert answer.code == 0, answer
    made = read_problem(assets_of(task).folder).queries.where(kind="generated").pixels
    with Image.open(tmp_path / "sheet.png") as picture:
        found = np.asarray(picture)
    size = pictures.CELL // 8 * 8
    for column, image in enumerate(made):
        shown = found[2 + 3 : 2 + size : 6, column * (size + 4) + 2 + 3 :][:, : size - 3 : 6]
        expected = ((image.clamp(-1, 1) + 1) * 127.5).round().byte()[0].numpy()
        np.testing.assert_array_equal(shown[:8, :8, 0], expected)


@pytest.mark.parametrize("variant", ["planted", "self", "randomised", "stability"])
def test_problems_for_sanity_checks_are_derived(place, task, variant):
    assets = derived(task, assets_of(task), variant, 2, lambda done, total: None, (place / "tasks.py",))
    problem, queries = read_problem(assets.folder), read_problem(assets.folder).queries
    assert queries.pixels.shape[1:] == (1, 8, 8)
    if variant in ("planted", "self"):
        items = problem.train.batch(torch.arange(len(problem.train))).x
        distances = (queries.x[:, None] - items).flatten(2).norm(dim=-1)
        assert (distances.amin(1) < 1e-4).all()
    if task.name == "adapted":
        shipped = read_problem(assets_of(task).folder).base
        assert all(torch.equal(value, problem.base[name]) for name, value in shipped.items())


def test_models_are_tuned_on_latents_or_in_their_adapters_alone(place, task):
    plan = ExemplarPlan(ks=(2,), cases=1, queries=2, strengths=(0.5,))
    truth = truth_of(replace(task, exemplars=plan), assets_of(task), (place / "tasks.py",))
    truth.derive(truth.runs[0])
    base, problem = read_problem(assets_of(task).folder), read_problem(truth.assets(truth.cases[0]).folder)
    start, end = base.weights[base.checkpoints[-1]], problem.weights[problem.checkpoints[-1]]
    assert set(end) == set(start) and any(not torch.equal(end[name], value) for name, value in start.items())
    made = problem.pixels(problem.queries.x)
    assert made.shape == (4, 1, 8, 8) and torch.allclose(made, problem.queries.pixels, atol=1e-5)
    items = problem.train.batch(torch.arange(len(problem.train))).x
    if (coder := problem.coder()) is not None:
        torch.testing.assert_close(items[-2:], coder.encode(problem.train.images[-2:]))
    else:
        assert all(torch.equal(value, problem.base[name]) for name, value in base.base.items())


def test_a_task_without_its_weights_is_one_line(place, home, tdabench, tmp_path):
    text = (place / "tasks.py").read_text()
    (tmp_path / "lost.py").write_text(
        text.replace("TASKS = [", 'TASK = replace(LATENT, name="lost", weights={})\n_ = [')
    )
    answer = tdabench("truth", "build", "lost", "--plugin", tmp_path / "lost.py")
    assert answer.code == 2 and "ships without the weights 'autoencoder'" in answer.err, answer
    (tmp_path / "broken.py").write_text(text)
    for name in ("coder", "base"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"no weights")
    answer = tdabench("truth", "build", "latent", "--plugin", tmp_path / "broken.py")
    assert answer.code == 2 and "coder.safetensors" in answer.err and answer.err.count("\n") == 1, answer
