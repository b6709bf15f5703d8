"""Tasks of the literature: their numbers, networks without memory, and tiny twins that are built and run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tdabench.benchmark.commands.plan import unbuilt
from tdabench.benchmark.tasks import QueryPlan
from tdabench.benchmark.tasks.checks import check_task
from tdabench.benchmark.tasks.find import FOLDERS, find_task, task_listings
from tdabench.benchmark.truth.build import assemble, prepare_base, run_job
from tdabench.benchmark.truth.outcomes import measure, regenerate
from tdabench.benchmark.truth.queries import attributed, make_queries, split
from tdabench.benchmark.truth.sizing import blank, facts_of, item_shape, made_up, size_truth
from tdabench.errors import UserError
from tdabench.methods.registry import method_class, preset_params
from tdabench.methods.view import View
from tdabench.models.latents import Autoencoder
from tdabench.models.networks import make_network
from tdabench.models.problem import read_problem
from tdabench.models.sampling import sample
from tdabench.models.training import build, snapshot
from tdabench.store import FolderStore

from ... import run_helpers, tiny

tdabench = run_helpers.tdabench
PUBLISHED = [name for name, listing in task_listings().items() if ".published." in listing.origin]
COUNTED = (
    "cifar2",
    "artbench2-lora",
    "coco-edm-dit",
)  # DDPM; latents, adapters and guidance; Heun's method and guidance
TWINS = Path(__file__).parent / "twins.py"
# Of MUCS' code: how many items each target removes, steps of its sampler, guidance; of D-TRAK's: training images.
MUCS = {
    "cifar10-edm-dit": (50_000, 1000, 1.0),
    "artbench10-edm-dit": (50_000, 998, 2.0),
    "coco-edm-dit": (118_287, 2366, 3.0),
}
D_TRAK = {"cifar2": 5000, "celeba": 5000, "artbench2-lora": 5000}


# What the authors' scripts and configurations say: rate, warm-up, betas, weight decay, averaging, clipping, batch,
# updates, share of conditions dropped. Of D-TRAK: run_train.sh and train_unconditional.py's defaults, or those of
# train_text_to_image_lora.py; of MUCS: configs/*_dit_edm.yaml and torch's AdamW.
D_TRAKS_PIXELS = (1e-4, 800, (0.95, 0.999), 1e-6, 0, 1, 128, 8000, 0)
TRAINING = {
    "cifar2": D_TRAKS_PIXELS,
    "celeba": D_TRAKS_PIXELS,
    "artbench2-lora": (3e-4, 790, (0.9, 0.999), 1e-6, 0, 1, 64, 7900, 0),
    "cifar10-edm-dit": (1e-4, 10_000, (0.9, 0.999), 0.01, 0.999, 0, 128, 200_000, 0),
    "artbench10-edm-dit": (2e-4, 10_000, (0.9, 0.999), 0.01, 0.999, 0, 128, 250_000, 0.1),
    "coco-edm-dit": (2e-4, 10_000, (0.9, 0.999), 0.01, 0.999, 0, 128, 300_000, 0.1),
}
UNETS = {
    "cifar2": ([128, 256, 256, 256], [1], None, 0),
    "celeba": ([128, 128, 256, 256, 512, 512], [4], 8, 1),
}


def facts(spec, plugins=()):
    return facts_of(spec.dataset, plugins)


@pytest.mark.parametrize("name", MUCS)
def test_mucs_tasks_have_its_sizes(name):
    spec, (n, k, guidance) = find_task(name), MUCS[name]
    assert (spec.n_train, spec.removal.top_k(n), spec.queries.guidance) == (n, k, guidance)
    assert (spec.queries.test, spec.queries.controls, spec.recipe.model.sampler.steps) == (20, 20, 32)
    assert spec.recipe.batch_size == 128 and spec.recipe.ema_decay == 0.999


@pytest.mark.parametrize("name", D_TRAK)
def test_d_traks_tasks_have_its_sizes(name):
    spec = find_task(name)
    assert (
        spec.n_train == D_TRAK[name]
        and spec.queries.dev + spec.queries.test == 1000
        and spec.removal.per_query_shares == (0.2,)
    )
    assert (spec.truth.report, spec.truth.share, spec.truth.report_replicates) == (64, 0.5, 3)
    assert spec.truth.bins * spec.truth.draws_per_bin == 1000


@pytest.mark.parametrize("name", TRAINING)
def test_models_are_trained_as_their_authors_do(name):
    recipe = find_task(name).recipe
    optimiser = (recipe.learning_rate, recipe.warmup_steps, recipe.betas, recipe.weight_decay, recipe.ema_decay)
    assert (*optimiser, recipe.clip_norm, recipe.batch_size, recipe.steps, recipe.cond_drop) == TRAINING[name]
    config = recipe.model.config
    if name in UNETS:
        attention = [i for i, block in enumerate(config["down_block_types"]) if "Attn" in block]
        found = (config["block_out_channels"], attention, config["attention_head_dim"])
        assert (*found, config.get("downsample_padding", 1)) == UNETS[name] and config["layers_per_block"] == 2
    assert config.get("dropout") == (None if name == "artbench2-lora" else 0.1)


def test_artworks_are_made_at_the_levels_of_stable_diffusions_pipeline():
    large, seen = find_task("artbench2-lora").recipe.model, []
    spec = replace(tiny.SPECS["plain"], process=large.process, sampler=large.sampler)
    model, noise = build(spec, 0), torch.zeros(1, 1, 8, 8)
    sample(model, noise, spec, on_step=lambda time, x, answer: seen.append(time))
    assert seen == [*range(981, 0, -20)] and not model.process.ends_clean


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_network_takes_what_its_datasets_card_promises(name):
    """On torch's meta device, which computes shapes alone."""
    spec = find_task(name)
    about = facts(spec)
    assert about["items"] - about["heldout"] >= spec.n_train
    assert about["heldout"] >= spec.queries.dev + spec.queries.test
    model, batch = blank(spec), made_up(spec, about, 2, "meta")
    answer = model(batch.x, torch.zeros(2, device="meta"), batch.cond)
    assert answer.shape == batch.x.shape and batch.x.shape[1:] == item_shape(spec, about)
    assert item_shape(spec, about) == ((4, 32, 32) if spec.recipe.model.autoencoder else about["shape"])


def test_counts_of_a_truth_are_those_of_its_models():
    spec = find_task("digits-tiny")
    sizing, model = size_truth(spec, facts(spec)), build(spec.recipe.model, 0)
    assert sizing.models == 1 + 2 + 10 * 2 + 6 and sizing.updates == 25 * sizing.models
    assert sizing.images == 16 * sizing.updates and sizing.asked == (sizing.models - 1) * 10 * 16
    assert sizing.sizes.parameters == {n: p.numel() for n, p in model.trainable_parameters().items()}
    assert sizing.made == 29 * 7 and sizing.passes == sizing.made * 4 and sizing.pictures == 28 * 7 * 64 * 2
    assert sizing.pixels == 1797 * 64 and sizing.sizes.shape == (1, 8, 8)


def test_work_is_that_of_convolutions_products_and_attention():
    """Counted once more, by hooks on the layers of a network with numbers."""
    spec = find_task("fashion")
    sizing, model, found = size_truth(spec, facts(spec)), build(spec.recipe.model, 0), []

    def count(layer, given, answer):
        if isinstance(layer, torch.nn.Conv2d):
            found.append(2 * answer.numel() * layer.in_channels * layer.kernel_size[0] ** 2)
        elif isinstance(layer, torch.nn.Linear):
            found.append(2 * answer.numel() * layer.in_features)
        elif type(layer).__name__ == "Attention":
            channels, pixels = answer.shape[1], answer.shape[2:].numel()
            found.append(4 * channels * pixels**2)

    for layer in model.net.modules():
        layer.register_forward_hook(count)
    model(torch.zeros(1, 1, 28, 28), torch.zeros(1), {})
    assert sum(found) == pytest.approx(sizing.forward_work, rel=1e-3)
    assert 2.9 < sizing.trained_work / sizing.forward_work < 3.0  # the first layer has no gradient of its input


def test_what_a_card_leaves_out_is_read_from_the_data():
    assert facts_of("prompted-digits", (TWINS,)) == {
        "items": 1797,
        "shape": (1, 8, 8),
        "cond": {"encoder_hidden_states": (3, 8)},
    }
    with pytest.raises(UserError, match="unknown dataset 'promptd-digits': did you mean 'prompted-digits'"):
        facts_of("promptd-digits", (TWINS,))


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """The plugin, beside the frozen weights of the one with adapters."""
    pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("twins")
    plugin = Path(shutil.copy(TWINS, folder))
    spec = find_task("artbench2-lora-tiny", (plugin,)).recipe.model
    whole = build(replace(spec, trainable=""), 5)
    save_file(snapshot(whole), folder / "base.safetensors")
    net = make_network(spec.autoencoder.architecture, spec.autoencoder.config)
    save_file(Autoencoder(spec.autoencoder, net.state_dict()).state, folder / "autoencoder.safetensors")
    return plugin


def of_code(spec):
    """Return what decides which code a task walks, and no size."""
    model, trainable = spec.recipe.model, spec.recipe.model.trainable
    return (
        (model.architecture, model.process, model.sampler.clip, type(trainable), set(spec.weights), spec.heldout),
        (model.autoencoder and model.autoencoder.architecture, spec.queries.guidance, spec.recipe.cond_drop),
        (sorted(model.null), spec.recipe.ema_decay > 0, bool(spec.groups), spec.truth.regenerated),
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_twin_is_built_and_attributed(name, twins, monkeypatch, tmp_path):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "home"))
    torch.set_num_threads(1)
    own, store = (twins,), FolderStore(tmp_path / "home")
    large, spec = find_task(name), find_task(f"{name}-tiny", own)
    assert of_code(spec) == of_code(large) and spec.recipe.model.config.keys() >= large.recipe.model.config.keys()
    assert facts(spec, own)["cond"].keys() == facts(large).get("cond", {}).keys()
    built = prepare_base(spec, store, plugins=own)
    jobs = built.jobs(store)
    for job in jobs:
        run_job(job)
    assets = assemble(built, jobs, store, tmp_path / "truth")
    assert np.isfinite(assets.truth("report").outputs).all()
    view = View(read_problem(assets.folder, own), tmp_path)
    method = method_class("grad-sim")(preset_params(method_class("grad-sim"), "quick"))
    state = method.fit(view)
    parts = method.attribute(view, state, view.problem.queries.where("test"))
    scores = torch.cat([part for _, part in parts], dim=1)
    assert scores.shape == (4, 24) and torch.isfinite(scores).all() and scores.std() > 0
    if name in COUNTED:
        _check_sizing(size_truth(spec, facts(spec, own)), spec, view.problem, store)


def _check_sizing(sizing, spec, problem, store):
    """Compare what was planned with what one model of the truth really took, and with what all left on disk."""
    seen, model, retrainings = [], problem.model(spec.recipe.steps), spec.truth.retrainings
    model.net.register_forward_hook(lambda net, given, answer: seen.append(len(given[0])))
    measure(model, attributed(problem.queries), spec.truth)
    assert sum(seen) * retrainings == sizing.asked
    seen.clear()
    regenerate(model, problem)
    assert sum(seen) == sizing.passes and sizing.made == 4  # no model but the base model is asked for images
    weights = sum(path.stat().st_size for path in store.root.glob("models/**/*.safetensors"))
    planned = sizing.weights * retrainings / (sizing.models + len(spec.recipe.checkpoints) + 1)
    assert planned <= weights < planned + 40_000 * retrainings  # names of tensors beside


def test_held_out_queries_come_from_the_test_part_alone():
    apart = torch.arange(20) % 4 == 3
    data = replace(tiny.dataset(20), groups={"heldout": apart.long()})
    spec = replace(find_task("digits-tiny"), heldout="heldout", n_train=15, queries=QueryPlan(2, 3, 1))
    parts = split(spec, data)
    assert parts.train.tolist() == (~apart).nonzero().flatten().tolist()
    assert sorted([*parts.dev.tolist(), *parts.test.tolist()]) == apart.nonzero().flatten().tolist()
    some = split(replace(spec, n_train=6), data).train
    assert len(some) == 6 and not apart[some].any()
    with pytest.raises(UserError, match=r"wants 15 training images and 2 \+ 4 .* has 20 images, 5 of them held out"):
        check_task(replace(spec, queries=QueryPlan(2, 4, 1)), data)
    with pytest.raises(UserError, match="holds out by 'heldout', which dataset 'digits' has not"):
        check_task(spec, tiny.dataset(20))


def test_pictures_are_asked_for_by_conditions_of_held_out_items():
    apart = torch.arange(20) % 4 == 3
    data = replace(tiny.dataset(20), cond={"class_labels": torch.arange(20) % 4}, groups={"heldout": apart.long()})
    plain = replace(find_task("digits-tiny-v"), n_train=12, queries=QueryPlan(2, 3, 1))
    model = build(plain.recipe.model, 1)
    for spec, labels in ((replace(plain, heldout="heldout"), {3}), (plain, {0, 1, 2, 3})):
        parts = split(spec, data)
        made = make_queries(spec, data, parts, data.select(parts.train), model).where(kind="generated")
        assert len(made) == 6 and set(made.cond["class_labels"].tolist()) <= labels


def test_frozen_weights_that_are_not_here_are_one_line():
    with pytest.raises(UserError, match="the autoencoder of artbench2-lora@1 is not here: put its"):
        find_task("artbench2-lora").to_json()


def test_every_folder_of_tasks_is_looked_into():
    assert all(folder.is_dir() for folder in FOLDERS) and len(PUBLISHED) == 7


def test_a_task_without_truth_is_planned_from_its_card(tdabench, monkeypatch, tmp_path):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path))
    monkeypatch.setattr(unbuilt, "MEASURED_S", 0.0)
    answer = tdabench("plan", "fashion", "--methods", "pixel,trak", "--tflops", "2.5")
    assert answer.code == 0, answer
    for words in (
        "no truth of it is here",
        "fashion_mnist, 70,000 images, 10,000 of them held out; get it with `tdabench data fetch fashion_mnist`",
        "259 models retrained beside the base model (3 on everything, 64 x 1 open and 64 x 3 report subsets)",
        "2,080,000 updates (8,000 a model) of 128 images: 266,240,000 forward and backward",
        "on one core, as measured here:",
        "on a device that sustains 2.5 TFLOP/s",
        "removal: 7 models for all methods; a method's own: 1 without the union of top 1 of 100 targets, 60 for single",
    ):
        assert words in answer.out, words
    assert not list(tmp_path.iterdir())
    answer = tdabench("truth", "build", "fashion")
    assert answer.code == 2 and "tdabench data fetch fashion_mnist" in answer.err and answer.err.count("\n") == 1
    answer = tdabench("run", "fashion")
    assert answer.code == 2 and "truth build fashion" in answer.err and answer.err.count("\n") == 1


def test_a_task_whose_dataset_alone_is_not_here_is_planned_from_its_card(tdabench, monkeypatch, tmp_path):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path))
    answer = tdabench("plan", "emoji", "--methods", "pixel")
    assert answer.code == 0 and "its truth is here, its dataset is not" in answer.out
    said = " ".join(answer.out.split())
    assert "truth: 229 models retrained beside the base model (5 on everything, 32 x 1 open and 64 x 2 report" in said
    assert "2 without each of 32 groups)" in said


@pytest.mark.parametrize("here", [True, False])
def test_models_without_a_group_are_counted_where_the_groups_are_known(here, tdabench, monkeypatch, tmp_path):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path))
    if not here:
        monkeypatch.setattr("tdabench.benchmark.truth.sizing.load_dataset", absent)
    answer = tdabench("plan", "digits-tiny-groups", "--methods", "pixel")
    words = "27 models" if here else "7 models"
    assert answer.code == 0 and f"truth: {words} retrained beside the base model (2 on everything" in answer.out
    assert ("2 without each of 10 groups)" if here else "2 without each of its groups, which only") in answer.out


def absent(*_):
    raise UserError("it is not here")


def test_hours_are_work_by_the_stated_rate(tdabench, monkeypatch, tmp_path):
    """Of a model that does not fit into the memory, these are all."""
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path))
    monkeypatch.setattr("tdabench.benchmark.truth.sizing.SHARE", 0.0)
    answer = tdabench("plan", "cifar2", "--methods", "trak", "--tflops", "40")
    assert answer.code == 0 and "not measured, for the model does not fit" in answer.out
    spec = find_task("cifar2")
    sizing, images = size_truth(spec, facts(spec)), 260 * 8000 * 128
    forward = 259 * 2000 * 1000 + 260 * 1020 * 50
    seconds = (1.2 * images * sizing.trained_work + forward * sizing.forward_work) / 40e12
    assert f"about {seconds / 86400:.0f} days on a device that sustains 40 TFLOP/s" in answer.out
    line = next(line for line in answer.out.splitlines() if "trak:quick" in line)
    gradients = 2 * (5000 + 1880)  # of training images and queries, two draws each
    assert f"{gradients:,}" in line and f"{gradients * sizing.trained_work / 40e12:.0f} s" in line


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf"])
def test_rates_that_are_none_are_refused(rate, tdabench):
    for task in ("cifar2", "digits"):  # whose truth ships, too
        answer = tdabench("plan", task, "--tflops", rate)
        assert answer.code == 2 and answer.err.startswith("error: --tflops must be above 0")


def test_a_task_whose_plugin_has_no_card_is_planned_from_its_data(twins, tdabench, monkeypatch, tmp_path):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path))
    answer = tdabench("plan", "coco-edm-dit-tiny", "--plugin", twins, "--methods", "d-trak")
    assert answer.code == 0 and "data: captioned-digits, 1,797 images; nothing to fetch" in answer.out
    assert (
        "6 models retrained beside the base model (1 on everything, 1 x 1 open and 2 x 2 report subsets)" in answer.out
    )
    assert "in 14 passes each" in answer.out  # 4 steps of Heun's method ask 7 times, and guidance twice
