"""Tasks of the literature: their numbers, networks without memory, and tiny twins that are built and run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tdabench.benchmark.tasks import QueryPlan
from tdabench.benchmark.tasks.checks import check_task
from tdabench.benchmark.tasks.find import FOLDERS, find_task, task_listings
from tdabench.benchmark.truth.build import assemble, prepare_base, run_job
from tdabench.benchmark.truth.queries import split
from tdabench.benchmark.truth.sizing import blank, item_shape, made_up, size_truth
from tdabench.datasets.find import card_of, dataset_listings
from tdabench.errors import UserError
from tdabench.methods.registry import method_class, preset_params
from tdabench.methods.view import View
from tdabench.models.latents import Autoencoder
from tdabench.models.networks import make_network
from tdabench.models.problem import read_problem
from tdabench.models.training import build, snapshot
from tdabench.store import FolderStore

from ... import run_helpers, tiny

tdabench = run_helpers.tdabench
PUBLISHED = [name for name, listing in task_listings().items() if ".published." in listing.origin]
TWINS = Path(__file__).parent / "twins.py"
# Of MUCS' code: how many items each target removes, steps of its sampler, guidance; of D-TRAK's: training images.
MUCS = {
    "cifar10-edm-dit": (50_000, 1000, 1.0),
    "artbench10-edm-dit": (50_000, 998, 2.0),
    "coco-edm-dit": (118_287, 2366, 3.0),
}
D_TRAK = {"cifar2": 5000, "celeba": 5000, "artbench2-lora": 5000}


def card(spec):
    return card_of(dataset_listings()[spec.dataset])


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


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_network_takes_what_its_datasets_card_promises(name):
    """On torch's meta device, which computes shapes alone."""
    spec = find_task(name)
    about = card(spec)
    assert about["items"] - about["heldout"] >= spec.n_train
    assert about["heldout"] >= spec.queries.dev + spec.queries.test
    model, batch = blank(spec), made_up(spec, about, 2, "meta")
    answer = model(batch.x, torch.zeros(2, device="meta"), batch.cond)
    assert answer.shape == batch.x.shape and batch.x.shape[1:] == item_shape(spec)
    coder = spec.recipe.model.autoencoder
    if coder is None:
        assert item_shape(spec) == about["shape"]
    else:
        with torch.device("meta"):
            made = make_network(coder.architecture, coder.config).encode(torch.zeros(1, *about["shape"]))
            assert made.latent_dist.mean.shape[1:] == item_shape(spec)


def test_counts_of_a_truth_are_those_of_its_models():
    spec = find_task("digits-tiny")
    sizing, model = size_truth(spec, card(spec)), build(spec.recipe.model, 0)
    assert sizing.models == 1 + 2 + 10 * 2 + 6 and sizing.updates == 25 * sizing.models
    assert sizing.images == 16 * sizing.updates and sizing.asked == sizing.models * 10 * 16
    assert sizing.sizes.parameters == {n: p.numel() for n, p in model.trainable_parameters().items()}
    assert sizing.pixels == 1797 * 64 and sizing.sizes.shape == (1, 8, 8)


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """The plugin, beside the frozen weights of the one with adapters, and a home for the truths."""
    pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("twins")
    plugin = Path(shutil.copy(TWINS, folder))
    spec = find_task("artbench2-lora-tiny", (plugin,)).recipe.model
    whole = build(replace(spec, trainable=""), 5)
    save_file(snapshot(whole), folder / "base.safetensors")
    net = make_network(spec.autoencoder.architecture, spec.autoencoder.config)
    save_file(Autoencoder(spec.autoencoder, net.state_dict()).state, folder / "autoencoder.safetensors")
    return folder


@pytest.mark.parametrize("name", ["artbench10-edm-dit-tiny", "coco-edm-dit-tiny", "artbench2-lora-tiny"])
def test_a_twin_is_built_and_attributed(name, twins, monkeypatch, tmp_path):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "home"))
    torch.set_num_threads(1)
    own = (twins / "twins.py",)
    large, spec, store = find_task(name.removesuffix("-tiny")), find_task(name, own), FolderStore(tmp_path / "home")
    assert spec.recipe.model.process == large.recipe.model.process and spec.recipe.cond_drop == large.recipe.cond_drop
    assert spec.queries.guidance == large.queries.guidance and set(spec.weights) == set(large.weights)
    assert spec.recipe.model.architecture == large.recipe.model.architecture
    built = prepare_base(spec, store, plugins=own)
    jobs = built.jobs(store)
    for job in jobs:
        run_job(job)
    assets = assemble(built, jobs, store, tmp_path / "truth")
    assert np.isfinite(assets.truth("report").outputs).all() and assets.regenerated("report")[0].shape[2] == 4
    view = View(read_problem(assets.folder, own), tmp_path)
    method = method_class("grad-sim")(preset_params(method_class("grad-sim"), "quick"))
    state = method.fit(view)
    parts = method.attribute(view, state, view.problem.queries.where("test"))
    scores = torch.cat([part for _, part in parts], dim=1)
    assert scores.shape == (4, 24) and torch.isfinite(scores).all() and scores.std() > 0


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


def test_frozen_weights_that_are_not_here_are_one_line():
    with pytest.raises(UserError, match="the autoencoder of artbench2-lora@1 is not here: put its"):
        find_task("artbench2-lora").to_json()


def test_every_folder_of_tasks_is_looked_into():
    assert all(folder.is_dir() for folder in FOLDERS) and len(PUBLISHED) == 7


def test_a_task_without_truth_is_planned_from_its_card(tdabench, monkeypatch, tmp_path):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path))
    answer = tdabench("plan", "fashion", "--methods", "pixel,trak")
    assert answer.code == 0, answer
    for words in (
        "no truth of it is here",
        "fashion_mnist, 70,000 images, 10,000 of them held out; get it with `tdabench data fetch fashion_mnist`",
        "260 models (1 + 3 on everything, 64 x 1 open and 64 x 3 report subsets)",
        "2,080,000 updates (8,000 a model) of 128 images: 266,240,000 forward and backward",
    ):
        assert words in answer.out
    assert "as measured here" in answer.out and "not measured" not in answer.out
    assert not list(tmp_path.iterdir())
    answer = tdabench("truth", "build", "fashion")
    assert answer.code == 2 and "tdabench data fetch fashion_mnist" in answer.err and answer.err.count("\n") == 1
    answer = tdabench("run", "fashion")
    assert answer.code == 2 and "truth build fashion" in answer.err and answer.err.count("\n") == 1


def test_what_does_not_fit_into_the_memory_is_planned_without_seconds(tdabench, monkeypatch, tmp_path):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path))
    monkeypatch.setattr("tdabench.benchmark.truth.sizing.SHARE", 0.0)
    answer = tdabench("plan", "cifar2", "--methods", "trak")
    assert answer.code == 0 and "not measured, for the model does not fit" in answer.out
    assert "13,760" in answer.out  # images: 5,000 to train on and 1,880 queries, twice
